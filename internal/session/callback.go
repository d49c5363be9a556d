package session

import (
	"context"
	"errors"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hotline12345/gateway/internal/call"
)

// maxCallBacks bounds the callers who are called back at one time. Each has an agent, so that a node
// comes here by a fault alone.
const maxCallBacks = 500

// CallBack calls a caller back who is owed it: the person's phone rings first, then the caller's. It returns
// the identity of the call once task and agent are reserved; the call goes on by itself. It fails as
// [CallBacks.TakeCallBack] does, with ErrCallBackOff and with ErrCallBacksFull.
func (m *Manager) CallBack(ctx context.Context, task, person string) (callID string, err error) {
	if m.CallBacks == nil || m.cfg.CallBack.Trunk == "" {
		return "", ErrCallBackOff
	}
	if err := m.room(); err != nil {
		m.metrics.callBacks.WithLabelValues(resultRefused).Inc()
		return "", err
	}
	callID = ulid.Make().String()
	t, err := m.CallBacks.TakeCallBack(ctx, task, person, callID)
	if err != nil {
		m.vacate()
		return "", err
	}
	stand := newAbsent(call.Info{ID: callID, Direction: call.Outgoing, Trunk: m.cfg.CallBack.Trunk,
		Caller: t.Number, Identity: call.Verified, At: time.Now()}) // a number that we call is who answers
	s := m.begin(stand, stand.Info())
	m.late.Go(func() {
		defer m.vacate()
		_ = m.contain(callID, func() error {
			defer s.close()
			s.callBack(t)
			return nil
		})
	})
	return callID, nil
}

// room takes a place among the callers who are called back; vacate gives it back.
func (m *Manager) room() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.exit.begun:
		return ErrCallBackOff
	case m.calling == maxCallBacks:
		return ErrCallBacksFull
	}
	m.calling++
	return nil
}

func (m *Manager) vacate() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calling--
}

// callBack is a call that the line places, from the agent's click to the hand-over. The caller is not
// counted for it in any way: no place is taken, and no occupation is metered.
func (s *story) callBack(t CallBackTask) {
	s.task, s.placed = &t, t.Entry.Arrived
	s.update(func(v *View) {
		v.Language, v.Queue, v.Reason = t.Entry.Language, t.Entry.Queue, ReasonCallBack
	})
	s.known()
	err := s.reached(s.leg.Context(), t)
	s.callBackEnded(CallBackAgentMissed) // unless it came out in another way before
	s.conclude(err)
}

// ReasonCallBack is the reason of a call that the line places, in a [View].
const ReasonCallBack = "callback"

// known asks admission what it knows of the caller, and gives the place back at once. A measure binds
// the caller's own calls and does not forbid to answer one that was missed; but the agent sees that it runs.
func (s *story) known() {
	v := s.m.Screener.Screen(s.leg.Context(), s.screenRequest())
	if v.Lease != nil {
		v.Lease.Release()
	}
	s.cdr.Decision = string(CalledBack)
	shown := CalledBack
	if v.Decision == IVROnly {
		shown = IVROnly
		s.note("screened", "a measure runs; the call back goes on, as it answers a call that was missed", nil)
	}
	s.update(func(w *View) { w.Decision, w.Banner = shown, v.Banner })
}

// reached rings the agent, then the caller, and joins them. The error is as that of served.
func (s *story) reached(ctx context.Context, t CallBackTask) error {
	s.reason = call.EndAgent // until the caller answers
	agent, err := s.ring(ctx, t.Ticket, t.Offer)
	if agent == nil {
		return s.givenUp(err)
	}
	defer s.hangup(agent)
	s.ticket, s.cdr.Agent = t.Ticket, t.Offer.Agent
	music := s.entertain(agent.Context(), agent)
	defer music.stop()
	music.say(s.m.Prompts.Say("zh", "callback_dial"))
	caller, err := s.ringCaller(ctx, agent, t.Number)
	if caller == nil {
		music.stop()
		_ = agent.Play(agent.Context(), s.m.Prompts.Say("zh", "callback_failed")...) // a courtesy
		s.complete(ctx, t.Offer, s.reason)
		s.offer = nil // nobody spoke: there is nothing to write up, or to hand over
		return s.givenUp(err)
	}
	s.met(caller)
	s.callBackEnded(CallBackAnswered)
	again, err := s.introduced(caller.Context(), t.Offer, agent, music)
	if !again {
		return err
	}
	return s.queued(caller.Context(), QueueEntry{Queue: t.Entry.Queue, Reason: "agent_lost", Front: s.cdr.Emergency != ""})
}

