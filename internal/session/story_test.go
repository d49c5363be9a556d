package session

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
)

// joined brings a caller to an agent's phone at 1001.
func (r *rig) joined() (caller, agent *calltest.Party, id string) {
	r.t.Helper()
	agent = r.sw.Phone("1001")
	caller = r.dial()
	(<-r.tickets).offer("1001")
	agent.Rung()
	agent.Ring()
	agent.PickUp()
	synctest.Wait()
	views := r.m.Views()
	if len(views) != 1 || views[0].Stage != StageTalk {
		r.t.Fatalf("not in talk: %+v", views)
	}
	return caller, agent, views[0].CallID
}

func TestOneCall(t *testing.T) {
	in(t, func(r *rig) {
		caller, agent, id := r.joined()
		time.Sleep(10 * time.Second)
		facts := Facts{Outcome: OutcomeRegistered, Requests: []Request{
			{Kind: KindOpinion, Summary: "路灯不亮"}, {Kind: KindReport, Summary: "占道经营", Urgent: "danger to traffic"}}}
		if err := r.m.SetFacts(t.Context(), id, "p1001", facts); err != nil {
			t.Fatal(err)
		}
		if err := r.m.SetFacts(t.Context(), id, "p1002", facts); !errors.Is(err, ErrNotYours) {
			t.Errorf("another agent's write-up gave %v", err)
		}
		caller.Hang()
		<-agent.Ended()
		synctest.Wait()
		if err := r.m.FinishWrapUp(t.Context(), id, "p1001"); err != nil {
			t.Fatal(err)
		}
		cdr := r.settled(time.Second)
		if cdr.EndReason != string(call.EndCaller) || cdr.Outcome != string(OutcomeRegistered) || cdr.Agent != "p1001" {
			t.Errorf("CDR is %+v", cdr)
		}
		if got, want := r.path(), "flow queue ring talk wrapup"; got != want {
			t.Errorf("the call went %s, want %s", got, want)
		}
		if len(r.overs) != 2 || r.overs[0].RequestID != id || r.overs[0].Revision != 2 || r.overs[0].Recording == nil ||
			r.overs[1].Urgent != "danger to traffic" || r.overs[1].RequestID == id {
			t.Errorf("handed over %+v", r.overs)
		}
		if len(r.points) != 0 || len(r.m.Views()) != 0 {
			t.Error("the call left something behind")
		}
		if len(r.counted) != 1 || r.counted[0].Answered.IsZero() {
			t.Errorf("counted %+v", r.counted)
		}
	})
}

func TestHandOverWaitsForWrapUpAtMost(t *testing.T) {
	in(t, func(r *rig) {
		caller, _, _ := r.joined()
		caller.Hang()
		time.Sleep(119 * time.Second)
		synctest.Wait()
		r.mu.Lock()
		early := len(r.overs)
		r.mu.Unlock()
		if early != 0 {
			t.Error("handed over before the wrap-up's end")
		}
		r.settled(2 * time.Second)
		if len(r.overs) != 1 {
			t.Errorf("handed over %d events", len(r.overs))
		}
	})
}

func TestAbandonInQueue(t *testing.T) {
	in(t, func(r *rig) {
		caller := r.dial()
		<-r.tickets
		time.Sleep(5 * time.Second)
		caller.Hang()
		cdr := r.settled(time.Second)
		if cdr.Outcome != string(OutcomeAbandoned) || cdr.EndReason != string(call.EndCaller) {
			t.Errorf("CDR is %+v", cdr)
		}
		if len(r.left) != 1 || r.left[0] != LeaveAbandon || len(r.overs) != 0 {
			t.Errorf("left %v, handed over %v", r.left, r.overs)
		}
	})
}

