package config

import (
	"cmp"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/session"
)

// EmergencyPlan is where emergency calls would go. With the backend asterisk the configuration does not know where
// a trunk leads: asterisk is what is known of it, and a trunk that is not in it leads anywhere.
func (c Config) EmergencyPlan(asterisk map[string]string) *ops.EmergencyPlan {
	p := &ops.EmergencyPlan{Live: c.Emergency.Live, Agreement: c.Emergency.Agreement}
	address := map[string]string{}
	if c.Backend == Asterisk {
		for _, t := range c.Asterisk.Trunks {
			address[t.Name] = cmp.Or(asterisk[t.Name], "endpoint "+t.Endpoint)
		}
	} else {
		for _, t := range c.SIP.Trunks {
			address[t.Name] = t.Address
		}
	}
	for _, svc := range session.Services() {
		p.Services = append(p.Services, string(svc))
		for _, r := range c.Emergency.RoutesTo(svc) {
			if a := address[r.Trunk]; a != "" {
				p.Routes = append(p.Routes, ops.EmergencyRoute{Service: string(svc), Address: a})
			}
		}
	}
	return p
}
