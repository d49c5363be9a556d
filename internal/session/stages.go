package session

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// reserve answers a call that came when every ordinary place was taken: it is told so, and has the
// emergency exit for a short while.
func (s *story) reserve(ctx context.Context) error {
	ctx, release := s.enter(ctx, StageReserve, s.m.cfg.ReserveLimit)
	defer release()
	s.reason, s.outcome = call.EndFull, OutcomeRefused
	limited, stop := context.WithTimeoutCause(ctx, s.m.cfg.ReserveLimit, errLimit)
	defer stop()
	for {
		if err := s.say(limited, false, "full_20s"); err != nil {
			return s.limit(err)
		}
	}
}

// errLimit ends a stage that may not last longer.
var errLimit = errors.New("session: the stage's time is over")

// limit turns the end of a stage's time into the plain end of the call.
func (s *story) limit(err error) error {
	if errors.Is(err, errLimit) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	if _, danger := errors.AsType[*errDanger](err); danger {
		s.reason, s.outcome = "", OutcomeNone
	}
	return err
}

// leaseWait holds a third call of one number until a call of that number ends.
func (s *story) leaseWait(ctx context.Context) error {
	ctx, release := s.enter(ctx, StageLeaseWait, s.m.cfg.LeaseWait+2*speaking)
	defer release()
	if err := s.say(ctx, false, "lease_wait"); err != nil {
		return err
	}
	music := s.entertain(ctx, s.leg)
	defer music.stop()
	over := time.NewTimer(s.m.cfg.LeaseWait)
	defer over.Stop()
	again := time.NewTicker(2 * time.Second)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over.C:
			music.stop()
			s.reason, s.outcome = call.EndFull, OutcomeRefused
			return errors.Join(errLimit, s.say(ctx, false, "lease_end"))
		case <-again.C:
			v := s.m.Screener.Screen(ctx, s.screenRequest())
			if v.Decision == QueueLease {
				continue
			}
			s.judged(v)
			return nil
		}
	}
}

// suspended is the automatic path of a caller under a measure (Art. 29): the notice, with the
// emergency exit alive all through; then a message, an appeal, or a question about progress.
func (s *story) suspended(ctx context.Context) error {
	ctx, release := s.enter(ctx, StageSuspended, s.m.cfg.SuspendedLimit)
	defer release()
	s.outcome = OutcomeSuspended
	limited, stop := context.WithTimeoutCause(ctx, s.m.cfg.SuspendedLimit, errLimit)
	defer stop()
	for range 3 {
		if err := s.notice(limited); err != nil {
			return s.limit(err)
		}
		key, err := s.voice.Key(limited, 8*time.Second)
		if errors.Is(err, ErrNoKey) {
			continue
		}
		if err != nil {
			return s.limit(err)
		}
		if kind, ok := leftBehind[key]; ok {
			return s.limit(s.leave(limited, kind))
		}
	}
	return s.limit(s.say(limited, false, "suspend_end"))
}

// leftBehind are the keys of the automatic path: what a suspended caller may leave.
var leftBehind = map[byte]string{'1': "message", '2': "appeal", '3': "progress"}

// notice says what the law asks: the decision, its clause and ground, its end, the emergency exit,
// the other channels and the appeal.
func (s *story) notice(ctx context.Context) error {
	m := s.verdict.Measure
	if err := s.say(ctx, false, "suspend_emerg"); err != nil {
		return err
	}
	clause := "notice_29_1"
	if m.Clause == "29-2" {
		clause = "notice_29_2"
	}
	return s.say(ctx, true, "notice_head", "digits:"+m.Decision, clause,
		"notice_until", "time:"+m.Until.Format(time.RFC3339), "notice_channels", "notice_appeal")
}

// leave records what a suspended caller has to say, marked with its kind; the hand-over carries it.
func (s *story) leave(ctx context.Context, kind string) error {
	s.flow.Data = map[string]string{"left": kind}
	if kind == "appeal" {
		s.appeal(ctx)
	}
	if err := s.say(ctx, false, "leave_msg", "beep"); err != nil {
		return err
	}
	length, err := s.voice.Message(ctx, s.m.cfg.MessageLimit)
	s.note("message", kind, map[string]string{"seconds": length.Round(time.Second).String()})
	if err != nil {
		return err
	}
	done := "msg_saved"
	if kind == "appeal" {
		done = "appeal_done"
	}
	return s.say(ctx, false, done)
}

