package session

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
	"github.com/hotline12345/gateway/internal/journal"
)

// listener is an ear as a script: it hears what a test says.
type listener struct {
	heard    chan Heard
	once     sync.Once
	mu       sync.Mutex
	declined []Heard
}

func (r *rig) Listen() (Ear, error) {
	if r.deaf != nil {
		return nil, r.deaf
	}
	l := &listener{heard: make(chan Heard, 8)}
	select {
	case r.ears <- l:
	default: // a test of many calls, where nobody is heard
	}
	return l, nil
}

func (l *listener) Write(call.Track, uint32, []byte) {}
func (l *listener) Gap(call.Track)                   {}
func (l *listener) Close()                           { l.once.Do(func() { close(l.heard) }) }
func (l *listener) Heard() <-chan Heard              { return l.heard }
func (l *listener) Decline(h Heard) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.declined = append(l.declined, h)
}

// says has words heard, and waits until they had their effect.
func (l *listener) says(k HeardKind, s Service) {
	l.heard <- Heard{Kind: k, Service: s, Words: "着火了", At: time.Now()}
	synctest.Wait()
}

func (r *rig) came(s Service, result string) float64 {
	return testutil.ToFloat64(r.m.metrics.heard.WithLabelValues(string(s), result))
}

// TestWordsReachTheServiceAtEveryMoment says it at every place where nobody is on the line: the caller is told, does not
// say no, nobody is free, and the service rings.
func TestWordsReachTheServiceAtEveryMoment(t *testing.T) {
	for name, reach := range moments {
		for _, svc := range Services() {
			t.Run(name+" "+string(svc), func(t *testing.T) {
				in(t, func(r *rig) {
					service := r.sw.Phone("loopback/9" + string(svc))
					caller := reach(r)
					<-caller.Answered()
					ear := <-r.ears
					time.Sleep(time.Second)
					synctest.Wait()
					said := time.Now()
					ear.says(HeardTransfer, svc)
					if !r.heard(announced[svc]) {
						t.Error("the caller was not told")
					}
					ring := service.Rung()
					if took := ring.At.Sub(said); took < 5*time.Second || took > 11*time.Second {
						t.Errorf("the INVITE left after %v, want 5 s to cancel and 5 s for an agent", took)
					}
					service.PickUp()
					service.Speak(1100)
					synctest.Wait()
					if audio := caller.Listen(time.Second); calltest.Share(audio, 1100) < 0.5 {
						t.Error("the caller does not hear the service")
					}
					service.Hang()
					cdr := r.settled(5 * time.Second)
					if cdr.Emergency != string(svc) || cdr.Outcome != string(OutcomeEmergency) {
						t.Errorf("CDR is %+v", cdr)
					}
					if len(r.overs) != 2 || r.overs[0].Type != RequestUrgent || r.overs[0].Facts["heard"] != "着火了" {
						t.Errorf("handed over %+v", r.overs)
					}
					if r.came(svc, heardTransfer) != 1 {
						t.Error("the transfer was not counted")
					}
				})
			})
		}
	}
}

// TestAgentAndServiceTogether has an agent free: the two talk at once, and the service joins them.
func TestAgentAndServiceTogether(t *testing.T) {
	in(t, func(r *rig) {
		agent, service := r.sw.Phone("1001"), r.sw.Phone("loopback/9119")
		caller := r.dial()
		<-r.tickets
		ear := <-r.ears
		ear.says(HeardTransfer, Fire)
		place := <-r.tickets
		if !place.entry.Front {
			t.Errorf("entered %+v", place.entry)
		}
		place.offer("1001")
		agent.Rung()
		agent.PickUp()
		service.Rung()
		if v := r.m.Views()[0]; v.Stage != StageTalk || v.Agent != "p1001" || v.Emergency != Fire || v.Heard.Words != "着火了" {
			t.Errorf("the view is %+v", v)
		}
		service.PickUp()
		service.Speak(1700)
		agent.Speak(1100)
		synctest.Wait()
		audio := caller.Listen(time.Second)
		if calltest.Share(audio, 1700) < 0.25 || calltest.Share(audio, 1100) < 0.25 {
			t.Error("the caller does not hear both")
		}
		caller.Hang()
		<-service.Ended()
		if cdr := r.settled(3 * time.Minute); cdr.Emergency != "119" || cdr.Agent != "p1001" {
			t.Errorf("CDR is %+v", cdr)
		}
		if n := testutil.ToFloat64(r.m.metrics.emergencies.WithLabelValues("119", byWords)); n != 1 {
			t.Errorf("%v emergencies are counted", n)
		}
	})
}

