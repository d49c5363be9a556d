package queue

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// bed is a Redis with nodes on it.
type bed struct {
	t      *testing.T
	store  *store.Store // the tests' own view
	server *storetest.Redis
	cfg    Config
	reg    prometheus.Registerer
	ledger Ledger // of the next node
}

// patience bounds every wait of a test.
const patience = 20 * time.Second

func testConfig() Config {
	cfg := Defaults()
	general, road := DefaultQueue("general", "综合", "General"), DefaultQueue("road", "道路", "Roads")
	general.Wrapup = 60 * time.Second
	cfg.Queues = []QueueConfig{general, road}
	cfg.StoreTimeout = 5 * time.Second
	return cfg
}

// each runs a test on a real Redis and on the embedded one, beside others: most of them wait most of the time.
func each(t *testing.T, test func(t *testing.T, b *bed)) {
	t.Parallel()
	t.Run("redis", func(t *testing.T) {
		server := storetest.Start(t)
		test(t, &bed{t: t, store: storetest.Open(t, server.Addr), server: server, cfg: testConfig()})
	})
	t.Run("embedded", func(t *testing.T) {
		test(t, &bed{t: t, store: storetest.Open(t, ""), cfg: testConfig()})
	})
}

// node is a gateway's queue, running until the test ends. It owns the phones that begin with its name.
type node struct {
	*Queue
	t     *testing.T
	fault *storetest.Fault
	stop  func()
}

func (b *bed) node(name string) *node {
	b.t.Helper()
	s := b.store
	if b.server != nil { // a connection of its own, as a node has
		s = storetest.Open(b.t, b.server.Addr)
	}
	fault := &storetest.Fault{}
	s.Blocking().AddHook(fault)
	q, err := New(b.cfg, Deps{Node: name, Store: s, Log: slog.New(slog.NewTextHandler(b.t.Output(), nil)),
		Registerer: b.reg, Owns: func(ext string) bool { return len(ext) > len(name) && ext[:len(name)] == name },
		Pseudonym: pseudonym, Seal: seal, Open: unseal, Ledger: b.ledger})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	stopped := false
	n := &node{Queue: q, t: b.t, fault: fault, stop: func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				b.t.Errorf("Run: %v", err)
			}
		}
	}}
	b.t.Cleanup(n.stop)
	n.await("the node is attached", q.Online)
	return n
}

func pseudonym(n call.Number) string { return fmt.Sprintf("p%x", n.E164) }

// seal hides a number from whoever looks for its digits; a gateway's is a real one.
func seal(n call.Number) []byte { return []byte(fmt.Sprintf("%x", n.E164)) }

func unseal(b []byte) (n call.Number, err error) {
	var e164 []byte
	e164, err = hex.DecodeString(string(b))
	return call.Number{E164: string(e164)}, err
}

// await returns when a condition holds; it looks again at each change that the node notices.
func (n *node) await(what string, holds func() bool) {
	n.t.Helper()
	changes, cancel := n.Watch()
	defer cancel()
	limit := time.After(patience)
	look := time.NewTicker(50 * time.Millisecond) // a change at another node
	defer look.Stop()
	for !holds() {
		select {
		case <-changes:
		case <-look.C:
		case <-limit:
			n.t.Fatalf("never: %s; agents %+v, queues %+v", what, n.all(), n.lines())
		}
	}
}

func (n *node) all() []AgentView {
	agents, err := n.Agents(context.Background())
	if err != nil {
		n.t.Fatal(err)
	}
	return agents
}

func (n *node) lines() []QueueView {
	queues, err := n.Queues(context.Background())
	if err != nil {
		n.t.Fatal(err)
	}
	return queues
}

// agent is one agent; the zero view when not logged in.
func (n *node) agent(id string) AgentView {
	for _, a := range n.all() {
		if a.ID == id {
			return a
		}
	}
	return AgentView{State: LoggedOut}
}

func (n *node) awaitAgent(id string, state AgentState) {
	n.t.Helper()
	n.await(fmt.Sprintf("%s is %s", id, state), func() bool { return n.agent(id).State == state })
}

// login logs an agent in at the phone of the same name, at level 1.
func (n *node) login(id string, queues ...string) {
	n.t.Helper()
	levels := make(map[string]int)
	for _, q := range queues {
		levels[q] = 1
	}
	n.must(n.Login(n.t.Context(), Agent{ID: id, Extension: id, Queues: levels}))
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func number(i int) call.Number { return call.Number{E164: fmt.Sprintf("+8613800%06d", i)} }

// enter lets a call wait in the queue general.
func (n *node) enter(id string, change ...func(*session.QueueEntry)) session.Ticket {
	n.t.Helper()
	e := session.QueueEntry{CallID: id, Queue: "general", Language: "zh"}
	for _, f := range change {
		f(&e)
	}
	ticket, err := n.Enter(n.t.Context(), e)
	n.must(err)
	return ticket
}

// offer waits for an offer to the ticket.
func (n *node) offer(t session.Ticket) session.Offer {
	n.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case u := <-t.Updates():
			if u.Offer != nil {
				return *u.Offer
			}
		case <-limit:
			n.t.Fatalf("no offer for %s; agents %+v, queues %+v", t.Entry(), n.all(), n.lines())
		}
	}
}

// due makes a deadline past and lets the node sweep.
func (b *bed) due(n *node, set, member string) {
	b.t.Helper()
	if err := b.store.Blocking().Do(b.t.Context(), "ZADD", prefix+":"+set, "XX", 1, member).Err(); err != nil {
		b.t.Fatal(err)
	}
	n.beat(b.t.Context())
}

// events is the names of what happened to a call.
func (b *bed) events(id string) (names []string) {
	b.t.Helper()
	all, err := b.store.Blocking().XRange(b.t.Context(), prefix+":ev", "-", "+").Result()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, m := range all {
		if m.Values["call"] == id && m.Values["ev"] != agentEvent {
			names = append(names, fmt.Sprint(m.Values["ev"]))
		}
	}
	return names
}

func embedded(t *testing.T) *store.Store { return storetest.Open(t, "") }
