package app

import (
	"context"
	"net/url"

	"github.com/hotline12345/gateway/cmd/hotline/internal/console"
	"github.com/hotline12345/gateway/internal/asterisk"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip"
	"github.com/hotline12345/gateway/sip/trunk"
)

// line is the backend by which calls come and go.
type line interface {
	call.Switch
	EndAll(cause call.Cause)
	// Drain lets carriers choose another gateway, or takes their calls again.
	Drain(on bool)
	// Calls is how many callers are on the line, and how many it takes.
	Calls() (n, limit, kept int)
	// NodeAddr is where the other gateways reach the phones of this one; "" is nowhere.
	NodeAddr() string
	// Local tells whether this gateway has an extension's phone. It must not block.
	Local(extension string) bool
	// Owners are the gateways that have an extension's phone.
	Owners(ctx context.Context, extension string) ([]string, error)
	Trunks() []console.Trunk
	// Addrs are where carriers and phones find the line.
	Addrs() (carriers, phones string)
}

// sipLine is the line by our own SIP.
type sipLine struct{ *sip.Switch }

func (l sipLine) Local(extension string) bool { return l.Registrar().Local(extension) }

func (l sipLine) Owners(ctx context.Context, extension string) ([]string, error) {
	return l.Registrar().Owners(ctx, extension)
}

func (l sipLine) Addrs() (carriers, phones string) {
	return l.Addr(false).String(), l.Addr(true).String()
}

func (l sipLine) Trunks() []console.Trunk {
	var out []console.Trunk
	for _, t := range l.Switch.Trunks().All() {
		h := t.Health()
		c := console.Trunk{Name: t.Name, Up: h.State != trunk.Down, Since: h.At, RTT: h.RTT, Channels: t.InUse(), Limit: t.MaxCalls}
		if h.State == trunk.Down {
			c.Problem = "no answer to OPTIONS"
		}
		out = append(out, c)
	}
	return out
}

// asteriskLine is the line by an Asterisk. Every gateway on it has its phones.
type asteriskLine struct {
	*asterisk.Switch
	node, ari string
}

func (l asteriskLine) NodeAddr() string { return "" }

func (l asteriskLine) Local(extension string) bool { return l.Registered(extension) }

func (l asteriskLine) Owners(_ context.Context, extension string) ([]string, error) {
	if !l.Registered(extension) {
		return nil, nil
	}
	return []string{l.node}, nil
}

// Addrs is where Asterisk's ARI is: its own configuration says where it takes calls.
func (l asteriskLine) Addrs() (carriers, phones string) {
	u, err := url.Parse(l.ari)
	if err != nil {
		return l.ari, l.ari // Validate has read it
	}
	return u.Host, u.Host
}

func (l asteriskLine) Trunks() []console.Trunk {
	var out []console.Trunk
	for _, t := range l.Switch.Trunks() {
		c := console.Trunk{Name: t.Name, Up: t.Up, Channels: t.Channels}
		if !t.Up {
			c.Problem = "Asterisk does not reach it, or is not reached itself"
		}
		out = append(out, c)
	}
	return out
}