func TestAgentDoesNotAnswer(t *testing.T) {
	in(t, func(r *rig) {
		first, second := r.sw.Phone("1001"), r.sw.Phone("1002")
		r.dial()
		ticket := <-r.tickets
		ticket.offer("1001")
		first.Rung()
		first.Ring()
		first.Cancelled() // after 20 s
		ticket.offer("1002")
		second.Rung()
		second.PickUp()
		synctest.Wait()
		if r.declined[0] != DeclineNoAnswer || len(r.entries) != 1 {
			t.Errorf("declined %v, entered %d times", r.declined, len(r.entries))
		}
		if v := r.m.Views()[0]; v.Agent != "p1002" {
			t.Errorf("the agent is %s", v.Agent)
		}
		second.Hang()
		if cdr := r.settled(3 * time.Minute); cdr.EndReason != string(call.EndAgent) || cdr.Agent != "p1002" {
			t.Errorf("CDR is %+v", cdr)
		}
	})
}

func TestLateAnswerIsFenced(t *testing.T) {
	in(t, func(r *rig) {
		agent := r.sw.Phone("1001")
		caller := r.dial()
		ticket := <-r.tickets
		ticket.fenced = true
		ticket.offer("1001")
		agent.Rung()
		agent.PickUp()
		<-agent.Ended()
		synctest.Wait()
		if v := r.m.Views()[0]; v.Stage != StageQueue || v.Agent != "" {
			t.Errorf("the caller is in %s with %q", v.Stage, v.Agent)
		}
		caller.Hang()
		r.settled(time.Second)
	})
}

func TestCallerLeavesWhileItRings(t *testing.T) {
	in(t, func(r *rig) {
		agent := r.sw.Phone("1001")
		caller := r.dial()
		(<-r.tickets).offer("1001")
		agent.Rung()
		caller.Hang()
		agent.Cancelled()
		r.settled(time.Second)
		if len(r.declined) != 1 || r.declined[0] != DeclineCancelled {
			t.Errorf("declined %v", r.declined)
		}
	})
}

func TestOwnNumberIsRefused(t *testing.T) {
	in(t, func(r *rig) {
		r.verdicts = []Verdict{{Decision: RejectNet}}
		caller := r.dial()
		if got := <-caller.Refused(); got != 403 {
			t.Errorf("refused with %d", got)
		}
		if cdr := r.settled(time.Second); cdr.Outcome != string(OutcomeRefused) || cdr.EndReason != string(call.EndRejected) {
			t.Errorf("CDR is %+v", cdr)
		}
	})
}

func TestSuspendedCallerHearsTheNotice(t *testing.T) {
	in(t, func(r *rig) {
		until := time.Now().Add(24 * time.Hour)
		r.verdicts = []Verdict{{Decision: IVROnly, Lease: newLease(), Measure: &Measure{Decision: "2026001", Clause: "29-1", Level: 1, Until: until}}}
		r.dial()
		cdr := r.settled(121 * time.Second)
		if cdr.Outcome != string(OutcomeSuspended) || cdr.EndReason != string(call.EndLine) {
			t.Errorf("CDR is %+v", cdr)
		}
		for _, want := range []string{"digits:2026001", "notice_29_1", "time:" + until.Format(time.RFC3339), "notice_appeal", "suspend_emerg"} {
			if !r.heard(want) {
				t.Errorf("%s was not said", want)
			}
		}
	})
}

func TestSuspendedCallerAppeals(t *testing.T) {
	in(t, func(r *rig) {
		r.verdicts = []Verdict{{Decision: IVROnly, Lease: newLease(), Measure: &Measure{Decision: "1", Clause: "29-2"}}}
		caller := r.dial()
		<-caller.Answered()
		time.Sleep(time.Second)
		caller.Press("2")
		time.Sleep(20 * time.Second)
		caller.Press("#")
		r.settled(10 * time.Second)
		if len(r.overs) != 1 || !r.heard("appeal_done") {
			t.Errorf("handed over %v", r.overs)
		}
	})
}

