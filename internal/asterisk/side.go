package asterisk

import (
	"context"
	"fmt"
	"maps"
	"net"
	"strings"

	"github.com/oklog/ulid/v2"
)

// A side is a channel that carries the audio of another one. It can be put into a bridge only when it has
// entered the application.

// snoop makes a side that hears a channel, is heard by it, or both.
func (s *Switch) snoop(ctx context.Context, channel string, q query) (id string, err error) {
	id = sideID()
	return id, s.enter(ctx, id, "/channels/"+channel+"/snoop/"+id, q)
}

// externalMedia makes a side that sends A-law in RTP to an address of ours.
func (s *Switch) externalMedia(ctx context.Context, to *net.UDPAddr) (id string, err error) {
	id = sideID()
	return id, s.enter(ctx, id, "/channels/externalMedia", query{"channelId": id, "external_host": to.String(), "format": "alaw"})
}

// sidePrefix tells a side from a call by the channel's identity: an externalMedia takes no arguments.
const sidePrefix = "hotline-side-"

func sideID() string { return sidePrefix + ulid.Make().String() }

func isSide(channel string) bool { return strings.HasPrefix(channel, sidePrefix) }

// enter asks for a side and waits until it is in the application.
func (s *Switch) enter(ctx context.Context, id, path string, q query) error {
	in := make(chan struct{}, 1)
	s.mu.Lock()
	s.sides[id] = in
	s.mu.Unlock()
	all := query{"app": s.app}
	maps.Copy(all, q)
	if err := s.api.post(ctx, path, all, nil); err != nil {
		s.dropSide(context.WithoutCancel(ctx), id) // it may be there all the same
		return err
	}
	select {
	case <-in:
		return nil
	case <-ctx.Done():
		s.dropSide(context.WithoutCancel(ctx), id)
		return fmt.Errorf("asterisk: the side %s did not enter the application: %w", id, context.Cause(ctx))
	}
}

// dropSide ends a side. One that is left, since Asterisk was away, is cleared when it is back.
func (s *Switch) dropSide(ctx context.Context, id string) {
	s.mu.Lock()
	delete(s.sides, id)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, goodbye)
	defer cancel()
	s.drop(ctx, "/channels/"+id)
}
