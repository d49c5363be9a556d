package sip

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
	"github.com/hotline12345/gateway/sip/dialog"
)

// hears tells what share of what someone hears is at hz, after the first frames.
func hears(p *person, hz float64) float64 {
	audio := p.Listen(600 * time.Millisecond)
	return calltest.Share(audio[min(len(audio), call.Rate/5):], hz)
}

// joined is a caller of a gateway's trunk who talks with an agent's leg of it.
func joined(t *testing.T, w *wire, agent call.Leg) *person {
	t.Helper()
	legs, over := make(chan call.Leg, 1), make(chan struct{})
	t.Cleanup(func() { close(over) })
	w.on(func(_ context.Context, leg call.Leg, _ *call.Checkpoint) {
		if err := leg.Answer(leg.Context()); err != nil {
			t.Error(err)
		}
		legs <- leg
		select {
		case <-leg.Context().Done():
		case <-over:
		}
	})
	p := w.caller("13812345678").dial("12345")
	<-p.answered
	b, err := w.sw.Bridge(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	if err := errors.Join(b.Add(<-legs, call.Member{Role: call.Talk}), b.Add(agent, call.Member{Role: call.Talk, Staff: true})); err != nil {
		t.Fatal(err)
	}
	return p
}

// until waits for what a gateway does by itself.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !so(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("not in 10 s: %s", what)
		}
	}
}

func relays(w *wire, result string) float64 {
	return testutil.ToFloat64(w.sw.metrics.nodes.relayed.WithLabelValues(result))
}

func TestCallerHearsTheAgentOfAnotherGateway(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	leg := f.talk("n1", "1001", agent)
	caller := joined(t, f.nodes["n1"], leg)
	caller.Speak(700)
	agent.Speak(500)
	if share := hears(caller, 500); share < 0.5 {
		t.Errorf("the caller hears %.2f of the agent", share)
	}
	if share := hears(agent, 700); share < 0.5 {
		t.Errorf("the agent hears %.2f of the caller", share)
	}
	agent.mu.Lock()
	i := agent.invite
	agent.mu.Unlock()
	if i.Get(tokenHeader) != "abc" || !strings.HasPrefix(i.Get("From"), `"市民热线 138****5678" <sip:138****5678@`) ||
		strings.Contains(i.Raw, "13812345678") || i.Get(nodeHeader) != "" {
		t.Errorf("the phone got\n%s", i.Raw)
	}
	if info := leg.Info(); info.Extension != "1001" || info.Trunk != "" || info.Token != "abc" || info.Codec != call.PCMA {
		t.Errorf("%+v", info)
	}
	if n := testutil.ToFloat64(f.nodes["n2"].sw.metrics.nodes.relays); n != 1 {
		t.Errorf("%v relays", n)
	}
	f.nodes["n2"].mu.Lock()
	for _, m := range f.nodes["n2"].ladder {
		if strings.Contains(m, "13812345678") || strings.Contains(m, leg.Info().ID) {
			t.Errorf("across went\n%s", m)
		}
	}
	f.nodes["n2"].mu.Unlock()
	if err := leg.Hangup(t.Context(), call.CauseTempUnavailable); err != nil {
		t.Error(err)
	}
	if m := <-agent.ended; !strings.HasPrefix(m.Get("Reason"), "Q.850;cause=41") {
		t.Errorf("the phone was told\n%s", m.Raw)
	}
	until(t, "the relay is over", func() bool {
		return testutil.ToFloat64(f.nodes["n2"].sw.metrics.nodes.relays) == 0 && relays(f.nodes["n2"], "answered") == 1
	})
}

func TestAgentOfAnotherGatewayHangsUp(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	leg := f.talk("n1", "1001", agent)
	agent.mu.Lock()
	agent.call.Request("BYE", "", "Reason: Q.850;cause=31")
	agent.mu.Unlock()
	if e := why(t, leg); !e.Remote || e.Cause != 31 || e.Reason != "" {
		t.Errorf("ended with %+v", e)
	}
}

