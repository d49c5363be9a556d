package session

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
)

// keeping is the wireless backend as one whose legs outlive a process.
type keeping struct{ *calltest.Fake }

func (keeping) Adopt(context.Context, func(string) (*call.Checkpoint, bool)) error { return nil }

// A caller whose call was cut, and who is on the line still, goes on in the queue at the old place, in a call of
// its own; the line owes nothing. One who is not on the line is called back.
func TestACallerIsTakenUpAfterAKill(t *testing.T) {
	for _, there := range []bool{true, false} {
		in(t, func(r *rig) {
			first := moments["queue"](r)
			old := r.entries[0]
			next := r.killed()
			defer func() { first.Hang(); r.settled(time.Second) }() // of the process that was killed
			next.sw, next.tickets, next.verdicts = calltest.NewFake(), make(chan *ticket, 8), r.verdicts
			d := &next.m.Deps
			d.Switch, d.Screener, d.Flow, d.Prompts, d.Queue, d.Desk = keeping{next.sw}, next, next, next, next, next
			d.KeyWatch = r.m.KeyWatch
			if err := next.m.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			var point call.Checkpoint
			for _, c := range r.points {
				point = c
			}
			if !there {
				time.Sleep(adoptFor + time.Second)
				synctest.Wait()
				if got := next.ledger.owes(); !slices.Equal(got, []string{OwedNodeLost}) {
					t.Errorf("owed %v to a caller who is gone", got)
				}
				return
			}
			from, ok := next.m.Cut(point.LegID)
			if _, again := next.m.Cut(point.LegID); !ok || again {
				t.Fatal("the checkpoint is given once")
			}
			caller := takeUp(next, from)
			e := next.entries[len(next.entries)-1]
			if e.CallID == old.CallID || point.Placed.IsZero() || !e.Arrived.Equal(point.Placed) || e.Queue != old.Queue {
				t.Errorf("waits as %+v, was %+v", e, old)
			}
			time.Sleep(adoptFor + time.Second)
			synctest.Wait()
			if got := next.ledger.owes(); len(got) != 0 {
				t.Errorf("owed %v to a caller who is on the line", got)
			}
			caller.Hang()
			synctest.Wait()
		})
	}
}

// takeUp gives a session a leg of the last process, with where its call stood.
func takeUp(r *rig, from *call.Checkpoint) *calltest.Party {
	ctx, stop := context.WithCancel(r.t.Context())
	served := make(chan error, 1)
	go func() {
		served <- r.sw.Serve(ctx, func(ctx context.Context, leg call.Leg, _ *call.Checkpoint) {
			if err := leg.Answer(ctx); err != nil {
				r.t.Error(err)
			}
			r.m.Handle(ctx, leg, from)
		})
	}()
	r.t.Cleanup(func() { stop(); <-served })
	p := r.sw.Call(call.Info{ID: from.LegID, Called: "12345"})
	<-p.Answered()
	synctest.Wait()
	return p
}

// joining is a backend whose bridges outlive a process too.
type joining struct {
	keeping
	bridge call.Bridge
	far    []call.Leg
}

func (j *joining) Rejoin(call.Leg) (call.Bridge, []call.Leg) {
	bridge, far := j.bridge, j.far
	j.bridge, j.far = nil, nil
	return bridge, far
}

// A talk whose both legs outlived a kill goes on as one, with its agent and a recording of its own. Without the agent's
// leg the agent is free, and the caller waits at the old place.
func TestATalkGoesOnAfterAKill(t *testing.T) {
	for _, agentThere := range []bool{true, false} {
		in(t, func(r *rig) {
			first, _, _ := r.joined()
			next := r.killed()
			defer func() { first.Hang(); r.m.Drain(); synctest.Wait() }() // of the process that was killed
			next.sw, next.tickets = calltest.NewFake(), make(chan *ticket, 8)
			backend := &joining{keeping: keeping{next.sw}}
			d := &next.m.Deps
			d.Switch, d.Screener, d.Flow, d.Prompts, d.Queue, d.Desk = backend, next, next, next, next, next
			d.KeyWatch = r.m.KeyWatch
			if err := next.m.Pledge(r.t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := next.m.Recover(r.t.Context()); err != nil {
				t.Fatal(err)
			}
			var point call.Checkpoint
			for _, c := range r.points {
				point = c
			}
			from, ok := next.m.Cut(point.LegID)
			if !ok || from.Stage != string(StageTalk) || len(from.Offer) == 0 {
				t.Fatalf("the talk was kept as %+v", from)
			}
			agent := next.sw.Phone("1001")
			if agentThere {
				go func() { agent.Rung(); agent.PickUp() }()
				leg, err := next.sw.Dial(r.t.Context(), call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{})
				if err != nil {
					t.Fatal(err)
				}
				from.AgentLeg, backend.far = leg.Info().ID, []call.Leg{leg}
				if backend.bridge, err = next.sw.Bridge(r.t.Context(), "talk"); err != nil {
					t.Fatal(err)
				}
			}
			caller := takeUp(next, from)
			v := next.m.Views()[0]
			if want := map[bool]Stage{true: StageTalk, false: StageQueue}[agentThere]; v.Stage != want {
				t.Errorf("with the agent's leg there: %t, the call is in %s, want %s", agentThere, v.Stage, want)
			}
			if agentThere && (v.Agent != "p1001" || v.Evidence != "recorded") {
				t.Errorf("the talk goes on as %+v", v)
			}
			if freed := len(next.complete) == 1; freed == agentThere {
				t.Errorf("with the agent's leg there: %t, the agent was freed: %t", agentThere, freed)
			}
			caller.Hang()
			synctest.Wait()
			next.m.Drain()
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(next.complete) != 1 {
				t.Errorf("the talk ended %d times", len(next.complete))
			}
		})
	}
}
