package session

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
)

// The tests of this file stand at the joints: between two stages, and where two parties act at once.

// completed are the ends of talks that the queue was told, so far.
func (r *rig) completed() []call.EndReason {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.complete)
}

func TestAgentWhoLeavesTheCallerToTheServiceIsFree(t *testing.T) {
	in(t, func(r *rig) {
		service := r.sw.Phone("loopback/9110")
		caller, agent, _ := r.joined()
		agent.Press("*01")
		service.Rung()
		service.PickUp()
		service.Speak(1700)
		synctest.Wait()
		agent.Does(call.HoldEvent) // as many phones do before they hang up
		synctest.Wait()
		agent.Hang()
		if got := r.completed(); !slices.Equal(got, []call.EndReason{call.EndAgent}) {
			t.Errorf("the queue was told %v", got)
		}
		if audio := caller.Listen(time.Second); calltest.Share(audio, 1700) < 0.5 {
			t.Error("the caller is still on hold")
		}
		service.Hang()
		if cdr := r.settled(3 * time.Minute); cdr.EndReason != string(call.EndService) || len(r.completed()) != 1 {
			t.Errorf("CDR is %+v, the queue was told %v", cdr, r.completed())
		}
	})
}

func TestAgentLeavesAndNoServiceAnswers(t *testing.T) {
	in(t, func(r *rig) {
		service := r.sw.Phone("a/119")
		r.sw.Phone("b/57119")
		caller, agent, _ := r.joined()
		agent.Press("*02")
		service.Rung()
		agent.Hang()
		synctest.Wait()
		service.Refuse(503)
		entry := (<-r.tickets).entry // the second route gives no sign, and is given up
		if !entry.Front || entry.Reason != "emergency" || !r.heard("em_dial_direct") {
			t.Errorf("entered %+v; said %v", entry, r.said)
		}
		caller.Hang()
		if cdr := r.settled(3 * time.Minute); cdr.Outcome == string(OutcomeFault) || cdr.Emergency != string(Fire) {
			t.Errorf("CDR is %+v", cdr)
		}
	}, routes())
}

func TestAgentLostInDangerMeansTheFront(t *testing.T) {
	in(t, func(r *rig) {
		service := r.sw.Phone("a/119")
		r.sw.Phone("b/57119")
		caller, agent, _ := r.joined()
		agent.Press("*02")
		service.Rung()
		service.Refuse(503)
		time.Sleep(time.Minute) // the agent stays to help
		agent.Break(call.EndMediaTimeout)
		entry := (<-r.tickets).entry
		if !entry.Front || entry.Reason != "agent_lost" {
			t.Errorf("entered %+v", entry)
		}
		caller.Hang()
		if r.settled(3 * time.Minute); len(r.overs) != 2 {
			t.Errorf("handed over %+v", r.overs)
		}
	}, routes())
}

func TestServiceLostIsHelpedByAnAgent(t *testing.T) {
	in(t, func(r *rig) {
		service := r.sw.Phone("a/119")
		caller := fire(r)
		service.Rung()
		service.PickUp()
		time.Sleep(10 * time.Second)
		service.Break(call.EndMediaTimeout)
		if entry := (<-r.tickets).entry; !entry.Front || entry.Reason != "emergency" {
			t.Errorf("entered %+v", entry)
		}
		caller.Hang()
		r.settled(time.Second)
	}, routes())
}

// An agent whose phone was lost can still write up the call that the caller then gave up.
func TestLostAgentWritesUp(t *testing.T) {
	in(t, func(r *rig) {
		next := r.sw.Phone("1002")
		caller, agent, id := r.joined()
		agent.Break(call.EndMediaTimeout)
		(<-r.tickets).offer("1002")
		next.Rung()
		caller.Hang()
		synctest.Wait()
		if err := r.m.SetFacts(t.Context(), id, "p1001", Facts{Requests: []Request{{Kind: KindOther}}}); err != nil {
			t.Error(err)
		}
		if err := r.m.FinishWrapUp(t.Context(), id, "p1001"); err != nil { // at once: the page does both in one act
			t.Error(err)
		}
		r.settled(time.Second)
	})
}

