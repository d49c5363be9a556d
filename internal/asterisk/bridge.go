package asterisk

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/oklog/ulid/v2"

	"github.com/hotline12345/gateway/internal/call"
)

// bridge is a mixing bridge of Asterisk's. Whoever whispers is not in it, but in a bridge of their own with
// a snoop on each member of staff: they hear all by the first of them, and staff alone hear them.
type bridge struct {
	sw *Switch
	id string

	mu      sync.Mutex
	members map[*leg]*member
}

type member struct {
	call.Member
	held   context.CancelFunc // ends the hold music; nil when not on hold
	whisp  string             // the bridge of one who whispers
	snoops []string           // the channels in it
}

// Bridge implements [call.Switch].
func (s *Switch) Bridge(ctx context.Context, name string) (call.Bridge, error) {
	b := &bridge{sw: s, id: s.bridgeID(), members: map[*leg]*member{}}
	if err := s.makeBridge(ctx, b.id, name); err != nil {
		return nil, err
	}
	return b, nil
}

// bridgePrefix tells this node's bridges from others'.
func (s *Switch) bridgePrefix() string { return s.app + "-bridge-" }

func (s *Switch) bridgeID() string { return s.bridgePrefix() + ulid.Make().String() }

// makeBridge makes a bridge that tells of keys as well.
func (s *Switch) makeBridge(ctx context.Context, id, name string) error {
	s.mu.Lock()
	s.bridges[id] = true
	s.mu.Unlock()
	if err := s.api.post(ctx, "/bridges/"+id, query{"type": "mixing,dtmf_events", "name": name}, nil); err != nil {
		s.unmake(id)
		return err
	}
	return nil
}

// unmake notes that a bridge is of no use any more. Should it be left in Asterisk, it is cleared at the next
// connection.
func (s *Switch) unmake(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bridges, id)
}

func (s *Switch) dropBridge(ctx context.Context, id string) {
	s.unmake(id)
	s.drop(ctx, "/bridges/"+id)
}

