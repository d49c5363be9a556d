// Package journal is the node's book of calls: detail records, timelines, checkpoints, load samples, and a copy
// of the callers who are owed a call back.
//
// It is one SQLite file in WAL mode with one writer. What is to be written waits in a bounded buffer
// and is written in batches, a transaction each, with synchronous=FULL: a batch costs one fsync
// whatever its size, so durability against power loss is nearly free here, and NORMAL would lose the
// CDRs since the last WAL checkpoint for nothing. Readers have connections of their own and never
// wait for the writer.
//
// A call never waits for the disk longer than Patience, and never fails for it: an act that comes too
// late answers [ErrSlow] and is written when the disk answers; one that finds the buffer full answers
// [ErrFull]; both are counted, and so is everything that the disk refuses or a lock keeps out for 5 s.
//
// A caller's number is not stored in clear: Deps.Seal makes what is stored of it, beside the masked form.
package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/hotline12345/gateway/internal/call"
)

// The named answers of the journal.
var (
	ErrSlow     = errors.New("journal: the disk is slow; it will be written when it answers")
	ErrFull     = errors.New("journal: the buffer is full")
	ErrClosed   = errors.New("journal: closed")
	ErrNotFound = errors.New("journal: not found")
)

// Deps is what a journal needs.
type Deps struct {
	Log *slog.Logger
	Reg prometheus.Registerer // nil registers nothing
	// Seal makes what is stored of a caller's number: sealed, or a pseudonym. nil stores nothing
	// but the masked form.
	Seal func(call.Number) ([]byte, error)
	// Closed is told of each call whose checkpoint was dropped: its books are kept. It may be nil.
	Closed func(callID string)
}

// Journal is the book. Its methods may be called from any goroutine.
type Journal struct {
	cfg    Config
	log    *slog.Logger
	met    *metrics
	seal   func(call.Number) ([]byte, error)
	closed func(callID string)

	w, r *sql.DB
	acts chan act
	done chan struct{} // closed when the writer is gone

	mu      sync.RWMutex // guards stopped against sends
	stopped bool
}

// New opens the book and brings its schema up to date. Close it after Run has ended.
func New(cfg Config, d Deps) (*Journal, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	j := &Journal{cfg: cfg, log: d.Log, met: newMetrics(d.Reg), seal: d.Seal, closed: d.Closed,
		acts: make(chan act, cfg.Buffer), done: make(chan struct{})}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	if j.closed == nil {
		j.closed = func(string) {}
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var err error
	// auto_vacuum comes first: it has no effect once the file has a header.
	if j.w, err = open(cfg.Path, "auto_vacuum(INCREMENTAL)", "journal_mode(WAL)", "synchronous(FULL)"); err != nil {
		return nil, err
	}
	j.w.SetMaxOpenConns(1)
	if err := migrate(j.w); err != nil {
		return nil, errors.Join(err, j.w.Close())
	}
	if j.r, err = open(cfg.Path, "query_only(1)"); err != nil {
		return nil, errors.Join(err, j.w.Close())
	}
	j.r.SetMaxOpenConns(4)
	return j, nil
}

// open makes a pool of connections to the book.
func open(path string, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {"busy_timeout(5000)"}}
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("journal: open %s: %w", path, err)
	}
	return db, nil
}

// Close closes the book.
func (j *Journal) Close() error { return errors.Join(j.w.Close(), j.r.Close()) }

// schema is one step a version; a step is never changed once it was released.
var schema = []string{`
CREATE TABLE cdr (
	call_id   TEXT PRIMARY KEY,
	started   INTEGER NOT NULL, -- Unix microseconds, as all times
	queue     TEXT NOT NULL,
	agent     TEXT NOT NULL,
	trunk     TEXT NOT NULL,
	outcome   TEXT NOT NULL,
	masked    TEXT NOT NULL,    -- the caller's number
	caller    BLOB,             -- the caller's number, sealed
	record    TEXT NOT NULL     -- the CDR in JSON
) WITHOUT ROWID;
CREATE INDEX cdr_started ON cdr (started);
CREATE INDEX cdr_agent ON cdr (agent, started);
CREATE TABLE timeline (
	id      INTEGER PRIMARY KEY,
	call_id TEXT NOT NULL,
	at      INTEGER NOT NULL,
	kind    TEXT NOT NULL,
	text    TEXT NOT NULL,
	attrs   TEXT               -- a JSON object, or NULL
);
CREATE INDEX timeline_call ON timeline (call_id, at);
CREATE INDEX timeline_at ON timeline (at);
CREATE TABLE checkpoint (
	call_id TEXT PRIMARY KEY,
	at      INTEGER NOT NULL,
	state   TEXT NOT NULL      -- the checkpoint in JSON
) WITHOUT ROWID;
CREATE TABLE load (
	queue  TEXT NOT NULL,
	at     INTEGER NOT NULL,
	sample TEXT NOT NULL,      -- the sample in JSON
	PRIMARY KEY (queue, at)
) WITHOUT ROWID;
CREATE INDEX load_at ON load (at);
`, `
CREATE TABLE callback (
	id      TEXT PRIMARY KEY,
	updated INTEGER NOT NULL,
	open    INTEGER NOT NULL,
	body    BLOB NOT NULL      -- its owner's; numbers in it are sealed
) WITHOUT ROWID;
CREATE INDEX callback_updated ON callback (updated);
`}