func TestCallerSaysNo(t *testing.T) {
	for name, no := range map[string]func(*calltest.Party, *listener){
		"key 2":   func(p *calltest.Party, _ *listener) { p.Press("2") },
		"key 9":   func(p *calltest.Party, _ *listener) { p.Press("9") },
		"in word": func(_ *calltest.Party, l *listener) { l.says(HeardNo, "") },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				caller := r.dial()
				<-r.tickets
				ear := <-r.ears
				ear.says(HeardTransfer, Medical)
				no(caller, ear)
				again := (<-r.tickets).entry
				if again.Front || again.Arrived.IsZero() || !r.heard("em_cancel") {
					t.Errorf("entered %+v", again)
				}
				if len(ear.declined) != 1 || ear.declined[0].Service != Medical {
					t.Errorf("the ear was told %+v", ear.declined)
				}
				if v := r.m.Views()[0]; v.Alert || v.Heard.Service != "" {
					t.Errorf("the view is %+v", v)
				}
				time.Sleep(20 * time.Second)
				synctest.Wait()
				caller.Hang()
				if cdr := r.settled(time.Second); cdr.Emergency != "" || slices.ContainsFunc(r.overs, func(h HandOver) bool { return h.Type == RequestUrgent }) {
					t.Errorf("CDR is %+v, handed over %+v", cdr, r.overs)
				}
			})
		})
	}
}

func TestYesGoesAtOnce(t *testing.T) {
	in(t, func(r *rig) {
		service := r.sw.Phone("loopback/9110")
		caller := r.dial()
		ear := <-r.ears
		ear.says(HeardTransfer, Police)
		said := time.Now()
		ear.says(HeardYes, "")
		if ring := service.Rung(); ring.At.Sub(said) > time.Second {
			t.Errorf("the INVITE left after %v", ring.At.Sub(said))
		}
		service.PickUp()
		synctest.Wait()
		caller.Hang()
		r.settled(time.Second)
	}, func(c *Config) { c.Emergency.AgentWithin = 0 })
}

// TestPerhapsDangerIsAsked never calls the service by itself: silence is for a person, at the front.
func TestPerhapsDangerIsAsked(t *testing.T) {
	answers := map[string]func(r *rig, caller, service *calltest.Party, l *listener){
		"silence": func(r *rig, _, _ *calltest.Party, _ *listener) {
			if e := (<-r.tickets).entry; !e.Front || e.Reason != "emergency" || !r.m.Views()[0].Alert {
				t.Errorf("entered %+v", e)
			}
		},
		"no": func(r *rig, _, _ *calltest.Party, l *listener) {
			l.says(HeardNo, "")
			if e := (<-r.tickets).entry; e.Front || len(l.declined) != 1 {
				t.Errorf("entered %+v", e)
			}
		},
		"a key": func(_ *rig, caller, service *calltest.Party, _ *listener) {
			caller.Press("2")
			service.Rung()
		},
		"words": func(r *rig, _, _ *calltest.Party, l *listener) {
			l.says(HeardTransfer, Fire) // announced, as it was the machine who asked
			if !r.heard("em_fire") {
				t.Error("not announced")
			}
			l.says(HeardNo, "")
			<-r.tickets
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				service := r.sw.Phone("loopback/9119")
				caller := r.dial()
				<-r.tickets
				ear := <-r.ears
				ear.says(HeardConfirm, Fire)
				if !r.heard("em_heard em_which") || r.came(Fire, heardAsked) != 1 {
					t.Error("the caller was not asked")
				}
				answer(r, caller, service, ear)
				caller.Hang()
				r.settled(time.Second)
			})
		})
	}
}

// TestWordsInTalkAreAnAlert leaves the decision to the agent, who hears the caller.
func TestWordsInTalkAreAnAlert(t *testing.T) {
	in(t, func(r *rig) {
		service := r.sw.Phone("loopback/9119")
		caller, agent, _ := r.joined()
		ear := <-r.ears
		ear.says(HeardTransfer, Fire)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if v := r.m.Views()[0]; v.Stage != StageTalk || !v.Alert || v.Heard.Service != Fire || v.Heard.Words != "着火了" || v.Emergency != "" {
			t.Errorf("the view is %+v", v)
		}
		if len(r.overs) != 0 || r.came(Fire, heardAlert) != 1 {
			t.Errorf("handed over %+v", r.overs)
		}
		agent.Press("*02") // the agent's key
		service.Rung()
		service.PickUp()
		synctest.Wait()
		caller.Hang()
		r.settled(3 * time.Minute)
	})
}

func TestWhoIsNotHeardHasTheKeys(t *testing.T) {
	in(t, func(r *rig) {
		r.deaf = errors.New("as many callers are heard as is allowed")
		service := r.sw.Phone("loopback/9119")
		caller := fire(r)
		service.Rung()
		service.PickUp()
		synctest.Wait()
		caller.Hang()
		r.settled(time.Second)
		if !slices.ContainsFunc(r.notes, func(n journal.Entry) bool { return n.Kind == "hearing" }) || testutil.ToFloat64(r.m.metrics.faults.WithLabelValues("hearing")) != 1 {
			t.Error("nobody was told")
		}
	})
}