func (s *Switch) join(ctx context.Context, bridge string, channels ...string) error {
	for _, channel := range channels {
		if err := s.api.post(ctx, "/bridges/"+bridge+"/addChannel", query{"channel": channel}, nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *Switch) part(ctx context.Context, bridge, channel string) error {
	err := s.api.post(ctx, "/bridges/"+bridge+"/removeChannel", query{"channel": channel}, nil)
	if e, ok := errors.AsType[*StatusError](err); ok && e.Status < 500 {
		return nil // it has left, or hung up
	}
	return err
}

func own(cl call.Leg) (*leg, error) {
	l, ok := cl.(*leg)
	if !ok {
		return nil, fmt.Errorf("%w: a leg of another backend", call.ErrUnsupported)
	}
	return l, nil
}

// Add implements [call.Bridge].
func (b *bridge) Add(cl call.Leg, m call.Member) error {
	l, err := own(cl)
	if err != nil {
		return err
	}
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, cancel := b.sw.bounded()
	defer cancel()
	was := b.members[l]
	if was != nil && was.held == nil && was.Member == m {
		return nil
	}
	if was != nil && was.held == nil && was.Role == m.Role { // nobody hears the difference but who whispers
		was.Member = m
		return b.whispers(ctx)
	}
	if was != nil {
		b.out(ctx, l, was)
	} else {
		context.AfterFunc(l.ctx, func() { b.gone(l) })
	}
	now := &member{Member: m}
	if err := b.in(ctx, l, now); err != nil {
		delete(b.members, l)
		return l.cause(err)
	}
	b.members[l] = now
	return b.whispers(ctx)
}

// enlist makes a leg that is in Asterisk's bridge already a member.
func (b *bridge) enlist(l *leg) {
	l.bridged.Store(true)
	b.members[l] = &member{Member: call.Member{Role: call.Talk}}
	context.AfterFunc(l.ctx, func() { b.gone(l) })
}

// in joins a leg in its role; b.mu is held.
func (b *bridge) in(ctx context.Context, l *leg, m *member) error {
	if m.Role == call.Whisper {
		return nil // whispers joins it
	}
	direction := b.sw.unmute
	if m.Role == call.Listen {
		direction = b.sw.mute
	}
	if err := direction(ctx, l.channel); err != nil {
		return err
	}
	l.bridged.Store(true)
	return l.between(ctx, func() error { return b.sw.join(ctx, b.id, l.channel) })
}

// mute keeps what a channel says from others, and unmute lets it through.
func (s *Switch) mute(ctx context.Context, channel string) error {
	return s.api.post(ctx, "/channels/"+channel+"/mute", query{"direction": "in"}, nil)
}

func (s *Switch) unmute(ctx context.Context, channel string) error {
	return s.api.del(ctx, "/channels/"+channel+"/mute", query{"direction": "in"})
}

// out takes a leg out of where its role put it; b.mu is held.
func (b *bridge) out(ctx context.Context, l *leg, m *member) {
	switch {
	case m.held != nil:
		m.held()
		m.held = nil
	case m.Role == call.Whisper:
		b.hush(ctx, m)
	default:
		b.note(l, l.between(ctx, func() error { return b.sw.part(ctx, b.id, l.channel) }))
	}
	l.bridged.Store(false)
}

func (b *bridge) note(l *leg, err error) {
	if err != nil && l.ctx.Err() == nil {
		l.log.Warn("asterisk: a bridge was not left", "err", err)
	}
}

// whispers joins those who whisper with the staff of this moment; b.mu is held.
func (b *bridge) whispers(ctx context.Context) error {
	var staff []*leg
	for l, m := range b.members {
		if m.Staff && m.Role == call.Talk && m.held == nil {
			staff = append(staff, l)
		}
	}
	for l, m := range b.members {
		if m.Role != call.Whisper || m.held != nil {
			continue
		}
		b.hush(ctx, m)
		if len(staff) == 0 {
			continue
		}
		if err := b.whisper(ctx, l, m, staff); err != nil {
			return l.cause(err)
		}
	}
	return nil
}

func (b *bridge) whisper(ctx context.Context, l *leg, m *member, staff []*leg) error {
	l.bridged.Store(true)
	m.whisp = b.sw.bridgeID()
	if err := b.sw.makeBridge(ctx, m.whisp, "whisper"); err != nil {
		return err
	}
	spy := "both"
	for _, s := range staff {
		id, err := b.sw.snoop(ctx, s.channel, query{"spy": spy, "whisper": "out"})
		if err != nil {
			return err
		}
		m.snoops = append(m.snoops, id)
		spy = "none" // the first of them hears the whole
	}
	return l.between(ctx, func() error { return b.sw.join(ctx, m.whisp, append([]string{l.channel}, m.snoops...)...) })
}

// hush ends a whisperer's own bridge.
func (b *bridge) hush(ctx context.Context, m *member) {
	for _, id := range m.snoops {
		b.sw.dropSide(ctx, id)
	}
	if m.whisp != "" {
		b.sw.dropBridge(ctx, m.whisp)
	}
	m.whisp, m.snoops = "", nil
}

// Remove implements [call.Bridge].
func (b *bridge) Remove(cl call.Leg) error {
	l, err := own(cl)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.members[l]
	if m == nil {
		return nil
	}
	delete(b.members, l)
	ctx, cancel := b.sw.bounded()
	defer cancel()
	b.out(ctx, l, m)
	return b.whispers(ctx)
}

// gone forgets a leg that ended.
func (b *bridge) gone(l *leg) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.members[l]
	if m == nil {
		return
	}
	delete(b.members, l)
	if m.held != nil {
		m.held()
	}
	ctx, cancel := b.sw.bounded()
	defer cancel()
	b.hush(ctx, m)
	if err := b.whispers(ctx); err != nil {
		b.sw.log.Warn("asterisk: a whisper ended with a member of staff", "err", err)
	}
}

// Hold implements [call.Bridge].
func (b *bridge) Hold(cl call.Leg, clips ...*call.Clip) error {
	l, err := own(cl)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.members[l]
	if m == nil {
		return errors.New("asterisk: the leg is not in the bridge")
	}
	if m.held != nil {
		return nil
	}
	ctx, cancel := b.sw.bounded()
	defer cancel()
	b.out(ctx, l, m)
	playing, stop := context.WithCancel(l.ctx)
	m.held = stop
	b.sw.work.Go(func() {
		if err := l.Loop(playing, clips...); err != nil && playing.Err() == nil && !errors.Is(err, call.ErrReplaced) {
			l.log.Warn("asterisk: a held party hears nothing", "err", err)
		}
	})
	return b.whispers(ctx)
}

// Close implements [call.Bridge].
func (b *bridge) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, cancel := b.sw.bounded()
	defer cancel()
	for l, m := range b.members {
		delete(b.members, l)
		l.bridged.Store(false)
		if m.held != nil {
			m.held()
		}
		if l.ctx.Err() == nil && m.Role == call.Listen {
			b.note(l, b.sw.unmute(ctx, l.channel))
		}
		b.hush(ctx, m)
	}
	b.sw.unmake(b.id)
	return b.sw.api.del(ctx, "/bridges/"+b.id, nil)
}

// bounded is the time of an act that no caller's context bounds.
func (s *Switch) bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), goodbye)
}

// drop deletes what the gateway made in Asterisk beside a call.
func (s *Switch) drop(ctx context.Context, path string) {
	if err := s.api.del(ctx, path, nil); err != nil {
		s.log.Warn("asterisk: something was left there; it is cleared when the connection begins anew", "path", path, "err", err)
	}
}
