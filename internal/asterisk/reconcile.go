package asterisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// reconcile compares what is known here with what is in Asterisk, whenever the event connection begins
// anew: what happened in between was told to nobody. Legs whose channel is gone end; calls that came in
// begin, or go on from their checkpoint; sides that nobody needs are cleared.
func (s *Switch) reconcile(ctx context.Context) error {
	var all []listed
	if err := s.api.get(ctx, "/channels", nil, &all); err != nil {
		return err
	}
	var application struct {
		Channels []string `json:"channel_ids"`
	}
	if err := s.api.get(ctx, "/applications/"+s.app, nil, &application); err != nil {
		return err
	}
	here := make(map[string]bool, len(all))
	for _, ch := range all {
		here[ch.ID] = true
	}
	s.lose(func(id string) bool { return !here[id] })
	if !s.swept {
		if err := s.sweepBridges(ctx); err != nil {
			return err
		}
		s.swept = true
	}
	for _, ch := range all {
		if slices.Contains(application.Channels, ch.ID) {
			s.found(ctx, ch.channel(), ch.arguments())
		}
	}
	return nil
}

// lose ends the legs whose channels are gone.
func (s *Switch) lose(isGone func(channel string) bool) {
	for _, l := range s.all() {
		if l.asked.Load() && isGone(l.channel) {
			l.cancel(&call.Ended{Cause: call.CauseFailure, Reason: call.EndSignalling})
			s.left(l.channel)
		}
	}
}

// listed is a channel as ARI lists it. The library's type lacks where it stands in the dialplan.
type listed struct {
	ID           string
	Name         string
	State        string
	Caller       struct{ Name, Number string }
	CreationTime string
	Dialplan     struct {
		AppName string `json:"app_name"`
		AppData string `json:"app_data"`
	}
}

func (l listed) channel() channel {
	at, err := time.Parse("2006-01-02T15:04:05.000-0700", l.CreationTime)
	if err != nil {
		at = time.Now()
	}
	return channel{id: l.ID, name: l.Name, up: l.State == "Up", callerName: l.Caller.Name, callerNumber: l.Caller.Number, created: at}
}

// arguments are those with which the channel entered the application.
func (l listed) arguments() []string {
	if l.Dialplan.AppName != "Stasis" {
		return nil
	}
	return strings.Split(l.Dialplan.AppData, ",")[1:]
}

// found is a channel in this node's application.
func (s *Switch) found(ctx context.Context, ch channel, args []string) {
	s.mu.Lock()
	l := s.legs[ch.id]
	_, waiting := s.sides[ch.id]
	load := s.load
	s.mu.Unlock()
	if l != nil || waiting {
		if l != nil && l.progress != nil && ch.up {
			l.pickedUp() // the answer came while nobody listened
		}
		return
	}
	if isSide(ch.id) {
		s.drop(ctx, "/channels/"+ch.id)
		return
	}
	id, err := s.variable(ctx, ch.id, legVariable)
	switch {
	case err != nil:
		s.log.Warn("asterisk: a call could not be looked at; it is at the next connection", "err", err)
	case id == "":
		s.incoming(ch, args)
	case load != nil:
		s.adopt(ctx, ch, args, id, load)
	default:
		s.refuse(ch.id, "endpoint", call.CauseNormal) // it ended here while Asterisk was away
	}
}

// adopt goes on with a call of an earlier process. Without a checkpoint it begins as a new one: the caller
// is on the line, whatever is known of them.
func (s *Switch) adopt(ctx context.Context, ch channel, args []string, id string, load func(string) (*call.Checkpoint, bool)) {
	from, ok := load(id)
	if !ok && len(args) > 0 && args[0] == argOut {
		s.refuse(ch.id, "endpoint", call.CauseNormal) // the far side of a call that is not known any more
		return
	}
	info, known := s.identify(ch, args)
	if !known {
		s.refuse(ch.id, "endpoint", call.CauseNormal)
		return
	}
	info.ID = id
	info.At = ch.created
	l := s.newLeg(ch.id, info)
	l.answered = ch.up
	l.media = l.answered
	l.quiet(ctx)
	s.begin(l, from)
}

// variable reads a channel's variable; one that is not set is empty.
func (s *Switch) variable(ctx context.Context, channel, name string) (string, error) {
	var v struct{ Value string }
	err := s.api.get(ctx, "/channels/"+channel+"/variable", query{"variable": name}, &v)
	if e, ok := errors.AsType[*StatusError](err); ok && e.Status == 404 {
		return "", nil
	}
	return v.Value, err
}

// sweepBridges deletes the bridges of an earlier process of this node: who is in one is alone there, or is
// taken up.
func (s *Switch) sweepBridges(ctx context.Context) error {
	var all []struct{ ID string }
	if err := s.api.get(ctx, "/bridges", nil, &all); err != nil {
		return fmt.Errorf("asterisk: bridges: %w", err)
	}
	for _, b := range all {
		if strings.HasPrefix(b.ID, s.bridgePrefix()) {
			s.drop(ctx, "/bridges/"+b.ID)
		}
	}
	return nil
}
