package abuse

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/hotline12345/gateway/internal/audit"
)

// How long the number of a caller is kept, sealed, in this node's data directory (Art. 20).
const (
	keepDecided = 180 * 24 * time.Hour // after the end of a measure
	keepWatched = 7 * 24 * time.Hour   // after the last thing noted, when no measure came of it
)

// actDeleted is the entry of a number that was destroyed on time.
const actDeleted = "retention.deleted"

// retire destroys the numbers whose time is over, and records each. What the chain says of their matters names
// nobody from then on.
func (a *Admission) retire(ctx context.Context, now time.Time) error {
	var errs []error
	a.mu.Lock()
	var decided, watched []string
	for _, c := range a.ledger {
		if !c.From.IsZero() && now.Sub(c.over()) >= keepDecided {
			decided = append(decided, c.Decision)
		}
	}
	for _, d := range a.dockets.byID {
		if a.idle(d, now) {
			watched = append(watched, d.id)
		}
	}
	a.mu.Unlock()
	for _, decision := range decided {
		errs = append(errs, a.destroy(ctx, decision, map[string]string{"decision": decision}))
	}
	for _, id := range watched {
		errs = append(errs, a.destroy(ctx, callerFile(id), map[string]string{"matter": id}))
		a.mu.Lock()
		delete(a.dockets.byID, id)
		a.mu.Unlock()
	}
	return errors.Join(errs...)
}

// over is when a measure has ended, or will.
func (c *Case) over() time.Time { return earlier(c.Ended, c.Until) }

// idle tells whether nothing of a docket is needed any more. a.mu is held.
func (a *Admission) idle(d *docket, now time.Time) bool {
	for _, c := range a.ledger {
		if c.pseudonym == d.id && now.Sub(c.over()) < keepDecided {
			return false
		}
	}
	for _, e := range d.events {
		if now.Sub(e.At) < keepWatched {
			return false
		}
	}
	return true
}

// destroy removes a sealed number, recorded first. One that is gone is no error, and is not recorded again.
func (a *Admission) destroy(ctx context.Context, name string, of map[string]string) error {
	path := a.numberFile(name)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := a.audit.Append(ctx, audit.Entry{Actor: "node", Act: actDeleted, Detail: of}); err != nil {
		return err
	}
	return os.Remove(path)
}
