package session

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
)

// stuckIn compares the gauge with the one stage that is stuck, or none.
func (r *rig) stuckIn(stage Stage) {
	r.t.Helper()
	synctest.Wait()
	var want strings.Builder
	want.WriteString("# HELP hotline_call_stuck Live calls that are in a stage for longer than it can last, or whose caller has gone.\n# TYPE hotline_call_stuck gauge\n")
	for _, s := range Stages() {
		n := 0
		if s == stage {
			n = 1
		}
		fmt.Fprintf(&want, "hotline_call_stuck{stage=%q} %d\n", s, n)
	}
	if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want.String()), "hotline_call_stuck"); err != nil {
		r.t.Error(err)
	}
}

// Every stage may last as long as the configuration allows, and no gauge rises.
func TestNoStageIsStuckByItself(t *testing.T) {
	for name, reach := range moments {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				p := reach(r)
				for range 60 {
					time.Sleep(5 * time.Second)
					r.stuckIn("")
				}
				p.Hang()
				r.settled(time.Minute)
			}, func(c *Config) { c.FlowStuck = 10 * time.Minute })
		})
	}
}

func TestAHangingStageIsStuck(t *testing.T) {
	in(t, func(r *rig) { // a flow that waits for nothing
		done := make(chan struct{})
		r.flow = func(ctx context.Context, v Voice, _ FlowPoint) (FlowExit, error) {
			v.Node("pit", "zh")
			<-done
			return FlowExit{}, context.Cause(ctx)
		}
		p := r.dial()
		<-p.Answered()
		time.Sleep(5*time.Minute + grace)
		r.stuckIn("")
		time.Sleep(time.Second)
		r.stuckIn(StageFlow)
		close(done)
		p.Hang()
		r.settled(time.Second)
		r.stuckIn("")
	})
	in(t, func(r *rig) { // a queue that does not let go of a caller who has gone
		p := r.dial()
		ticket := <-r.tickets
		ticket.holds = make(chan struct{})
		p.Hang()
		time.Sleep(grace)
		r.stuckIn("")
		time.Sleep(time.Second)
		r.stuckIn(StageQueue)
		close(ticket.holds)
		r.settled(time.Second)
	})
	in(t, func(r *rig) { // an answer that the queue never takes
		agent := r.sw.Phone("1001")
		p := r.dial()
		ticket := <-r.tickets
		ticket.holds = make(chan struct{})
		ticket.offer("1001")
		agent.Rung()
		agent.PickUp()
		time.Sleep(20*time.Second + grace + time.Second)
		r.stuckIn(StageRing)
		close(ticket.holds)
		p.Hang()
		r.settled(3 * time.Minute)
	})
}

func TestTimelineIsBounded(t *testing.T) {
	in(t, func(r *rig) {
		caller, _, _ := r.joined()
		for range 3 * maxNotes {
			caller.Press("5")
			synctest.Wait()
		}
		caller.Hang()
		r.settled(3 * time.Minute)
		if last := r.notes[len(r.notes)-1]; len(r.notes) != maxNotes || last.Kind != "timeline" {
			t.Errorf("%d lines, the last %+v", len(r.notes), last)
		}
	})
}

// Callers who wait are served until shortly before the node leaves; then they are told, and leave.
func TestTheNodeLeaves(t *testing.T) {
	for name, c := range map[string]struct {
		reach func(r *rig) *calltest.Party
		owed  int // by the session; the queue notes its own
		says  string
	}{
		"queue": {moments["queue"], 0, "drain_bye"}, "ring": {moments["ring"], 0, "drain_bye"}, "prompt": {moments["prompt"], 1, "drain_bye"},
		"leasewait": {moments["leasewait"], 1, "drain_bye"}, "suspended": {moments["suspended"], 0, "full_20s"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				p := c.reach(r)
				<-p.Answered()
				time.Sleep(200 * time.Millisecond)
				r.m.DrainBy(time.Now().Add(30 * time.Second))
				time.Sleep(19 * time.Second)
				synctest.Wait()
				if len(r.m.Views()) != 1 {
					t.Fatal("a caller left too early")
				}
				cdr := r.settled(3 * time.Second)
				if cdr.EndReason != string(call.EndDrained) || !r.heard(c.says) || len(r.ledger.owes()) != c.owed {
					t.Errorf("CDR is %+v, said %v, owed %v", cdr, r.said, r.ledger.owed)
				}
				if name == "queue" && (len(r.left) != 1 || r.left[0] != LeaveDrained) {
					t.Errorf("left by %v", r.left)
				}
			})
		})
	}
}

func TestTheNodeLeavesATalkAlone(t *testing.T) {
	in(t, func(r *rig) {
		caller, _, _ := r.joined()
		r.m.DrainBy(time.Now().Add(time.Minute))
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if v := r.m.Views()[0]; v.Stage != StageTalk {
			t.Errorf("the call is in %s", v.Stage)
		}
		caller.Hang()
		r.settled(3 * time.Minute)
	})
	in(t, func(r *rig) { // the far side of a transfer is a talk as well
		far := r.sw.Phone("a/96110")
		r.flow = transferTo("96110")
		caller := r.dial()
		far.Rung()
		far.PickUp()
		r.m.DrainBy(time.Now().Add(time.Minute))
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if v := r.m.Views()[0]; v.Stage != StageTalk {
			t.Errorf("the call is in %s", v.Stage)
		}
		caller.Hang()
		r.settled(time.Second)
	})
}

// Danger is heard in the last words as well.
func TestDangerInTheLastWords(t *testing.T) {
	in(t, func(r *rig) {
		service := r.sw.Phone("loopback/9110")
		caller := moments["queue"](r)
		r.m.DrainBy(time.Now().Add(20 * time.Second))
		time.Sleep(10*time.Second + 50*time.Millisecond)
		caller.Press("0")
		synctest.Wait()
		caller.Press("1")
		service.Rung()
		service.PickUp()
		synctest.Wait()
		if v := r.m.Views()[0]; v.Stage != StageService {
			t.Errorf("the call is in %s", v.Stage)
		}
		caller.Hang()
		r.settled(time.Second)
	})
}
