package session

import (
	"errors"
	"fmt"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// Config bounds a call's stages.
type Config struct {
	// Node is this gateway's name among its peers.
	Node string `yaml:"node"`
	// LeaseWait is how long a third call of one number waits for a place, 10 s to 10 min.
	LeaseWait time.Duration `yaml:"lease_wait"`
	// SuspendedLimit ends the automatic path of a suspended caller (Art. 29), 30 s to 10 min.
	SuspendedLimit time.Duration `yaml:"suspended_limit"`
	// ReserveLimit ends a call that was answered for its emergency exit alone, 10 s to 60 s.
	ReserveLimit time.Duration `yaml:"reserve_limit"`
	// WrapUp is how long after the call the hand-over waits for the agent, 0 to 10 min.
	WrapUp time.Duration `yaml:"wrap_up"`
	// MessageLimit bounds a message on the automatic path, 10 s to 5 min.
	MessageLimit time.Duration `yaml:"message_limit"`
	// PositionEvery is the least time between two announcements of a position, 15 s to 5 min.
	PositionEvery time.Duration `yaml:"position_every"`
	// AnnounceAgent reads the agent's number to the caller when they are joined.
	AnnounceAgent bool `yaml:"announce_agent"`
	// DefaultQueue takes callers whose flow failed, or who are in danger.
	DefaultQueue string `yaml:"default_queue"`
	// CallBack is how callers who are owed a call are called.
	CallBack CallBackConfig `yaml:"call_back"`
	// FlowStuck is how long the flow lets a caller stand still before it leads to a person. It is the
	// flow's own setting (ivr.stuck_after), told here so that a flow that does not is seen.
	FlowStuck time.Duration `yaml:"-"`
	// Emergency is a section of its own in the file.
	Emergency EmergencyConfig `yaml:"-"`
}

// CallBackConfig says how a caller is called back.
type CallBackConfig struct {
	// Trunk takes the calls; without one nobody is called back.
	Trunk string `yaml:"trunk"`
	// Ring is how long the caller's phone rings, 10 s to 2 min.
	Ring time.Duration `yaml:"ring"`
}

// EmergencyConfig says how a caller in danger reaches a service (Art. 9(1)).
type EmergencyConfig struct {
	// Live lets calls go to the real services. It needs Agreement; else every route is a drill.
	Live bool `yaml:"live"`
	// Agreement names the written agreement with the services.
	Agreement string `yaml:"agreement"`
	// DrillTrunk and DrillNumber take every emergency call while Live is false. The number gets the
	// service's digits added: 9 with service 119 is 9119.
	DrillTrunk  string `yaml:"drill_trunk"`
	DrillNumber string `yaml:"drill_number"`
	// Routes are tried in order. A service without one has guidance and an agent only.
	Routes map[Service][]Route `yaml:"routes"`
	// NoTrying: no response to the INVITE at all, and the next route takes its place. 1 s to 10 s.
	NoTrying time.Duration `yaml:"no_trying"`
	// NoRinging: no 18x, and the next route is tried beside it; the first answer wins. 4 s to 60 s.
	NoRinging time.Duration `yaml:"no_ringing"`
	// Choose is the silence after which a caller who chose no service goes to an agent, 3 s to 20 s.
	Choose time.Duration `yaml:"choose"`
	// Cancel is how long a caller whose words call for a service can say no, 3 s to 10 s.
	Cancel time.Duration `yaml:"cancel"`
	// AgentWithin is how long the first free agent is waited for, to talk with that caller and the service; then the
	// service is called alone. 0 to 10 s.
	AgentWithin time.Duration `yaml:"agent_within"`
}

// Route is one way to a service.
type Route struct {
	Trunk  string            `yaml:"trunk"`
	Number string            `yaml:"number"`
	Forms  []call.CallerForm `yaml:"forms"` // in order; default from, pai, diversion, spoken
}

// Defaults is the configuration of the embedded default: every emergency call is a drill.
func Defaults() Config {
	return Config{
		Node:           "node1",
		LeaseWait:      120 * time.Second,
		SuspendedLimit: 120 * time.Second,
		ReserveLimit:   20 * time.Second,
		WrapUp:         120 * time.Second,
		MessageLimit:   90 * time.Second,
		PositionEvery:  30 * time.Second,
		AnnounceAgent:  true,
		DefaultQueue:   "default",
		FlowStuck:      5 * time.Minute,
		CallBack:       CallBackConfig{Ring: 45 * time.Second},
		Emergency: EmergencyConfig{
			DrillTrunk:  "loopback",
			DrillNumber: "9",
			NoTrying:    4 * time.Second,
			NoRinging:   12 * time.Second,
			Choose:      5 * time.Second,
			Cancel:      5 * time.Second,
			AgentWithin: 5 * time.Second,
		},
	}
}

// Validate returns every fault, each with its place and its mend.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	span := func(path string, d, least, most time.Duration) {
		if d < least || d > most {
			bad("%s: %v is out of range; write a time from %v to %v", path, d, least, most)
		}
	}
	if c.Node == "" {
		bad("node: empty; write a name that no other gateway has, e.g. node1")
	}
	if c.DefaultQueue == "" {
		bad("default_queue: empty; write the name of a queue")
	}
	span("lease_wait", c.LeaseWait, 10*time.Second, 10*time.Minute)
	span("suspended_limit", c.SuspendedLimit, 30*time.Second, 10*time.Minute)
	span("reserve_limit", c.ReserveLimit, 10*time.Second, time.Minute)
	span("wrap_up", c.WrapUp, 0, 10*time.Minute)
	span("message_limit", c.MessageLimit, 10*time.Second, 5*time.Minute)
	span("position_every", c.PositionEvery, 15*time.Second, 5*time.Minute)
	span("call_back.ring", c.CallBack.Ring, 10*time.Second, 2*time.Minute)
	return errors.Join(append(errs, c.Emergency.validate()...)...)
}