// appeal lays the caller's appeal before the agency, before anything is said for it: who hangs up in the
// message has appealed all the same.
func (s *story) appeal(ctx context.Context) {
	if s.m.Conduct == nil {
		return
	}
	err := s.m.Conduct.Appeal(context.WithoutCancel(ctx), s.verdict.Measure.Decision, s.id)
	if err != nil {
		s.log.Error("an appeal was not recorded; it is in the recording alone", "err", err)
	}
	s.note("appeal", s.verdict.Measure.Decision, map[string]string{"recorded": strconv.FormatBool(err == nil)})
}

// transfer sends the caller where the flow says and stays between the two.
func (s *story) transfer(ctx context.Context, to call.Endpoint) error {
	ctx, release := s.pad.guard(ctx)
	defer release()
	s.stage(StageRing, farRing)
	music := s.entertain(ctx, s.leg)
	opts := call.DialOptions{Caller: s.info.Caller, Form: call.FormFrom, Token: s.id}
	if s.info.Withheld { // RFC 3323: the far side is no emergency service
		opts.Caller, opts.Form = call.Number{}, call.FormSpoken
	}
	ringing, stop := context.WithTimeoutCause(ctx, farRing, errLimit)
	defer stop()
	far, err := s.m.Switch.Dial(ringing, to, opts)
	defer s.hangup(far)
	music.stop()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		s.note("transfer", "the far side did not answer; the caller goes to a person", map[string]string{"err": err.Error()})
		return s.queued(s.leg.Context(), QueueEntry{Queue: s.m.cfg.DefaultQueue, Reason: "transfer"})
	}
	// No agent hears the caller, so danger ends this talk; the far side has the keys, as a collection has.
	defer s.pad.set(keysCollecting)()
	s.dropOrders()
	s.stage(StageTalk, 0)
	s.record("talk")
	return s.converse(ctx, parties{service: far})
}

// farRing is how long the far side of a transfer may ring; then a person takes the call.
const farRing = time.Minute

// farewell is how long a party is waited for to confirm its end. The leg has ended either way, and a
// phone that is off must not keep an agent or a lease.
const farewell = 5 * time.Second

// hangup ends a leg that is not needed any more; nil is no leg.
func (s *story) hangup(leg call.Leg) {
	if leg == nil {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(leg.Context()), farewell)
	defer stop()
	if err := leg.Hangup(ctx, call.CauseNormal); err != nil && !errors.Is(err, call.ErrLegGone) {
		s.log.Warn("hang-up failed", "err", err)
	}
}

// entertainment is the hold music of a waiting party, and what is said in between.
type entertainment struct {
	leg    call.Leg
	cancel context.CancelFunc
	done   chan struct{}
	clips  chan []*call.Clip
}

// entertain plays hold music until stop is called or ctx ends.
func (s *story) entertain(ctx context.Context, leg call.Leg) *entertainment {
	ctx, cancel := context.WithCancel(ctx)
	e := &entertainment{leg: leg, cancel: cancel, done: make(chan struct{}), clips: make(chan []*call.Clip, 1)}
	go func() {
		defer close(e.done)
		_ = s.contain(func() error {
			for ctx.Err() == nil {
				e.between(ctx, s)
			}
			return nil
		})
	}()
	return e
}

// between is one stretch of music, ended by something to say.
func (e *entertainment) between(ctx context.Context, s *story) {
	playing, cut := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = s.contain(func() error { return e.leg.Loop(playing, s.m.Prompts.Music()...) }) // ends with ctx, or with the leg
	}()
	select {
	case clips := <-e.clips:
		cut()
		<-over
		_ = e.leg.Play(ctx, clips...) // news of the place; whoever waits waits on without it
	case <-ctx.Done():
		cut()
		<-over
	}
}

// say speaks between the music, unless something is waiting to be said already.
func (e *entertainment) say(clips []*call.Clip) {
	select {
	case e.clips <- clips:
	default:
	}
}

func (e *entertainment) stop() {
	e.cancel()
	<-e.done
}
