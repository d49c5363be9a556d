package session

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
)

// missed puts a caller into the ledger who came a while ago.
func (r *rig) missed() (place time.Time) {
	place = time.Now().Add(-10 * time.Minute)
	r.ledger.tasks["task"] = CallBackTask{Number: citizen, Entry: QueueEntry{Queue: "english", Language: "en", Arrived: place}}
	return place
}

// click asks for the call back.
func (r *rig) click() (callID string) {
	r.t.Helper()
	id, err := r.m.CallBack(r.t.Context(), "task", "p1001")
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// calledBack brings an agent and a caller together who is called back.
func (r *rig) calledBack() (caller, agent *calltest.Party, id string) {
	r.t.Helper()
	agent, caller = r.sw.Phone("1001"), r.sw.Phone("out/13800138000")
	id = r.click()
	agent.Rung()
	agent.PickUp()
	caller.Rung()
	caller.PickUp()
	time.Sleep(time.Second) // the notice
	synctest.Wait()
	if v := r.m.Views()[0]; v.Stage != StageTalk {
		r.t.Fatalf("not in talk: %+v", v)
	}
	return caller, agent, id
}

func TestCallBack(t *testing.T) {
	in(t, func(r *rig) {
		r.missed()
		agent, caller := r.sw.Phone("1001"), r.sw.Phone("out/13800138000")
		id := r.click()
		if o := agent.Rung().Options; o.Masked != "138****8000" || o.Token != id {
			t.Errorf("the agent was called with %+v", o)
		}
		synctest.Wait()
		if v := r.m.Views()[0]; v.Stage != StageRing || v.Reason != ReasonCallBack || v.Agent != "p1001" || v.Gateway != "node1" ||
			v.Queue != "english" || v.Caller != "138****8000" || v.Called != "" {
			t.Errorf("the view is %+v", v)
		}
		agent.PickUp()
		if o := caller.Rung().Options; o.Caller != (call.Number{}) || o.Form != call.FormSpoken {
			t.Errorf("the caller was called with %+v", o)
		}
		if audio := agent.Listen(2 * time.Second); calltest.Share(audio, 300) < 0.3 || !r.heard("callback_dial") {
			t.Error("the agent waits in silence")
		}
		caller.PickUp()
		synctest.Wait()
		if audio := caller.Listen(100 * time.Millisecond); calltest.Share(audio, 500) < 0.5 || !r.heard("welcome rec_notice") {
			t.Error("the caller hears no notice")
		}
		agent.Speak(1100)
		time.Sleep(time.Second)
		if audio := caller.Listen(time.Second); calltest.Share(audio, 1100) < 0.5 {
			t.Error("the caller does not hear the agent")
		}
		if err := r.m.SetFacts(t.Context(), id, "p1001", Facts{Outcome: OutcomeRegistered, Requests: []Request{{Kind: KindOpinion}}}); err != nil {
			t.Error(err)
		}
		caller.Hang()
		<-agent.Ended()
		synctest.Wait()
		if err := r.m.FinishWrapUp(t.Context(), id, "p1001"); err != nil {
			t.Error(err)
		}
		cdr := r.settled(time.Second)
		if cdr.CallID != id || cdr.Decision != string(CalledBack) || cdr.Outcome != string(OutcomeRegistered) || cdr.Agent != "p1001" ||
			cdr.EndReason != string(call.EndCaller) || cdr.Evidence != "recorded" || cdr.Caller != citizen || cdr.Connected.IsZero() {
			t.Errorf("CDR is %+v", cdr)
		}
		if got := r.path(); got != "ring ring talk wrapup" {
			t.Errorf("the call went %s", got)
		}
		if r.ledger.ends[id] != CallBackAnswered || !slices.Equal(r.completed(), []call.EndReason{call.EndCaller}) {
			t.Errorf("the ledger has %v, the queue %v", r.ledger.ends, r.complete)
		}
		if len(r.overs) != 1 || r.overs[0].Recording == nil || !slices.Equal(r.recorder.open[0].marks, []string{"notice", "talk", "talk_end"}) {
			t.Errorf("handed over %+v", r.overs)
		}
		if len(r.counted) != 0 || len(r.ledger.owes()) != 0 || len(r.points) != 0 {
			t.Errorf("counted %v, owed %v, left %v", r.counted, r.ledger.owed, r.points)
		}
	})
}

// A caller who is not reached leaves nothing to write up, and the agent is free at once.
func TestCallBackNotReached(t *testing.T) {
	for name, c := range map[string]struct {
		does   func(p *calltest.Party)
		result CallBackResult
		cause  call.Cause
	}{
		"busy":      {func(p *calltest.Party) { p.Refuse(486) }, CallBackBusy, call.CauseBusy},
		"declined":  {func(p *calltest.Party) { p.Refuse(603) }, CallBackBusy, call.CauseRejected},
		"no answer": {func(p *calltest.Party) { p.Ring(); p.Cancelled() }, CallBackNoAnswer, 0}, // after 45 s
		"away":      {func(p *calltest.Party) { p.Refuse(480) }, CallBackNoAnswer, call.CauseNoAnswer},
		"failed":    {func(p *calltest.Party) { p.Refuse(503) }, CallBackFailed, call.CauseCongestion},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				r.missed()
				agent, caller := r.sw.Phone("1001"), r.sw.Phone("out/13800138000")
				id := r.click()
				agent.Rung()
				agent.PickUp()
				caller.Rung()
				c.does(caller)
				<-agent.Ended()
				cdr := r.settled(time.Second)
				if r.ledger.ends[id] != c.result || cdr.EndReason != string(call.EndLine) || cdr.Outcome != "" || cdr.Cause != int(c.cause) {
					t.Errorf("the ledger has %v, CDR is %+v", r.ledger.ends, cdr)
				}
				if len(r.completed()) != 1 || len(r.overs) != 0 || len(r.points) != 0 || len(r.ledger.owes()) != 0 {
					t.Errorf("completed %v, handed over %v, left %v", r.complete, r.overs, r.points)
				}
			})
		})
	}
}