func TestOrderOfAnotherMomentIsNotCarriedOut(t *testing.T) {
	in(t, func(r *rig) {
		first, second := r.sw.Phone("1001"), r.sw.Phone("1002")
		caller := r.dial()
		ticket := <-r.tickets
		ticket.offer("1001")
		first.Rung()
		id := r.m.Views()[0].CallID
		if err := r.m.Emergency(t.Context(), id, "p1001", Fire); !errors.Is(err, ErrNotInTalk) {
			t.Errorf("an order at a phone that rings gave %v", err)
		}
		first.Refuse(486)
		ticket.offer("1002")
		second.Rung()
		second.PickUp()
		time.Sleep(time.Second)
		caller.Hang()
		if cdr := r.settled(3 * time.Minute); cdr.Emergency != "" {
			t.Errorf("CDR is %+v", cdr)
		}
	})
}

func TestMeasureThatBeganWhileTheCallerWaited(t *testing.T) {
	in(t, func(r *rig) {
		r.verdicts = []Verdict{{Decision: QueueLease}, {Decision: IVROnly, Lease: newLease(), Measure: &Measure{Decision: "1", Clause: "29-1"}}}
		caller := r.dial()
		time.Sleep(5 * time.Second)
		if got := r.path(); got != "leasewait suspended" {
			t.Errorf("the call went %s", got)
		}
		caller.Hang()
		if cdr := r.settled(time.Second); cdr.Decision != string(IVROnly) || cdr.Outcome != string(OutcomeSuspended) {
			t.Errorf("CDR is %+v", cdr)
		}
	})
}

// The key falls where one stage has ended and the next has not begun.
func TestEmergencyKeyBetweenTwoStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pad := &keypad{keys: make(chan byte, 32), watch: &stars{}, danger: func(*errDanger) {}, told: func(call.Digit, bool) {}}
		pad.press(call.Digit{Key: '0', At: time.Now()})
		ctx, release := pad.guard(t.Context())
		if _, ok := errors.AsType[*errDanger](context.Cause(ctx)); !ok {
			t.Error("the next stage was not interrupted")
		}
		release()
		if ctx, release = pad.guard(t.Context()); ctx.Err() != nil {
			t.Error("one key interrupted two stages")
		}
		release()
	})
}

func TestEmergencyKeyPressedTwice(t *testing.T) {
	in(t, func(r *rig) {
		caller := r.dial()
		<-r.tickets
		caller.Press("00") // the second is no choice of a service
		entry := (<-r.tickets).entry
		time.Sleep(10 * time.Second)
		if got := r.path(); !entry.Front || got != "flow queue emergency queue" {
			t.Errorf("the call went %s to %+v", got, entry)
		}
		caller.Press("0")
		caller.Hang() // at the same time
		r.settled(time.Second)
	})
}

func TestKeysInTalkAreNobodysBusiness(t *testing.T) {
	in(t, func(r *rig) {
		caller, _, _ := r.joined()
		caller.Press("6222")
		caller.Hang()
		r.settled(3 * time.Minute)
		for _, n := range r.notes {
			if key := n.Attrs["key"]; key != "" {
				t.Errorf("the timeline shows the key %s", key)
			}
		}
	})
}

func transferTo(far string) func(context.Context, Voice, FlowPoint) (FlowExit, error) {
	return func(context.Context, Voice, FlowPoint) (FlowExit, error) {
		return FlowExit{Kind: ExitTransfer, Endpoint: call.Endpoint{Kind: call.ToTrunk, Name: "a", Number: far}}, nil
	}
}

func TestTransferShowsNoWithheldNumber(t *testing.T) {
	in(t, func(r *rig) {
		far := r.sw.Phone("a/96110")
		r.flow = transferTo("96110")
		caller := r.sw.Call(call.Info{Caller: citizen, Called: "12345", Withheld: true})
		if o := far.Rung().Options; o.Caller != (call.Number{}) || o.Form != call.FormSpoken {
			t.Errorf("the far side was called with %+v", o)
		}
		caller.Hang()
		r.settled(time.Second)
	})
}

