package session

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
	"github.com/hotline12345/gateway/internal/journal"
)

// Who is owed a call, and who is not: the rule of the package's documentation.
func TestWhoIsOwedACall(t *testing.T) {
	full := func(r *rig) { r.full = true }
	listening := func(r *rig) {
		r.flow = func(ctx context.Context, v Voice, _ FlowPoint) (FlowExit, error) {
			return FlowExit{}, v.Say(ctx, false, calltest.Clip("long", 500, time.Minute))
		}
	}
	for name, c := range map[string]struct {
		before func(r *rig)
		info   call.Info // Caller is the citizen if there is none
		end    func(r *rig, p *calltest.Party)
		want   []string
	}{
		"no place in the queue":           {before: full, want: []string{OwedFull}},
		"hangs up on hearing so":          {before: full, end: hang, want: []string{OwedFull}},
		"no place on the line":            {info: call.Info{Reserve: true}, want: []string{OwedFull}},
		"hangs up on hearing that":        {info: call.Info{Reserve: true}, end: hang, want: []string{OwedFull}},
		"left by the queue":               {end: hang}, // which has noted it
		"hangs up in the flow":            {before: listening, end: hang},
		"cut in the flow":                 {before: listening, end: func(_ *rig, p *calltest.Party) { p.Break(call.EndDrained) }, want: []string{OwedDrained}},
		"in danger and gone":              {end: func(_ *rig, p *calltest.Party) { p.Press("0"); synctest.Wait(); p.Hang() }, want: []string{OwedEmergency}},
		"in danger, and hung up waiting":  {end: func(r *rig, p *calltest.Party) { <-r.tickets; p.Press("0"); <-r.tickets; p.Hang() }}, // noted by the queue
		"a spoofed number":                {before: full, info: call.Info{Caller: citizen, Identity: call.Spoof}},
		"no number":                       {before: full, info: call.Info{Identity: call.Anonymous, Withheld: true}},
		"a third call of one number":      {before: third, end: hang},
		"a third call that waited to end": {before: third},
		"under a measure": {before: func(r *rig) {
			r.verdicts = []Verdict{{Decision: IVROnly, Lease: newLease(), Measure: &Measure{Decision: "1", Clause: "29-1"}}}
		}, end: func(_ *rig, p *calltest.Party) { p.Break(call.EndDrained) }},
		"a flow that panics": {before: func(r *rig) {
			r.flow = func(context.Context, Voice, FlowPoint) (FlowExit, error) { panic("a fault") }
		}, want: []string{OwedFault}},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				if c.before != nil {
					c.before(r)
				}
				info := c.info
				info.Called, info.Trunk = "12345", "t"
				if info.Identity == "" {
					info.Caller, info.Identity = citizen, call.Verified
				}
				came := time.Now()
				p := r.sw.Call(info)
				<-p.Answered()
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				if c.end != nil {
					c.end(r, p)
				}
				r.settled(3 * time.Minute)
				if got := r.ledger.owes(); !slices.Equal(got, c.want) {
					t.Fatalf("owed %v, want %v", got, c.want)
				}
				if len(r.points) != 0 {
					t.Errorf("left %v", r.points)
				}
				if info.Identity == call.Spoof && r.entries[0].Caller != (call.Number{}) {
					t.Error("the place is another's, whose number was borrowed")
				}
				for _, o := range r.ledger.owed {
					if o.Caller != citizen || o.Queue != "default" || o.Arrived.Sub(came) > time.Second || o.Left.Before(came) {
						t.Errorf("owed %+v", o)
					}
				}
			})
		})
	}
}

func hang(_ *rig, p *calltest.Party) { p.Hang() }

func third(r *rig) { r.verdicts = []Verdict{{Decision: QueueLease}} }

// The ledger is told when the store is back, and until then the checkpoint remembers.
func TestDebtOutlivesAStoreThatIsAway(t *testing.T) {
	in(t, func(r *rig) {
		r.full, r.ledger.away = true, true
		r.dial()
		r.settled(10 * time.Second)
		if len(r.points) != 1 {
			t.Fatalf("the checkpoints are %v", r.points)
		}
		point := maps.Clone(r.points)
		r.ledger.mu.Lock()
		r.ledger.away = false
		r.ledger.mu.Unlock()
		time.Sleep(notePauseMost)
		if got := r.ledger.owes(); !slices.Equal(got, []string{OwedFull}) || len(r.points) != 0 {
			t.Errorf("owed %v, left %v", got, r.points)
		}
		next := r.again(point) // had the node left before
		next.cdrs = r.cdrs
		next.recovered()
		if got := next.ledger.owes(); !slices.Equal(got, []string{OwedFull}) || len(next.cdrs) != 1 || next.cdrs[0].EndReason != string(call.EndFull) {
			t.Errorf("owed %v, CDRs %+v", got, next.cdrs)
		}
	})
}

// again is the next start of the node, on what a kill left.
func (r *rig) again(points map[string]call.Checkpoint) *rig {
	r.t.Helper()
	next := &rig{t: r.t, points: points, said: nil}
	next.recorder = &recorder{r: next}
	next.ledger = book{r: next, ends: map[string]CallBackResult{}}
	var err error
	next.m, err = New(Defaults(), Deps{Log: slog.New(slog.DiscardHandler), Recorder: next.recorder, Intake: next, Journal: next,
		CallBacks: &next.ledger, Seal: seal, Open: open})
	if err != nil {
		r.t.Fatal(err)
	}
	return next
}

