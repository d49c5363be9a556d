package asterisk

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// goodbye bounds the end of a leg.
const goodbye = 5 * time.Second

// leg is a channel of Asterisk's. It implements [call.Leg].
type leg struct {
	sw      *Switch
	channel string
	info    call.Info
	log     *slog.Logger
	ctx     context.Context
	cancel  context.CancelCauseFunc
	digits  chan call.Digit
	events  chan call.Event

	up       chan struct{}            // closed when a call that we placed was answered
	answer   func()                   // closes up
	progress func(step call.Progress) // of a call that we place; nil otherwise

	asked   atomic.Bool // of Asterisk; a call that we place is not there before
	bridged atomic.Bool // hears a bridge
	adopted bool        // of an earlier process
	playing sync.Mutex  // held while one playback takes the place of another; guards rounds and rest
	rounds  int         // of playbacks
	rest    string      // the playback behind the others; see hold.go

	mu       sync.Mutex
	answered bool
	media    bool
	play     *playback
	joined   *together   // until the handler asks
	closing  *call.Ended // by us; the hang-up is on its way
	stats    call.MediaStats
}

var _ call.Leg = (*leg)(nil)

func (s *Switch) newLeg(channel string, info call.Info) *leg {
	up := make(chan struct{})
	l := &leg{sw: s, channel: channel, info: info, log: s.log.With("call", info.ID),
		digits: make(chan call.Digit, 64), events: make(chan call.Event, 16),
		up: up, answer: sync.OnceFunc(func() { close(up) })}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	return l
}

// Info implements [call.Leg].
func (l *leg) Info() call.Info { return l.info }

// Context implements [call.Leg].
func (l *leg) Context() context.Context { return l.ctx }

// Digits implements [call.Leg].
func (l *leg) Digits() <-chan call.Digit { return l.digits }

// Events implements [call.Leg].
func (l *leg) Events() <-chan call.Event { return l.events }

// Reject implements [call.Leg].
func (l *leg) Reject(ctx context.Context, cause call.Cause) error {
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	l.mu.Lock()
	answered := l.answered
	l.mu.Unlock()
	if answered {
		return call.ErrAnswered
	}
	return l.end(ctx, call.Ended{Cause: cause, Reason: call.EndRejected})
}

// Progress implements [call.Leg].
func (l *leg) Progress(ctx context.Context) error { return l.open(ctx, "/progress", false) }

// Answer implements [call.Leg].
func (l *leg) Answer(ctx context.Context) error { return l.open(ctx, "/answer", true) }

func (l *leg) open(ctx context.Context, act string, answer bool) error {
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	l.mu.Lock()
	done := l.answered || !answer && l.media
	l.mu.Unlock()
	if done {
		return nil
	}
	if err := l.sw.api.post(ctx, "/channels/"+l.channel+act, nil, nil); err != nil {
		return l.cause(err)
	}
	l.mu.Lock()
	l.media, l.answered = true, l.answered || answer
	l.mu.Unlock()
	if !answer {
		return nil
	}
	l.playing.Lock()
	defer l.playing.Unlock()
	return l.lay(ctx) // this process may die before it has told the caller anything
}

// cause is the leg's end instead of an error that follows from it. A channel may be found gone before its end is told:
// the event is on its way, or there is none, since Asterisk was away, and the next connection finds out.
func (l *leg) cause(err error) error {
	if err == nil {
		return nil
	}
	if channelGone(err) {
		select {
		case <-l.ctx.Done():
		case <-time.After(goodbye):
		}
	}
	switch {
	case l.ctx.Err() != nil:
		return context.Cause(l.ctx)
	case gone(err):
		return errors.Join(call.ErrLegGone, err)
	}
	return err
}

// Hangup implements [call.Leg].
func (l *leg) Hangup(ctx context.Context, cause call.Cause) error {
	return l.end(ctx, call.Ended{Cause: cause})
}

// end ends the leg once. A channel that Asterisk did not hang up, since it was away, is hung up when it is
// back.
func (l *leg) end(ctx context.Context, why call.Ended) error {
	l.mu.Lock()
	if l.closing != nil || l.ctx.Err() != nil {
		l.mu.Unlock()
		return nil
	}
	l.closing = &why
	l.mu.Unlock()
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer stop()
	err := l.sw.hangup(ctx, l.channel, why.Cause)
	l.cancel(&why)
	l.sw.left(l.channel)
	return err
}

// hungUp is the end of the channel: ours, or the party's.
func (l *leg) hungUp(cause int) {
	l.mu.Lock()
	why := l.closing
	l.mu.Unlock()
	if why == nil {
		why = &call.Ended{Remote: true, Cause: call.Cause(cause)}
		if cause == 0 {
			why.Cause = call.CauseNormal
		}
	}
	l.cancel(why)
}

// pickedUp is the answer to a call that we placed.
func (l *leg) pickedUp() {
	l.mu.Lock()
	l.answered, l.media = true, true
	l.mu.Unlock()
	l.answer()
}

// pressed tells a key. The oldest of 64 makes room.
func (l *leg) pressed(digit string) {
	if len(digit) != 1 || !call.ValidDigit(digit[0]) {
		return
	}
	d := call.Digit{Key: digit[0], At: time.Now(), Source: call.DigitRTP}
	for {
		select {
		case l.digits <- d:
			return
		default:
		}
		select {
		case <-l.digits:
			l.sw.metrics.dropped.WithLabelValues("digit").Inc()
		default:
		}
	}
}

// held tells that the party put us on hold, or came back.
func (l *leg) held(on bool) {
	e := call.Event{Kind: call.ResumeEvent, At: time.Now()}
	if on {
		e.Kind = call.HoldEvent
	}
	select {
	case l.events <- e:
	default:
		l.sw.metrics.dropped.WithLabelValues("event").Inc()
	}
}

// Stats implements [call.Leg]: what Asterisk counts, or what it counted last when the leg has ended.
func (l *leg) Stats() call.MediaStats {
	if l.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(l.ctx, l.sw.cfg.Timeout)
		defer cancel()
		l.count(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// count reads the channel's RTP counters. A channel without RTP has none.
func (l *leg) count(ctx context.Context) {
	var r struct {
		TxCount  uint64  `json:"txcount"`
		RxCount  uint64  `json:"rxcount"`
		TxJitter float64 `json:"txjitter"`
		RxJitter float64 `json:"rxjitter"`
		TxLost   uint64  `json:"txploss"`
		RxLost   uint64  `json:"rxploss"`
		RTT      float64 `json:"rtt"`
	}
	if err := l.sw.api.get(ctx, "/channels/"+l.channel+"/rtp_statistics", nil, &r); err != nil {
		return
	}
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.RxCount > l.stats.Received {
		l.stats.LastPacket = time.Now()
	}
	l.stats.Sent, l.stats.Received, l.stats.Lost, l.stats.RemoteLost = r.TxCount, r.RxCount, r.RxLost, r.TxLost
	l.stats.Jitter, l.stats.RemoteJitter, l.stats.RoundTrip = seconds(r.RxJitter), seconds(r.TxJitter), seconds(r.RTT)
}