func TestThirdCallWaitsForALease(t *testing.T) {
	in(t, func(r *rig) {
		r.verdicts = []Verdict{{Decision: QueueLease}, {Decision: QueueLease}, {Decision: Admit, Lease: newLease()}}
		caller := r.dial()
		<-r.tickets
		if got := r.path(); got != "leasewait flow queue" {
			t.Errorf("the call went %s", got)
		}
		caller.Hang()
		r.settled(time.Second)
	})
	in(t, func(r *rig) {
		r.verdicts = []Verdict{{Decision: QueueLease}}
		r.dial()
		if cdr := r.settled(125 * time.Second); cdr.EndReason != string(call.EndFull) {
			t.Errorf("CDR is %+v", cdr)
		}
	})
}

func TestReserveHasItsLimit(t *testing.T) {
	in(t, func(r *rig) {
		r.sw.Call(call.Info{Caller: citizen, Called: "12345", Reserve: true})
		if cdr := r.settled(21 * time.Second); cdr.EndReason != string(call.EndFull) || !r.heard("full_20s") {
			t.Errorf("CDR is %+v", cdr)
		}
	})
}

func TestQueueFull(t *testing.T) {
	in(t, func(r *rig) {
		r.full = true
		r.dial()
		if cdr := r.settled(5 * time.Second); cdr.EndReason != string(call.EndFull) || cdr.Outcome != string(OutcomeRefused) {
			t.Errorf("CDR is %+v", cdr)
		}
	})
}

func TestFailedFlowLeadsToAPerson(t *testing.T) {
	in(t, func(r *rig) {
		r.flow = func(context.Context, Voice, FlowPoint) (FlowExit, error) {
			return FlowExit{}, errors.New("a broken flow")
		}
		caller := r.dial()
		if ticket := <-r.tickets; ticket.entry.Queue != "default" {
			t.Errorf("entered %+v", ticket.entry)
		}
		caller.Hang()
		r.settled(time.Second)
	})
}

func TestUnrecordedCallGoesOn(t *testing.T) {
	in(t, func(r *rig) {
		r.noSpace = true
		caller, _, id := r.joined()
		if v := r.m.Views()[0]; v.Evidence != "none" {
			t.Errorf("evidence is %s", v.Evidence)
		}
		caller.Hang()
		synctest.Wait()
		if err := r.m.FinishWrapUp(t.Context(), id, "p1001"); err != nil {
			t.Error(err)
		}
		if cdr := r.settled(time.Second); cdr.Evidence != "none" {
			t.Errorf("CDR is %+v", cdr)
		}
		if len(r.overs) != 1 || r.overs[0].Recording != nil || r.overs[0].Evidence != "none" {
			t.Errorf("handed over %+v", r.overs)
		}
	})
}

func TestHoldByTheAgent(t *testing.T) {
	in(t, func(r *rig) {
		caller, agent, _ := r.joined()
		agent.Speak(1100)
		agent.Does(call.HoldEvent)
		synctest.Wait()
		if audio := caller.Listen(time.Second); calltest.Share(audio, 300) < 0.8 {
			t.Error("the caller on hold hears no music")
		}
		agent.Does(call.ResumeEvent)
		synctest.Wait()
		if audio := caller.Listen(time.Second); calltest.Share(audio, 1100) < 0.8 {
			t.Error("the caller does not hear the agent again")
		}
		caller.Hang()
		r.settled(3 * time.Minute)
	})
}

func TestFeatureCodes(t *testing.T) {
	in(t, func(r *rig) {
		dial := func(code, keys string) {
			p := r.sw.Call(call.Info{Extension: "1001", Called: code})
			<-p.Answered()
			if keys != "" {
				p.Press(keys)
			}
			<-p.Ended()
		}
		dial("*11", "42#2468#")
		dial("*13", "")
		dial("*12", "")
		dial("*14", "")
		dial("*11", "42#1111#")
		if got := len(r.desk); got != 4 || r.desk[0] != "login 1001 42" {
			t.Errorf("the desk saw %v", r.desk)
		}
		if !r.heard("agent_login_failed") {
			t.Error("the wrong PIN was not told")
		}
		p := r.sw.Call(call.Info{Extension: "1001", Called: "12345"})
		if got := <-p.Refused(); got != 404 {
			t.Errorf("a phone's other call was refused with %d", got)
		}
	})
}

