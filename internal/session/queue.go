package session

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// queued is the wait for an agent, and the talk when one came. A caller keeps the first place in
// every return to the queue.
func (s *story) queued(ctx context.Context, e QueueEntry) error {
	e.CallID, e.Caller, e.Arrived = s.id, s.info.Caller, s.placed
	if e.Language == "" {
		e.Language = s.snapshot().Language
	}
	for {
		offer, agent, err := s.wait(ctx, e)
		if err != nil {
			return err
		}
		again, err := s.talk(ctx, offer, agent)
		if !again {
			return err
		}
		// The agent's phone failed in mid-talk: the caller is not to blame and goes on waiting.
		e.Arrived, e.Reason = s.placed, "agent_lost"
	}
}

// wait enters the queue and returns the agent who answered.
func (s *story) wait(ctx context.Context, e QueueEntry) (Offer, call.Leg, error) {
	ctx, release := s.enter(ctx, StageQueue)
	defer release()
	s.phase(PhaseQueue)
	if s.placed.IsZero() {
		s.placed = time.Now()
		s.cdr.Queued = s.placed
	}
	ticket, err := s.m.Queue.Enter(ctx, e)
	if err != nil {
		return Offer{}, nil, s.noQueue(ctx, err)
	}
	s.ticket, s.cdr.Queue = ticket, e.Queue
	s.update(func(v *View) { v.Queue, v.Reason, v.Agent, v.Extension = e.Queue, e.Reason, "", "" })
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
	if !errors.Is(err, ErrQueueFull) {
		s.reason, s.outcome = call.EndFault, OutcomeFault
		s.log.Error("the caller could not enter a queue", "err", err)
	}
	if err := s.say(ctx, false, "full_20s"); err != nil {
		return s.limit(err)
	}
	return errLimit
}

func (s *story) leaveQueue(ctx context.Context, t Ticket) {
	why := LeaveAbandon
	if _, danger := errors.AsType[*errDanger](context.Cause(ctx)); danger {
		why = LeaveEmergency
	} else {
		s.outcome = OutcomeAbandoned
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
	music := s.entertain(ctx)
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
			s.stage(StageQueue)
		}
	}
}

// ring calls an agent's phone. A nil leg and a nil error mean: wait on.
func (s *story) ring(ctx context.Context, t Ticket, o Offer) (call.Leg, error) {
	s.update(func(v *View) { v.Agent, v.Extension = o.Agent, o.Extension })
	s.stage(StageRing)
	s.note("offer", "ringing "+o.Extension, map[string]string{"agent": o.Agent})
	ringing, cancel := context.WithTimeoutCause(ctx, o.Ring, errLimit)
	defer cancel()
	leg, err := s.m.Switch.Dial(ringing, call.Endpoint{Kind: call.ToExtension, Name: o.Extension}, call.DialOptions{
		Caller: s.info.Caller, Masked: s.info.Caller.Masked(), Display: s.display(), Token: s.id,
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
	switch {
	case ctx.Err() != nil:
		return DeclineCancelled
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

// news decides what a waiting caller is told: the place when it got better, the time in bands, and
// never worse than what was told before.
type news struct {
	every    time.Duration
	last     time.Time
	position int
	band     int // the told upper end in minutes; 0 for none
}

// bands are the waits that are told, in minutes: "about" the least that holds the estimate.
var bands = []int{1, 2, 5, 10, 15, 20, 30}

func (n *news) of(u QueueUpdate, now time.Time) []string {
	if u.Position <= 0 || now.Sub(n.last) < n.every {
		return nil
	}
	better := n.position == 0 || u.Position < n.position
	if !better {
		return nil
	}
	first := n.position == 0
	n.position, n.last = u.Position, now
	if u.Position == 1 {
		if first {
			return []string{"all_busy", "q_next"}
		}
		return []string{"q_next"}
	}
	parts := []string{"q_pos_a", fmt.Sprintf("count:%d", u.Position-1), "q_pos_b"}
	if first {
		parts = append([]string{"all_busy"}, parts...)
	}
	if band := bandOf(u.Wait); band > 0 && (n.band == 0 || band < n.band) {
		n.band = band
		parts = append(parts, "q_wait_a", "minutes:"+strconv.Itoa(band))
	}
	return parts
}

func bandOf(wait time.Duration) int {
	if wait <= 0 {
		return 0
	}
	for _, b := range bands {
		if wait <= time.Duration(b)*time.Minute {
			return b
		}
	}
	return 0
}
