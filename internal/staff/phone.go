package staff

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
)

// SetPhoneSecret sets the secret by which the phone of an extension registers, under a realm.
func (d *Directory) SetPhoneSecret(ctx context.Context, extension, realm, secret, by string) error {
	if !validExtension.MatchString(extension) {
		return ErrNoExtension
	}
	if err := checkPassword(secret); err != nil {
		return err
	}
	return d.tx(ctx, func(tx *sql.Tx) error {
		if err := d.put(ctx, tx, kindPhone, extension+"/"+realm, ha1(extension, realm, secret)); err != nil {
			return err
		}
		return d.record(ctx, note{by, "staff.phone", extension, map[string]string{"realm": realm}})
	})
}

// ha1 hashes a secret for both algorithms (RFC 8760 section 2.3: the hash of username:realm:password).
func ha1(extension, realm, secret string) phone {
	a1 := []byte(extension + ":" + realm + ":" + secret)
	m, s := md5.Sum(a1), sha256.Sum256(a1)
	return phone{hex.EncodeToString(m[:]), hex.EncodeToString(s[:])}
}

// HA1 returns the hash that a digest of the extension is checked with; algorithm is "MD5" or "SHA-256".
// ok is false for a phone that is not known under the realm, and when the file cannot be read.
func (d *Directory) HA1(ctx context.Context, extension, realm, algorithm string) (hash string, ok bool) {
	path := map[string]string{"MD5": "$.md5", "SHA-256": "$.sha256"}[algorithm]
	if path == "" {
		return "", false
	}
	err := d.db.QueryRowContext(ctx, `SELECT json_extract(body, ?) FROM registers WHERE kind = 'phone' AND key = ?`,
		path, extension+"/"+realm).Scan(&hash)
	return hash, err == nil
}

// LoginPhone logs a person in on the phone of an extension, by id and PIN, and binds them to it.
// Errors: [ErrLogin], [ErrThrottled], and those of Bind.
func (d *Directory) LoginPhone(ctx context.Context, extension, id, pin string) (Person, error) {
	p, err := d.authenticate(ctx, "pin", id, pin, "extension "+extension)
	if err != nil {
		return Person{}, err
	}
	return p, d.bind(ctx, p, extension, "phone")
}

// Bind binds a person who is logged in on a page to an extension; "" is the one on their desk. A
// person who sat elsewhere moves. Errors: [ErrNotAllowed] without a role that takes calls,
// [ErrNoExtension], [ErrExtensionBusy].
func (d *Directory) Bind(ctx context.Context, id, extension string) error {
	p, err := d.Person(ctx, id)
	if err != nil {
		return err
	}
	if extension == "" {
		extension = p.Extension
	}
	return d.bind(ctx, p, extension, "page")
}

func (d *Directory) bind(ctx context.Context, p Person, extension, by string) error {
	if p.Disabled || !p.Has(Agent, Supervisor) {
		return ErrNotAllowed
	}
	return d.tx(ctx, func(tx *sql.Tx) error {
		from, to := under(extension)
		known, err := exists(ctx, tx, `SELECT 1 FROM registers WHERE kind = 'phone' AND key > ? AND key < ?`, from, to)
		if err != nil || !known {
			return errors.Join(ErrNoExtension, err)
		}
		busy, err := exists(ctx, tx, `SELECT 1 FROM bindings WHERE extension = ? AND person <> ?`, extension, p.ID)
		if err != nil || busy {
			return errors.Join(ErrExtensionBusy, err)
		}
		if _, err := d.stand(ctx, tx, p.ID); err != nil {
			return err
		}
		if err := d.put(ctx, tx, kindSeat, extension, seat{p.ID, d.now().Unix()}); err != nil {
			return err
		}
		if err := d.put(ctx, tx, kindSitter, p.ID, sitter{extension}); err != nil {
			return err
		}
		return d.record(ctx, note{p.ID, "staff.bind", p.ID, map[string]string{"by": by, "extension": extension}})
	})
}

// Unbind frees the extension that a person sits at; by is the person, or who logged them out. Someone
// who sits nowhere is no error.
func (d *Directory) Unbind(ctx context.Context, id, by string) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		bound, err := d.stand(ctx, tx, fold(id))
		if err != nil || !bound {
			return err
		}
		return d.record(ctx, note{by, "staff.unbind", fold(id), nil})
	})
}

// PersonAt tells who is logged in at an extension, or [ErrUnknown].
func (d *Directory) PersonAt(ctx context.Context, extension string) (Person, error) {
	row := d.db.QueryRowContext(ctx, `SELECT `+personColumns+` FROM people WHERE id =
		(SELECT person FROM bindings WHERE extension = ?)`, extension)
	return scanPerson(row.Scan)
}

// ExtensionOf tells at which extension a person is logged in; "" is nowhere.
func (d *Directory) ExtensionOf(ctx context.Context, id string) (string, error) {
	return d.extensionOf(ctx, d.db, fold(id))
}

// rower is a file or a transaction on it.
type rower interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (d *Directory) extensionOf(ctx context.Context, db rower, id string) (string, error) {
	var extension string
	err := db.QueryRowContext(ctx, `SELECT extension FROM bindings WHERE person = ?`, id).Scan(&extension)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("staff: %w", err)
	}
	return extension, nil
}

// Bindings lists who is logged in where: extensions by person.
func (d *Directory) Bindings(ctx context.Context) (map[string]string, error) {
	rows, err := d.db.QueryContext(ctx, `SELECT person, extension FROM bindings`)
	if err != nil {
		return nil, fmt.Errorf("staff: %w", err)
	}
	defer rows.Close()
	all := make(map[string]string)
	for rows.Next() {
		var person, extension string
		if err := rows.Scan(&person, &extension); err != nil {
			return nil, fmt.Errorf("staff: %w", err)
		}
		all[person] = extension
	}
	return all, rows.Err()
}
