package media

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// ErrOtherBridge means that a session is in another bridge: take it out of that one first.
var ErrOtherBridge = errors.New("media: the session is in another bridge")

// ErrBridgeClosed means that a bridge was closed.
var ErrBridgeClosed = errors.New("media: the bridge is closed")

// ErrBridgeFull means that a bridge has as many members as it may have.
var ErrBridgeFull = errors.New("media: the bridge is full")

// maxMembers bounds a bridge: a caller, an agent, a supervisor, a service, and a few to spare.
const maxMembers = 16

// Bridge joins sessions. Its methods may be called from any goroutine.
type Bridge struct {
	e    *Engine
	name string

	mu      sync.Mutex
	closed  bool
	wheel   *wheel // while it mixes
	members []*member
}

// member is a session's place in a bridge.
type member struct {
	s    *Session
	as   call.Member
	hold []*call.Clip
	held bool

	in   *jitter // what it says, while mixed
	pcm  [frame]int32
	said bool
}

func (m *member) speaks() bool { return !m.held && m.as.Role != call.Listen }

// Relays tells whether two sessions are joined without decoding, so that a telephone-event of the one
// reaches the other.
func (b *Bridge) Relays() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.members) == 2 && b.wheel == nil
}

// NewBridge makes an empty bridge. Its name is for the log.
func (e *Engine) NewBridge(name string) *Bridge { return &Bridge{e: e, name: name} }

// Add joins a session, changes its membership, or takes it back from hold. The error is
// [ErrOtherBridge], [ErrBridgeFull], [ErrBridgeClosed] or [ErrClosed].
func (b *Bridge) Add(s *Session, as call.Member) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.find(s)
	if m == nil {
		switch {
		case b.closed:
			return ErrBridgeClosed
		case len(b.members) == maxMembers:
			return ErrBridgeFull
		case !s.bridge.CompareAndSwap(nil, b):
			return ErrOtherBridge
		case s.isClosed(): // Close looks at s.bridge after it has marked the session
			s.bridge.Store(nil)
			return ErrClosed
		}
		m = &member{s: s}
		b.members = append(b.members, m)
	}
	m.as, m.held, m.hold = as, false, nil
	b.wire()
	return nil
}

// Hold makes a member hear clips, round and round, and be heard by none, until it is added again.
// Without a clip it hears silence.
func (b *Bridge) Hold(s *Session, clips ...*call.Clip) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.find(s)
	if m == nil {
		return errors.New("media: the session is not in the bridge")
	}
	m.held, m.hold = true, clips
	s.tx.setFeed(feedNone, nil) // another hold begins its own music
	b.wire()
	return nil
}

// Remove takes a session out; it hears silence from then on.
func (b *Bridge) Remove(s *Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.find(s) == nil {
		return
	}
	b.members = slices.DeleteFunc(b.members, func(m *member) bool { return m.s == s })
	b.loosen(s)
	b.wire()
}

// Close takes every session out. It closes none.
func (b *Bridge) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	members := b.members
	b.members = nil
	for _, m := range members {
		b.loosen(m.s)
	}
	b.wire()
}

func (b *Bridge) find(s *Session) *member {
	for _, m := range b.members {
		if m.s == s {
			return m
		}
	}
	return nil
}

// loosen cuts a session off.
func (b *Bridge) loosen(s *Session) {
	s.route.Store(nil)
	s.tx.setFeed(feedNone, nil)
	s.bridge.Store(nil)
}

// rewire looks again at how the members are joined, after one of them was (re)answered.
func (b *Bridge) rewire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wire()
}

// wire joins the members in the cheapest way that serves: a relay for two who talk with one packet
// time, a mix for all else.
func (b *Bridge) wire() {
	var active []*member
	for _, m := range b.members {
		if m.held {
			m.in = nil
			m.s.route.Store(nil)
			m.s.tx.holdWith(m.hold)
		} else {
			active = append(active, m)
		}
	}
	mix := false
	switch {
	case len(active) == 1:
		active[0].s.route.Store(nil)
		active[0].s.tx.setFeed(feedNone, nil)
		active[0].in = nil
	case len(active) == 2 && relayable(active[0], active[1]):
		b.relay(active[0], active[1])
	case len(active) > 1:
		mix = true
		for _, m := range active {
			b.mix(m)
		}
	}
	b.turn(mix)
}

// relayable tells whether two members need no decoding.
func relayable(x, y *member) bool {
	return x.as.Role == call.Talk && y.as.Role == call.Talk && x.s.tx.packetSize() == y.s.tx.packetSize()
}

func (b *Bridge) relay(x, y *member) {
	x.in, y.in = nil, nil
	x.s.tx.setFeed(feedRelay, y.s)
	y.s.tx.setFeed(feedRelay, x.s)
	x.s.route.Store(&route{to: y.s})
	y.s.route.Store(&route{to: x.s})
}

// mix makes m a member of the mix; one that was before keeps its buffer.
func (b *Bridge) mix(m *member) {
	m.s.tx.setFeed(feedMix, nil)
	switch {
	case !m.speaks():
		m.in = nil
		m.s.route.Store(nil)
	case m.in == nil:
		m.in = new(jitter)
		m.s.route.Store(&route{mix: m.in})
	}
}

// turn puts the bridge on a wheel while it mixes.
func (b *Bridge) turn(mix bool) {
	switch {
	case mix && b.wheel == nil:
		b.e.mu.Lock()
		b.wheel = b.e.pickWheel()
		b.e.mu.Unlock()
		b.wheel.add(b)
	case !mix && b.wheel != nil:
		b.wheel.remove(b)
		b.wheel = nil
	}
}

// tick mixes 20 ms: each hears all who talk but himself, and staff hears those who whisper as well.
func (b *Bridge) tick(due time.Time, out *outbox) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wheel == nil {
		return
	}
	var talk, whisper [frame]int32
	for _, m := range b.members {
		m.said = m.in != nil && m.in.get(&m.pcm)
		if !m.said {
			continue
		}
		sum := &talk
		if m.as.Role == call.Whisper {
			sum = &whisper
		}
		for i, v := range m.pcm {
			sum[i] += v
		}
	}
	for _, m := range b.members {
		if m.held {
			continue
		}
		hears := talk
		if m.as.Staff {
			for i, v := range whisper {
				hears[i] += v
			}
		}
		if m.said && (m.as.Role == call.Talk || m.as.Staff) {
			for i, v := range m.pcm {
				hears[i] -= v
			}
		}
		m.s.tx.mixed(&hears, due, out)
	}
}

// holdWith makes a held leg hear clips, from their beginning only when it was not held before.
func (t *sender) holdWith(clips []*call.Clip) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.feed == feedHold {
		return
	}
	t.feed, t.via, t.hold = feedHold, viaate{}, nil
	if audible(clips) > 0 {
		t.hold = newPlayback(true, clips)
	}
}

func (t *sender) packetSize() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size
}
