package asterisk

import (
	"context"
	"errors"
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

// errNoPorts says that Asterisk has not enough ports for the sound of one more side.
var errNoPorts = errors.New("asterisk: rtp.conf has no ports left; give it more, and write how many in asterisk.rtp_ports")

// externalMedia makes a side that sends A-law in RTP to an address of ours. An Asterisk that has no ports left for it does
// not refuse it but dies, and all calls with it (22.10.1: ast_rtp_instance_new_with_options clears up by a scheduler
// that chan_rtp does not have). So it is not asked then.
func (s *Switch) externalMedia(ctx context.Context, to *net.UDPAddr) (id string, err error) {
	if !s.hasPorts() {
		s.metrics.refused.WithLabelValues("ports").Inc()
		return "", errNoPorts
	}
	id = sideID()
	return id, s.enter(ctx, id, "/channels/externalMedia", query{"channelId": id, "external_host": to.String(), "format": "alaw"})
}

// hasPorts tells whether Asterisk has ports for one more channel, as far as it is known. A quarter is left to what came
// since the endpoints were looked at.
func (s *Switch) hasPorts() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := len(s.sides) // two for each second one: a snoop has no ports
	for _, e := range s.phones {
		used += 2 * len(e.Channels)
	}
	return used+2 <= s.cfg.RTPPorts/4*3
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