func TestCallBackWithoutTheAgent(t *testing.T) {
	in(t, func(r *rig) {
		r.missed()
		agent := r.sw.Phone("1001")
		id := r.click()
		agent.Rung()
		agent.Cancelled() // after 20 s
		cdr := r.settled(time.Second)
		if r.ledger.ends[id] != CallBackAgentMissed || !slices.Equal(r.declined, []DeclineReason{DeclineNoAnswer}) || cdr.EndReason != string(call.EndAgent) {
			t.Errorf("the ledger has %v, declined %v, CDR is %+v", r.ledger.ends, r.declined, cdr)
		}
	})
	in(t, func(r *rig) { // who hangs up while the caller's phone rings
		r.missed()
		agent, caller := r.sw.Phone("1001"), r.sw.Phone("out/13800138000")
		id := r.click()
		agent.Rung()
		agent.PickUp()
		caller.Rung()
		agent.Hang()
		caller.Cancelled()
		r.settled(time.Second)
		if r.ledger.ends[id] != CallBackAgentMissed || !slices.Equal(r.completed(), []call.EndReason{call.EndAgent}) {
			t.Errorf("the ledger has %v, the queue %v", r.ledger.ends, r.complete)
		}
	})
}

func TestCallBackKeepsThePlaceWhenThePhoneBreaks(t *testing.T) {
	in(t, func(r *rig) {
		place := r.missed()
		next := r.sw.Phone("1002")
		caller, agent, id := r.calledBack()
		agent.Break(call.EndMediaTimeout)
		waiting := <-r.tickets
		if e := waiting.entry; e.CallID != id || e.Queue != "english" || !e.Arrived.Equal(place) || e.Reason != "agent_lost" {
			t.Errorf("entered %+v", e)
		}
		waiting.offer("1002")
		next.Rung()
		next.PickUp()
		synctest.Wait()
		if v := r.m.Views()[0]; v.Stage != StageTalk || v.Agent != "p1002" {
			t.Errorf("the view is %+v", v)
		}
		caller.Hang()
		if cdr := r.settled(3 * time.Minute); cdr.Agent != "p1002" || len(r.ledger.ends) != 1 {
			t.Errorf("CDR is %+v, the ledger has %v", cdr, r.ledger.ends)
		}
	})
}

// A caller who answered does not pay for an agent who hangs up before they are joined; and waits with the
// emergency key alive.
func TestCallBackAgentLeavesTheAnsweredCaller(t *testing.T) {
	in(t, func(r *rig) {
		place := r.missed()
		agent, caller := r.sw.Phone("1001"), r.sw.Phone("out/13800138000")
		id := r.click()
		agent.Rung()
		agent.PickUp()
		caller.Rung()
		caller.PickUp()
		synctest.Wait()
		agent.Hang()
		if e := (<-r.tickets).entry; !e.Arrived.Equal(place) || r.ledger.ends[id] != CallBackAnswered {
			t.Errorf("entered %+v, the ledger has %v", e, r.ledger.ends)
		}
		caller.Press("0")
		if e := (<-r.tickets).entry; !e.Front || e.Reason != "emergency" {
			t.Errorf("entered %+v", e)
		}
		caller.Hang()
		r.settled(3 * time.Minute)
	})
}

