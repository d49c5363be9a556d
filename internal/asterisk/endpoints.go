package asterisk

import (
	"context"
	"time"
)

// endpointsEvery is how often Asterisk is asked who is registered. A subscription would tell it at once, and
// with it every event of the endpoints' channels a second time, keys among them.
const endpointsEvery = 2 * time.Second

// endpoint is a PJSIP endpoint as ARI lists it.
type endpoint struct {
	Resource string   `json:"resource"`
	State    string   `json:"state"` // online, offline or unknown
	Channels []string `json:"channel_ids"`
}

// Registered tells whether an extension's phone is registered at Asterisk. It never blocks: it is what
// Asterisk said at most 2 s ago, or last.
func (s *Switch) Registered(extension string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phones[extension].State == "online"
}

// TrunkState is a trunk as Asterisk sees it.
type TrunkState struct {
	Name     string
	Up       bool // its proxy answers, or is not asked (qualify_frequency in pjsip.conf)
	Channels int
}

// Trunks are the trunks of the configuration, in its order.
func (s *Switch) Trunks() []TrunkState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]TrunkState, 0, len(s.cfg.Trunks))
	for _, t := range s.cfg.Trunks {
		e := s.phones[t.Endpoint]
		out = append(out, TrunkState{Name: t.Name, Up: s.up.Load() && e.State == "online", Channels: len(e.Channels)})
	}
	return out
}

// follow keeps what is known of the endpoints fresh until ctx ends.
func (s *Switch) follow(ctx context.Context) {
	tick := time.NewTicker(endpointsEvery)
	defer tick.Stop()
	for {
		if s.up.Load() {
			if err := s.lookAtEndpoints(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("asterisk: who is registered is not known anew", "err", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookAtEndpoints asks who is registered, and tells of each extension that came or went.
func (s *Switch) lookAtEndpoints(ctx context.Context) error {
	s.looking.Lock()
	defer s.looking.Unlock()
	var all []endpoint
	if err := s.api.get(ctx, "/endpoints/PJSIP", nil, &all); err != nil {
		return err
	}
	now := make(map[string]endpoint, len(all))
	for _, e := range all {
		now[e.Resource] = e
	}
	s.mu.Lock()
	before := s.phones
	s.phones = now
	s.mu.Unlock()
	for name, e := range now {
		_, trunk := s.cfg.trunkAt(name)
		if is, was := e.State == "online", before[name].State == "online"; is != was && !trunk {
			s.deps.OnPhone(name, is)
		}
	}
	return nil
}
