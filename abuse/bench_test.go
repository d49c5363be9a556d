package abuse

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
)

// node is an Admission with a clock that is turned by hand.
type node struct {
	*Admission
	t     *testing.T
	data  string
	chain *audit.Log
	clock *clock
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) turn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// start starts a node on a store. Its clock begins at the true time, which Redis has too.
func start(t *testing.T, s *store.Store, name, data string) *node {
	t.Helper()
	return startAt(t, s, name, data, &clock{at: time.Now().Truncate(time.Millisecond)})
}

func startAt(t *testing.T, s *store.Store, name, data string, c *clock) *node {
	t.Helper()
	return startWith(t, name, data, c, Deps{Store: s})
}

func startWith(t *testing.T, name, data string, c *clock, d Deps) *node {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	chain, err := audit.Open(audit.Defaults(), filepath.Join(data, "audit"), name, c.now, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { chain.Close() })
	d.Audit, d.Data, d.Now, d.Log, d.Reg = chain, data, c.now, log, prometheus.NewPedanticRegistry()
	a, err := New(Defaults(), d)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Admission: a, t: t, data: data, chain: chain, clock: c}
	return n
}

// sync is Sync that must succeed.
func (n *node) sync() {
	n.t.Helper()
	if err := n.Sync(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

const mobile = "+8613800138000"

// screen screens a call of the mobile number.
func (n *node) screen(id string) session.Verdict {
	n.t.Helper()
	return n.Screen(n.t.Context(), session.ScreenRequest{
		CallID: id, Caller: call.Number{E164: mobile}, Identity: call.Verified, At: n.clock.now(),
	})
}

// expect screens a call and checks the decision.
func (n *node) expect(id string, want session.Decision) session.Verdict {
	n.t.Helper()
	v := n.screen(id)
	if v.Decision != want {
		n.t.Fatalf("call %s: %+v, want %s", id, v, want)
	}
	if answered := want == session.Admit || want == session.AdmitWatch || want == session.IVROnly; (v.Lease != nil) != answered {
		n.t.Fatalf("call %s: %s with lease %v", id, want, v.Lease)
	}
	return v
}

// outcome counts a call that began so long ago and was with an agent for so long.
func (n *node) outcome(id string, ago, talk time.Duration) {
	start := n.clock.now().Add(-ago)
	n.Count(n.t.Context(), session.CallOutcome{
		CallID: id, Caller: call.Number{E164: mobile}, Identity: call.Verified, Outcome: session.OutcomeNoRequest,
		Started: start, Answered: start, Ended: start.Add(talk), Agent: "1001",
	})
}

// suspend sets a measure of level 1.
func (n *node) suspend() Case {
	n.t.Helper()
	c, err := n.SetMeasure(n.t.Context(), Measure{
		Number: call.Number{E164: mobile}, Clause: "29-1", Level: 1, Reason: "six calls without a request in an hour",
	}, "sup1")
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// acts are the acts of the node's chain, which must verify.
func (n *node) acts() []string {
	n.t.Helper()
	var out []string
	for rec, err := range audit.Records(n.chain.Dir(), n.chain.Node()) {
		if err != nil {
			n.t.Fatal(err)
		}
		out = append(out, rec.Act)
	}
	return out
}

// copyKeys gives a second node the keys of the first, as nodes of one hotline have.
func copyKeys(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(to, "keys"), os.DirFS(filepath.Join(from, "keys"))); err != nil {
		t.Fatal(err)
	}
}

var errFault = errors.New("a fault on demand")

// await asks until the answer is yes.
func await(t *testing.T, done func() bool) {
	t.Helper()
	pause := time.NewTicker(2 * time.Millisecond)
	defer pause.Stop()
	for end := time.Now().Add(60 * time.Second); !done(); <-pause.C {
		if time.Now().After(end) {
			t.Fatal("it did not come about")
		}
	}
}

// rose checks that a banner is up.
func rose(t *testing.T, v session.Verdict, want session.Banner) {
	t.Helper()
	select {
	case got := <-v.Lease.Banners():
		if got != want {
			t.Errorf("banner %q, want %q", got, want)
		}
	default:
		t.Errorf("no banner, want %q", want)
	}
}
