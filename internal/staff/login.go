package staff

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// touchEvery is how exactly a session's last use is known.
const touchEvery = time.Minute

// Session is a console session that has just begun. Token is shown once and stored as a hash.
type Session struct {
	Person  Person
	Token   string
	Expires time.Time // at the latest; not used for Config.SessionIdle, it ends earlier
}

// Login begins a console session. source is the client's address without its port. Errors: [ErrLogin],
// which does not say what was wrong, and [ErrThrottled].
func (d *Directory) Login(ctx context.Context, id, password, source string) (Session, error) {
	p, err := d.authenticate(ctx, "password", id, password, source)
	if err != nil {
		return Session{}, err
	}
	now, token := d.now(), newToken()
	if _, err := d.db.ExecContext(ctx, `DELETE FROM page_sessions WHERE seen <= ? OR created <= ?`,
		now.Add(-d.cfg.SessionIdle).Unix(), now.Add(-d.cfg.SessionMax).Unix()); err != nil {
		return Session{}, fmt.Errorf("staff: %w", err)
	}
	err = d.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO page_sessions (hash, person, source, created, seen) VALUES (?, ?, ?, ?, ?)`,
			tokenHash(token), p.ID, source, now.Unix(), now.Unix())
		if err != nil {
			return fmt.Errorf("staff: %w", err)
		}
		return d.record(ctx, note{p.ID, "staff.login", p.ID, map[string]string{"by": "page", "source": source}})
	})
	if err != nil {
		return Session{}, err
	}
	return Session{Person: p, Token: token, Expires: now.Add(d.cfg.SessionMax)}, nil
}

// authenticate checks a password or PIN under both throttles.
func (d *Directory) authenticate(ctx context.Context, which, id, secret, source string) (Person, error) {
	id = fold(id)
	now := d.now()
	refundAccount, ok := d.account.take(id, now)
	if !ok {
		d.metrics.throttled.Inc()
		return Person{}, ErrThrottled
	}
	refundSource, ok := d.source.take(source, now)
	if !ok {
		refundAccount()
		d.metrics.throttled.Inc()
		return Person{}, ErrThrottled
	}
	var stored string
	row := d.db.QueryRowContext(ctx, `SELECT `+personColumns+`, COALESCE((SELECT json_extract(body, '$.hash')
		FROM registers WHERE kind = 'secret' AND key = ?), '') FROM people WHERE id = ?`, id+"/"+which, id)
	p, err := scanPerson(row.Scan, &stored)
	if err != nil && !errors.Is(err, ErrUnknown) {
		return Person{}, err
	}
	ok, err = d.hash.matches(ctx, secret, stored)
	if err != nil {
		return Person{}, err
	}
	if ok && !p.Disabled {
		refundAccount()
		refundSource()
		d.metrics.accepted.Inc()
		return p, nil
	}
	d.metrics.refused.Inc()
	return Person{}, d.noteFailure(ctx, p.ID, source)
}

// noteFailure records a failed log-in. A name that nobody has is not written down: people type their
// password there.
func (d *Directory) noteFailure(ctx context.Context, id, source string) error {
	if id == "" {
		id = "unknown"
	}
	return errors.Join(ErrLogin, d.record(ctx, note{"node", "staff.login_failed", id, map[string]string{"source": source}}))
}

// Session returns whose session a token is and marks it used, or [ErrNoSession].
func (d *Directory) Session(ctx context.Context, token string) (Person, error) {
	var created, seen int64
	hash := tokenHash(token)
	row := d.db.QueryRowContext(ctx, `SELECT `+personColumns+`, created, seen
		FROM page_sessions JOIN people ON id = person WHERE hash = ?`, hash)
	p, err := scanPerson(row.Scan, &created, &seen)
	if errors.Is(err, ErrUnknown) {
		return Person{}, ErrNoSession
	}
	if err != nil {
		return Person{}, err
	}
	now := d.now()
	if p.Disabled || now.Sub(time.Unix(created, 0)) >= d.cfg.SessionMax || now.Sub(time.Unix(seen, 0)) >= d.cfg.SessionIdle {
		return Person{}, ErrNoSession
	}
	if now.Sub(time.Unix(seen, 0)) < touchEvery {
		return p, nil
	}
	if _, err := d.db.ExecContext(ctx, `UPDATE page_sessions SET seen = ? WHERE hash = ?`, now.Unix(), hash); err != nil {
		return Person{}, fmt.Errorf("staff: %w", err)
	}
	return p, nil
}

// Logout ends a console session. It does not unbind the extension: an agent may close the page and
// go on by phone.
func (d *Directory) Logout(ctx context.Context, token string) error {
	var person string
	err := d.db.QueryRowContext(ctx, `DELETE FROM page_sessions WHERE hash = ? RETURNING person`, tokenHash(token)).Scan(&person)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // it had ended by itself
	}
	if err != nil {
		return fmt.Errorf("staff: %w", err)
	}
	return d.record(ctx, note{person, "staff.logout", person, map[string]string{"by": "page"}})
}

// MaxTokenLife bounds an API token.
const MaxTokenLife = 366 * 24 * time.Hour

// tokenPrefix lets a scanner of leaked secrets know ours.
const tokenPrefix = "hotline_"

// IssueToken makes an API token that acts as the person until it expires, at most [MaxTokenLife] from
// now. It is shown once; name tells it from the person's others, and a name used again replaces.
func (d *Directory) IssueToken(ctx context.Context, id, name string, life time.Duration, by string) (string, error) {
	if life <= 0 || life > MaxTokenLife {
		return "", fmt.Errorf("staff: a token lives at most %v", MaxTokenLife)
	}
	p, err := d.Person(ctx, id)
	if err != nil {
		return "", err
	}
	secret, now := tokenPrefix+newToken(), d.now()
	err = d.tx(ctx, func(tx *sql.Tx) error {
		body := token{tokenHash(secret), now.Unix(), now.Add(life).Unix()}
		if err := d.put(ctx, tx, kindToken, p.ID+"/"+name, body); err != nil {
			return err
		}
		return d.record(ctx, note{by, "staff.token", p.ID, map[string]string{"name": name, "life": life.String()}})
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// Token returns who an API token acts as, or [ErrNoSession].
func (d *Directory) Token(ctx context.Context, token string) (Person, error) {
	if !strings.HasPrefix(token, tokenPrefix) {
		return Person{}, ErrNoSession
	}
	row := d.db.QueryRowContext(ctx, `SELECT `+personColumns+` FROM people WHERE id =
		(SELECT substr(key, 1, instr(key, '/') - 1) FROM registers WHERE kind = 'token' AND NOT gone
		AND json_extract(body, '$.hash') = ? AND json_extract(body, '$.expires') > ?)`, tokenHash(token), d.now().Unix())
	p, err := scanPerson(row.Scan)
	if errors.Is(err, ErrUnknown) || p.Disabled {
		return Person{}, ErrNoSession
	}
	return p, err
}

// RevokeToken ends an API token. [ErrNoSession] if the person has none of this name.
func (d *Directory) RevokeToken(ctx context.Context, id, name, by string) error {
	key := fold(id) + "/" + name
	return d.tx(ctx, func(tx *sql.Tx) error {
		known, err := exists(ctx, tx, `SELECT 1 FROM registers WHERE kind = 'token' AND key = ? AND NOT gone`, key)
		if err != nil || !known {
			return errors.Join(ErrNoSession, err)
		}
		if err := d.drop(ctx, tx, kindToken, key); err != nil {
			return err
		}
		return d.record(ctx, note{by, "staff.token_revoked", fold(id), map[string]string{"name": name}})
	})
}

// newToken makes 256 random bits.
func newToken() string { return base64.RawURLEncoding.EncodeToString(random(32)) }

// tokenHash is what is kept of a token. It has 256 random bits, so a fast hash is enough.
func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
