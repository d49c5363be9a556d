package config

import (
	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/session"
)

// EmergencyPlan is where emergency calls would go.
func (c Config) EmergencyPlan() *ops.EmergencyPlan {
	p := &ops.EmergencyPlan{Live: c.Emergency.Live, Agreement: c.Emergency.Agreement}
	address := map[string]string{}
	for _, t := range c.SIP.Trunks {
		address[t.Name] = t.Address
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