func (r *rig) recovered() {
	r.t.Helper()
	if err := r.m.Recover(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
	if len(r.points) != 0 {
		r.t.Errorf("left %v", r.points)
	}
}

// killed is what a kill of the node would leave now.
func (r *rig) killed() *rig {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.again(maps.Clone(r.points))
}

// A kill at every moment: whoever was answered and had not come to an end is owed a call, with the old place.
func TestKilledNodeOwesItsCallers(t *testing.T) {
	for name, c := range map[string]struct {
		reach func(r *rig) *calltest.Party
		want  []string
	}{
		"prompt": {moments["prompt"], []string{OwedNodeLost}}, "queue": {moments["queue"], []string{OwedNodeLost}},
		"ring": {moments["ring"], []string{OwedNodeLost}}, "leasewait": {moments["leasewait"], []string{OwedNodeLost}},
		"reserve": {moments["reserve"], []string{OwedFull}}, "suspended": {moments["suspended"], nil},
		"talk":   {func(r *rig) *calltest.Party { p, _, _ := r.joined(); return p }, []string{OwedNodeLost}},
		"danger": {func(r *rig) *calltest.Party { p := moments["queue"](r); p.Press("0"); return p }, []string{OwedNodeLost}},
		"wrap-up": {func(r *rig) *calltest.Party {
			p, _, _ := r.joined()
			p.Hang()
			return p
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				came := time.Now()
				p := c.reach(r)
				<-p.Answered()
				time.Sleep(time.Second)
				next := r.killed()
				next.recovered()
				if got := next.ledger.owes(); !slices.Equal(got, c.want) {
					t.Fatalf("owed %v, want %v", got, c.want)
				}
				for _, o := range next.ledger.owed {
					if o.Caller.E164 != citizen.E164 || o.Arrived.Sub(came) > 2*time.Second || o.Language != "zh" || o.Queue != "default" {
						t.Errorf("owed %+v", o)
					}
				}
				cdr := next.cdrs[0]
				end := call.EndNodeLost
				if name == "wrap-up" { // the caller had gone before
					end = call.EndCaller
				}
				if cdr.EndReason != string(end) || cdr.Caller.E164 != citizen.E164 || cdr.Called != "12345" || !cdr.Started.Equal(came) {
					t.Errorf("CDR is %+v", cdr)
				}
				p.Hang()
				r.settled(3 * time.Minute)
			})
		})
	}
}

// A call back that a kill cut before the caller answered is no attempt; after it, the caller was cut.
func TestKilledNodeGivesItsCallBacksBack(t *testing.T) {
	in(t, func(r *rig) {
		r.missed()
		agent := r.sw.Phone("1001")
		id := r.click()
		agent.Rung()
		next := r.killed()
		next.recovered()
		if next.ledger.ends[id] != CallBackAgentMissed || len(next.ledger.owes()) != 0 {
			t.Errorf("the ledger has %v, owed %v", next.ledger.ends, next.ledger.owed)
		}
	})
	in(t, func(r *rig) {
		place := r.missed()
		caller, _, id := r.calledBack()
		next := r.killed()
		next.recovered()
		if got := next.ledger.owes(); len(next.ledger.ends) != 0 || !slices.Equal(got, []string{OwedNodeLost}) || next.ledger.owed[0].CallID != id ||
			!next.ledger.owed[0].Arrived.Equal(place) || next.ledger.owed[0].Queue != "english" {
			t.Errorf("the ledger has %v, owed %+v", next.ledger.ends, next.ledger.owed)
		}
		caller.Hang()
		r.settled(3 * time.Minute)
	})
}

// A call that ended well, and whose checkpoint a slow disk kept, keeps its CDR.
func TestRecoverLeavesACallThatEndedWell(t *testing.T) {
	in(t, func(r *rig) {
		caller, _, id := r.joined()
		next := r.killed()
		caller.Hang()
		next.cdrs = []journal.CDR{r.settled(3 * time.Minute)}
		next.recovered()
		if len(next.cdrs) != 1 || next.cdrs[0].EndReason != string(call.EndCaller) || len(next.ledger.owes()) != 0 {
			t.Errorf("CDRs %+v, owed %v", next.cdrs, next.ledger.owed)
		}
		if len(next.overs) != 1 || next.overs[0].RequestID != id || next.overs[0].Facts["end_reason"] != nil {
			t.Errorf("handed over %+v", next.overs)
		}
	})
}

// A number that another secret sealed cannot be called; the rest of the call's books are closed.
func TestRecoverWithoutTheNumber(t *testing.T) {
	in(t, func(r *rig) {
		p := moments["queue"](r)
		next := r.killed()
		for id, c := range next.points {
			c.Caller = []byte("by another")
			next.points[id] = c
		}
		next.recovered()
		if len(next.ledger.owes()) != 0 || len(next.cdrs) != 1 {
			t.Errorf("owed %v, CDRs %+v", next.ledger.owed, next.cdrs)
		}
		p.Hang()
		r.settled(time.Second)
	})
}
