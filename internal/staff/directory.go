package staff

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// The errors of a directory.
var (
	ErrUnknown       = errors.New("staff: no such person")
	ErrExists        = errors.New("staff: the id or the extension is taken")
	ErrLogin         = errors.New("staff: the name or the password is wrong")
	ErrNoSession     = errors.New("staff: the session or token is unknown or has ended")
	ErrExtensionBusy = errors.New("staff: another person is logged in at this extension")
	ErrNoExtension   = errors.New("staff: there is no such extension")
	ErrNotAllowed    = errors.New("staff: the person's roles do not allow this")
)

// AuditLog takes note of acts; it is what makes an act lawful, so an act that it refuses does not happen.
type AuditLog interface {
	Record(ctx context.Context, actor, act, subject string, detail map[string]string) error
}

// Directory is the people, in staff.db. Its methods may be called from any goroutine.
type Directory struct {
	cfg     Config
	db      *sql.DB
	audit   AuditLog
	now     func() time.Time
	hash    hasher
	account *throttle
	source  *throttle
	metrics *metrics
}

const schema = `
CREATE TABLE IF NOT EXISTS people (
	id TEXT PRIMARY KEY, name TEXT NOT NULL, roles TEXT NOT NULL, extension TEXT UNIQUE,
	queues TEXT NOT NULL, language TEXT NOT NULL, disabled INTEGER NOT NULL DEFAULT 0,
	password TEXT NOT NULL DEFAULT '', pin TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE IF NOT EXISTS phones (
	extension TEXT NOT NULL, realm TEXT NOT NULL, md5 TEXT NOT NULL, sha256 TEXT NOT NULL,
	PRIMARY KEY (extension, realm)
) STRICT;
CREATE TABLE IF NOT EXISTS bindings (
	extension TEXT PRIMARY KEY, person TEXT NOT NULL UNIQUE REFERENCES people(id), since INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS sessions (
	hash TEXT PRIMARY KEY, person TEXT NOT NULL REFERENCES people(id), source TEXT NOT NULL,
	created INTEGER NOT NULL, seen INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS tokens (
	hash TEXT PRIMARY KEY, person TEXT NOT NULL REFERENCES people(id), name TEXT NOT NULL,
	created INTEGER NOT NULL, expires INTEGER NOT NULL, UNIQUE (person, name)
) STRICT;`

// Open opens staff.db in dir, or makes it. now is the clock of sessions and throttling; reg may be nil.
func Open(ctx context.Context, cfg Config, dir string, audit AuditLog, now func() time.Time, reg prometheus.Registerer) (*Directory, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("staff: %w", err)
	}
	dsn := url.URL{Scheme: "file", Path: filepath.Join(dir, "staff.db"), RawQuery: url.Values{
		"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)", "foreign_keys(1)"},
		"_txlock": {"immediate"},
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("staff: %w", err)
	}
	db.SetMaxOpenConns(4)
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(fmt.Errorf("staff: %s: %w", dsn.Path, err), db.Close())
	}
	return &Directory{
		cfg: cfg, db: db, audit: audit, now: now, hash: newHasher(cfg.Hashing), metrics: newMetrics(reg),
		account: newThrottle(cfg.TryEvery, cfg.AccountTries), source: newThrottle(cfg.TryEvery, cfg.SourceTries),
	}, nil
}

// Close closes the file.
func (d *Directory) Close() error { return d.db.Close() }

const personColumns = `id, name, roles, COALESCE(extension, ''), queues, language, disabled`

// scanPerson reads personColumns, and more columns into rest.
func scanPerson(scan func(...any) error, rest ...any) (Person, error) {
	var p Person
	var roles, queues string
	dest := append([]any{&p.ID, &p.Name, &roles, &p.Extension, &queues, &p.Language, &p.Disabled}, rest...)
	if err := scan(dest...); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			return Person{}, ErrUnknown
		}
		return Person{}, fmt.Errorf("staff: %w", err)
	}
	if err := errors.Join(json.Unmarshal([]byte(roles), &p.Roles), json.Unmarshal([]byte(queues), &p.Queues)); err != nil {
		return Person{}, fmt.Errorf("staff: person %s: %w", p.ID, err)
	}
	return p, nil
}

// Person returns a person by id, or [ErrUnknown].
func (d *Directory) Person(ctx context.Context, id string) (Person, error) {
	row := d.db.QueryRowContext(ctx, `SELECT `+personColumns+` FROM people WHERE id = ?`, fold(id))
	return scanPerson(row.Scan)
}