// migrate brings the schema up to date, a transaction a step. A book of a later version is refused.
func migrate(db *sql.DB) error {
	var version int
	if err := db.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if version > len(schema) {
		return fmt.Errorf("journal: the file is of version %d, this program knows %d; run the newer program", version, len(schema))
	}
	for ; version < len(schema); version++ {
		tx, err := db.Begin()
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		_, err = tx.Exec(schema[version] + fmt.Sprintf("PRAGMA user_version = %d;", version+1))
		if err != nil {
			return fmt.Errorf("journal: schema %d: %w", version+1, errors.Join(err, tx.Rollback()))
		}
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("journal: schema %d: %w", version+1, err)
		}
	}
	return nil
}

// The writer's habits.
const (
	linger     = 50 * time.Millisecond // how long timeline entries wait for company
	batch      = 512
	sweepEvery = time.Hour
	sweepRows  = 1000 // rows deleted in one act, so that calls are not kept waiting
)

// act is something to be written. An act that someone waits for has a channel for its answer.
type act struct {
	kind string // one of kinds
	do   func(context.Context, *sql.Tx) error
	done chan error   // of room for one, or nil
	left *atomic.Bool // whoever waited has gone on
}

// Run writes until ctx ends, and then what waits.
func (j *Journal) Run(ctx context.Context) error {
	swept := make(chan struct{})
	go func() { defer close(swept); j.sweepForever(ctx) }()
	stop := context.AfterFunc(ctx, func() {
		j.mu.Lock()
		j.stopped = true
		close(j.acts) // nobody sends any more: push looks at stopped
		j.mu.Unlock()
	})
	defer stop()
	for first := range j.acts {
		j.write(j.gather(first))
	}
	<-swept
	close(j.done)
	return nil
}

// gather takes what waits. It waits for more only while nobody waits for an answer.
func (j *Journal) gather(first act) []act {
	acts := []act{first}
	t := time.NewTimer(linger)
	defer t.Stop()
	for waited := first.done != nil; len(acts) < batch; {
		var a act
		var ok bool
		if waited {
			select {
			case a, ok = <-j.acts:
			default:
			}
		} else {
			select {
			case a, ok = <-j.acts:
			case <-t.C:
			}
		}
		if !ok {
			break
		}
		acts = append(acts, a)
		waited = waited || a.done != nil
	}
	return acts
}

// write writes a batch. If it fails, each act is tried by itself: one that is at fault must not take
// the others along.
func (j *Journal) write(acts []act) {
	began := time.Now()
	err := j.transact(acts)
	for _, a := range acts {
		one := err
		if err != nil && len(acts) > 1 {
			one = j.transact([]act{a})
		}
		if one != nil {
			j.met.errors.WithLabelValues(a.kind).Inc()
			if a.done == nil || a.left.Load() {
				j.log.Error("the journal could not be written", "kind", a.kind, "err", one)
			}
		}
		if a.done != nil {
			a.done <- one
		}
	}
	j.met.seconds.Observe(time.Since(began).Seconds())
}

func (j *Journal) transact(acts []act) (err error) {
	ctx := context.Background() // an act outlives the patience of whoever asked for it
	tx, err := j.w.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("journal: panic: %v\n%s", p, debug.Stack())
			_ = tx.Rollback() // the panic is what is told
		}
	}()
	for _, a := range acts {
		if err := a.do(ctx, tx); err != nil {
			return fmt.Errorf("journal: %s: %w", a.kind, errors.Join(err, tx.Rollback()))
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// push gives an act to the writer without waiting.
func (j *Journal) push(a act) error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.stopped {
		return ErrClosed
	}
	select {
	case j.acts <- a:
		return nil
	default:
		j.met.errors.WithLabelValues("full").Inc()
		return ErrFull
	}
}

// wait gives an act to the writer and waits for its answer, for as long as Patience.
func (j *Journal) wait(ctx context.Context, kind string, do func(context.Context, *sql.Tx) error) error {
	a := act{kind: kind, do: do, done: make(chan error, 1), left: new(atomic.Bool)}
	if err := j.push(a); err != nil {
		return err
	}
	patience := time.NewTimer(j.cfg.Patience)
	defer patience.Stop()
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		a.left.Store(true)
		return context.Cause(ctx)
	case <-patience.C:
		a.left.Store(true)
		j.met.errors.WithLabelValues("slow").Inc()
		return ErrSlow
	case <-j.done:
	}
	select {
	case err := <-a.done: // the writer's last act
		return err
	default:
		return ErrClosed
	}
}
