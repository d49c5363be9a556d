package media

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/g711"
)

const (
	ringFrames = 128 // 2.56 s of 20 ms: what a sink may fall behind
	maxTaps    = 8   // on one leg
)

// ErrTooManyTaps means that a leg has as many taps as it may have.
var ErrTooManyTaps = errors.New("media: too many taps on one leg")

// ring carries one track from the path of the packets, which never waits, to the sink's goroutine.
// It has one writer, the holder of the rx or tx lock, and one reader.
type ring struct {
	head, tail atomic.Uint32 // written, read
	lost       bool          // the writer's: a frame was dropped, so the next begins anew
	frames     [ringFrames]ringFrame
}

type ringFrame struct {
	ts  uint32
	gap bool
	law law
	n   uint8
	b   [frame]byte
}

// put copies a frame in; it is false when the ring is full.
func (r *ring) put(ts uint32, l law, b []byte, gap bool) bool {
	head := r.head.Load()
	if head-r.tail.Load() == ringFrames {
		r.lost = true
		return false
	}
	f := &r.frames[head%ringFrames]
	f.ts, f.law, f.gap = ts, l, gap || r.lost
	f.n = uint8(copy(f.b[:], b))
	r.lost = false
	r.head.Store(head + 1)
	return true
}

func (r *ring) empty() bool { return r.head.Load() == r.tail.Load() }

// take hands the oldest frame to use.
func (r *ring) take(use func(*ringFrame)) bool {
	if r.empty() {
		return false
	}
	tail := r.tail.Load()
	use(&r.frames[tail%ringFrames])
	r.tail.Store(tail + 1)
	return true
}

// tap brings a leg to a sink.
type tap struct {
	s     *Session
	sink  call.AudioSink
	rings [2]ring // by track
	wake  chan struct{}
	stop  chan struct{}
	once  sync.Once
	done  chan struct{}
}

// push hands a payload over, in pieces of 20 ms at most, and drops what finds no room.
func (p *tap) push(track call.Track, ts uint32, l law, payload []byte, gap bool) {
	for len(payload) > 0 {
		n := min(len(payload), frame)
		if !p.rings[track].put(ts, l, payload[:n], gap) {
			p.s.sinkDropped.Add(1)
			p.s.e.metrics.sinkDropped.Inc()
		}
		payload, ts, gap = payload[n:], ts+uint32(n), false
	}
}

// rouse wakes the sink's goroutine when there is something for it.
func (p *tap) rouse() {
	if p.rings[call.TrackIn].empty() && p.rings[call.TrackOut].empty() {
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run delivers until the tap is stopped and its rings are empty.
func (p *tap) run() {
	defer close(p.done)
	defer p.s.e.caught(p.s.opts.ID, "audio sink")
	defer p.sink.Close()
	for {
		p.drain()
		select {
		case <-p.wake:
		case <-p.stop:
			p.drain()
			return
		}
	}
}

// drain delivers what the rings hold, the tracks in turn.
func (p *tap) drain() {
	in := func(f *ringFrame) { p.deliver(call.TrackIn, f) }
	out := func(f *ringFrame) { p.deliver(call.TrackOut, f) }
	for more := true; more; {
		heard := p.rings[call.TrackIn].take(in)
		more = p.rings[call.TrackOut].take(out) || heard
	}
}

func (p *tap) deliver(track call.Track, f *ringFrame) {
	if f.gap {
		p.sink.Gap(track)
	}
	b := f.b[:f.n]
	if f.law == uLaw {
		for i, v := range b {
			b[i] = g711.ULawToALaw[v]
		}
	}
	p.sink.Write(track, f.ts, b)
}

// taps are the taps of a leg.
type taps struct {
	mu     sync.Mutex
	list   []*tap
	closed bool
}

// Tap lets sink hear the leg, both ways, until detach is called or the session closes. detach
// returns after the sink's Close has returned; it must not be called from within the sink. The error
// is [ErrClosed] or [ErrTooManyTaps].
func (s *Session) Tap(sink call.AudioSink) (detach func(), err error) {
	s.taps.mu.Lock()
	defer s.taps.mu.Unlock()
	switch {
	case s.taps.closed:
		return nil, ErrClosed
	case len(s.taps.list) == maxTaps:
		s.e.metrics.tapsRefused.Inc()
		return nil, ErrTooManyTaps
	}
	p := &tap{s: s, sink: sink, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	s.taps.list = append(s.taps.list, p)
	s.rx.tap(p)
	s.tx.tap(p)
	s.e.work.Go(p.run)
	return func() {
		s.taps.mu.Lock()
		s.taps.list = slices.DeleteFunc(s.taps.list, func(x *tap) bool { return x == p })
		s.taps.mu.Unlock()
		p.detach()
		<-p.done
	}, nil
}

// detach stops the flow into the tap; its goroutine delivers what is in the rings and ends.
func (p *tap) detach() {
	p.once.Do(func() {
		p.s.rx.untap(p)
		p.s.tx.untap(p)
		close(p.stop)
	})
}

// close detaches every tap of a session that ends.
func (t *taps) close() {
	t.mu.Lock()
	list := t.list
	t.list, t.closed = nil, true
	t.mu.Unlock()
	for _, p := range list {
		p.detach()
	}
}

func (r *receiver) tap(p *tap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taps = append(r.taps, p)
}

func (r *receiver) untap(p *tap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taps = slices.DeleteFunc(r.taps, func(x *tap) bool { return x == p })
}

// rouseTaps lets the sinks hear what has come since the last turn: woken once for both tracks, and with
// those of other legs, they cost a fraction of what they would cost packet by packet.
func (t *sender) rouseTaps() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.taps {
		p.rouse()
	}
}

func (t *sender) tap(p *tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taps = append(t.taps, p)
}

func (t *sender) untap(p *tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taps = slices.DeleteFunc(t.taps, func(x *tap) bool { return x == p })
}
