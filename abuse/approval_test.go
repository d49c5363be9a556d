package abuse

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// astray starts a node whose clock runs, and is off by so much.
func astray(t *testing.T, s *store.Store, w *town, name string, off time.Duration) *node {
	t.Helper()
	wall := func() time.Time { return time.Now().Add(off) }
	data, log := t.TempDir(), slog.New(slog.NewTextHandler(t.Output(), nil))
	chain, err := audit.Open(audit.Defaults(), filepath.Join(data, "audit"), name, wall, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { chain.Close() })
	v, err := store.NewVault(s, []byte("the secret that all nodes share!"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(Defaults(), Deps{Store: s, Audit: chain, Data: data, Now: wall, OneClock: true, Log: log, Vault: v, Peers: w.peers})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Admission: a, t: t, data: data, chain: chain}
	w.live(n)
	n.sync()
	return n
}

// insults brings a number to a proposal under 29(2): insults, a reminder, and insults after it. begun is when the call
// began, by the node's own clock.
func (n *node) insults(e164 string, begun time.Time) (id string) {
	n.t.Helper()
	o := session.CallOutcome{CallID: "insults " + e164[8:], Caller: call.Number{E164: e164}, Identity: call.Verified,
		Started: begun, Answered: begun.Add(time.Second), Agent: "ag7", Evidence: "recorded"}
	n.notes(o, session.MarkAbuse, "", ReasonNone)
	reminded := n.notes(o, session.ConductRemind, Clause2, ReasonNone).Reminded
	await(n.t, func() bool { return n.now().After(reminded.Add(time.Millisecond)) })
	n.notes(o, session.MarkAbuse, "", ReasonNone)
	if s := n.notes(o, session.ConductPropose, Clause2, ReasonNone); !s.Proposed {
		n.t.Fatalf("proposed: %+v", s)
	}
	return n.keys.measure(e164)
}

// TestAClockFiveMinutesOff: who approves on a node whose clock is wrong sets a measure that begins now and ends a day
// later, on every node.
func TestAClockFiveMinutesOff(t *testing.T) {
	addr := storetest.Start(t).Addr
	for i, off := range []time.Duration{5 * time.Minute, -5 * time.Minute} {
		t.Run(off.String(), func(t *testing.T) {
			w, number := &town{t: t}, fmt.Sprintf("+861380013800%d", i)
			a := astray(t, storetest.Open(t, addr), w, fmt.Sprint("right", i), 0)
			b := astray(t, storetest.Open(t, addr), w, fmt.Sprint("wrong", i), off)
			id := a.insults(number, time.Now().Add(-time.Minute))
			before := time.Now().Add(-skewIgnored)
			c, err := b.Approve(t.Context(), id, "sup1", Supervisor, "insults went on")
			if err != nil {
				t.Fatal(err)
			}
			if after := time.Now().Add(skewIgnored); c.From.Before(before) || c.From.After(after) || c.Until.Sub(c.From) != 24*time.Hour {
				t.Errorf("from %v until %v, decided between %v and %v", c.From, c.Until, before, after)
			}
			a.sync()
			for _, n := range []*node{a, b} {
				v := n.Screen(t.Context(), session.ScreenRequest{CallID: "c " + n.chain.Node(), Caller: call.Number{E164: number}, Identity: call.Verified, At: n.skew.wall()})
				if v.Decision != session.IVROnly || !v.Measure.Until.Equal(c.Until) {
					t.Errorf("%s: %+v", n.chain.Node(), v)
				}
				v.Lease.Release()
				if m, err := n.Matter(id); err != nil || m.Stage != StageSuspended || !m.Reminded.IsZero() {
					t.Errorf("%s: %s, and the reminder of %v is not used up, %v", n.chain.Node(), m.Stage, m.Reminded, err)
				}
			}
		})
	}
}

// inForce counts a chain's entries of measures that were set, less those that never came into effect.
func (n *node) inForce() (entries int) {
	for _, act := range n.acts() {
		switch act {
		case actSet:
			entries++
		case actVoid:
			entries--
		}
	}
	return entries
}

// TestAnApprovalThatArrivesTwice, by one node or by two at the same instant, by one person or by two: one decision,
// one entry that holds, and one end. HOTLINE_SOAK=1 tries fifty times as often.
func TestAnApprovalThatArrivesTwice(t *testing.T) {
	_, _, a, b := pair(t)
	rounds := 4
	if soaks() {
		rounds = 200
	}
	for i := range rounds {
		number := fmt.Sprintf("+86139%08d", i)
		id := a.insultsBy(number)
		b.sync()
		second := []*node{a, b}[i%2]
		by := []string{"sup0", fmt.Sprint("sup", i/2%2)}
		cases, errs := make([]Case, 2), make([]error, 2)
		ready := make(chan struct{})
		var both sync.WaitGroup
		for k, n := range []*node{a, second} {
			both.Go(func() {
				<-ready
				cases[k], errs[k] = n.Approve(t.Context(), id, by[k], Supervisor, "insults went on")
			})
		}
		close(ready)
		both.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("round %d: both or none decided: %v", i, errs)
		}
		c := cases[slices.Index(errs, nil)]
		for range 2 {
			a.sync()
			b.sync()
		}
		for _, n := range []*node{a, b} {
			m, err := n.Matter(id)
			running := pick(m.Cases, func(c Case) bool { return c.State == Running })
			if err != nil || len(running) != 1 || running[0].Decision != c.Decision || !running[0].Until.Equal(c.From.Add(24*time.Hour)) {
				t.Errorf("round %d, %s: %+v, want %s alone, %v", i, n.chain.Node(), m.Cases, c.Decision, err)
			}
			if got := n.inForce(); got != i+1 {
				t.Errorf("round %d: the chain of %s has %d measures in force: %s", i, n.chain.Node(), got, strings.Join(n.acts(), " "))
			}
			if v := n.Screen(t.Context(), session.ScreenRequest{CallID: "c", Caller: call.Number{E164: number}, Identity: call.Verified, At: n.clock.now()}); v.Decision != session.IVROnly || v.Measure.Decision != c.Decision {
				t.Errorf("round %d, %s: %+v", i, n.chain.Node(), v)
			} else {
				v.Lease.Release()
			}
		}
	}
}

// insultsBy is insults on a node whose clock is turned by hand.
func (n *node) insultsBy(e164 string) (id string) {
	n.t.Helper()
	o := n.talking("insults " + e164[8:])
	o.Caller.E164 = e164
	for _, act := range []session.ConductKind{session.MarkAbuse, session.ConductRemind, session.MarkAbuse, session.ConductPropose} {
		n.notes(o, act, Clause2, ReasonNone)
		n.clock.turn(time.Second)
	}
	return n.keys.measure(e164)
}
