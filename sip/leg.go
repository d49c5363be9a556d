package sip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/media"
	"github.com/hotline12345/gateway/sip/trunk"
)

// The channels of a leg; a value too many takes the oldest's place and is counted.
const (
	maxDigits = 64
	maxEvents = 16
)

// leg is one party's end of a call. It implements [call.Leg].
type leg struct {
	sw      *Switch
	line    *line
	dialog  *dialog.Call
	trunk   *trunk.Trunk // nil for a phone, and for another gateway
	node    string       // the other gateway, when it is one
	release func()       // gives the places in the caps back; nil for none
	log     *slog.Logger
	digits  chan call.Digit
	events  chan call.Event

	// signalling lets one of Progress, Answer and Reject at a time.
	signalling sync.Mutex
	early      bool
	answered   atomic.Bool
	counted    sync.Once // in the trunk's results
	asked      bool      // a re-INVITE asked for our offer; the dialog's goroutine alone uses it

	mu    sync.Mutex // guards what follows
	info  call.Info
	talk  *talk
	sound *media.Session // nil before Progress or Answer
	held  bool
	last  call.MediaStats // of a session that was closed
}

var _ call.Leg = (*leg)(nil)

// newLeg makes the leg of a dialog.
func (s *Switch) newLeg(l *line, c *dialog.Call, info call.Info) *leg {
	info.WireID = c.Request().CallID().Value() // a dialog has its name when its INVITE left, the INVITE before
	if info.ID == "" {                         // not ours: the party chose the Call-ID
		info.ID = newID()
		for _, m := range s.ids.set(info.WireID, info.ID) {
			s.tellLadder(info.ID, m)
		}
	}
	info.Peer, info.At = c.Peer(), time.Now()
	return &leg{sw: s, line: l, dialog: c, info: info, log: s.log.With("call", info.ID),
		digits: make(chan call.Digit, maxDigits), events: make(chan call.Event, maxEvents)}
}

// Info implements [call.Leg].
func (l *leg) Info() call.Info {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.info
}

// Context implements [call.Leg].
func (l *leg) Context() context.Context { return l.dialog.Context() }

// Digits implements [call.Leg].
func (l *leg) Digits() <-chan call.Digit { return l.digits }

// Events implements [call.Leg].
func (l *leg) Events() <-chan call.Event { return l.events }

// Reject implements [call.Leg].
func (l *leg) Reject(ctx context.Context, cause call.Cause) error {
	l.signalling.Lock()
	defer l.signalling.Unlock()
	switch {
	case l.Context().Err() != nil:
		return l.gone()
	case l.answered.Load():
		return call.ErrAnswered
	}
	l.count(trunk.ResultOf(cause.Status()))
	return l.dialog.Reject(ctx, cause.Status(), "", l.sw.refusalHeaders(cause)...)
}

// Progress implements [call.Leg]. A second Progress does nothing.
func (l *leg) Progress(ctx context.Context) error {
	l.signalling.Lock()
	defer l.signalling.Unlock()
	switch {
	case l.answered.Load():
		return call.ErrAnswered
	case l.early:
		return nil
	case l.talk.delayed: // RFC 3261 section 13.2.1: an offer goes in a reliable response alone
		return fmt.Errorf("sip: early media for a call without an offer: %w", call.ErrUnsupported)
	}
	sdp, err := l.open(ctx)
	if err != nil {
		return err
	}
	l.early = true
	return l.dialog.Provisional(ctx, 183, sdp)
}

// Answer implements [call.Leg].
func (l *leg) Answer(ctx context.Context) error {
	l.signalling.Lock()
	defer l.signalling.Unlock()
	switch {
	case l.Context().Err() != nil:
		return l.gone()
	case l.answered.Load():
		return nil
	}
	sdp, err := l.open(ctx)
	if err != nil {
		return err
	}
	if err := l.dialog.Answer(ctx, sdp); err != nil {
		return err
	}
	if err := l.completed(); err != nil {
		return err
	}
	l.answered.Store(true)
	l.count(trunk.Answered)
	return nil
}

// count notes, once, how an incoming call of a trunk came out.
func (l *leg) count(r trunk.Result) {
	if l.trunk != nil && l.dialog.Incoming() {
		l.counted.Do(func() { l.trunk.Count(call.Incoming, r) })
	}
}

// open opens the leg's media once, and returns the description that goes with 183 and 200. A leg that
// cannot have media is refused.
func (l *leg) open(ctx context.Context) ([]byte, error) {
	l.mu.Lock()
	opened, t := l.sound != nil, l.talk
	l.mu.Unlock()
	if opened {
		return t.local, nil
	}
	sound, err := l.sw.session(l.info.ID, l.line.at == atNodes, l.info.Reserve)
	if err != nil {
		return nil, l.refuse(ctx, call.CauseCongestion, err)
	}
	if t.delayed { // RFC 3261 section 13.3.1.4: the 200 offers, the ACK answers
		sdp := t.offer(sound.LocalPort())
		l.join(sound)
		return sdp, nil
	}
	sdp, params, held, err := t.answer(t.theirs, sound.LocalPort())
	if err == nil {
		err = sound.Remote(l.allow(params))
	}
	if err != nil {
		sound.Close()
		return nil, l.refuse(ctx, call.CauseCodec, err)
	}
	l.join(sound)
	l.settled(params, held)
	return sdp, nil
}

