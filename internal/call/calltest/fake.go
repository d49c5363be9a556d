package calltest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/g711"
)

// Fake is a backend without a wire: legs are joined to scripted parties in memory, and audio moves in
// frames of 20 ms. It passes the suite, so a test that runs a session on it runs it on a real backend's
// behaviour; inside a synctest bubble its time is the bubble's.
type Fake struct {
	mu       sync.Mutex
	phones   map[string]*Party // by extension, or trunk and number
	incoming chan *leg
	next     int
	running  sync.WaitGroup
}

// NewFake makes a backend with nobody on it.
func NewFake() *Fake {
	return &Fake{phones: map[string]*Party{}, incoming: make(chan *leg)}
}

// Serve runs a handler for each call until ctx ends.
func (f *Fake) Serve(ctx context.Context, h call.Handler) error {
	defer f.running.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case l := <-f.incoming:
			f.running.Go(func() { handle(ctx, l, h) })
		}
	}
}

func handle(ctx context.Context, l *leg, h call.Handler) {
	defer func() {
		cause := &call.Ended{Cause: call.CauseNormal}
		if recover() != nil {
			cause = &call.Ended{Cause: call.CauseFailure, Reason: call.EndFault}
		}
		l.end(cause)
	}()
	h(context.WithoutCancel(ctx), l, nil)
}

// Call places a call into the backend and returns the calling party at once.
func (f *Fake) Call(info call.Info) *Party {
	f.mu.Lock()
	f.next++
	if info.ID == "" {
		info.ID = fmt.Sprintf("fake-%d", f.next)
	}
	f.mu.Unlock()
	if info.At.IsZero() {
		info.At = time.Now()
	}
	info.Direction = call.Incoming
	p := newParty()
	l := newLeg(f, info, p)
	f.incoming <- l
	return p
}

// Phone puts a scripted party at an extension, or at "trunk/number". It is rung by Dial.
func (f *Fake) Phone(at string) *Party {
	p := newParty()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phones[at] = p
	return p
}

// Dial rings the party at an endpoint until it answers or refuses.
func (f *Fake) Dial(ctx context.Context, to call.Endpoint, o call.DialOptions) (call.Leg, error) {
	at := to.Name
	if to.Kind == call.ToTrunk {
		at += "/" + to.Number
	}
	f.mu.Lock()
	p := f.phones[at]
	f.next++
	id := fmt.Sprintf("fake-%d", f.next)
	f.mu.Unlock()
	progress := func(s call.Progress) {
		if o.OnProgress != nil {
			o.OnProgress(s)
		}
	}
	progress(call.Sent)
	if p == nil {
		return nil, &call.DialError{Cause: call.CauseUnallocated, Status: 404}
	}
	l := newLeg(f, call.Info{ID: id, Direction: call.Outgoing, Extension: extension(to), Trunk: trunk(to),
		Caller: o.Caller, Token: o.Token, Called: to.Number, At: time.Now()}, p)
	p.dialled <- Ring{Options: o, At: time.Now()}
	for {
		select {
		case <-ctx.Done():
			l.end(&call.Ended{Cause: call.CauseNormal})
			p.cancelled <- struct{}{}
			return nil, context.Cause(ctx)
		case s := <-p.does:
			switch {
			case s.progress != "":
				progress(s.progress)
			case s.status != 0:
				l.end(&call.Ended{Remote: true, Cause: call.CauseOfStatus(s.status)})
				return nil, &call.DialError{Cause: call.CauseOfStatus(s.status), Status: s.status}
			default:
				return l, l.Answer(ctx)
			}
		}
	}
}

func extension(to call.Endpoint) string {
	if to.Kind == call.ToExtension {
		return to.Name
	}
	return ""
}

func trunk(to call.Endpoint) string {
	if to.Kind == call.ToTrunk {
		return to.Name
	}
	return ""
}

// Bridge makes an empty bridge.
func (f *Fake) Bridge(context.Context, string) (call.Bridge, error) {
	return &bridge{members: map[*leg]*member{}}, nil
}

// leg is the gateway's end of a party.
type leg struct {
	f      *Fake
	info   call.Info
	party  *Party
	ctx    context.Context
	cancel context.CancelCauseFunc
	digits chan call.Digit
	events chan call.Event

	mu       sync.Mutex
	answered bool
	media    bool
	play     *playing
	bridge   *bridge
	taps     []*tap
	clock    int // frames since media began
	stats    call.MediaStats
	stopped  chan struct{} // the frame loop's end; nil before media
}

type playing struct {
	clips []*call.Clip
	at    int // samples into the whole
	loop  bool
	hold  bool // the bridge's, not the leg's own
	done  chan error
}

type tap struct{ sink call.AudioSink }

func newLeg(f *Fake, info call.Info, p *Party) *leg {
	l := &leg{f: f, info: info, party: p, digits: make(chan call.Digit, 64), events: make(chan call.Event, 16)}
	l.info.Codec = call.PCMA
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	p.mu.Lock()
	p.leg = l
	p.mu.Unlock()
	return l
}