func TestEmergencyKeyInATransfer(t *testing.T) {
	in(t, func(r *rig) {
		far := r.sw.Phone("a/96110")
		r.flow = transferTo("96110")
		caller := r.dial()
		far.Rung()
		far.PickUp()
		time.Sleep(time.Second)
		caller.Press("0") // the far side's own menu
		time.Sleep(time.Second)
		if got := r.path(); got != "flow ring talk" {
			t.Errorf("the call went %s", got)
		}
		caller.Press("*0")
		<-far.Ended()
		if entry := (<-r.tickets).entry; !entry.Front {
			t.Errorf("entered %+v", entry)
		}
		caller.Hang()
		if cdr := r.settled(time.Second); cdr.EndReason != string(call.EndCaller) {
			t.Errorf("CDR is %+v", cdr)
		}
	})
}

func TestRequestsKeepTheirOwnIdentities(t *testing.T) {
	in(t, func(r *rig) {
		caller, _, id := r.joined()
		set := func(ids ...string) error {
			var f Facts
			for _, id := range ids {
				f.Requests = append(f.Requests, Request{ID: id, Kind: KindOther})
			}
			return r.m.SetFacts(t.Context(), id, "p1001", f)
		}
		if err := set("01ANOTHERCALL"); !errors.Is(err, ErrBadFacts) {
			t.Errorf("another call's identity gave %v", err)
		}
		if err := set("", ""); err != nil {
			t.Fatal(err)
		}
		second := r.m.Views()[0].Facts.Requests[1].ID
		if err := set(second, second); !errors.Is(err, ErrBadFacts) {
			t.Errorf("one identity twice gave %v", err)
		}
		if err := set("", id); err != nil { // a new one before the first
			t.Fatal(err)
		}
		if got := r.m.Views()[0].Facts.Requests; got[0].ID == id || got[1].ID != id {
			t.Errorf("requests are %+v", got)
		}
		caller.Hang()
		r.settled(3 * time.Minute)
	})
}

