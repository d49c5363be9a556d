package sip

import (
	"context"
	"fmt"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/media"
)

// bridge joins legs of this switch. It implements [call.Bridge].
type bridge struct {
	sw    *Switch
	sound *media.Bridge
}

// Bridge implements [call.Switch].
func (s *Switch) Bridge(_ context.Context, name string) (call.Bridge, error) {
	return &bridge{sw: s, sound: s.media.NewBridge(name)}, nil
}

// Add implements [call.Bridge].
func (b *bridge) Add(leg call.Leg, m call.Member) error {
	return b.with(leg, func(s *media.Session) error { return b.sound.Add(s, m) })
}

// Remove implements [call.Bridge]. A leg that ended has left already.
func (b *bridge) Remove(leg call.Leg) error {
	l, err := b.own(leg)
	if err != nil || l.Context().Err() != nil {
		return err
	}
	return l.with(func(s *media.Session) error { b.sound.Remove(s); return nil })
}

// Hold implements [call.Bridge].
func (b *bridge) Hold(leg call.Leg, clips ...*call.Clip) error {
	return b.with(leg, func(s *media.Session) error { return b.sound.Hold(s, clips...) })
}

// Close implements [call.Bridge].
func (b *bridge) Close() error {
	b.sound.Close()
	return nil
}

func (b *bridge) with(leg call.Leg, act func(*media.Session) error) error {
	l, err := b.own(leg)
	if err != nil {
		return err
	}
	return l.with(act)
}

// own is a leg of this switch; one of another backend cannot be joined here.
func (b *bridge) own(c call.Leg) (*leg, error) {
	l, ok := c.(*leg)
	if !ok || l.sw != b.sw {
		return nil, fmt.Errorf("sip: a %T of another backend cannot join this bridge: %w", c, call.ErrUnsupported)
	}
	return l, nil
}