// introduced tells the caller who calls, and that it is recorded, and joins the agent. Again is as that of
// talk; a caller who answered does not pay for an agent who has left meanwhile.
func (s *story) introduced(ctx context.Context, o Offer, agent call.Leg, music *entertainment) (again bool, err error) {
	defer s.pad.set(keysHeeded)()
	s.record("notice")
	if err := s.say(ctx, false, "welcome", "rec_notice"); err != nil && ctx.Err() == nil {
		s.log.Error("the notice could not be played", "err", err)
	}
	music.stop()
	switch {
	case ctx.Err() != nil:
		s.complete(ctx, o, call.EndCaller)
		return false, context.Cause(ctx)
	case agent.Context().Err() != nil:
		s.complete(ctx, o, call.EndAgent)
		return true, nil
	}
	discard(agent.Digits()) // what was pressed while nobody listened
	return s.talk(ctx, o, parties{agent: agent})
}

// givenUp is the end of an attempt that somebody ended before the caller answered.
func (s *story) givenUp(err error) error {
	if e, ok := errors.AsType[*call.Ended](context.Cause(s.leg.Context())); ok {
		s.reason = call.EndLine
		if e.Reason != "" {
			s.reason = e.Reason
		}
	}
	return err
}

// ringCaller calls the caller, showing the hotline's number. The agent's end ends the attempt.
func (s *story) ringCaller(ctx context.Context, agent call.Leg, n call.Number) (call.Leg, error) {
	s.stage(StageRing, s.m.cfg.CallBack.Ring)
	s.note("callback", "ringing the caller", nil)
	ringing, stop := context.WithTimeoutCause(ctx, s.m.cfg.CallBack.Ring, errLimit)
	defer stop()
	defer context.AfterFunc(agent.Context(), stop)()
	caller, err := s.m.Switch.Dial(ringing, call.Endpoint{Kind: call.ToTrunk, Name: s.info.Trunk, Number: n.National()},
		call.DialOptions{Form: call.FormSpoken, Token: s.id})
	switch {
	case err == nil:
		return caller, nil
	case ctx.Err() != nil || agent.Context().Err() != nil:
		return nil, errLimit // as if the agent had not answered
	}
	dial, refused := errors.AsType[*call.DialError](err)
	result := CallBackFailed
	switch {
	case ringing.Err() != nil, refused && (dial.Cause == call.CauseNoAnswer || dial.Cause == call.CauseNoResponse):
		result = CallBackNoAnswer
	case refused && (dial.Cause == call.CauseBusy || dial.Status == 603):
		result = CallBackBusy
	}
	if refused {
		s.cdr.Cause = int(dial.Cause)
	}
	s.reason = call.EndLine
	s.note("callback", "the caller was not reached", map[string]string{"result": string(result), "err": err.Error()})
	s.callBackEnded(result)
	return nil, errLimit
}

// met puts the caller's own leg in place of the one that stood in for it.
func (s *story) met(caller call.Leg) {
	s.mu.Lock()
	stood := s.leg
	s.leg = caller
	s.mu.Unlock()
	if stood.Context().Err() != nil { // hung up in the moment of the answer
		s.hangup(caller)
	}
	s.hangup(stood)
	s.voice.leg = caller
	s.reason = ""
	s.cdr.Answered = time.Now()
	s.note("callback", "the caller answered", nil)
	s.listen()
	s.attend()
}

// callBackEnded tells the ledger how an attempt came out, once.
func (s *story) callBackEnded(result CallBackResult) {
	if s.told {
		return
	}
	s.told = true
	s.m.metrics.callBacks.WithLabelValues(string(result)).Inc()
	task, id := s.task.ID, s.id
	s.m.ledger.add(func(ctx context.Context) error { return s.m.CallBacks.EndCallBack(ctx, task, id, result) })
}

// absent stands in for the leg of a caller who has not answered yet. It lasts as long as the attempt.
type absent struct {
	info call.Info
	ctx  context.Context
	stop context.CancelCauseFunc
}

func newAbsent(info call.Info) *absent {
	a := &absent{info: info}
	a.ctx, a.stop = context.WithCancelCause(context.Background())
	return a
}

func (a *absent) end(why *call.Ended) { a.stop(why) }

func (a *absent) Info() call.Info                           { return a.info }
func (a *absent) Context() context.Context                  { return a.ctx }
func (a *absent) Reject(context.Context, call.Cause) error  { return call.ErrAnswered }
func (a *absent) Progress(context.Context) error            { return call.ErrNotAnswered }
func (a *absent) Answer(context.Context) error              { return call.ErrNotAnswered }
func (a *absent) Play(context.Context, ...*call.Clip) error { return call.ErrNotAnswered }
func (a *absent) Loop(context.Context, ...*call.Clip) error { return call.ErrNotAnswered }
func (a *absent) Digits() <-chan call.Digit                 { return nil }
func (a *absent) Events() <-chan call.Event                 { return nil }
func (a *absent) Tap(call.AudioSink) (func(), error)        { return nil, call.ErrNotAnswered }
func (a *absent) Stats() call.MediaStats                    { return call.MediaStats{} }
func (a *absent) Hangup(_ context.Context, cause call.Cause) error {
	a.end(&call.Ended{Cause: cause})
	return nil
}
