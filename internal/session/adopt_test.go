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