func (l *leg) Info() call.Info           { return l.info }
func (l *leg) Context() context.Context  { return l.ctx }
func (l *leg) Digits() <-chan call.Digit { return l.digits }
func (l *leg) Events() <-chan call.Event { return l.events }

func (l *leg) Stats() call.MediaStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

func (l *leg) Reject(_ context.Context, cause call.Cause) error {
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	l.mu.Lock()
	answered := l.answered
	l.mu.Unlock()
	if answered {
		return call.ErrAnswered
	}
	l.party.refused(cause.Status())
	l.end(&call.Ended{Cause: cause, Reason: call.EndRejected})
	return nil
}

func (l *leg) Progress(context.Context) error { return l.open(false) }
func (l *leg) Answer(context.Context) error   { return l.open(true) }

func (l *leg) open(answer bool) error {
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	l.mu.Lock()
	first := answer && !l.answered
	l.answered = l.answered || answer
	if !l.media {
		l.media = true
		l.stopped = make(chan struct{})
		go l.frames()
	}
	l.mu.Unlock()
	if first {
		l.party.answer()
	}
	return nil
}

func (l *leg) Play(ctx context.Context, clips ...*call.Clip) error { return l.run(ctx, false, clips) }
func (l *leg) Loop(ctx context.Context, clips ...*call.Clip) error { return l.run(ctx, true, clips) }

func (l *leg) run(ctx context.Context, loop bool, clips []*call.Clip) error {
	p := &playing{clips: clips, loop: loop, done: make(chan error, 1)}
	l.mu.Lock()
	switch {
	case l.ctx.Err() != nil:
		l.mu.Unlock()
		return context.Cause(l.ctx)
	case !l.media:
		l.mu.Unlock()
		return call.ErrNotAnswered
	}
	if l.play != nil {
		l.play.done <- call.ErrReplaced
	}
	l.play = p
	l.mu.Unlock()
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		l.drop(p)
		return context.Cause(ctx)
	case <-l.ctx.Done():
		l.drop(p)
		return context.Cause(l.ctx)
	}
}

func (l *leg) drop(p *playing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.play == p {
		l.play = nil
	}
}

func (l *leg) Tap(sink call.AudioSink) (func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return nil, context.Cause(l.ctx)
	}
	if !l.media {
		return nil, call.ErrNotAnswered
	}
	t := &tap{sink}
	l.taps = append(l.taps, t)
	return func() { l.detach(t) }, nil
}

func (l *leg) detach(t *tap) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.taps, t); i >= 0 {
		l.taps = slices.Delete(l.taps, i, i+1)
		t.sink.Close()
	}
}

func (l *leg) Hangup(_ context.Context, cause call.Cause) error {
	l.end(&call.Ended{Cause: cause})
	return nil
}

// end ends the leg once, closes its taps and tells the party.
func (l *leg) end(why *call.Ended) {
	if l.ctx.Err() != nil {
		return
	}
	l.cancel(why)
	l.mu.Lock()
	stopped := l.stopped
	l.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
	l.party.gone()
}

// frames moves audio every 20 ms until the leg ends.
func (l *leg) frames() {
	defer close(l.stopped)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, t := range l.taps {
				t.sink.Close()
			}
			l.taps = nil
			return
		case <-tick.C:
			l.frame()
		}
	}
}

func (l *leg) frame() {
	said := l.party.frame()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bridge != nil {
		l.bridge.said(l, said)
	}
	heard := l.heard()
	at := uint32(l.clock * call.FrameBytes)
	l.clock++
	l.stats.Received++
	l.stats.Sent++
	l.stats.LastPacket = time.Now()
	for _, t := range l.taps {
		t.sink.Write(call.TrackIn, at, said)
		t.sink.Write(call.TrackOut, at, heard)
	}
	l.party.hear(heard)
}

// heard is the next frame for the party: the clip that plays, or what the bridge brings.
func (l *leg) heard() []byte {
	if p := l.play; p != nil {
		frame, more := p.frame()
		if !more {
			p.done <- nil
			l.play = nil
		}
		return frame
	}
	if l.bridge != nil {
		return l.bridge.mix(l)
	}
	return silence()
}

func (p *playing) frame() (frame []byte, more bool) {
	frame = silence()
	for i := range frame {
		b, ok := p.sample()
		if !ok {
			return frame, false
		}
		frame[i] = b
	}
	return frame, true
}

func (p *playing) sample() (byte, bool) {
	total := 0
	for _, c := range p.clips {
		total += len(c.PCMA)
	}
	if total == 0 || p.at >= total && !p.loop {
		return 0, false
	}
	at := p.at % total
	p.at++
	for _, c := range p.clips {
		if at < len(c.PCMA) {
			return c.PCMA[at], true
		}
		at -= len(c.PCMA)
	}
	return 0, false
}

func silence() []byte {
	b := make([]byte, call.FrameBytes)
	for i := range b {
		b[i] = g711.SilenceA
	}
	return b
}