// A kill must not lose what an agent wrote of a call that could not be recorded.
func TestRecoverHandsOverAnUnrecordedCall(t *testing.T) {
	in(t, func(r *rig) {
		r.noSpace = true
		caller, _, id := r.joined()
		if err := r.m.SetFacts(t.Context(), id, "p1001", Facts{Requests: []Request{{Kind: KindReport}, {Kind: KindOther}}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		other := &rig{points: map[string]call.Checkpoint{id: r.points[id]}}
		other.recorder = &recorder{r: other}
		m, err := New(Defaults(), Deps{Log: r.m.Log, Recorder: other.recorder, Intake: other, Journal: other})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(other.overs) != 2 || other.overs[0].Facts["kind"] != string(KindReport) || other.overs[0].Evidence != "none" {
			t.Errorf("handed over %+v", other.overs)
		}
		if len(other.cdrs[0].RequestIDs) != 2 {
			t.Errorf("CDR is %+v", other.cdrs[0])
		}
		caller.Hang()
		r.settled(3 * time.Minute)
	})
}

func TestPanicGivesThePlaceBack(t *testing.T) {
	in(t, func(r *rig) {
		r.panics = true
		r.dial()
		(<-r.tickets).updates <- QueueUpdate{Position: 1}
		cdr := r.settled(time.Second)
		if cdr.EndReason != string(call.EndFault) || !slices.Equal(r.left, []LeaveReason{LeaveAbandon}) {
			t.Errorf("CDR is %+v, left %v", cdr, r.left)
		}
	})
}

func TestDrainTellsTheQueue(t *testing.T) {
	in(t, func(r *rig) {
		caller := r.dial()
		<-r.tickets
		caller.Break(call.EndDrained)
		if r.settled(time.Second); !slices.Equal(r.left, []LeaveReason{LeaveDrained}) {
			t.Errorf("left by %v", r.left)
		}
	})
}

// The node's end reaches the agent's leg first, and is the node's end all the same.
func TestTalkEndedByTheNode(t *testing.T) {
	in(t, func(r *rig) {
		_, agent, _ := r.joined()
		agent.Break(call.EndDrained)
		if cdr := r.settled(3 * time.Minute); cdr.EndReason != string(call.EndDrained) || !slices.Equal(r.ledger.owes(), []string{OwedDrained}) {
			t.Errorf("CDR is %+v, owed %v", cdr, r.ledger.owed)
		}
	})
}

// A caller whom the agent leaves is not alone in silence until the service answers.
func TestCallerHearsMusicWhileTheServiceIsCalled(t *testing.T) {
	in(t, func(r *rig) {
		service := r.sw.Phone("loopback/9120")
		caller, agent, _ := r.joined()
		agent.Press("*03")
		service.Rung()
		agent.Hang()
		synctest.Wait()
		if audio := caller.Listen(time.Second); calltest.Share(audio, 300) < 0.8 {
			t.Error("the caller hears nothing")
		}
		service.PickUp()
		service.Speak(1700)
		synctest.Wait()
		if audio := caller.Listen(time.Second); calltest.Share(audio, 1700) < 0.8 {
			t.Error("the caller does not hear the service")
		}
		caller.Hang()
		r.settled(3 * time.Minute)
	})
}

// A feature code that was begun and left means nothing with a key that is pressed much later.
func TestFeatureCodeHasItsTime(t *testing.T) {
	in(t, func(r *rig) {
		service := r.sw.Phone("loopback/9110")
		caller, agent, _ := r.joined()
		agent.Press("*0")
		time.Sleep(codeGap + time.Second)
		agent.Press("1")
		time.Sleep(time.Second)
		if v := r.m.Views()[0]; v.Emergency != "" {
			t.Errorf("the view is %+v", v)
		}
		agent.Press("*0")
		time.Sleep(codeGap - time.Second)
		agent.Press("1")
		service.Rung()
		caller.Hang()
		r.settled(3 * time.Minute)
	})
}

// Nothing that the caller hears of a talk is missing in its recording, however long the disk takes to begin
// it: 400 ms here.
func TestRecordingHasTheTalkFromItsBeginning(t *testing.T) {
	in(t, func(r *rig) {
		r.recorder.slow = 400 * time.Millisecond
		caller, agent, _ := r.joined()
		agent.Speak(1100)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if kept := r.recorder.open[0].kept(500); kept < 100*time.Millisecond || !r.heard("agent_no") {
			t.Errorf("%v of the 100 ms of the agent's announcement are in the recording", kept)
		}
		caller.Hang()
		r.settled(3 * time.Minute)
	}, func(c *Config) { c.AnnounceAgent = true })
}

// The banner rises while the agent talks.
func TestBannerRisesInMidCall(t *testing.T) {
	in(t, func(r *rig) {
		held := newLease()
		r.verdicts = []Verdict{{Decision: Admit, Lease: held}}
		caller, _, _ := r.joined()
		changed, stop := r.m.Watch()
		defer stop()
		held.banners <- BannerLong
		<-changed
		if v := r.m.Views()[0]; v.Banner != BannerLong {
			t.Errorf("the view is %+v", v)
		}
		caller.Hang()
		r.settled(3 * time.Minute)
		<-held.released
	})
}

// A third call of one number: told why, with the emergency exit alive (see moments), admitted within two
// seconds of a place, or ended after two minutes with its reason.
func TestThirdCall(t *testing.T) {
	in(t, func(r *rig) {
		r.verdicts = []Verdict{{Decision: QueueLease}}
		caller := r.dial()
		<-caller.Answered()
		time.Sleep(50 * time.Second)
		if got := r.path(); got != "leasewait" || !r.heard("lease_wait") {
			t.Errorf("the call went %s, said %v", got, r.said)
		}
		held := newLease()
		r.mu.Lock()
		r.verdicts = []Verdict{{Decision: Admit, Lease: held}}
		r.mu.Unlock()
		time.Sleep(2 * time.Second)
		if got := r.path(); got != "leasewait flow queue" {
			t.Errorf("the call went %s", got)
		}
		caller.Hang()
		r.settled(time.Second)
		<-held.released
	})
	in(t, func(r *rig) {
		r.verdicts = []Verdict{{Decision: QueueLease}}
		caller := r.dial()
		<-caller.Answered()
		came := time.Now()
		<-caller.Ended()
		if waited := time.Since(came); waited < 2*time.Minute || waited > 2*time.Minute+speaking || !r.heard("lease_end") {
			t.Errorf("ended after %v, said %v", waited, r.said)
		}
		if cdr := r.settled(time.Second); cdr.EndReason != string(call.EndFull) || cdr.Outcome != string(OutcomeRefused) {
			t.Errorf("CDR is %+v", cdr)
		}
	})
}
