package session

import (
	"cmp"
	"context"
	"encoding/json"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// On a backend whose legs outlive the gateway's process ([call.Adopter]) the books of a call that a kill cut are
// closed like those of any other: its recording ends there and is handed over. Its caller goes on in a call of
// its own, from where the first one stood: in the talk, when the agent is on the line still, with a recording of its
// own; in the flow at its node; in the queue at the old place.

// adoptFor is how long the backend has to take a caller up, before the line owes a call back.
const adoptFor = 15 * time.Second

// pledge is an agent who was in a talk when the last process ended: the talk may go on.
type pledge struct {
	ticket Ticket
	offer  Offer
}

// pledge is the offer by which an agent talks, as a checkpoint keeps it.
func (s *story) pledge() []byte {
	if s.far == "" {
		return nil
	}
	b, err := json.Marshal(s.offer)
	if err != nil {
		s.log.Error("the agent of a talk is not kept", "err", err)
	}
	return b
}

// Pledge keeps the agents of the last process's talks from other callers, until each talk is taken up or given up. It
// is called before the queue runs.
func (m *Manager) Pledge(ctx context.Context) error {
	if _, ok := m.Switch.(call.Rejoiner); !ok {
		return nil
	}
	points, err := m.Journal.Checkpoints(ctx)
	if err != nil {
		return err
	}
	for _, c := range points {
		var p pledge
		if len(c.Offer) == 0 || len(c.Record) > 0 || json.Unmarshal(c.Offer, &p.offer) != nil {
			continue
		}
		e := QueueEntry{CallID: c.QueueEntry, Queue: cmp.Or(c.Queue, m.cfg.DefaultQueue), Language: c.Language, Caller: m.opened(c), Arrived: c.Placed}
		if p.ticket, err = m.Queue.Resume(ctx, e, p.offer); err != nil {
			m.Log.Warn("an agent may be offered another caller in mid-talk", "call", c.CallID, "err", err)
			continue
		}
		m.mu.Lock()
		m.pledges[c.LegID] = p
		m.mu.Unlock()
	}
	return nil
}

// pledged is the agent of a leg's talk, once.
func (m *Manager) pledged(legID string) (pledge, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.pledges[legID]
	delete(m.pledges, legID)
	return p, ok
}

// release frees the agent of a talk that does not go on.
func (m *Manager) release(ctx context.Context, legID string) {
	p, ok := m.pledged(legID)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := p.ticket.Complete(ctx, p.offer, call.EndNodeLost); err != nil {
		m.Log.Warn("the end of a talk was not taken; the sweep will free the agent", "err", err)
	}
}

// forgoOthers frees the agents of the talks that ended before the process did.
func (m *Manager) forgoOthers(ctx context.Context) {
	m.mu.Lock()
	var over []string
	for legID := range m.pledges {
		if _, cut := m.cut[legID]; !cut {
			over = append(over, legID)
		}
	}
	m.mu.Unlock()
	for _, legID := range over {
		m.release(ctx, legID)
	}
}

// Cut gives the checkpoint of a call of the last process whose caller may be on the line still, by the caller's
// leg. It gives each once.
func (m *Manager) Cut(legID string) (*call.Checkpoint, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.cut[legID]
	delete(m.cut, legID)
	return &c, ok
}

// owesUnlessAdopted notes a debt when the caller was not taken up in time; nil is none.
func (m *Manager) owesUnlessAdopted(c call.Checkpoint, owe func()) {
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
			m.release(context.Background(), c.LegID)
			owe()
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
	s.attend()
	s.update(func(v *View) { v.Language, v.Node = from.Language, from.FlowNode })
	s.note("adopted", "goes on from a call that the gateway's end had cut", map[string]string{"call": from.CallID, "stage": from.Stage})
}

// goesOn serves a caller from where the call stood that was cut.
func (s *story) goesOn(ctx context.Context, from *call.Checkpoint) error {
	p := s.rejoined(from)
	s.placed = from.Placed
	if from.Emergency != "" {
		s.cdr.Emergency, s.outcome, s.urgent = from.Emergency, OutcomeEmergency, true
		s.update(func(v *View) { v.Emergency, v.Alert = Service(from.Emergency), true })
	}
	pledge, pledged := s.m.pledged(from.LegID)
	if pledged && p.agent == nil {
		s.forgo(ctx, pledge)
	}
	waits := QueueEntry{Queue: cmp.Or(from.Queue, s.m.cfg.DefaultQueue), Language: from.Language, Front: from.Emergency != ""}
	switch {
	case pledged && p.agent != nil:
		s.ticket, s.offer, s.cdr.Queue, s.cdr.Queued = pledge.ticket, &pledge.offer, from.Queue, from.Placed
		s.update(func(v *View) { v.Queue, v.Agent, v.Extension = from.Queue, pledge.offer.Agent, pledge.offer.Extension })
		again, err := s.talk(ctx, pledge.offer, p)
		if !again {
			return err
		}
		waits.Reason = "agent_lost"
		return s.queued(ctx, waits)
	case p.service != nil:
		return s.serve(ctx, p)
	}
	s.endAll(p)
	switch Stage(from.Stage) {
	case StageQueue, StageRing, StageTalk:
		return s.queued(ctx, waits)
	case StageEmergency, StageService:
		return &errDanger{Service: Service(from.Emergency), At: time.Now()}
	case StageFlow:
		if s.verdict.Decision != IVROnly {
			return s.walk(ctx, FlowPoint{Node: from.FlowNode, Language: from.Language})
		}
	default: // the call begins anew
	}
	return s.admitted(ctx)
}

// forgo frees the agent of a talk whose phone has gone.
func (s *story) forgo(ctx context.Context, p pledge) {
	s.ticket = p.ticket
	s.complete(ctx, p.offer, call.EndNodeLost)
}

// rejoined is who is joined with the caller still.
func (s *story) rejoined(from *call.Checkpoint) (p parties) {
	keeps, ok := s.m.Switch.(call.Rejoiner)
	if !ok {
		return p
	}
	bridge, legs := keeps.Rejoin(s.leg)
	p.bridge = bridge
	for _, leg := range legs {
		switch {
		case leg.Info().ID == from.AgentLeg && p.agent == nil:
			p.agent = leg
		case leg.Info().Trunk != "" && p.service == nil:
			p.service = leg
		default:
			s.hangup(leg)
		}
	}
	return p
}

// endAll leaves the caller alone.
func (s *story) endAll(p parties) {
	s.hangup(p.agent)
	s.hangup(p.service)
	if p.bridge == nil {
		return
	}
	if err := p.bridge.Close(); err != nil {
		s.log.Warn("bridge not closed", "err", err)
	}
}
