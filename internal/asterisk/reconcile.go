package asterisk

import (
	"context"
	"slices"

	"github.com/hotline12345/gateway/internal/call"
)

// reconcile compares what is known here with what is in Asterisk, whenever the event connection begins
// anew: what happened in between was told to nobody. Legs whose channel is gone end; calls that came in
// begin, at the first connection those of an earlier process go on; what nobody needs is cleared.
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
	if err := s.lookAtEndpoints(ctx); err != nil { // what came in between has ports
		return err
	}
	here := make(map[string]bool, len(all))
	for _, ch := range all {
		here[ch.ID] = true
	}
	s.lose(func(id string) bool { return !here[id] })
	mine := slices.DeleteFunc(all, func(ch listed) bool { return !slices.Contains(application.Channels, ch.ID) })
	if !s.swept {
		s.mu.Lock()
		load := s.load
		s.mu.Unlock()
		if err := s.takeUp(ctx, mine, load); err != nil {
			return err
		}
		s.swept = true
		return nil
	}
	for _, ch := range mine {
		s.found(ctx, ch)
	}
	return s.clear(ctx)
}

// clear deletes the bridges that were done with while Asterisk was away.
func (s *Switch) clear(ctx context.Context) error {
	bridges, err := s.ownBridges(ctx)
	if err != nil {
		return err
	}
	for _, b := range bridges {
		s.mu.Lock()
		used := s.bridges[b.ID]
		s.mu.Unlock()
		if !used {
			s.drop(ctx, "/bridges/"+b.ID)
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

// found is a channel in this node's application after a time without events.
func (s *Switch) found(ctx context.Context, ch listed) {
	s.mu.Lock()
	l := s.legs[ch.ID]
	_, used := s.sides[ch.ID]
	s.mu.Unlock()
	switch {
	case l != nil && l.progress != nil && ch.State == "Up":
		l.pickedUp() // the answer came while nobody listened
		return
	case l != nil || used:
		return
	case isSide(ch.ID):
		s.drop(ctx, "/channels/"+ch.ID)
		return
	}
	id, err := s.variable(ctx, ch.ID, legVariable)
	switch {
	case err != nil:
		s.log.Warn("asterisk: a call could not be looked at; it is at the next connection", "err", err)
	case id == "" && !ch.placed():
		s.incoming(ch.channel(), ch.arguments())
	default:
		s.refuse(ch.ID, "endpoint", call.CauseNormal) // it ended here while Asterisk was away
	}
}
