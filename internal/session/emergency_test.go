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

// moments are the places in a call where the emergency key must work, and how to get there.
var moments = map[string]func(r *rig) *calltest.Party{
	"prompt": func(r *rig) *calltest.Party {
		r.flow = func(ctx context.Context, v Voice, _ FlowPoint) (FlowExit, error) {
			return FlowExit{}, v.Say(ctx, false, calltest.Clip("long", 500, time.Minute))
		}
		return r.dial()
	},
	"collection": func(r *rig) *calltest.Party {
		r.flow = func(ctx context.Context, v Voice, _ FlowPoint) (FlowExit, error) {
			_, err := v.Collect(ctx, Collect{Max: 10, First: time.Minute, Next: time.Minute})
			return FlowExit{}, err
		}
		return r.dial()
	},
	"queue": func(r *rig) *calltest.Party {
		p := r.dial()
		<-r.tickets
		return p
	},
	"ring": func(r *rig) *calltest.Party {
		agent := r.sw.Phone("1001")
		p := r.dial()
		(<-r.tickets).offer("1001")
		agent.Rung()
		return p
	},
	"suspended": func(r *rig) *calltest.Party {
		r.verdicts = []Verdict{{Decision: IVROnly, Lease: newLease(), Measure: &Measure{Decision: "1", Clause: "29-1"}}}
		return r.dial()
	},
	"leasewait": func(r *rig) *calltest.Party {
		r.verdicts = []Verdict{{Decision: QueueLease}}
		return r.dial()
	},
	"reserve": func(r *rig) *calltest.Party {
		return r.sw.Call(call.Info{Caller: citizen, Called: "12345", Reserve: true})
	},
}

func TestEmergencyKeyAtEveryMoment(t *testing.T) {
	for name, reach := range moments {
		for i, svc := range Services() {
			t.Run(name+" "+string(svc), func(t *testing.T) {
				in(t, func(r *rig) {
					service := r.sw.Phone("loopback/9" + string(svc))
					caller := reach(r)
					<-caller.Answered()
					time.Sleep(time.Second)
					key := "0"
					if name == "collection" {
						key = "57*0"
					}
					caller.Press(key)
					synctest.Wait()
					pressed := time.Now()
					caller.Press(string(rune('1' + i)))
					ring := service.Rung()
					if took := ring.At.Sub(pressed); took > 300*time.Millisecond {
						t.Errorf("the INVITE left after %v", took)
					}
					if ring.Options.Form != call.FormFrom || ring.Options.Caller != citizen || !ring.Options.Emergency {
						t.Errorf("the service was called with %+v", ring.Options)
					}
					service.PickUp()
					service.Speak(1100)
					synctest.Wait()
					if audio := caller.Listen(time.Second); calltest.Share(audio, 1100) < 0.5 {
						t.Error("the caller does not hear the service")
					}
					service.Hang()
					cdr := r.settled(5 * time.Second)
					if cdr.Emergency != string(svc) || cdr.EndReason != string(call.EndService) || cdr.Outcome != string(OutcomeEmergency) {
						t.Errorf("CDR is %+v", cdr)
					}
					if len(r.overs) != 2 || r.overs[0].Type != RequestUrgent || r.overs[1].Type != RequestRecorded || r.overs[1].Recording == nil {
						t.Errorf("handed over %+v", r.overs)
					}
				})
			})
		}
	}
}

func TestSilenceAfterTheKeyGoesToTheFront(t *testing.T) {
	in(t, func(r *rig) {
		caller := r.dial()
		<-r.tickets
		caller.Press("0")
		entry := (<-r.tickets).entry
		if !entry.Front || entry.Reason != "emergency" {
			t.Errorf("entered %+v", entry)
		}
		if r.left[0] != LeaveEmergency {
			t.Errorf("left the queue by %v", r.left)
		}
		caller.Hang()
		r.settled(time.Second)
	})
}

func TestBackFromTheEmergencyKeyKeepsThePlace(t *testing.T) {
	in(t, func(r *rig) {
		caller := r.dial()
		first := (<-r.tickets).entry
		came := time.Now()
		time.Sleep(30 * time.Second)
		caller.Press("0")
		synctest.Wait()
		caller.Press("9")
		again := (<-r.tickets).entry
		if again.Front || !first.Arrived.IsZero() || again.Arrived.IsZero() || again.Arrived.Sub(came) > time.Second {
			t.Errorf("came at %v, entered again %+v", came, again)
		}
		caller.Hang()
		r.settled(time.Second)
	})
}

func routes(forms ...call.CallerForm) func(*Config) {
	return func(c *Config) {
		c.Emergency.Live, c.Emergency.Agreement = true, "agreement 7"
		c.Emergency.Routes = map[Service][]Route{Fire: {{Trunk: "a", Number: "119", Forms: forms}, {Trunk: "b", Number: "57119"}}}
	}
}

// fire brings a caller to the choice of the fire service.
func fire(r *rig) *calltest.Party {
	caller := r.dial()
	<-r.tickets
	caller.Press("0")
	synctest.Wait()
	caller.Press("2")
	return caller
}

