package abuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// busy is a line on which somebody waits.
func busy(time.Time, time.Time) (int, float64) { return 1, 0.5 }

// talking is a call of the mobile number that has been with agent ag7 for a minute.
func (n *node) talking(id string) session.CallOutcome {
	start := n.clock.now().Add(-time.Minute)
	return session.CallOutcome{CallID: id, Caller: call.Number{E164: mobile}, Identity: call.Verified,
		Started: start, Answered: start.Add(5 * time.Second), Agent: "ag7", Evidence: "recorded"}
}

// ends counts a call with its outcome.
func (n *node) ends(o session.CallOutcome, outcome session.Outcome) {
	n.t.Helper()
	o.Outcome, o.Ended = outcome, n.clock.now()
	n.Count(n.t.Context(), o)
}

// notes does what an agent does in a call, and fails the test unless the refusal is the one expected.
func (n *node) notes(o session.CallOutcome, kind session.ConductKind, clause string, want Reason) session.Standing {
	n.t.Helper()
	s, err := n.Note(n.t.Context(), session.ConductNote{Kind: kind, Clause: clause, By: "ag7", Call: o})
	if refusal, ok := errors.AsType[*session.Refusal](err); ok && refusal.Why == string(want) {
		return s
	}
	if err != nil || want != ReasonNone {
		n.t.Fatalf("%s %s: %v, want refusal %q", kind, clause, err, want)
	}
	return s
}

// proposed brings the number to a proposal under 29(1): five fruitless calls, and a sixth with a reminder.
func (n *node) proposed() (id string) {
	n.t.Helper()
	for i := range 5 {
		n.ends(n.talking(fmt.Sprint("c", i)), session.OutcomeNoRequest)
		n.clock.turn(5 * time.Minute)
	}
	o := n.talking("c5")
	n.notes(o, session.MarkNoRequest, "", ReasonNone)
	if s := n.notes(o, session.ConductRemind, Clause1, ReasonNone); s.Stage != string(StageGrace) || !s.Grace.Equal(s.Reminded.Add(2*time.Minute)) {
		n.t.Errorf("reminded: %+v", s)
	}
	n.clock.turn(119 * time.Second)
	n.notes(o, session.MarkNoRequest, "", ReasonNone)
	n.notes(o, session.ConductPropose, "", ReasonGrace) // reasonable time was not given yet
	n.clock.turn(time.Second)
	if s := n.notes(o, session.MarkNoRequest, "", ReasonNone); s.Lacks != "" || s.Proposed {
		n.t.Errorf("complete: %+v", s)
	}
	if s := n.notes(o, session.ConductPropose, "", ReasonNone); !s.Proposed || s.Lacks != "" {
		n.t.Errorf("proposed: %+v", s)
	}
	n.ends(o, session.OutcomeNoRequest)
	n.clock.turn(time.Minute)
	return n.keys.measure(mobile)
}

// refusal is the word of a refusal.
func refusal(err error) Reason {
	if r, ok := errors.AsType[*session.Refusal](err); ok {
		return Reason(r.Why)
	}
	return ReasonNone
}