// What is done at the phone is done to the leg at the other gateway.
func TestPhoneOfAnotherGatewayDoes(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	leg := f.talk("n1", "1001", agent)
	caller := joined(t, f.nodes["n1"], leg)
	agent.Press("12*")
	for _, want := range []byte("12*") {
		if d := <-leg.Digits(); d.Key != want || d.Source != call.DigitRTP {
			t.Errorf("got %c by %s, want %c", d.Key, d.Source, want)
		}
	}
	agent.mu.Lock()
	agent.call.InfoDigit('7')
	agent.mu.Unlock()
	if d := <-leg.Digits(); d.Key != '7' || d.Source != call.DigitInfo {
		t.Errorf("got %c by %s", d.Key, d.Source)
	}
	agent.Does(call.HoldEvent)
	if e := <-leg.Events(); e.Kind != call.HoldEvent {
		t.Errorf("got %+v", e)
	}
	agent.Does(call.ResumeEvent)
	if e := <-leg.Events(); e.Kind != call.ResumeEvent {
		t.Errorf("got %+v", e)
	}
	agent.Speak(500)
	if share := hears(caller, 500); share < 0.5 {
		t.Errorf("after the hold the caller hears %.2f of the agent", share)
	}
	agent.mu.Lock()
	agent.call.Request("REFER", "", "Refer-To: <sip:2002@127.0.0.1>")
	agent.mu.Unlock()
	if e := <-leg.Events(); e.Kind != call.TransferEvent || e.Target != "2002" {
		t.Errorf("got %+v", e)
	}
	select {
	case d := <-leg.Digits():
		t.Errorf("a key came twice: %+v", d)
	default:
	}
}

// A phone whose packets are of another length is mixed, and its keys go by INFO.
func TestKeysOfAPhoneThatIsMixed(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	agent.mu.Lock()
	agent.sdp = strings.Replace(agent.offer("sendrecv"), "a=ptime:20", "a=ptime:30", 1)
	agent.mu.Unlock()
	leg := f.talk("n1", "1001", agent)
	agent.Press("5")
	if d := <-leg.Digits(); d.Key != '5' || d.Source != call.DigitInfo {
		t.Errorf("got %c by %s", d.Key, d.Source)
	}
}

func TestRefusalsOfAPhoneAtAnotherGateway(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	for status, want := range map[int]call.DialError{
		486: {Cause: call.CauseBusy, Status: 486}, 480: {Cause: call.CauseNoAnswer, Status: 480},
		603: {Cause: call.CauseRejected, Status: 603}, 408: {Cause: call.CauseNoResponse, Status: 408},
		// These would send the other gateway on to another way, and the phone was reached.
		403: {Cause: call.CauseRejected, Status: 480}, 503: {Cause: call.CauseCongestion, Status: 480},
	} {
		go func() { <-agent.rung; agent.Refuse(status) }()
		_, err := f.dial(t.Context(), "n1", "1001")
		if e, ok := errors.AsType[*call.DialError](err); !ok || e.Status != want.Status || e.Cause != want.Cause {
			t.Errorf("%d: %v", status, err)
		}
	}
	if n := relays(f.nodes["n2"], "busy"); n != 1 {
		t.Errorf("%v busy", n)
	}
}

func TestRingAtAnotherGatewayIsGivenUp(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	ctx, give := context.WithCancelCause(t.Context())
	var steps []call.Progress
	go func() {
		<-agent.rung
		agent.Ring()
	}()
	_, err := f.nodes["n1"].sw.Dial(ctx, call.Endpoint{Kind: call.ToExtension, Name: "1001"},
		call.DialOptions{OnProgress: func(p call.Progress) {
			if steps = append(steps, p); p == call.Ringing {
				give(dialog.ErrElsewhere)
			}
		}})
	if !errors.Is(err, dialog.ErrElsewhere) {
		t.Errorf("%v", err)
	}
	if m := <-agent.cancelled; m.Get("Reason") != `SIP;cause=200;text="Call completed elsewhere"` {
		t.Errorf("the phone was told\n%s", m.Raw)
	}
	if !slices.Equal(steps, []call.Progress{call.Sent, call.Trying, call.Ringing}) {
		t.Errorf("steps: %v", steps)
	}
	until(t, "the relay is over", func() bool { return relays(f.nodes["n2"], "cancelled") == 1 })
}

// Different phones of one extension ring at once, wherever each is registered.
func TestPhonesAtTwoGatewaysRingTogether(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2", "n3")
	a, b := f.agent("1001", "n2"), f.agent("1001", "n3")
	go func() {
		<-a.rung
		a.Ring()
		<-b.rung
		b.PickUp()
	}()
	leg, err := f.dial(t.Context(), "n1", "1001")
	if err != nil {
		t.Fatal(err)
	}
	if m := <-a.cancelled; m.Get("Reason") != `SIP;cause=200;text="Call completed elsewhere"` {
		t.Errorf("the other phone was told\n%s", m.Raw)
	}
	b.Hang()
	why(t, leg)
	owners, err := f.nodes["n1"].sw.Registrar().Owners(t.Context(), "1001")
	if slices.Sort(owners); err != nil || !slices.Equal(owners, []string{"n2", "n3"}) {
		t.Errorf("owners: %v, %v", owners, err)
	}
	if f.nodes["n1"].sw.Registrar().Local("1001") || !f.nodes["n2"].sw.Registrar().Local("1001") {
		t.Error("Local is wrong")
	}
}