func TestRecoverHandsOverWhatAKillLeft(t *testing.T) {
	in(t, func(r *rig) {
		caller, _, id := r.joined()
		defer caller.Hang()
		point := r.points[id]
		other := &rig{points: map[string]call.Checkpoint{id: point}}
		other.recorder = &recorder{r: other, left: []Recovered{{Facts: RecordingFacts{CallID: id}, Sealed: Sealed{ID: id, Partial: true}}}}
		m, err := New(Defaults(), Deps{Log: r.m.Log, Recorder: other.recorder, Intake: other, Journal: other})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(other.overs) != 1 || other.overs[0].Evidence != "partial" || other.overs[0].RequestID != id ||
			len(other.overs[0].Sealed) == 0 || other.overs[0].Revision != 2 {
			t.Errorf("handed over %+v", other.overs)
		}
		if len(other.cdrs) != 1 || other.cdrs[0].EndReason != string(call.EndNodeLost) || len(other.points) != 0 {
			t.Errorf("CDRs %+v, checkpoints %v", other.cdrs, other.points)
		}
	})
}

func TestPlacesAreToldInBandsAndOnlyBetter(t *testing.T) {
	n := news{every: 30 * time.Second}
	at := time.Now()
	for _, step := range []struct {
		u    QueueUpdate
		pass time.Duration
		want string
	}{
		{QueueUpdate{Position: 20, Wait: 7 * time.Minute}, 0, "all_busy q_tens q_wait_a minutes:10"},
		{QueueUpdate{Position: 8, Wait: 3 * time.Minute}, 10 * time.Second, ""}, // too soon
		{QueueUpdate{Position: 8, Wait: 3 * time.Minute}, 30 * time.Second, "q_ten q_wait_a minutes:5"},
		{QueueUpdate{Position: 15}, time.Minute, ""},                            // worse
		{QueueUpdate{Position: 7}, time.Minute, ""},                             // the same band
		{QueueUpdate{Position: 3, Wait: 4 * time.Minute}, time.Minute, "q_few"}, // the wait is no better
		{QueueUpdate{Position: 1, Wait: time.Second}, time.Minute, "q_next"},
	} {
		at = at.Add(step.pass)
		if got := strings.Join(n.of(step.u, at), " "); got != step.want {
			t.Errorf("place %d: said %q, want %q", step.u.Position, got, step.want)
		}
	}
}

func TestRecordingOfASlowDiskJoinsTheTalk(t *testing.T) {
	in(t, func(r *rig) {
		r.recorder.slow = 3 * time.Second
		caller, _, id := r.joined() // the talk did not wait for the disk
		time.Sleep(time.Second)
		synctest.Wait()
		if v := r.m.Views()[0]; v.Stage != StageTalk || v.Evidence == "recorded" {
			t.Errorf("after a second the view is %+v", v)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if v := r.m.Views()[0]; v.Evidence != "recorded" {
			t.Errorf("after four seconds the evidence is %q", v.Evidence)
		}
		caller.Hang()
		synctest.Wait()
		if err := r.m.FinishWrapUp(t.Context(), id, "p1001"); err != nil {
			t.Error(err)
		}
		if cdr := r.settled(time.Second); cdr.Evidence != "recorded" || len(r.overs) != 1 || r.overs[0].Recording == nil {
			t.Errorf("CDR %+v, handed over %+v", cdr, r.overs)
		}
	})
}

func TestCallThatEndsBeforeTheDiskAnswers(t *testing.T) {
	in(t, func(r *rig) {
		r.recorder.slow = time.Hour
		caller, _, id := r.joined()
		caller.Hang()
		synctest.Wait()
		if err := r.m.FinishWrapUp(t.Context(), id, "p1001"); err != nil {
			t.Error(err)
		}
		if cdr := r.settled(10 * time.Second); cdr.Evidence != "none" || len(r.overs) != 1 {
			t.Errorf("CDR %+v, handed over %+v", cdr, r.overs)
		}
	})
}
