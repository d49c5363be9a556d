package sip

import (
	"context"
	"encoding/json"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
	"github.com/hotline12345/gateway/sip/registrar"
	"github.com/hotline12345/gateway/sip/siptest"
)

// clusterSecret is the secret of the gateways of a test.
var clusterSecret = []byte("0123456789abcdef0123456789abcdef")

// fleet is several gateways on loopback that share their phones.
type fleet struct {
	t     *testing.T
	shelf *siptest.Shelf

	mu    sync.Mutex
	nodes map[string]*wire
	addrs map[string]string // where a gateway is reached, when it is not its own word
	dead  map[string]bool
}

func newFleet(t *testing.T, change func(node string, cfg *Config, deps *Deps), names ...string) *fleet {
	t.Helper()
	f := &fleet{t: t, shelf: siptest.NewShelf(), nodes: map[string]*wire{}, addrs: map[string]string{}, dead: map[string]bool{}}
	for _, name := range names {
		cfg := loopback()
		cfg.Nodes.Listen = "127.0.0.1:0"
		w := newWireOn(t, cfg, func(d *Deps) {
			d.Node, d.Phones, d.Peers, d.NodeSecret = name, f.shelf, f.peers, clusterSecret
		}, func(cfg *Config, deps *Deps) {
			if change != nil {
				change(name, cfg, deps)
			}
		})
		w.sw.patience = siptest.Patience // a busy machine is not a dead gateway
		f.mu.Lock()
		f.nodes[name] = w
		f.mu.Unlock()
	}
	t.Cleanup(func() { // a relay that nobody ended would keep its gateway up
		for _, w := range f.nodes {
			w.sw.EndAll(call.CauseNormal)
		}
	})
	return f
}

// peers is what each gateway knows of the others.
func (f *fleet) peers(node string) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if addr, ok := f.addrs[node]; ok {
		return addr, !f.dead[node]
	}
	w, ok := f.nodes[node]
	if !ok {
		return "", false
	}
	return w.sw.NodeAddr(), !f.dead[node]
}

// move says that a gateway is reached at another address.
func (f *fleet) move(node, addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addrs[node] = addr
}

// die says that a gateway does not live any more.
func (f *fleet) die(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead[node] = true
}

// agent is someone at a telephone that is registered at the gateways named, and known to all.
func (f *fleet) agent(extension string, nodes ...string) *person {
	p := f.nodes[nodes[0]].person(extension, true)
	for _, n := range nodes {
		p.at(f.nodes[n].sw.Addr(true)).register(password)
		f.known(extension, n)
	}
	return p.sit()
}

// known waits until an extension's phone at a gateway is on the shelf.
func (f *fleet) known(extension, node string) {
	f.t.Helper()
	for end := time.Now().Add(siptest.Patience); time.Now().Before(end); runtime.Gosched() {
		all, err := f.shelf.Get(context.Background(), extension)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, v := range all {
			var b registrar.Binding
			if json.Unmarshal(v, &b) == nil && b.Node == node {
				return
			}
		}
	}
	f.t.Fatalf("%s at %s is not known", extension, node)
}

// dial dials an extension from a gateway.
func (f *fleet) dial(ctx context.Context, from, extension string) (call.Leg, error) {
	return f.nodes[from].sw.Dial(ctx, call.Endpoint{Kind: call.ToExtension, Name: extension},
		call.DialOptions{Caller: call.Number{E164: "+8613812345678", Raw: "13812345678"}, Masked: "138****5678",
			Display: "市民热线 138****5678", Token: "abc"})
}

// talk dials an agent, who picks up.
func (f *fleet) talk(from, extension string, agent *person) call.Leg {
	f.t.Helper()
	go func() { <-agent.rung; agent.PickUp() }()
	leg, err := f.dial(f.t.Context(), from, extension)
	if err != nil {
		f.t.Fatal(err)
	}
	return leg
}

// pair is a wire whose phones hang on another gateway: a [calltest.Harness].
type pair struct {
	*wire
	f *fleet
}

// Phone implements [calltest.Harness].
func (p pair) Phone(at string) calltest.Peer { return p.f.agent(at, "n2") }

// Whatever holds for a phone of this gateway holds for one of another.
func TestConformanceOverTwoGateways(t *testing.T) {
	calltest.Run(t, func(t *testing.T, body func(*testing.T, func(*testing.T) calltest.Harness)) {
		t.Parallel()
		body(t, func(t *testing.T) calltest.Harness {
			f := newFleet(t, nil, "n1", "n2")
			return pair{f.nodes["n1"], f}
		})
	})
}

// at lets the telephone send to another gateway from now on; it answers each where it came from.
func (p *person) at(peer netip.AddrPort) *person {
	if p.phone.Peer() != peer {
		p.phone = newPhone(p, p.user, peer)
	}
	return p
}