func TestDangerInACallBack(t *testing.T) {
	in(t, func(r *rig) {
		r.missed()
		service := r.sw.Phone("loopback/9119")
		caller, agent, _ := r.calledBack()
		caller.Press("0")
		synctest.Wait()
		if v := r.m.Views()[0]; !v.Alert || v.Stage != StageTalk {
			t.Errorf("the view is %+v", v)
		}
		agent.Press("*02")
		if o := service.Rung().Options; o.Caller != citizen || o.Form != call.FormFrom {
			t.Errorf("the service was called with %+v", o)
		}
		service.PickUp()
		service.Speak(1700)
		synctest.Wait()
		if audio := caller.Listen(time.Second); calltest.Share(audio, 1700) < 0.5 {
			t.Error("the caller does not hear the service")
		}
		caller.Hang()
		if cdr := r.settled(3 * time.Minute); cdr.Emergency != string(Fire) {
			t.Errorf("CDR is %+v", cdr)
		}
	})
}

// A measure binds the caller's own calls. The agent sees it, and the caller's number is free at once.
func TestCallBackUnderAMeasure(t *testing.T) {
	in(t, func(r *rig) {
		r.missed()
		held := newLease()
		r.verdicts = []Verdict{{Decision: IVROnly, Lease: held, Measure: &Measure{Decision: "1", Clause: "29-1"}}}
		caller, _, _ := r.calledBack()
		<-held.released
		if v := r.m.Views()[0]; v.Decision != IVROnly {
			t.Errorf("the view is %+v", v)
		}
		caller.Hang()
		r.settled(3 * time.Minute)
	})
}

func TestCallBackIsRefused(t *testing.T) {
	ask := func(r *rig, want error) {
		t.Helper()
		if _, err := r.m.CallBack(t.Context(), "task", "p1001"); !errors.Is(err, want) {
			t.Errorf("asked for a call back: %v, want %v", err, want)
		}
		if len(r.m.Views()) != 0 {
			t.Error("a call was begun")
		}
	}
	in(t, func(r *rig) { ask(r, ErrNoTask) })
	in(t, func(r *rig) { r.missed(); ask(r, ErrCallBackOff) }, func(c *Config) { c.CallBack.Trunk = "" })
	in(t, func(r *rig) {
		r.missed()
		r.m.DrainBy(time.Now().Add(time.Hour))
		ask(r, ErrCallBackOff)
		r.m.DrainBy(time.Time{}) // the node stays
		r.sw.Phone("1001")
		r.click()
	})
	in(t, func(r *rig) {
		r.missed()
		r.m.calling = maxCallBacks
		ask(r, ErrCallBacksFull)
	})
}

// Whatever ends an attempt from outside leaves the caller in the ledger.
func TestCallBackCutShort(t *testing.T) {
	for name, c := range map[string]struct {
		cut    func(r *rig, id string)
		reason call.EndReason
	}{
		"by a supervisor": {func(r *rig, id string) {
			if err := r.m.Hangup(t.Context(), id, "boss"); err != nil {
				t.Error(err)
			}
		}, call.EndLine},
		"by the node's end": {func(r *rig, _ string) { r.m.Drain() }, call.EndDrained},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				r.missed()
				agent, caller := r.sw.Phone("1001"), r.sw.Phone("out/13800138000")
				id := r.click()
				agent.Rung()
				agent.PickUp()
				caller.Rung()
				c.cut(r, id)
				caller.Cancelled()
				<-agent.Ended()
				if cdr := r.settled(time.Second); cdr.EndReason != string(c.reason) || r.ledger.ends[id] != CallBackAgentMissed {
					t.Errorf("CDR is %+v, the ledger has %v", cdr, r.ledger.ends)
				}
			})
		})
	}
	t.Run("by a panic", func(t *testing.T) {
		in(t, func(r *rig) {
			r.missed()
			r.panics = true
			agent, caller := r.sw.Phone("1001"), r.sw.Phone("out/13800138000")
			id := r.click()
			agent.Rung()
			agent.PickUp()
			caller.Rung()
			caller.Cancelled()
			<-agent.Ended()
			if cdr := r.settled(time.Second); cdr.EndReason != string(call.EndFault) || r.ledger.ends[id] != CallBackAgentMissed || len(r.completed()) != 1 {
				t.Errorf("CDR is %+v, the ledger has %v, the queue %v", cdr, r.ledger.ends, r.complete)
			}
		})
	})
}