// onlyRing checks that a telephone was rung once, by the gateway named, and refuses the call.
func onlyRing(t *testing.T, f *fleet, from, by string, agent *person) {
	t.Helper()
	go func() {
		if m := <-agent.rung; !strings.Contains(m.Get("Via"), f.nodes[by].sw.Addr(true).String()) {
			t.Errorf("rung by %s, want %s", m.Get("Via"), by)
		}
		agent.Refuse(486)
	}()
	if _, err := f.dial(t.Context(), from, "1001"); err == nil {
		t.Error("answered")
	} else if e, ok := errors.AsType[*call.DialError](err); !ok || e.Status != 486 {
		t.Errorf("%v", err)
	}
	select {
	case <-agent.rung:
		t.Error("rung twice")
	default:
	}
}

func TestPhoneAtTwoGatewaysRingsOnce(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2", "n3")
	agent := f.agent("1001", "n2", "n3")
	onlyRing(t, f, "n2", "n2", agent) // from here when it is here
	onlyRing(t, f, "n1", "n3", agent) // else by the one that it registered at last
	f.die("n3")
	onlyRing(t, f, "n1", "n2", agent)
}

// silentPort is an address at which nobody answers.
func silentPort(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.LocalAddr().String()
}

func TestNextGatewayIsTried(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2", "n3")
	agent := f.agent("1001", "n2", "n3")
	f.nodes["n1"].sw.patience = 3 * nodePatience
	f.move("n3", silentPort(t)) // frozen: it lives for the cluster, and does not answer
	onlyRing(t, f, "n1", "n2", agent)
	if n := testutil.ToFloat64(f.nodes["n1"].sw.metrics.nodes.dials.WithLabelValues(unreachable)); n != 1 {
		t.Errorf("%v unreachable", n)
	}
	f.move("n3", f.nodes["n3"].sw.NodeAddr())
	over := make(chan struct{})
	f.nodes["n3"].on(func(context.Context, call.Leg, *call.Checkpoint) { <-over })
	f.nodes["n3"].caller("13912345678").dial("12345")
	until(t, "a call keeps the gateway up", func() bool { n, _, _ := f.nodes["n3"].sw.Calls(); return n == 1 })
	f.nodes["n3"].stop() // it drains
	until(t, "it drains", func() bool {
		f.nodes["n3"].sw.mu.Lock()
		defer f.nodes["n3"].sw.mu.Unlock()
		return f.nodes["n3"].sw.draining
	})
	onlyRing(t, f, "n1", "n2", agent)
	close(over)
}

func TestNoGatewayOfThePhoneIsReached(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	f.agent("1001", "n2")
	f.nodes["n1"].sw.patience = nodePatience
	unreached := func(what string) {
		t.Helper()
		began := time.Now()
		_, err := f.dial(t.Context(), "n1", "1001")
		if e, ok := errors.AsType[*call.DialError](err); !ok || e.Cause != call.CauseTempUnavailable || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v after %v", what, err, time.Since(began))
		}
	}
	f.move("n2", silentPort(t))
	unreached("a frozen gateway")
	f.die("n2")
	unreached("a dead gateway")
}

// A gateway that has come back is known to live a second later: its phones are rung all the same.
func TestGatewayThatIsBackIsTried(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	f.die("n2") // as far as n1 knows
	if err := f.talk("n1", "1001", agent).Hangup(t.Context(), call.CauseNormal); err != nil {
		t.Fatal(err)
	}
}

