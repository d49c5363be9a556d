package session

import (
	"context"
	"errors"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// errLeaving interrupts callers who wait: the node leaves, and cannot serve them in time.
var errLeaving = errors.New("session: the node leaves")

// lastWords is how long before the node leaves callers who still wait are told so, if there is time.
const lastWords = 10 * time.Second

// exit is how the node leaves.
type exit struct {
	begun  bool            // no call back is begun any more
	timer  *time.Timer     // to the last words; nil for a node that stays
	speak  context.Context // ends when the last words are due
	hush   context.CancelFunc
	closed chan struct{} // the deadline is there
}

func newExit() exit {
	e := exit{closed: make(chan struct{})}
	e.stay()
	return e
}

// stay makes the last words ahead.
func (e *exit) stay() { e.speak, e.hush = context.WithCancel(context.Background()) }

// DrainBy says that the node leaves at a deadline, and the zero time that it stays after all. Nobody is
// called back any more. Callers who wait are served until shortly before the deadline; then they are told that
// they are called back, and leave.
func (m *Manager) DrainBy(deadline time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.exit.timer != nil {
		m.exit.timer.Stop()
	}
	m.exit.begun, m.exit.timer = !deadline.IsZero(), nil
	if !m.exit.begun {
		if m.exit.speak.Err() != nil {
			m.exit.stay()
		}
		return
	}
	left := time.Until(deadline)
	m.exit.timer = time.AfterFunc(left-min(left/2, lastWords), m.exit.hush)
}

// Drain ends every wrap-up and every attempt to call back at once: the process is about to leave.
func (m *Manager) Drain() {
	m.mu.Lock()
	select {
	case <-m.exit.closed:
	default:
		close(m.exit.closed)
	}
	m.exit.begun = true
	m.mu.Unlock()
	for _, s := range m.stories() {
		if nobody, ok := s.line().(*absent); ok {
			nobody.end(&call.Ended{Cause: call.CauseCongestion, Reason: call.EndDrained})
		}
	}
}

// leaving ends when the last words are due.
func (m *Manager) leaving() context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit.speak
}

// dismissed tells a caller who waits that the node leaves.
func (s *story) dismissed(ctx context.Context) error {
	ctx, release := s.pad.guard(ctx)
	defer release()
	s.reason = call.EndDrained
	s.lasts(speaking)
	said := "drain_bye" // it promises the call back
	if s.m.CallBacks == nil || s.snapshot().Stage == StageSuspended {
		said = "full_20s"
	}
	return s.say(ctx, false, said)
}