func (e EmergencyConfig) validate() (errs []error) {
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("emergency."+format, a...)) }
	if e.Live && e.Agreement == "" {
		bad("agreement: empty with live: true; write the reference of the agreement with the services, or set live: false")
	}
	if !e.Live && (e.DrillTrunk == "" || e.DrillNumber == "") {
		bad("drill_number: drill_trunk and drill_number are needed while live is false; write where a drill goes")
	}
	if e.NoTrying < time.Second || e.NoTrying > 10*time.Second {
		bad("no_trying: %v is out of range; write a time from 1s to 10s", e.NoTrying)
	}
	if e.NoRinging < 4*time.Second || e.NoRinging > time.Minute {
		bad("no_ringing: %v is out of range; write a time from 4s to 1m", e.NoRinging)
	}
	if e.Choose < 3*time.Second || e.Choose > 20*time.Second {
		bad("choose: %v is out of range; write a time from 3s to 20s", e.Choose)
	}
	if e.Cancel < 3*time.Second || e.Cancel > 10*time.Second {
		bad("cancel: %v is out of range; write a time from 3s to 10s", e.Cancel)
	}
	if e.AgentWithin < 0 || e.AgentWithin > 10*time.Second {
		bad("agent_within: %v is out of range; write a time from 0s to 10s", e.AgentWithin)
	}
	for svc, routes := range e.Routes {
		if keyOf(svc) == 0 {
			bad("routes.%s: no such service; write 110, 119, 120 or 122", svc)
		}
		for i, r := range routes {
			if r.Trunk == "" || r.Number == "" {
				bad("routes.%s[%d]: trunk and number are both needed", svc, i)
			}
			for j, f := range r.Forms {
				switch f {
				case call.FormFrom, call.FormPAI, call.FormDiversion, call.FormSpoken:
				default:
					bad("routes.%s[%d].forms[%d]: %q is no form; write from, pai, diversion or spoken", svc, i, j, f)
				}
			}
		}
	}
	return errs
}

// RoutesTo are the ways to a service that the configuration allows, each with its forms.
func (e EmergencyConfig) RoutesTo(svc Service) []Route {
	routes := e.Routes[svc]
	if !e.Live {
		routes = []Route{{Trunk: e.DrillTrunk, Number: e.DrillNumber + string(svc)}}
	}
	out := make([]Route, len(routes))
	for i, r := range routes {
		if len(r.Forms) == 0 {
			r.Forms = []call.CallerForm{call.FormFrom, call.FormPAI, call.FormDiversion, call.FormSpoken}
		}
		out[i] = r
	}
	return out
}

// keyOf is the key that chooses a service, '1' to '4', or 0.
func keyOf(svc Service) byte {
	for i, s := range Services() {
		if s == svc {
			return byte('1' + i)
		}
	}
	return 0
}

// serviceOf is the service that a key chooses, or "".
func serviceOf(key byte) Service {
	if i := int(key) - '1'; i >= 0 && i < len(Services()) {
		return Services()[i]
	}
	return ""
}
