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
	ErrLastAdmin     = errors.New("staff: nobody else keeps people and settings; give another person the role admin first")
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

// Directory is the people, in staff.db. An act is recorded before it is in force. Its methods may be called from any goroutine.
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
	if err := prepare(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("staff: %s: %w", dsn.Path, err), db.Close())
	}
	return &Directory{
		cfg: cfg, db: db, audit: audit, now: now, hash: newHasher(cfg.Hashing), metrics: newMetrics(reg),
		account: newThrottle(cfg.TryEvery, cfg.AccountTries), source: newThrottle(cfg.TryEvery, cfg.SourceTries),
	}, nil
}

// Close closes the file.
func (d *Directory) Close() error { return d.db.Close() }

const personColumns = `body, extension, disabled`

// scanPerson reads personColumns, and more columns into rest.
func scanPerson(scan func(...any) error, rest ...any) (Person, error) {
	var p Person
	var body, extension string
	var disabled bool
	if err := scan(append([]any{&body, &extension, &disabled}, rest...)...); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			return Person{}, ErrUnknown
		}
		return Person{}, fmt.Errorf("staff: %w", err)
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		return Person{}, fmt.Errorf("staff: a person's register: %w", err)
	}
	p.Extension, p.Disabled = extension, disabled
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
	return d.tx(ctx, func(tx *sql.Tx) error {
		taken, err := exists(ctx, tx, `SELECT 1 FROM people WHERE id = ?`, p.ID)
		if err != nil || taken {
			return errors.Join(ErrExists, err)
		}
		if err := d.putPerson(ctx, tx, p); err != nil {
			return err
		}
		return d.record(ctx, note{by, "staff.add", p.ID, map[string]string{"roles": roles(p), "extension": p.Extension}})
	})
}

// Update changes all of a person but the id. Disabling someone ends their sessions, tokens and log-in.
// Errors: [ErrUnknown]; [ErrExists] if the extension is another's; [ErrLastAdmin].
func (d *Directory) Update(ctx context.Context, p Person, by string) error {
	if err := p.check(); err != nil {
		return err
	}
	return d.tx(ctx, func(tx *sql.Tx) error {
		before, err := scanPerson(tx.QueryRowContext(ctx, `SELECT `+personColumns+` FROM people WHERE id = ?`, p.ID).Scan)
		if err != nil {
			return err
		}
		if before.keeps() && !p.keeps() {
			others, err := exists(ctx, tx, `SELECT 1 FROM admins WHERE NOT disabled AND key <> ?`, p.ID)
			if err != nil || !others {
				return errors.Join(ErrLastAdmin, err)
			}
		}
		if err := d.putPerson(ctx, tx, p); err != nil {
			return err
		}
		if p.Disabled {
			if err := d.retire(ctx, tx, p.ID); err != nil {
				return err
			}
		}
		return d.record(ctx, note{by, "staff.update", p.ID, map[string]string{
			"roles": roles(p), "extension": p.Extension, "disabled": strconv.FormatBool(p.Disabled),
		}})
	})
}

// putPerson sets a person's register, unless the extension is on another's desk.
func (d *Directory) putPerson(ctx context.Context, tx *sql.Tx, p Person) error {
	taken, err := exists(ctx, tx, `SELECT 1 FROM people WHERE extension <> '' AND extension = ? AND id <> ?`, p.Extension, p.ID)
	if err != nil || taken {
		return errors.Join(ErrExists, err)
	}
	return d.put(ctx, tx, kindPerson, p.ID, p)
}

// retire ends all by which a person was logged in.
func (d *Directory) retire(ctx context.Context, tx *sql.Tx, id string) error {
	if _, err := d.stand(ctx, tx, id); err != nil {
		return err
	}
	if err := d.dropTokens(ctx, tx, id); err != nil {
		return err
	}
	return d.logOut(ctx, tx, id)
}

// logOut ends a person's page sessions on this node.
func (d *Directory) logOut(ctx context.Context, tx *sql.Tx, id string) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM page_sessions WHERE person = ?`, id); err != nil {
		return fmt.Errorf("staff: %w", err)
	}
	return nil
}

// SetPassword sets a person's password for the console and ends their sessions. [ErrWeak] if it is too short.
func (d *Directory) SetPassword(ctx context.Context, id, password, by string) error {
	if err := checkPassword(password); err != nil {
		return err
	}
	return d.setSecret(ctx, "password", id, password, by)
}

// SetPIN sets a person's PIN for logging in on a phone, 6 to 12 digits. [ErrWeak] if it is easily guessed.
func (d *Directory) SetPIN(ctx context.Context, id, pin, by string) error {
	if err := checkPIN(pin); err != nil {
		return err
	}
	return d.setSecret(ctx, "pin", id, pin, by)
}

// setSecret stores the hash of a person's password or PIN.
func (d *Directory) setSecret(ctx context.Context, which, id, text, by string) error {
	id = fold(id)
	hash, err := d.hash.hash(ctx, text)
	if err != nil {
		return err
	}
	return d.tx(ctx, func(tx *sql.Tx) error {
		known, err := exists(ctx, tx, `SELECT 1 FROM people WHERE id = ?`, id)
		if err != nil || !known {
			return errors.Join(ErrUnknown, err)
		}
		if err := d.put(ctx, tx, kindSecret, id+"/"+which, secret{hash}); err != nil {
			return err
		}
		if which == "password" {
			if err := d.logOut(ctx, tx, id); err != nil {
				return err
			}
		}
		return d.record(ctx, note{by, "staff." + which, id, nil})
	})
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

// roles are a person's roles as the audit log takes them.
func roles(p Person) string {
	r, _ := json.Marshal(p.Roles) // strings always marshal
	return string(r)
}
