package asterisk

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

var _ call.Rejoiner = (*Switch)(nil)

// Adopt makes the next connection take up the calls of an earlier process: load gives the checkpoint of a
// leg. It is called before Serve.
func (s *Switch) Adopt(_ context.Context, load func(legID string) (*call.Checkpoint, bool)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.load = load
	return nil
}

// together is who is joined with an adopted leg.
type together struct {
	bridge *bridge
	legs   []call.Leg
}

// taken is a leg that is taken up, and where its call stood.
type taken struct {
	leg  *leg
	from *call.Checkpoint
}

// takeUp goes on with what an earlier process left in the application: calls from their checkpoint, with whom a
// bridge joins them; a call without one from its beginning, since its caller is on the line, whatever is known of
// them. The far side of nobody is hung up.
func (s *Switch) takeUp(ctx context.Context, mine []listed, load func(string) (*call.Checkpoint, bool)) error {
	bridges, err := s.ownBridges(ctx)
	if err != nil {
		return err
	}
	ids, err := s.identities(ctx, mine)
	if err != nil {
		return err
	}
	var up []taken
	far := map[string]*leg{}
	for _, ch := range mine {
		id, ok := ids[ch.ID]
		if !ok {
			continue
		}
		if load == nil {
			s.refuse(ch.ID, "endpoint", call.CauseNormal)
			continue
		}
		l, known := s.outlived(ch, id)
		from, cut := load(id)
		switch {
		case cut:
			up = append(up, taken{l, from})
		case ch.placed():
			far[ch.ID] = l
		case known:
			up = append(up, taken{l, nil})
		default:
			s.refuse(ch.ID, "endpoint", call.CauseNormal)
		}
	}
	s.rejoinAll(ctx, up, far, bridges)
	for _, t := range up {
		s.begin(t.leg, t.from)
	}
	for channel := range far { // nobody talks with them any more
		s.refuse(channel, "endpoint", call.CauseNormal)
	}
	return nil
}

// rejoinAll finds who is joined with those who are taken up, and takes the far sides it found out of far. What is
// left of the bridges is of no use: taps, and those whose callers have gone.
func (s *Switch) rejoinAll(ctx context.Context, up []taken, far map[string]*leg, bridges []listedBridge) {
	for _, b := range bridges {
		i := slices.IndexFunc(up, func(t taken) bool { return t.from != nil && slices.Contains(b.Channels, t.leg.channel) })
		with := s.joined(b, far)
		if i < 0 || len(with.legs) == 0 {
			s.drop(ctx, "/bridges/"+b.ID)
			continue
		}
		s.mu.Lock()
		s.bridges[b.ID] = true
		s.mu.Unlock()
		with.bridge.enlist(up[i].leg)
		up[i].leg.joined = with
	}
}

// joined is the far sides in a bridge.
func (s *Switch) joined(b listedBridge, far map[string]*leg) *together {
	with := &together{bridge: &bridge{sw: s, id: b.ID, members: map[*leg]*member{}}}
	for _, channel := range b.Channels {
		l := far[channel]
		if l == nil {
			continue
		}
		delete(far, channel)
		l.asked.Store(true)
		s.mu.Lock()
		s.legs[channel] = l
		s.mu.Unlock()
		with.bridge.enlist(l)
		with.legs = append(with.legs, l)
	}
	return with
}

// Rejoin implements [call.Rejoiner].
func (s *Switch) Rejoin(cl call.Leg) (call.Bridge, []call.Leg) {
	l, err := own(cl)
	if err != nil {
		return nil, nil
	}
	l.mu.Lock()
	with := l.joined
	l.joined = nil
	l.mu.Unlock()
	if with == nil {
		return nil, nil
	}
	return with.bridge, with.legs
}

// partAll ends whom the handler of an adopted leg did not ask for.
func (l *leg) partAll() {
	bridge, legs := l.sw.Rejoin(l)
	if bridge == nil {
		return
	}
	for _, far := range legs {
		_ = far.Hangup(context.Background(), call.CauseNormal) // who has gone has gone
	}
	if err := bridge.Close(); err != nil {
		l.log.Warn("asterisk: a bridge was not closed", "err", err)
	}
}

// identities are the legs of an earlier process by channel. A channel that came while no process was there
// begins a call; sides are cleared.
func (s *Switch) identities(ctx context.Context, mine []listed) (map[string]string, error) {
	ids := map[string]string{}
	for _, ch := range mine {
		if isSide(ch.ID) {
			s.drop(ctx, "/channels/"+ch.ID)
			continue
		}
		id, err := s.variable(ctx, ch.ID, legVariable)
		if err != nil {
			return nil, err
		}
		if id == "" {
			s.incoming(ch.channel(), ch.arguments())
			continue
		}
		ids[ch.ID] = id
	}
	return ids, nil
}

// outlived is the leg of a channel of an earlier process; false when its endpoint is unknown.
func (s *Switch) outlived(ch listed, id string) (*leg, bool) {
	c := ch.channel()
	info, ok := s.identify(c, ch.arguments())
	if ch.placed() {
		info.Direction = call.Outgoing
		if info.Trunk == "" {
			info.Extension, ok = endpointOf(c.name), true
		}
	}
	info.ID = id
	l := s.newLeg(ch.ID, info)
	l.adopted = true
	l.answered, l.media = c.up, c.up
	return l, ok
}

// listedBridge is a bridge as ARI lists it.
type listedBridge struct {
	ID       string
	Channels []string
}

// ownBridges are the bridges of this node.
func (s *Switch) ownBridges(ctx context.Context) ([]listedBridge, error) {
	var all []listedBridge
	if err := s.api.get(ctx, "/bridges", nil, &all); err != nil {
		return nil, fmt.Errorf("asterisk: bridges: %w", err)
	}
	return slices.DeleteFunc(all, func(b listedBridge) bool { return !strings.HasPrefix(b.ID, s.bridgePrefix()) }), nil
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

// placed tells whether a gateway placed the call.
func (l listed) placed() bool {
	args := l.arguments()
	return len(args) > 0 && args[0] == argOut
}

// variable reads a channel's variable; one that is not set is empty.
func (s *Switch) variable(ctx context.Context, channel, name string) (string, error) {
	var v struct{ Value string }
	if err := s.api.get(ctx, "/channels/"+channel+"/variable", query{"variable": name}, &v); err != nil && !gone(err) {
		return "", err
	}
	return v.Value, nil
}
