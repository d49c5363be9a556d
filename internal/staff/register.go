package staff

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
)

// A register is one fact of the directory with the time and the directory of its last change: who changed
// it last wins, wherever that was. A change is always later than the one that it was made after, whatever
// the clocks say.

// seat is the body of a seat's register, and sitter that of a sitter's.
type (
	seat struct {
		Person string `json:"person"`
		Since  int64  `json:"since"`
	}
	sitter struct {
		Extension string `json:"extension"`
	}
	secret struct {
		Hash string `json:"hash"`
	}
	phone struct {
		MD5    string `json:"md5"`
		SHA256 string `json:"sha256"`
	}
	token struct {
		Hash    string `json:"hash"`
		Created int64  `json:"created"`
		Expires int64  `json:"expires"`
	}
)

// seeded is the time of what a first start makes: before every real change.
const seeded = 0

// put sets a register, as of now.
func (d *Directory) put(ctx context.Context, tx *sql.Tx, kind, key string, body any) error {
	return d.change(ctx, tx, Change{Kind: kind, Key: key, Updated: d.now().UnixMilli()}, body)
}

// drop takes away what a register has. What was never there needs no note.
func (d *Directory) drop(ctx context.Context, tx *sql.Tx, kind, key string) error {
	return d.change(ctx, tx, Change{Kind: kind, Key: key, Updated: d.now().UnixMilli(), Gone: true}, struct{}{})
}

// change makes a change of this directory's own.
func (d *Directory) change(ctx context.Context, tx *sql.Tx, c Change, body any) error {
	var err error
	if c.Body, err = json.Marshal(body); err != nil {
		return fmt.Errorf("staff: %s %s: %w", c.Kind, c.Key, err)
	}
	var before int64
	err = tx.QueryRowContext(ctx, `SELECT COALESCE((SELECT updated + 1 FROM registers WHERE kind = ? AND key = ?), 0), id FROM directory`,
		c.Kind, c.Key).Scan(&before, &c.Origin)
	if err != nil {
		return fmt.Errorf("staff: %w", err)
	}
	c.Updated = max(c.Updated, before)
	return store(ctx, tx, c)
}

// store puts a change into its register, under the next number of this directory.
func store(ctx context.Context, tx *sql.Tx, c Change) error {
	var seq int64
	err := tx.QueryRowContext(ctx, `UPDATE directory SET seq = seq + 1 RETURNING seq`).Scan(&seq)
	if err == nil {
		_, err = tx.ExecContext(ctx, `REPLACE INTO registers (kind, key, updated, origin, gone, body, seq) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			c.Kind, c.Key, c.Updated, c.Origin, c.Gone, string(c.Body), seq)
	}
	if err != nil {
		return fmt.Errorf("staff: %w", err)
	}
	return nil
}

// dropAll takes away the registers of a kind that a query names.
func (d *Directory) dropAll(ctx context.Context, tx *sql.Tx, kind, query string, args ...any) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("staff: %w", err)
	}
	defer rows.Close()
	var keys []string
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return fmt.Errorf("staff: %w", err)
		}
		keys = append(keys, key)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("staff: %w", err)
	}
	for _, key := range keys {
		if err := d.drop(ctx, tx, kind, key); err != nil {
			return err
		}
	}
	return nil
}

// under bounds the keys that begin with a name and a slash: '0' follows '/'.
func under(name string) (from, to string) { return name + "/", name + "0" }

// dropTokens ends a person's tokens.
func (d *Directory) dropTokens(ctx context.Context, tx *sql.Tx, person string) error {
	from, to := under(person)
	return d.dropAll(ctx, tx, kindToken, `SELECT key FROM registers WHERE kind = 'token' AND NOT gone AND key > ? AND key < ?`, from, to)
}

// stand takes a person from where they are bound; bound is false for one who sits nowhere.
func (d *Directory) stand(ctx context.Context, tx *sql.Tx, person string) (bound bool, err error) {
	extension, err := d.extensionOf(ctx, tx, person)
	if err != nil || extension == "" {
		return false, err
	}
	if err := d.drop(ctx, tx, kindSeat, extension); err != nil {
		return false, err
	}
	return true, d.drop(ctx, tx, kindSitter, person)
}

// exists tells whether a query answers with a row.
func exists(ctx context.Context, tx *sql.Tx, query string, args ...any) (yes bool, err error) {
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (`+query+`)`, args...).Scan(&yes); err != nil {
		return false, fmt.Errorf("staff: %w", err)
	}
	return yes, nil
}
