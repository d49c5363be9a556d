package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

const (
	maxText  = 4 << 10 // bytes of an entry's text: a SIP message fits, a flood does not
	maxAttrs = 4 << 10
	maxRows  = 1000
)

// Row is a CDR as the book has it: without the caller's number.
type Row struct {
	CDR
	Masked string `json:"caller"` // the number as people may see it
	Sealed []byte `json:"-"`      // what Deps.Seal made of it
}

// SaveCDR keeps a call's detail record; a later one of the same call takes its place.
func (j *Journal) SaveCDR(ctx context.Context, c CDR) error {
	record, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("journal: CDR: %w", err)
	}
	var sealed []byte
	if j.seal != nil && c.Caller != (call.Number{}) {
		if sealed, err = j.seal(c.Caller); err != nil {
			return fmt.Errorf("journal: seal the caller's number: %w", err)
		}
	}
	return j.wait(ctx, "cdr", func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO cdr
			(call_id, started, queue, agent, trunk, outcome, masked, caller, record) VALUES (?,?,?,?,?,?,?,?,?)`,
			c.CallID, c.Started.UnixMicro(), c.Queue, c.Agent, c.Trunk, c.Outcome, c.Caller.Masked(), sealed, record)
		return err
	})
}

// Filter says which CDRs are wanted. Empty fields want all.
type Filter struct {
	From, To                     time.Time // by the start: From <= started < To
	Queue, Agent, Trunk, Outcome string
	Limit                        int // 1 to 1,000; 0 is 100
}

// CDRs returns calls, the latest first. To page on, set To to the start of the last one.
func (j *Journal) CDRs(ctx context.Context, f Filter) ([]Row, error) {
	stmt := "SELECT masked, caller, record FROM cdr WHERE 1"
	var args []any
	add := func(clause string, arg any) { stmt, args = stmt+" AND "+clause, append(args, arg) }
	if !f.From.IsZero() {
		add("started >= ?", f.From.UnixMicro())
	}
	if !f.To.IsZero() {
		add("started < ?", f.To.UnixMicro())
	}
	for column, value := range map[string]string{"queue": f.Queue, "agent": f.Agent, "trunk": f.Trunk, "outcome": f.Outcome} {
		if value != "" {
			add(column+" = ?", value)
		}
	}
	limit := min(f.Limit, maxRows)
	if limit <= 0 {
		limit = 100
	}
	return query(ctx, j.r, scanRow, stmt+" ORDER BY started DESC LIMIT ?", append(args, limit)...)
}

// Call returns one call's CDR, or [ErrNotFound].
func (j *Journal) Call(ctx context.Context, callID string) (Row, error) {
	rows, err := query(ctx, j.r, scanRow, "SELECT masked, caller, record FROM cdr WHERE call_id = ?", callID)
	return only(rows, err)
}

func scanRow(rows *sql.Rows) (r Row, err error) {
	var record []byte
	if err = rows.Scan(&r.Masked, &r.Sealed, &record); err == nil {
		err = json.Unmarshal(record, &r.CDR)
	}
	return r, err
}

// Append adds a line to a call's timeline. It never waits: when the buffer is full the line is dropped
// and counted. Text and attributes beyond 4 KB each are cut.
func (j *Journal) Append(e Entry) {
	e.Text = clip(e.Text, maxText)
	var attrs []byte
	if len(e.Attrs) > 0 {
		var err error
		if attrs, err = json.Marshal(e.Attrs); err != nil || len(attrs) > maxAttrs {
			attrs = []byte(`{"attrs":"too long"}`)
		}
	}
	err := j.push(act{kind: "entry", do: func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO timeline (call_id, at, kind, text, attrs) VALUES (?,?,?,?,?)",
			e.CallID, e.At.UnixMicro(), e.Kind, e.Text, attrs)
		return err
	}})
	if err != nil {
		j.met.dropped.Inc()
	}
}

// clip cuts s to n bytes and leaves it valid UTF-8.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}

// Timeline returns a call's entries by time, the first 1,000.
func (j *Journal) Timeline(ctx context.Context, callID string) ([]Entry, error) {
	return query(ctx, j.r, func(rows *sql.Rows) (e Entry, err error) {
		var at int64
		var attrs []byte
		if err = rows.Scan(&e.CallID, &at, &e.Kind, &e.Text, &attrs); err == nil && attrs != nil {
			err = json.Unmarshal(attrs, &e.Attrs)
		}
		e.At = time.UnixMicro(at)
		return e, err
	}, "SELECT call_id, at, kind, text, attrs FROM timeline WHERE call_id = ? ORDER BY at, id LIMIT ?", callID, maxRows)
}

// SaveCheckpoint keeps where a call stands, in place of what was kept of it.
func (j *Journal) SaveCheckpoint(ctx context.Context, c call.Checkpoint) error {
	state, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("journal: checkpoint: %w", err)
	}
	return j.wait(ctx, "checkpoint", func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO checkpoint (call_id, at, state) VALUES (?,?,?)",
			c.CallID, c.At.UnixMicro(), state)
		return err
	})
}

// DropCheckpoint forgets where a call stood: its books are kept. Deps.Closed is told once that is
// durable.
func (j *Journal) DropCheckpoint(ctx context.Context, callID string) error {
	err := j.wait(ctx, "checkpoint", func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM checkpoint WHERE call_id = ?", callID)
		return err
	})
	if err == nil {
		j.closed(callID)
	}
	return err
}

// Checkpoints returns the calls that have not ended, the oldest first.
func (j *Journal) Checkpoints(ctx context.Context) ([]call.Checkpoint, error) {
	return query(ctx, j.r, func(rows *sql.Rows) (c call.Checkpoint, err error) {
		var state []byte
		if err = rows.Scan(&state); err == nil {
			err = json.Unmarshal(state, &c)
		}
		return c, err
	}, "SELECT state FROM checkpoint ORDER BY at")
}

// SaveLoad keeps the state of a queue at a moment. It does not wait.
func (j *Journal) SaveLoad(s LoadSample) error {
	sample, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("journal: load sample: %w", err)
	}
	return j.push(act{kind: "load", do: func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO load (queue, at, sample) VALUES (?,?,?)",
			s.Queue, s.At.UnixMicro(), sample)
		return err
	}})
}

// LoadAt returns the last sample of a queue at or before a moment, or [ErrNotFound]. Its own time
// says how old it is.
func (j *Journal) LoadAt(ctx context.Context, queue string, at time.Time) (LoadSample, error) {
	rows, err := query(ctx, j.r, scanLoad,
		"SELECT sample FROM load WHERE queue = ? AND at <= ? ORDER BY at DESC LIMIT 1", queue, at.UnixMicro())
	return only(rows, err)
}

// Load returns the samples of a queue from one moment to before another, the first 1,000.
func (j *Journal) Load(ctx context.Context, queue string, from, to time.Time) ([]LoadSample, error) {
	return query(ctx, j.r, scanLoad, "SELECT sample FROM load WHERE queue = ? AND at >= ? AND at < ? ORDER BY at LIMIT ?",
		queue, from.UnixMicro(), to.UnixMicro(), maxRows)
}

func scanLoad(rows *sql.Rows) (s LoadSample, err error) {
	var sample []byte
	if err = rows.Scan(&sample); err == nil {
		err = json.Unmarshal(sample, &s)
	}
	return s, err
}

// query runs a query and scans its rows.
func query[T any](ctx context.Context, db *sql.DB, scan func(*sql.Rows) (T, error), stmt string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, stmt, args...)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return all, nil
}

func only[T any](rows []T, err error) (T, error) {
	var zero T
	if err != nil {
		return zero, err
	}
	if len(rows) == 0 {
		return zero, ErrNotFound
	}
	return rows[0], nil
}

func (j *Journal) sweepForever(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		if err := j.Sweep(ctx, time.Now()); err != nil && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
			j.log.Error("old records could not all be deleted", "err", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Sweep deletes what is older than its retention at now, a thousand rows at a time between the calls'
// own acts, and gives the space back.
func (j *Journal) Sweep(ctx context.Context, now time.Time) error {
	old := now.Add(-j.cfg.Retention).UnixMicro()
	for _, s := range []struct {
		query  string
		before int64
	}{
		{"DELETE FROM cdr WHERE call_id IN (SELECT call_id FROM cdr WHERE started < ? LIMIT ?)", old},
		{"DELETE FROM timeline WHERE id IN (SELECT id FROM timeline WHERE at < ? LIMIT ?)", old},
		{"DELETE FROM load WHERE (queue, at) IN (SELECT queue, at FROM load WHERE at < ? LIMIT ?)",
			now.Add(-j.cfg.LoadRetention).UnixMicro()},
		{"DELETE FROM callback WHERE id IN (SELECT id FROM callback WHERE open = 0 AND updated < ? LIMIT ?)",
			now.Add(-closedCallBacks).UnixMicro()},
	} {
		for more := true; more; {
			n, err := j.sweepOnce(ctx, s.query, s.before)
			if err != nil {
				return err
			}
			more = n == sweepRows
		}
	}
	return nil
}

func (j *Journal) sweepOnce(ctx context.Context, query string, before int64) (n int64, err error) {
	deleted := make(chan int64, 2) // the act may be tried twice
	err = j.wait(ctx, "sweep", func(ctx context.Context, tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, query, before, sweepRows)
		if err != nil {
			return err
		}
		rows, err := res.RowsAffected()
		if err != nil {
			return err
		}
		deleted <- rows
		if rows == 0 {
			return nil
		}
		_, err = tx.ExecContext(ctx, "PRAGMA incremental_vacuum")
		return err
	})
	if err != nil {
		return 0, err
	}
	for len(deleted) > 0 {
		n = <-deleted
	}
	return n, nil
}