func TestNextFormWhenTheNumberIsRefused(t *testing.T) {
	in(t, func(r *rig) {
		a := r.sw.Phone("a/119")
		caller := fire(r)
		var forms []call.CallerForm
		for _, status := range []int{403, 404, 484} {
			forms = append(forms, a.Rung().Options.Form)
			a.Refuse(status)
		}
		forms = append(forms, a.Rung().Options.Form)
		a.PickUp()
		synctest.Wait()
		if want := []call.CallerForm{call.FormFrom, call.FormPAI, call.FormDiversion, call.FormSpoken}; !slices.Equal(forms, want) {
			t.Errorf("the forms were %v", forms)
		}
		if !r.heard("em_service_intro digits:13800138000") {
			t.Error("the number was not read to the service")
		}
		caller.Hang()
		r.settled(time.Second)
	}, routes())
}

func TestNextRouteWhenNothingAnswers(t *testing.T) {
	in(t, func(r *rig) {
		a, b := r.sw.Phone("a/119"), r.sw.Phone("b/57119")
		caller := fire(r)
		first := a.Rung()
		second := b.Rung()
		if d := second.At.Sub(first.At); d < 4*time.Second || d > 5*time.Second {
			t.Errorf("the second route came after %v", d)
		}
		a.Cancelled()
		b.PickUp()
		synctest.Wait()
		caller.Hang()
		<-b.Ended()
		r.settled(time.Second)
	}, routes())
}

func TestRouteThatDoesNotRingIsJoined(t *testing.T) {
	in(t, func(r *rig) {
		a, b := r.sw.Phone("a/119"), r.sw.Phone("b/57119")
		caller := fire(r)
		first := a.Rung()
		a.Trying()
		second := b.Rung()
		if d := second.At.Sub(first.At); d < 12*time.Second || d > 13*time.Second {
			t.Errorf("the second route came after %v", d)
		}
		a.PickUp() // the first answers after all, and wins
		b.Cancelled()
		synctest.Wait()
		if v := r.m.Views()[0]; v.Stage != StageService {
			t.Errorf("the caller is in %s", v.Stage)
		}
		caller.Hang()
		r.settled(time.Second)
	}, routes())
}

func TestEveryRouteFailsThenAPerson(t *testing.T) {
	in(t, func(r *rig) {
		a, b := r.sw.Phone("a/119"), r.sw.Phone("b/57119")
		caller := fire(r)
		a.Rung()
		a.Refuse(500)
		b.Rung()
		b.Refuse(486)
		entry := (<-r.tickets).entry
		if !entry.Front || !r.heard("em_fail") {
			t.Errorf("entered %+v", entry)
		}
		caller.Hang()
		r.settled(time.Second)
	}, routes())
}

func TestAgentBringsTheService(t *testing.T) {
	in(t, func(r *rig) {
		service := r.sw.Phone("loopback/9120")
		caller, agent, _ := r.joined()
		agent.Press("*03")
		service.Rung()
		service.PickUp()
		service.Speak(1700)
		agent.Speak(1100)
		synctest.Wait()
		audio := caller.Listen(time.Second)
		if calltest.Share(audio, 1700) < 0.25 || calltest.Share(audio, 1100) < 0.25 {
			t.Error("the caller does not hear both")
		}
		agent.Hang()
		synctest.Wait()
		if audio := caller.Listen(time.Second); calltest.Share(audio, 1700) < 0.5 {
			t.Error("the service left with the agent")
		}
		caller.Hang()
		<-service.Ended()
		if cdr := r.settled(3 * time.Minute); cdr.Emergency != "120" {
			t.Errorf("CDR is %+v", cdr)
		}
	})
}

func TestKeyInTalkIsAnAlert(t *testing.T) {
	in(t, func(r *rig) {
		caller, _, _ := r.joined()
		caller.Press("0")
		synctest.Wait()
		if v := r.m.Views()[0]; v.Stage != StageTalk || !v.Alert {
			t.Errorf("the view is %+v", v)
		}
		caller.Hang()
		r.settled(3 * time.Minute)
	})
}

func TestTypingAheadIsNoDanger(t *testing.T) {
	in(t, func(r *rig) {
		r.flow = func(ctx context.Context, v Voice, _ FlowPoint) (FlowExit, error) {
			digits, err := v.Collect(ctx, Collect{Max: 4, First: time.Minute, Next: time.Minute, Ask: func(ctx context.Context) error {
				return v.Say(ctx, true, calltest.Clip("ask", 500, time.Minute))
			}})
			return FlowExit{Kind: ExitQueue, Queue: "default", Node: digits}, err
		}
		caller := r.dial()
		<-caller.Answered()
		time.Sleep(time.Second)
		caller.Press("0571")
		if entry := (<-r.tickets).entry; entry.Reason != "0571" || entry.Front {
			t.Errorf("entered %+v", entry)
		}
		caller.Hang()
		r.settled(time.Second)
	})
}