// People lists everyone by id, the disabled included.
func (d *Directory) People(ctx context.Context) ([]Person, error) {
	rows, err := d.db.QueryContext(ctx, `SELECT `+personColumns+` FROM people ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("staff: %w", err)
	}
	defer rows.Close()
	var people []Person
	for rows.Next() {
		p, err := scanPerson(rows.Scan)
		if err != nil {
			return nil, err
		}
		people = append(people, p)
	}
	return people, rows.Err()
}

// Add adds a person, without a password yet; by is who does so. [ErrExists] if id or extension is taken.
func (d *Directory) Add(ctx context.Context, p Person, by string) error {
	p.ID = fold(p.ID)
	if err := p.check(); err != nil {
		return err
	}
	roles, queues := encode(p)
	return d.act(ctx, note{by, "staff.add", p.ID, map[string]string{"roles": roles, "extension": p.Extension}},
		ErrExists, `INSERT OR IGNORE INTO people (id, name, roles, extension, queues, language, disabled)
		VALUES (?, ?, ?, NULLIF(?, ''), ?, ?, ?)`, p.ID, p.Name, roles, p.Extension, queues, p.Language, p.Disabled)
}

// Update changes all of a person but the id. Disabling someone ends their sessions, tokens and log-in.
// Errors: [ErrUnknown]; [ErrExists] if the extension is another's.
func (d *Directory) Update(ctx context.Context, p Person, by string) error {
	if err := p.check(); err != nil {
		return err
	}
	if _, err := d.Person(ctx, p.ID); err != nil {
		return err
	}
	roles, queues := encode(p)
	err := d.act(ctx, note{by, "staff.update", p.ID, map[string]string{
		"roles": roles, "extension": p.Extension, "disabled": strconv.FormatBool(p.Disabled),
	}}, ErrExists, `UPDATE OR IGNORE people SET name = ?, roles = ?, extension = NULLIF(?, ''), queues = ?,
		language = ?, disabled = ? WHERE id = ?`, p.Name, roles, p.Extension, queues, p.Language, p.Disabled, p.ID)
	if err != nil || !p.Disabled {
		return err
	}
	for _, table := range []string{"sessions", "tokens", "bindings"} {
		//nolint:gosec // the tables' names stand one line above
		if _, err := d.db.ExecContext(ctx, `DELETE FROM `+table+` WHERE person = ?`, p.ID); err != nil {
			return fmt.Errorf("staff: %w", err)
		}
	}
	return nil
}

// SetPassword sets a person's password for the console and ends their sessions. [ErrWeak] if it is too short.
func (d *Directory) SetPassword(ctx context.Context, id, password, by string) error {
	if err := checkPassword(password); err != nil {
		return err
	}
	if err := d.setSecret(ctx, "password", id, password, by); err != nil {
		return err
	}
	if _, err := d.db.ExecContext(ctx, `DELETE FROM sessions WHERE person = ?`, fold(id)); err != nil {
		return fmt.Errorf("staff: %w", err)
	}
	return nil
}

// SetPIN sets a person's PIN for logging in on a phone, 6 to 12 digits. [ErrWeak] if it is easily guessed.
func (d *Directory) SetPIN(ctx context.Context, id, pin, by string) error {
	if err := checkPIN(pin); err != nil {
		return err
	}
	return d.setSecret(ctx, "pin", id, pin, by)
}

// setSecret stores the hash of a secret in a column of people.
func (d *Directory) setSecret(ctx context.Context, column, id, secret, by string) error {
	hash, err := d.hash.hash(ctx, secret)
	if err != nil {
		return err
	}
	return d.act(ctx, note{by, "staff." + column, fold(id), nil},
		ErrUnknown, `UPDATE people SET `+column+` = ? WHERE id = ?`, hash, fold(id))
}

// note is an act as the audit log takes it.
type note struct {
	actor, act, subject string
	detail              map[string]string
}

func (d *Directory) record(ctx context.Context, n note) error {
	if err := d.audit.Record(ctx, n.actor, n.act, n.subject, n.detail); err != nil {
		return fmt.Errorf("staff: %s: %w", n.act, err)
	}
	return nil
}

// act runs a statement that must change a row (it answers with none otherwise) and records it: after
// the row is known to change, before the change is in force.
func (d *Directory) act(ctx context.Context, n note, none error, query string, args ...any) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, query, args...)
		if err != nil {
			return fmt.Errorf("staff: %w", err)
		}
		if rows, err := res.RowsAffected(); err != nil || rows == 0 {
			return errors.Join(none, err)
		}
		return d.record(ctx, n)
	})
}

// tx runs do in a transaction and commits it when do succeeds.
func (d *Directory) tx(ctx context.Context, do func(tx *sql.Tx) error) error {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("staff: %w", err)
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("staff: %w", err)
	}
	return nil
}

// encode makes the columns of roles and queues. Strings and numbers always marshal.
func encode(p Person) (roles, queues string) {
	r, _ := json.Marshal(p.Roles)
	q, _ := json.Marshal(p.Queues)
	return string(r), string(q)
}