func TestTheWholeStoryOfOneCaller(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := startWith(t, "n1", t.TempDir(), &clock{at: time.Now().Truncate(time.Millisecond)}, Deps{Store: s, Load: busy})
		n.sync()
		id := n.proposed()
		m, err := n.Matter(id)
		if err != nil || m.Stage != StageProposed || m.Lacks != ReasonNone || m.Level != 1 || m.Caller == mobile || m.Number.E164 != mobile {
			t.Fatalf("matter %+v, %v", m, err)
		}
		for _, by := range []struct {
			id   string
			role Role
			want Reason
		}{{"ag7", Manager, ReasonConflict}, {"ag9", "agent", ReasonRole}} {
			if _, err := n.Approve(t.Context(), id, by.id, by.role, "x"); refusal(err) != by.want {
				t.Errorf("%s as %s: %v, want %s", by.id, by.role, err, by.want)
			}
		}
		n.expect("d0", session.AdmitWatch).Lease.Release()
		c, err := n.Approve(t.Context(), id, "sup1", Supervisor, "six calls, no request")
		if err != nil || c.Level != 1 || c.Clause != Clause1 || c.Until.Sub(c.From) != 24*time.Hour {
			t.Fatalf("approved: %+v, %v", c, err)
		}
		if _, err := n.Approve(t.Context(), id, "sup1", Supervisor, "again"); refusal(err) != ReasonSuspended {
			t.Errorf("an approval that arrives twice: %v", err)
		}
		if got := strings.Join(n.acts(), " "); strings.Count(got, actSet) != 1 {
			t.Errorf("the chain: %s", got)
		}
		n.expect("d1", session.IVROnly).Lease.Release()

		for range 2 { // the second changes nothing
			if err := n.Appeal(t.Context(), c.Decision, "d1"); err != nil {
				t.Fatal(err)
			}
		}
		if waiting := n.Appeals(); len(waiting) != 1 || !waiting[0].Due.Equal(waiting[0].At.Add(24*time.Hour)) || waiting[0].ID != id {
			t.Errorf("appeals %+v", waiting)
		}
		for _, by := range []struct {
			id   string
			role Role
			want Reason
		}{{"sup1", Manager, ReasonInFile}, {"ag7", Manager, ReasonInFile}, {"sup2", Supervisor, ReasonRole}} {
			if _, err := n.DecideAppeal(t.Context(), c.Decision, true, "x", by.id, by.role); refusal(err) != by.want {
				t.Errorf("%s decides on the appeal: %v, want %s", by.id, err, by.want)
			}
		}
		if _, err := n.DecideAppeal(t.Context(), c.Decision, true, "the reminder cannot be heard", "mgr1", Manager); err != nil {
			t.Fatal(err)
		}
		n.expect("d2", session.AdmitWatch).Lease.Release()
		if _, err := n.DecideAppeal(t.Context(), c.Decision, false, "x", "mgr1", Manager); refusal(err) != ReasonNoAppeal {
			t.Errorf("decided twice: %v", err)
		}
		if m, err := n.Matter(id); err != nil || m.Confirmed != 0 || m.Stage == StageSuspended || len(n.Appeals()) != 0 {
			t.Errorf("restored: %s, %d on the ladder, %v", m.Stage, m.Confirmed, err)
		}
	})
}

// TestARestartKnowsTheMatter: the chain is the record; a node that starts again, or another that copies it,
// knows all of it, and no number is in it.
func TestARestartKnowsTheMatter(t *testing.T) {
	w, _, a, b := pair(t)
	a.load, b.load = busy, busy
	id := a.proposed()
	flush(t, a)
	b.sync()
	a.sync()
	b.sync()
	want, _ := a.Matter(id)
	got, err := b.Matter(id)
	if err != nil || got.Stage != StageProposed || len(got.Events) != len(want.Events) || got.Number != want.Number {
		t.Errorf("the other node: %+v, %v", got, err)
	}
	chain := filepath.Join(b.data, "audit")
	if err := b.chain.Close(); err != nil {
		t.Fatal(err)
	}
	again := startWith(t, "b", b.data, w.clock, Deps{Store: b.store, Load: busy})
	got, err = again.Matter(id)
	if err != nil || got.Stage != StageProposed || got.Number.E164 != mobile {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
	if _, err := audit.Verify(chain); err != nil {
		t.Error(err)
	}
	files, _ := filepath.Glob(filepath.Join(chain, "*"))
	for _, file := range files {
		if text, _ := os.ReadFile(file); strings.Contains(string(text), mobile[1:]) {
			t.Errorf("%s has the number in clear", file)
		}
	}
}

// TestTwoNodesApproveAtOnce: one decision comes into effect, and every node knows the same one.
func TestTwoNodesApproveAtOnce(t *testing.T) {
	_, _, a, b := pair(t)
	a.load, b.load = busy, busy
	id := a.proposed()
	b.sync()
	var both sync.WaitGroup
	errs := make([]error, 2)
	for i, n := range []*node{a, b} {
		both.Go(func() { _, errs[i] = n.Approve(t.Context(), id, fmt.Sprint("sup", i), Supervisor, "no request") })
	}
	both.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("both or none decided: %v", errs)
	}
	for range 2 {
		a.sync()
		b.sync()
	}
	running := func(n *node) (of []string) {
		for _, c := range n.List() {
			if c.State == Running {
				of = append(of, c.Decision+" "+c.Until.String())
			}
		}
		return of
	}
	if x, y := running(a), running(b); len(x) != 1 || !cmp.Equal(x, y) {
		t.Errorf("running: %v and %v", x, y)
	}
}

