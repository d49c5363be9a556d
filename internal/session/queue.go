package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// queued is the wait for an agent, and the talk when one came. A caller keeps the first place in
// every return to the queue.
func (s *story) queued(ctx context.Context, e QueueEntry) error {
	e = s.waiting(e)
	for {
		offer, agent, err := s.wait(ctx, e)
		if err != nil {
			return err
		}
		again, err := s.talk(ctx, offer, parties{agent: agent})
		if !again {
			return err
		}
		// The agent's phone failed in mid-talk: the caller is not to blame and goes on waiting.
		e.Arrived, e.Reason, e.Front = s.placed, "agent_lost", e.Front || s.cdr.Emergency != ""
	}
}

// waiting is an entry of this caller.
func (s *story) waiting(e QueueEntry) QueueEntry {
	e.CallID, e.Caller, e.Arrived = s.id, s.reachable(), s.placed
	if e.Language == "" {
		e.Language = s.snapshot().Language
	}
	return e
}

// wait enters the queue and returns the agent who answered.
func (s *story) wait(ctx context.Context, e QueueEntry) (Offer, call.Leg, error) {
	ctx, release := s.enter(ctx, StageQueue, 0)
	defer release()
	s.phase(PhaseQueue)
	if s.placed.IsZero() {
		s.placed = time.Now()
	}
	if s.cdr.Queued.IsZero() {
		s.cdr.Queued = time.Now()
	}
	s.update(func(v *View) { v.Queue, v.Reason, v.Agent, v.Extension = e.Queue, e.Reason, "", "" })
	ticket, err := s.m.Queue.Enter(ctx, e)
	if err != nil {
		return Offer{}, nil, s.noQueue(ctx, err)
	}
	s.ticket, s.cdr.Queue = ticket, e.Queue
	s.note("queue", "ENTERQUEUE", map[string]string{"queue": e.Queue, "reason": e.Reason})
	s.checkpoint()
	offer, agent, err := s.hunt(ctx, ticket)
	if err != nil {
		s.ticket = nil
		s.leaveQueue(ctx, ticket)
	}
	return offer, agent, err
}

// noQueue tells a caller who cannot wait why, and ends the call. Danger is still heard.
func (s *story) noQueue(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	s.note("queue", "no place in the queue", map[string]string{"err": err.Error()})
	s.reason, s.outcome = call.EndFull, OutcomeRefused
	said := "q_full"
	if !errors.Is(err, ErrQueueFull) {
		s.reason, s.outcome, said = call.EndFault, OutcomeFault, "sys_error"
		s.log.Error("the caller could not enter a queue", "err", err)
	}
	if err := s.say(ctx, false, said, "full_20s"); err != nil {
		return s.limit(err)
	}
	return errLimit
}

