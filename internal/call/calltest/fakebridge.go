package calltest

import (
	"context"
	"fmt"
	"sync"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/g711"
)

type bridge struct {
	mu      sync.Mutex
	members map[*leg]*member
}

type member struct {
	call.Member
	held bool
	last []byte
}

func (b *bridge) Add(cl call.Leg, m call.Member) error {
	l, ok := cl.(*leg)
	if !ok {
		return fmt.Errorf("%w: a leg of another backend", call.ErrUnsupported)
	}
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	l.mu.Lock()
	l.bridge = b
	unhold(l)
	l.mu.Unlock()
	b.mu.Lock()
	b.members[l] = &member{Member: m}
	b.mu.Unlock()
	context.AfterFunc(l.ctx, func() { b.leave(l) })
	return nil
}

// unhold ends hold music that Hold began; l.mu is held.
func unhold(l *leg) {
	if l.play != nil && l.play.hold {
		l.play.done <- call.ErrReplaced
		l.play = nil
	}
}

func (b *bridge) leave(l *leg) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.members, l)
}

func (b *bridge) Remove(cl call.Leg) error {
	l, ok := cl.(*leg)
	if !ok {
		return fmt.Errorf("%w: a leg of another backend", call.ErrUnsupported)
	}
	b.leave(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bridge == b {
		l.bridge = nil
		unhold(l)
	}
	return nil
}

func (b *bridge) Hold(cl call.Leg, clips ...*call.Clip) error {
	l, ok := cl.(*leg)
	if !ok {
		return fmt.Errorf("%w: a leg of another backend", call.ErrUnsupported)
	}
	b.mu.Lock()
	m := b.members[l]
	if m == nil {
		b.mu.Unlock()
		return fmt.Errorf("calltest: the leg is not in the bridge")
	}
	m.held, m.last = true, nil
	b.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.play = &playing{clips: clips, loop: true, hold: true, done: make(chan error, 1)}
	return nil
}

func (b *bridge) Close() error {
	b.mu.Lock()
	var all []*leg
	for l := range b.members {
		all = append(all, l)
	}
	b.mu.Unlock()
	for _, l := range all {
		if err := b.Remove(l); err != nil {
			return err
		}
	}
	return nil
}

func (b *bridge) said(l *leg, frame []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.members[l]; m != nil {
		m.last = frame
	}
}

// mix is what a member hears: every other member that may be heard by it.
func (b *bridge) mix(to *leg) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	self := b.members[to]
	out := silence()
	if self == nil || self.held {
		return out
	}
	var sum [call.FrameBytes]int
	for l, m := range b.members {
		audible := m.Role == call.Talk || m.Role == call.Whisper && self.Staff
		if l == to || m.held || m.last == nil || !audible {
			continue
		}
		for i, v := range m.last {
			sum[i] += int(g711.ALawToLinear[v])
		}
	}
	for i, v := range sum {
		out[i] = g711.EncodeALaw(int16(max(-32768, min(32767, v))))
	}
	return out
}