// TestAnUndecidedAppealLapses: the measure ends by itself, stays on the ladder, and the other node does not
// end it a second time.
func TestAnUndecidedAppealLapses(t *testing.T) {
	_, _, a, b := pair(t)
	a.load, b.load = busy, busy
	for _, n := range []*node{a, b} {
		n.policy.Measure.Terms[0] = 48 * time.Hour // an appeal's time is over first
	}
	id := a.proposed()
	c, err := a.Approve(t.Context(), id, "sup1", Supervisor, "no request")
	if err != nil {
		t.Fatal(err)
	}
	b.sync()
	if err := a.Appeal(t.Context(), c.Decision, "d1"); err != nil {
		t.Fatal(err)
	}
	a.clock.turn(24*time.Hour - time.Minute)
	b.sync()
	a.sync()
	if got, _ := a.Show(c.Decision); got.State != Running {
		t.Fatalf("a minute before: %s", got.State)
	}
	a.clock.turn(time.Minute)
	a.sync()
	b.sync()
	for _, n := range []*node{a, b} {
		got, _ := n.Show(c.Decision)
		if m, _ := n.Matter(id); got.State != Lapsed || m.Confirmed != 1 {
			t.Errorf("%s: %s, %d on the ladder", n.chain.Node(), got.State, m.Confirmed)
		}
	}
	if got := strings.Join(b.acts(), " "); strings.Count(got, actLapsed) != 1 {
		t.Errorf("the other node's chain: %s", got)
	}
}

// TestWhatSpeaksForTheCaller: a request within scope makes a proposal fall, and a line on which nobody waits
// makes none.
func TestWhatSpeaksForTheCaller(t *testing.T) {
	r := storetest.Start(t)
	n := startWith(t, "n1", t.TempDir(), &clock{at: time.Now().Truncate(time.Millisecond)}, Deps{Store: storetest.Open(t, r.Addr), Load: busy})
	n.sync()
	id := n.proposed()
	n.ends(n.talking("c6"), session.OutcomeRegistered)
	if _, err := n.Approve(t.Context(), id, "sup1", Supervisor, "x"); refusal(err) != ReasonRequest {
		t.Errorf("approved after a request: %v", err)
	}

	n.load = func(time.Time, time.Time) (int, float64) { return 0, 0.84 }
	for i := range 6 {
		o := n.talking(fmt.Sprint("e", i))
		o.Caller.E164 = "+8613700137000"
		if i == 5 {
			n.notes(o, session.ConductRemind, Clause1, ReasonNone)
			n.clock.turn(2 * time.Minute)
			n.notes(o, session.MarkNoRequest, "", ReasonNone)
			n.notes(o, session.ConductPropose, "", ReasonNoHindrance)
		}
		n.ends(o, session.OutcomeNoRequest)
		n.clock.turn(time.Minute)
	}

	o := n.talking("f0")
	o.Caller = call.Number{}
	n.notes(o, session.MarkAbuse, "", ReasonNoNumber)
	o = n.talking("f1")
	o.Caller.E164, o.Identity = "+8657188880000", call.Shared
	n.notes(o, session.ConductRemind, Clause2, ReasonNone)
	n.clock.turn(time.Second)
	n.notes(o, session.MarkAbuse, "", ReasonNone)
	n.notes(o, session.ConductPropose, Clause2, ReasonIdentity)
	o = n.talking("f2")
	o.Caller.E164 = "+8613900139000"
	if _, err := n.Note(t.Context(), session.ConductNote{Kind: session.ConductRemind, Clause: Clause2, By: "ag7", Script: "remind_29_2", Call: o}); err != nil {
		t.Fatal(err)
	}
	n.clock.turn(time.Second)
	n.notes(o, session.MarkAbuse, "", ReasonNone)
	n.notes(o, session.ConductPropose, Clause2, ReasonNotStaff) // a recording is none, unless the policy says so
}