func (s *story) leaveQueue(ctx context.Context, t Ticket) {
	why := LeaveAbandon
	cause := context.Cause(ctx)
	ended, _ := errors.AsType[*call.Ended](cause)
	if _, danger := errors.AsType[*errDanger](cause); danger {
		why = LeaveEmergency
	} else {
		s.outcome, s.noted = OutcomeAbandoned, true
		if ended != nil && ended.Reason == call.EndDrained || errors.Is(cause, errLeaving) {
			why = LeaveDrained
		}
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := t.Leave(after, why); err != nil {
		s.log.Warn("the place in the queue was not given back; the sweep will", "err", err)
	}
	s.note("queue", string(why), nil)
}

// hunt waits for offers and rings their agents until one answers.
func (s *story) hunt(ctx context.Context, t Ticket) (Offer, call.Leg, error) {
	music := s.entertain(ctx, s.leg)
	defer music.stop()
	var told news
	told.every = s.m.cfg.PositionEvery
	for {
		select {
		case <-ctx.Done():
			return Offer{}, nil, context.Cause(ctx)
		case u := <-t.Updates():
			s.update(func(v *View) { v.Position = u.Position })
			if u.Offer == nil {
				if parts := told.of(u, time.Now()); parts != nil {
					music.say(s.m.Prompts.Say(s.snapshot().Language, parts...))
				}
				continue
			}
			agent, err := s.ring(ctx, t, *u.Offer)
			if agent != nil || err != nil {
				return *u.Offer, agent, err
			}
			s.stage(StageQueue, 0)
		}
	}
}

// ring calls an agent's phone. A nil leg and a nil error mean: wait on.
func (s *story) ring(ctx context.Context, t Ticket, o Offer) (call.Leg, error) {
	s.update(func(v *View) { v.Agent, v.Extension = o.Agent, o.Extension })
	s.stage(StageRing, o.Ring)
	s.note("offer", "ringing "+o.Extension, map[string]string{"agent": o.Agent})
	ringing, cancel := context.WithTimeoutCause(ctx, o.Ring, errLimit)
	defer cancel()
	leg, err := s.m.Switch.Dial(ringing, call.Endpoint{Kind: call.ToExtension, Name: o.Extension}, call.DialOptions{
		Caller: s.info.Caller, Masked: s.shown(), Display: s.display(), Token: s.id, Exclusive: true,
	})
	if err == nil {
		err = t.Accept(context.WithoutCancel(ctx), o)
		if err == nil {
			s.offer = &o
			s.note("queue", "CONNECT", map[string]string{"agent": o.Agent})
			return leg, nil
		}
		s.hangup(leg)
		s.note("offer", "the agent answered too late", nil)
		if errors.Is(err, ErrFenced) {
			s.update(func(v *View) { v.Agent, v.Extension = "", "" })
			return nil, nil
		}
		s.log.Warn("the answer was not taken", "err", err)
	}
	why := s.declined(ctx, ringing, err)
	if by, ok := errors.AsType[*call.Engaged](err); ok {
		o.Holder = by.Token
	}
	s.note("queue", "RINGNOANSWER", map[string]string{"agent": o.Agent, "why": string(why)})
	after, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	if err := t.Decline(after, o, why); err != nil && !errors.Is(err, ErrFenced) {
		s.log.Warn("the decline was not taken; the sweep will free the agent", "err", err)
	}
	s.update(func(v *View) { v.Agent, v.Extension = "", "" })
	return nil, context.Cause(ctx)
}

func (s *story) declined(ctx, ringing context.Context, err error) DeclineReason {
	dial, refused := errors.AsType[*call.DialError](err)
	_, engaged := errors.AsType[*call.Engaged](err)
	switch {
	case ctx.Err() != nil:
		return DeclineCancelled
	case engaged:
		return DeclineEngaged
	case ringing.Err() != nil:
		return DeclineNoAnswer
	case refused && (dial.Cause == call.CauseBusy || dial.Cause == call.CauseRejected):
		return DeclineRejected
	case refused && (dial.Cause == call.CauseNoAnswer || dial.Cause == call.CauseNoResponse):
		return DeclineNoAnswer
	default:
		return DeclineUnreachable
	}
}

// display is what the agent's phone shows: why the caller is here, in one short word.
func (s *story) display() string {
	v := s.snapshot()
	if v.Emergency != "" {
		return "12345 " + string(v.Emergency)
	}
	return "12345 " + v.Caller
}

// news decides what a waiting caller is told of the place: bands, not numbers, and never a worse one
// than was told before.
type news struct {
	every time.Duration
	last  time.Time
	told  bool
	place int // of placeBands
	wait  int // of waitBands
}

type placeBand struct {
	ahead int // at least
	say   string
}

// placeBands are the places that are told, the best last.
var placeBands = []placeBand{{31, "q_many"}, {11, "q_tens"}, {5, "q_ten"}, {1, "q_few"}, {0, "q_next"}}

// waitBands are the waits that are told, the best last.
var waitBands = []struct {
	over time.Duration // the estimate is longer
	say  []string
}{{10 * time.Minute, []string{"q_wait_long"}}, {5 * time.Minute, []string{"q_wait_a", "minutes:10"}},
	{2 * time.Minute, []string{"q_wait_a", "minutes:5"}}, {time.Minute, []string{"q_wait_a", "minutes:2"}}, {0, []string{"q_wait_1"}}}

// of is what to say of an update now; nil is nothing.
func (n *news) of(u QueueUpdate, now time.Time) []string {
	if u.Position <= 0 || n.told && now.Sub(n.last) < n.every {
		return nil
	}
	place := slices.IndexFunc(placeBands, func(b placeBand) bool { return u.Position-1 >= b.ahead })
	if n.told && place <= n.place {
		return nil
	}
	var parts []string
	if !n.told {
		parts = append(parts, "all_busy")
	}
	parts = append(parts, placeBands[place].say)
	if wait := waitBand(u.Wait); wait > 0 && (!n.told || wait > n.wait) && place < len(placeBands)-1 {
		n.wait = wait
		parts = append(parts, waitBands[wait-1].say...)
	}
	n.told, n.place, n.last = true, place, now
	return parts
}

// waitBand is the band of an estimate, counted from 1; 0 is none.
func waitBand(d time.Duration) int {
	for i, b := range waitBands {
		if d > b.over {
			return i + 1
		}
	}
	return 0
}