// completed takes the answer of the ACK to a call that came without an offer.
func (l *leg) completed() error {
	if !l.talk.delayed {
		return nil
	}
	params, held, err := l.talk.accept(l.dialog.AckBody())
	if err == nil {
		err = l.with(func(s *media.Session) error { return s.Remote(l.allow(params)) })
	}
	if err != nil {
		l.end(call.Ended{Cause: call.CauseCodec})
		return fmt.Errorf("sip: the answer of the ACK: %w", err)
	}
	l.settled(params, held)
	return nil
}

// refuse ends a leg that cannot have media, and returns why.
func (l *leg) refuse(ctx context.Context, cause call.Cause, why error) error {
	l.sw.metrics.refused.WithLabelValues("media").Inc()
	l.count(trunk.ResultOf(cause.Status()))
	if err := l.dialog.Reject(ctx, cause.Status(), "", l.sw.refusalHeaders(cause)...); err != nil && l.Context().Err() == nil {
		l.log.Warn("a refusal was not sent", "error", err)
	}
	return fmt.Errorf("sip: no media for the call: %w", why)
}

// join gives the leg its session. One that ended meanwhile closes it.
func (l *leg) join(sound *media.Session) {
	l.mu.Lock()
	l.sound = sound
	l.mu.Unlock()
	sound.OnDigit(l.press)
	sound.OnTimeout(func() {
		l.end(call.Ended{Cause: call.CauseMediaTimeout, Reason: call.EndMediaTimeout})
	})
	if l.Context().Err() != nil {
		l.silence()
	}
}

// press tells a key; it must not block.
func (l *leg) press(d call.Digit) {
	for {
		select {
		case l.digits <- d:
			return
		default:
		}
		select {
		case <-l.digits:
			l.sw.metrics.digitsDropped.Inc()
		default:
		}
	}
}

// tell tells an event; it must not block.
func (l *leg) tell(kind call.EventKind, target string) {
	e := call.Event{Kind: kind, Target: target, At: time.Now()}
	for {
		select {
		case l.events <- e:
			return
		default:
		}
		select {
		case <-l.events:
			l.sw.metrics.eventsDropped.Inc()
		default:
		}
	}
}

// Play implements [call.Leg].
func (l *leg) Play(ctx context.Context, clips ...*call.Clip) error {
	return l.with(func(s *media.Session) error { return s.Play(ctx, clips...) })
}

// Loop implements [call.Leg].
func (l *leg) Loop(ctx context.Context, clips ...*call.Clip) error {
	return l.with(func(s *media.Session) error { return s.Loop(ctx, clips...) })
}

// Tap implements [call.Leg].
func (l *leg) Tap(sink call.AudioSink) (detach func(), err error) {
	err = l.with(func(s *media.Session) error {
		detach, err = s.Tap(sink)
		return err
	})
	return detach, err
}

// with runs an act on the leg's media, and tells the end of the leg in place of its media's.
func (l *leg) with(act func(*media.Session) error) error {
	l.mu.Lock()
	s := l.sound
	l.mu.Unlock()
	switch {
	case l.Context().Err() != nil:
		return l.gone()
	case s == nil:
		return call.ErrNotAnswered
	}
	err := act(s)
	if errors.Is(err, media.ErrClosed) {
		<-l.Context().Done() // the leg's end alone closes its media
		return l.gone()
	}
	return err
}

// gone is why the leg has ended.
func (l *leg) gone() error { return context.Cause(l.Context()) }

// Stats implements [call.Leg].
func (l *leg) Stats() call.MediaStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sound == nil {
		return l.last
	}
	return l.sound.Stats()
}

// Hangup implements [call.Leg].
func (l *leg) Hangup(ctx context.Context, cause call.Cause) error {
	return l.bye(ctx, call.Ended{Cause: cause})
}

// end ends the leg within goodbye.
func (l *leg) end(e call.Ended) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	if err := l.bye(ctx, e); err != nil {
		l.log.Warn("the party did not confirm the end of the call", "error", err)
	}
}

func (l *leg) bye(ctx context.Context, e call.Ended) error {
	if l.Context().Err() != nil {
		return nil //nolint:nilerr // the call has ended before: nothing to do
	}
	if l.dialog.Incoming() && !l.answered.Load() && e.Cause == call.CauseNormal {
		e.Cause = call.CauseTempUnavailable // 480: there is no BYE for a call that was never answered
	}
	return l.dialog.End(ctx, e)
}

// watch sees to what the end of the leg frees.
func (l *leg) watch() {
	context.AfterFunc(l.Context(), func() {
		if e, ok := errors.AsType[*call.Ended](l.gone()); ok && e.Remote {
			l.count(trunk.Cancelled)
		}
		l.count(trunk.Failed)
		l.silence()
		l.drop()
		l.sw.forget(l)
	})
}

// silence closes the leg's media and keeps its last figures.
func (l *leg) silence() {
	l.mu.Lock()
	s := l.sound
	l.sound = nil
	if s != nil {
		l.last = s.Stats()
	}
	stats := l.last
	l.mu.Unlock()
	if s == nil {
		return
	}
	s.Close()
	l.sw.metrics.leg(l.label(), stats)
}

// label is what the metrics call the leg's far side.
func (l *leg) label() string {
	switch {
	case l.trunk != nil:
		return l.trunk.Name
	case l.line.at == atNodes:
		return nodesLabel
	}
	return phonesLabel
}

// drop gives the places in the caps back.
func (l *leg) drop() {
	if l.release != nil {
		l.release()
		l.release = nil
	}
}
