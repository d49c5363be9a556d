package main

import (
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store/storetest"
	"github.com/hotline12345/gateway/queue"
)

// TestKill9 kills the gateway in mid-call and starts it again on the same directory and ports: both
// phones get BYE, the recording is handed over as far as it came, the agent is free, and the caller's
// number has its places again.
func TestKill9(t *testing.T) {
	t.Parallel()
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		kill9(t, "store.addrs=["+storetest.Start(t).Addr+"]")
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		kill9(t)
	})
}

func kill9(t *testing.T, sets ...string) {
	const callerHz, agentHz = 700, 1100
	cases := newCaseIntake(t)
	g := startGateway(t, append(cases.sets, sets...)...)
	agent := newPhone(t, "1001", g.phones).answering(agentHz)
	agent.register(g.people["1001"].secret)
	g.login("1001")
	g.awaitAgent("1001", queue.Idle)

	// Two calls of one number take its two places; one of them is joined with the agent.
	carrier := newPhone(t, "13800138000", g.carriers)
	caller := carrier.dial("12345").speak(callerHz)
	caller.connected()
	caller.press("9")
	talking := receive(t, "the agent's phone rings", agent.incoming)
	caller.hears(agentHz)
	talking.hears(callerHz)
	second := carrier.dial("12345")
	second.connected()
	second.press("9")
	g.awaitStage(session.StageQueue)
	talk := g.awaitStage(session.StageTalk)
	until(t, 20*time.Second, "the talk has lasted 5.5 s", func() bool { return time.Since(talk.Since) > 5500*time.Millisecond })

	killed := time.Now()
	g.kill()
	g.again()
	restarted := time.Now()
	for who, l := range map[string]*line{"the caller's": caller, "the agent's": talking, "the waiting caller's": second} {
		bye := receive(t, who+" phone gets BYE", l.ended)
		t.Logf("%s phone got BYE %v after the kill, %v after the restart; Reason: %s", who,
			bye.At.Sub(killed).Round(time.Millisecond), bye.At.Sub(restarted).Round(time.Millisecond), bye.Get("Reason"))
	}

	d := cases.recorded()
	if d.event.CallID != talk.CallID || d.event.Evidence != "partial" || !d.event.Recording.Partial {
		t.Errorf("the hand-over is of %s, evidence %q, partial %v; want %s, partial", d.event.CallID, d.event.Evidence,
			d.event.Recording.Partial, talk.CallID)
	}
	left, right := d.open(t, g)
	length := time.Duration(len(left)) * time.Second / 8000
	lost := killed.Sub(talk.Since) - length
	t.Logf("the talk was killed after %v; the recording has %v", killed.Sub(talk.Since).Round(time.Millisecond), length)
	if lost > 2*time.Second || lost < -100*time.Millisecond {
		t.Errorf("%v of the talk are lost, want 2 s at most", lost)
	}
	for side, c := range map[string]struct {
		audio []byte
		hz    float64
	}{"left": {left, callerHz}, "right": {right, agentHz}} {
		if share := toneShare(c.audio, c.hz); share < 0.9 {
			t.Errorf("the %s side has %.3f of its energy at %v Hz, want 0.9", side, share, c.hz)
		}
	}
	lostCalls(t, g)
	nextCall(t, g, agent, carrier, killed)
	g.stop()
}

// lostCalls checks that the calls that were cut have their records.
func lostCalls(t *testing.T, g *gateway) {
	t.Helper()
	for _, cdr := range g.cdrs(2) {
		if cdr.EndReason != "node_lost" || cdr.Ended.IsZero() {
			t.Errorf("the CDR of %s has end %q at %v, want node_lost", cdr.CallID, cdr.EndReason, cdr.Ended)
		}
	}
	if live := g.calls(); len(live) != 0 {
		t.Errorf("%d calls live on: %+v", len(live), live)
	}
}

// nextCall checks that the agent is free, with the phone as it registered before the kill, and gets a new
// call of the number that was cut; and that the number has its two places back within 15 s of the kill.
func nextCall(t *testing.T, g *gateway, agent, carrier *phone, killed time.Time) {
	t.Helper()
	g.awaitAgent("1001", queue.Idle)
	t.Logf("the agent was free %v after the kill at the latest", time.Since(killed).Round(time.Millisecond))
	lines := []*line{carrier.dial("12345"), carrier.dial("12345")}
	for _, l := range lines {
		l.connected()
	}
	// A caller who has to wait for a place is told so, and asks for it again every 2 s: on a machine so busy
	// that the start took long, that is what counts.
	patience := max(15*time.Second+2*time.Second+3*time.Second-time.Since(killed), 15*time.Second)
	until(t, patience, "both new calls have their places", func() bool {
		live := g.calls()
		for _, v := range live {
			if v.Stage == session.StageScreened || v.Stage == session.StageLeaseWait {
				return false
			}
		}
		return len(live) == 2
	})
	t.Logf("both places of the number were free %v after the kill", time.Since(killed).Round(time.Millisecond))
	for _, l := range lines {
		l.press("9")
	}
	joined := receive(t, "the agent gets the next call", agent.incoming)
	joined.speak(1100)
	for _, l := range lines {
		l.speak(700)
	}
	joined.hears(700)
}