// A registration that its gateway has lost sends the call on, and then says that there is no phone.
func TestGatewayHasLostThePhone(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	f.agent("1001", "n2")
	own, err := f.nodes["n2"].sw.Registrar().Own(t.Context(), "1001")
	if err != nil || len(own) != 1 {
		t.Fatalf("%v, %v", own, err)
	}
	if err := f.nodes["n2"].sw.shared.Remove(t.Context(), "1001", own[0].Key()); err != nil {
		t.Fatal(err)
	}
	until(t, "the shelf has lost it", func() bool { all, err := f.shelf.Get(t.Context(), "1001"); return err == nil && len(all) == 0 })
	value, err := json.Marshal(own[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := f.shelf.Put(t.Context(), "1001", "old", value, time.Hour); err != nil {
		t.Fatal(err)
	}
	_, err = f.dial(t.Context(), "n1", "1001")
	if e, ok := errors.AsType[*call.DialError](err); !ok || e.Cause != call.CauseTempUnavailable {
		t.Errorf("%v", err)
	}
	if n := testutil.ToFloat64(f.nodes["n2"].sw.metrics.refused.WithLabelValues("no_phone")); n != 1 {
		t.Errorf("%v refused", n)
	}
}

// While the phones' store is away, phones ring where they are, and by what was last known.
func TestStoreOfPhonesAway(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	onlyRing(t, f, "n1", "n2", agent)
	f.shelf.Away(true)
	onlyRing(t, f, "n1", "n2", agent)
	onlyRing(t, f, "n2", "n2", agent)
	late := f.nodes["n2"].person("1001", true)
	late.register(password) // not refused, and not slowed down
	late.sit()
	go func() { <-agent.rung; agent.Refuse(486) }()
	go func() { <-late.rung; late.PickUp() }()
	leg, err := f.dial(t.Context(), "n2", "1001")
	if err != nil {
		t.Fatal(err)
	}
	late.Hang()
	why(t, leg)
}

// A gateway that drains lets the calls that it relays go on.
func TestDrainKeepsRelays(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	leg := f.talk("n1", "1001", agent)
	w := f.nodes["n2"]
	w.stop()
	until(t, "it drains", func() bool { w.sw.mu.Lock(); defer w.sw.mu.Unlock(); return w.sw.draining })
	if _, err := f.dial(t.Context(), "n1", "1001"); err == nil {
		t.Error("a draining gateway took a call")
	}
	caller := joined(t, f.nodes["n1"], leg)
	agent.Speak(500)
	if share := hears(caller, 500); share < 0.5 {
		t.Errorf("the caller hears %.2f of the agent", share)
	}
	if err := leg.Hangup(t.Context(), call.CauseNormal); err != nil {
		t.Error(err)
	}
	<-agent.ended
	if err := <-w.served; err != nil {
		t.Error(err)
	}
	w.served <- nil
}

// A gateway that is missed and does not answer is dead after a while, one that answers is not.
func TestLegsOfADeadGatewayAreEnded(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	one := f.talk("n1", "1001", agent)
	sw := f.nodes["n1"].sw
	legs := sw.nodeLegs()["n2"]
	if len(legs) != 1 {
		t.Fatalf("legs: %v", legs)
	}
	long := &silence{heard: time.Now().Add(-time.Hour)}
	here := f.nodes["n2"].sw.NodeAddr()
	f.move("n2", silentPort(t))
	sw.lookAfter(t.Context(), "n2", long, legs)
	if one.Context().Err() != nil {
		t.Fatal("a gateway that the cluster knows to live was taken for dead")
	}
	f.move("n2", here)
	f.die("n2")
	sw.lookAfter(t.Context(), "n2", long, legs)
	if one.Context().Err() != nil || time.Since(long.heard) > time.Minute {
		t.Fatal("a gateway that answers was taken for dead")
	}
	f.move("n2", silentPort(t))
	sw.lookAfter(t.Context(), "n2", long, legs)
	if one.Context().Err() != nil {
		t.Fatal("a gateway was taken for dead at once")
	}
	long.heard = time.Now().Add(-nodeLost)
	sw.lookAfter(t.Context(), "n2", long, legs)
	if e := why(t, one); e.Reason != call.EndNodeLost || e.Remote {
		t.Errorf("ended with %+v", e)
	}
	<-agent.ended // here the other gateway lives, and hears the BYE
}

// When the gateway that called has died, the phone is not left in a dead call.
func TestPhoneIsFreedOfADeadGateway(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	f.talk("n1", "1001", agent)
	sw := f.nodes["n2"].sw
	var legs []*leg
	until(t, "the relay is up", func() bool { legs = sw.nodeLegs()["n1"]; return len(legs) == 1 && legs[0].answered.Load() })
	f.die("n1")
	f.move("n1", silentPort(t))
	sw.lookAfter(t.Context(), "n1", &silence{heard: time.Now().Add(-nodeLost)}, legs)
	if m := <-agent.ended; !strings.HasPrefix(m.Get("Reason"), "Q.850;cause=41") {
		t.Errorf("the phone was told\n%s", m.Raw)
	}
	if n := testutil.ToFloat64(sw.metrics.nodes.lost); n != 1 {
		t.Errorf("%v legs lost", n)
	}
}

// A gateway whose caller hung up is told so before the phone is, and may have another caller for it at once: the
// phone hears of the end before it is rung again.
func TestPhoneIsNotRungInACallThatHasEnded(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	leg := f.talk("n1", "1001", agent)
	for range 200 {
		if err := leg.Hangup(t.Context(), call.CauseNormal); err != nil {
			t.Fatal(err)
		}
		rung := make(chan bool, 1)
		go func() {
			<-agent.rung
			select {
			case <-agent.ended:
				rung <- true
			default:
				rung <- false
			}
			agent.PickUp()
		}()
		var err error
		if leg, err = f.dial(t.Context(), "n1", "1001"); err != nil {
			t.Fatal(err)
		}
		if !<-rung {
			t.Fatal("the phone was rung before it heard of the end of its last call")
		}
	}
}
