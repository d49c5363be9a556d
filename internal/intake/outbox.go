package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/internal/session"
)

// The named answers of an outbox.
var (
	ErrFull       = errors.New("intake: the spool is full")
	ErrTooLarge   = errors.New("intake: the event is larger than max_event")
	ErrSuperseded = errors.New("intake: a newer revision was received")
	ErrNotFound   = errors.New("intake: no such event")
)

const (
	receiptsFor = 90 * 24 * time.Hour // long after any retry
	sweepEvery  = time.Hour
)

// Recordings is what the outbox needs of the recorder.
type Recordings interface {
	// Open opens the sealed file of a finished recording.
	Open(id string) (io.ReadSeekCloser, error)
	// WrappedKey is a recording's private key, sealed to the agency.
	WrappedKey(id string) ([]byte, error)
	// KeyOf is the wrapped key that sealed facts need, or nil.
	KeyOf(sealed []byte) ([]byte, error)
}

// Deps is what an outbox needs.
type Deps struct {
	Log        *slog.Logger
	Reg        prometheus.Registerer // nil registers nothing
	Recordings Recordings
}

// Outbox hands events to case intake. It implements [session.Intake].
type Outbox struct {
	cfg     Config
	log     *slog.Logger
	met     *metrics
	rec     Recordings
	grants  grants
	targets []*target
}

var _ session.Intake = (*Outbox)(nil)

// New opens the outbox and reads its spool.
func New(cfg Config, d Deps) (*Outbox, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	o := &Outbox{cfg: cfg, log: d.Log, rec: d.Recordings}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("intake: %w", err)
	}
	var err error
	if o.grants, err = openGrants(filepath.Join(cfg.Dir, "grant.key"), cfg); err != nil {
		return nil, err
	}
	for _, tc := range cfg.Targets {
		s, err := o.newSender(tc.withDefaults())
		if err != nil {
			return nil, err
		}
		t, err := newTarget(cfg, tc.withDefaults(), s, o.log)
		if err != nil {
			return nil, err
		}
		o.targets = append(o.targets, t)
	}
	o.met = newMetrics(d.Reg, o.targets)
	for _, t := range o.targets {
		t.met = o.met
	}
	return o, nil
}

func (o *Outbox) newSender(t Target) (sender, error) {
	if t.Kind == Directory {
		return newDirectory(o, t)
	}
	return newWebhook(o, t)
}

// Submit spools an event for every target; it is durable when Submit returns. Submitting an event
// again does nothing, and neither does one whose newer revision was received. It returns [ErrEvent],
// [ErrTooLarge], [ErrFull], or the disk's error.
func (o *Outbox) Submit(ctx context.Context, h session.HandOver) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e, err := newEvent(h)
	if err == nil {
		err = o.fits(e)
	}
	if err != nil {
		o.met.refused.WithLabelValues("invalid").Inc()
		return err
	}
	var errs []error
	for _, t := range o.targets {
		errs = append(errs, t.submit(e))
	}
	if err := errors.Join(errs...); err != nil {
		o.met.refused.WithLabelValues(refusal(err)).Inc()
		return err
	}
	return nil
}

func refusal(err error) string {
	if errors.Is(err, ErrFull) {
		return "full"
	}
	return "disk"
}

func (o *Outbox) fits(e Event) error {
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEvent, err)
	}
	if len(b) > o.cfg.MaxEvent {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(b))
	}
	return nil
}

// Run delivers until ctx ends.
func (o *Outbox) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, t := range o.targets {
		g.Go(func() error { t.run(ctx); return nil })
	}
	g.Go(func() error { o.sweep(ctx); return nil })
	return g.Wait()
}

func (o *Outbox) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		for _, t := range o.targets {
			if err := t.files.forget(time.Now().Add(-receiptsFor)); err != nil {
				o.log.Error("old receipts could not be deleted", "target", t.cfg.Name, "err", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Item is an event in the spool or among the dead.
type Item struct {
	Target   string    `json:"target"`
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	CallID   string    `json:"call_id"`
	Since    time.Time `json:"since"`
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next"`
	Error    string    `json:"error,omitempty"`
}

// List returns what waits to be delivered, the oldest first.
func (o *Outbox) List() ([]Item, error) {
	return o.items(func(t *target) string { return t.files.waiting })
}

// Dead returns what was given up, the oldest first.
func (o *Outbox) Dead() ([]Item, error) {
	return o.items(func(t *target) string { return t.files.dead })
}

func (o *Outbox) items(dir func(*target) string) ([]Item, error) {
	var all []Item
	for _, t := range o.targets {
		entries, _, err := list(dir(t)) // New told of the broken ones
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			all = append(all, Item{Target: t.cfg.Name, ID: e.Event.key(), Type: e.Event.Type, CallID: e.Event.CallID,
				Since: e.Since, Attempts: e.Attempts, Next: e.Next, Error: e.Error})
		}
	}
	slices.SortFunc(all, func(a, b Item) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all, nil
}

// Retry takes a dead event up again for every target that gave it up. It returns [ErrNotFound], or
// [ErrSuperseded] when a target has a newer revision.
func (o *Outbox) Retry(id string) error {
	found := false
	var errs []error
	for _, t := range o.targets {
		e, err := t.files.getDead(filepath.Base(id))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		found = true
		if err == nil {
			err = t.retry(e)
		}
		errs = append(errs, err)
	}
	if !found {
		return fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return errors.Join(errs...)
}
