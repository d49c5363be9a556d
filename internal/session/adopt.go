package session

import (
	"context"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// On a backend whose legs outlive the gateway's process ([call.Adopter]) the books of a call that a kill cut are
// closed like those of any other: its recording ends there and is handed over. Its caller goes on in a call of
// its own, from where the first one stood.

// adoptFor is how long the backend has to take a caller up, before the line owes a call back.
const adoptFor = 15 * time.Second

// Cut gives the checkpoint of a call of the last process whose caller may be on the line still, by the caller's
// leg. It gives each once.
func (m *Manager) Cut(legID string) (*call.Checkpoint, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.cut[legID]
	delete(m.cut, legID)
	return &c, ok
}

// owesUnlessAdopted notes a debt when the caller was not taken up in time.
func (m *Manager) owesUnlessAdopted(c call.Checkpoint, o OwedCall) {
	m.mu.Lock()
	m.cut[c.LegID] = c
	m.mu.Unlock()
	m.late.Go(func() {
		late := time.NewTimer(adoptFor)
		defer late.Stop()
		select {
		case <-late.C:
		case <-m.exit.closed:
		}
		if _, lost := m.Cut(c.LegID); lost {
			m.owe(o, true)
			return
		}
		m.drop(context.Background(), c.CallID)
	})
}

// adopted is the beginning of a call that goes on from one that was cut. Admission counts it, and refuses it
// nothing: the caller was let in.
func (s *story) adopted(ctx context.Context, from *call.Checkpoint) {
	v := s.m.Screener.Screen(ctx, s.screenRequest())
	if v.Decision == QueueLease || v.Decision == RejectNet {
		v.Decision = Admit
	}
	s.judged(v)
	s.cdr.Answered = time.Now()
	s.update(func(v *View) { v.Language = from.Language })
	s.note("adopted", "goes on from a call that the gateway's end had cut", map[string]string{"call": from.CallID})
}
