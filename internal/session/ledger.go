package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// debt is why the line owes the caller a call that no queue has noted, or "". The rule stands in the
// package's documentation.
func (s *story) debt() string {
	v := s.snapshot()
	switch {
	case s.m.CallBacks == nil || s.noted || s.cdr.Answered.IsZero() || v.Stage == StageSuspended:
		return ""
	case s.reachable() == (call.Number{}):
		return ""
	case s.reason == call.EndFull && v.Stage != StageLeaseWait:
		return OwedFull
	case s.reason == call.EndDrained:
		return OwedDrained
	case s.reason == call.EndFault:
		return OwedFault
	case v.Alert && s.cdr.Connected.IsZero():
		return OwedEmergency
	}
	return ""
}

// reachable is the number that the caller can be called at. A spoofed one is somebody else's.
func (s *story) reachable() call.Number {
	if s.info.Identity == call.Spoof {
		return call.Number{}
	}
	return s.info.Caller
}

func (s *story) owedCall() OwedCall {
	v := s.snapshot()
	o := OwedCall{CallID: s.id, Queue: v.Queue, Language: v.Language, Caller: s.info.Caller, Arrived: s.placed,
		Left: s.cdr.Ended, Why: s.owed}
	return s.m.whole(o, v.Started)
}

// whole completes what is owed to a caller who never came to a queue.
func (m *Manager) whole(o OwedCall, started time.Time) OwedCall {
	if o.Queue == "" {
		o.Queue = m.cfg.DefaultQueue
	}
	if o.Arrived.IsZero() {
		o.Arrived = started
	}
	return o
}

// sealedCaller is the caller's number as a checkpoint keeps it.
func (s *story) sealedCaller() []byte {
	if s.m.Seal == nil || s.info.Caller == (call.Number{}) {
		return nil
	}
	return s.m.Seal(s.info.Caller)
}

// owe brings a debt to the ledger. The checkpoint stays until it is there, and longer if it has to.
func (m *Manager) owe(o OwedCall, last bool) {
	m.ledger.add(func(ctx context.Context) error {
		if err := m.CallBacks.Owe(ctx, o); err != nil {
			return err
		}
		if last {
			m.drop(ctx, o.CallID)
		}
		return nil
	})
}

// The bounds of the notes for the ledger. A debt that is dropped is in its call's checkpoint still.
const (
	maxNotesForLedger = 10_000
	noteTries         = 100 // about an hour
	noteWait          = 3 * time.Second
	notePauseMost     = 30 * time.Second
)

// ledger brings notes to the ledger of call backs in their order, and keeps them while the store is away.
// No call waits for it.
type ledger struct {
	m *Manager

	mu      sync.Mutex
	notes   []func(context.Context) error
	running bool
}

// add brings a note to the ledger in its own time.
func (l *ledger) add(note func(context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.notes) == maxNotesForLedger {
		l.lost(errors.New("too many notes wait for it"))
		return
	}
	l.notes = append(l.notes, note)
	if !l.running {
		l.running = true
		l.m.late.Go(l.run)
	}
}

// run brings what there is.
func (l *ledger) run() {
	for note := l.next(); note != nil; note = l.next() {
		err := l.bring(note)
		if err != nil {
			l.lost(err)
		}
		if errors.Is(err, errLeaving) { // the store is away, and there is no time
			l.forget()
		}
	}
}

func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notes = nil
}

func (l *ledger) next() func(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.notes) == 0 {
		l.running = false
		return nil
	}
	note := l.notes[0]
	l.notes = l.notes[1:]
	return note
}

// bring tries until the ledger has an answer, the node leaves, or it has been tried often enough.
func (l *ledger) bring(note func(context.Context) error) (err error) {
	pause := time.Second
	for range noteTries {
		err = l.m.contain("", func() error {
			ctx, stop := context.WithTimeout(context.Background(), noteWait)
			defer stop()
			return note(ctx)
		})
		if err == nil || errors.Is(err, ErrNoTask) || errors.Is(err, ErrTaskTaken) || errors.Is(err, errPanic) {
			return nil // told, or without a meaning any more; a panic is told already
		}
		select {
		case <-time.After(pause):
		case <-l.m.exit.closed:
			return errors.Join(errLeaving, err)
		}
		pause = min(2*pause, notePauseMost)
	}
	return err
}

func (l *ledger) lost(err error) {
	l.m.metrics.faults.WithLabelValues("ledger").Inc()
	l.m.Log.Error("the ledger of call backs could not be told; the checkpoint keeps it for the next start", "err", err)
}

// crowd counts goroutines. It may grow while it is waited for, which a WaitGroup may not.
type crowd struct {
	mu    sync.Mutex
	n     int
	empty chan struct{} // closed when the last has left; nil while nobody waits
}

// enter counts one more, until leave is called.
func (c *crowd) enter() (leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.n--; c.n == 0 && c.empty != nil {
			close(c.empty)
			c.empty = nil
		}
	}
}

// Go runs f in a goroutine that is counted.
func (c *crowd) Go(f func()) {
	leave := c.enter()
	go func() { defer leave(); f() }()
}

// wait returns when nobody is left, or ctx ends.
func (c *crowd) wait(ctx context.Context) error {
	c.mu.Lock()
	if c.n == 0 {
		c.mu.Unlock()
		return nil
	}
	if c.empty == nil {
		c.empty = make(chan struct{})
	}
	empty := c.empty
	c.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
