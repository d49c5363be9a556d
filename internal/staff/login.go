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
	if _, err := d.db.ExecContext(ctx, `DELETE FROM sessions WHERE seen <= ? OR created <= ?`,
		now.Add(-d.cfg.SessionIdle).Unix(), now.Add(-d.cfg.SessionMax).Unix()); err != nil {
		return Session{}, fmt.Errorf("staff: %w", err)
	}
	if err := d.act(ctx, note{p.ID, "staff.login", p.ID, map[string]string{"by": "page", "source": source}},
		ErrLogin, `INSERT INTO sessions (hash, person, source, created, seen) VALUES (?, ?, ?, ?, ?)`,
		tokenHash(token), p.ID, source, now.Unix(), now.Unix()); err != nil {
		return Session{}, err
	}
	return Session{Person: p, Token: token, Expires: now.Add(d.cfg.SessionMax)}, nil
}

// authenticate checks a secret that is kept in a column of people, under both throttles.
func (d *Directory) authenticate(ctx context.Context, column, id, secret, source string) (Person, error) {
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
	//nolint:gosec // the columns' names are constants of this package
	row := d.db.QueryRowContext(ctx, `SELECT `+personColumns+`, `+column+` FROM people WHERE id = ?`, id)
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
		FROM sessions JOIN people ON people.id = sessions.person WHERE hash = ?`, hash)
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
	if _, err := d.db.ExecContext(ctx, `UPDATE sessions SET seen = ? WHERE hash = ?`, now.Unix(), hash); err != nil {
		return Person{}, fmt.Errorf("staff: %w", err)
	}
	return p, nil
}

// Logout ends a console session. It does not unbind the extension: an agent may close the page and
// go on by phone.
func (d *Directory) Logout(ctx context.Context, token string) error {
	var person string
	err := d.db.QueryRowContext(ctx, `DELETE FROM sessions WHERE hash = ? RETURNING person`, tokenHash(token)).Scan(&person)
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
	token, now := tokenPrefix+newToken(), d.now()
	err = d.act(ctx, note{by, "staff.token", p.ID, map[string]string{"name": name, "life": life.String()}},
		ErrUnknown, `REPLACE INTO tokens (hash, person, name, created, expires) VALUES (?, ?, ?, ?, ?)`,
		tokenHash(token), p.ID, name, now.Unix(), now.Add(life).Unix())
	if err != nil {
		return "", err
	}
	return token, nil
}

// Token returns who an API token acts as, or [ErrNoSession].
func (d *Directory) Token(ctx context.Context, token string) (Person, error) {
	if !strings.HasPrefix(token, tokenPrefix) {
		return Person{}, ErrNoSession
	}
	row := d.db.QueryRowContext(ctx, `SELECT `+personColumns+` FROM people WHERE id =
		(SELECT person FROM tokens WHERE hash = ? AND expires > ?)`, tokenHash(token), d.now().Unix())
	p, err := scanPerson(row.Scan)
	if errors.Is(err, ErrUnknown) || p.Disabled {
		return Person{}, ErrNoSession
	}
	return p, err
}

// RevokeToken ends an API token. [ErrNoSession] if the person has none of this name.
func (d *Directory) RevokeToken(ctx context.Context, id, name, by string) error {
	return d.act(ctx, note{by, "staff.token_revoked", fold(id), map[string]string{"name": name}},
		ErrNoSession, `DELETE FROM tokens WHERE person = ? AND name = ?`, fold(id), name)
}

// newToken makes 256 random bits.
func newToken() string { return base64.RawURLEncoding.EncodeToString(random(32)) }

// tokenHash is what is kept of a token. It has 256 random bits, so a fast hash is enough.
func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
