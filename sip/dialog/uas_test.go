package dialog

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/siptest"
)

// ended waits for a call's end and returns why.
func endOf(t *testing.T, c *Call) *call.Ended {
	t.Helper()
	<-c.Context().Done()
	var e *call.Ended
	if !errors.As(context.Cause(c.Context()), &e) {
		t.Fatalf("the cause is %v, want a *call.Ended", context.Cause(c.Context()))
	}
	return e
}

// incoming makes OnInvite hand its calls to the test.
func incoming() (Deps, chan *Call) {
	calls := make(chan *Call, 64)
	return Deps{OnInvite: func(c *Call) { calls <- c }}, calls
}

func TestCallIsAnsweredAndHungUpByTheParty(t *testing.T) {
	answered := make(chan error, 1)
	calls := make(chan *Call, 1)
	deps := Deps{OnInvite: func(c *Call) {
		calls <- c
		if err := c.Provisional(c.Context(), 180, nil); err != nil {
			t.Error(err)
		}
		answered <- c.Answer(c.Context(), []byte(sdpAnswer))
	}}
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		ring := p.Expect("180 INVITE")
		ok := p.Expect("200 INVITE")
		if ring.Tag("To") == "" || ring.Tag("To") != ok.Tag("To") {
			t.Errorf("To-tags %q and %q, want one", ring.Tag("To"), ok.Tag("To"))
		}
		if ok.Body != sdpAnswer || ok.Get("Content-Type") != "application/sdp" || ok.Contact() != "sip:12345@10.0.0.1:5060" {
			t.Errorf("the 200 is\n%s", ok.Raw)
		}
		leg.Ack(ok, "")
		if err := <-answered; err != nil {
			t.Errorf("Answer: %v", err)
		}
		if err := (<-calls).Answer(b.ctx, nil); !errors.Is(err, call.ErrAnswered) {
			t.Errorf("a second Answer: %v", err)
		}
		leg.Request("BYE", "", `Reason: SIP;cause=480, Q.850;cause=17;text="busy"`)
		p.Expect("200 BYE")
		synctest.Wait()
		if n := b.l.Calls(); n != 0 {
			t.Errorf("%d calls are left", n)
		}
		p.Quiet(time.Minute)
	})
}

func TestCauseOfTheirBye(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		go c.Answer(b.ctx, []byte(sdpAnswer))
		leg.Answered()
		leg.Request("BYE", "", `Reason: SIP;cause=480, Q.850;cause=17;text="busy"`)
		p.Expect("200 BYE")
		if e := endOf(t, c); !e.Remote || e.Cause != call.CauseBusy || e.Reason != "" {
			t.Errorf("ended as %+v", e)
		}
	})
}

// RFC 3261 section 13.3.1.4: T1, doubling, up to T2, for 64*T1; then BYE.
func TestAnswerRepeatsUntilItGivesUp(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		p.Invite("12345", sdpOffer)
		c := <-calls
		answer := make(chan error, 1)
		go func() { answer <- c.Answer(b.ctx, []byte(sdpAnswer)) }()
		first := p.Expect("200 INVITE")
		for _, at := range []time.Duration{500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500} {
			m := p.Expect("200 INVITE")
			near(t, "a repeated 200", first.At, m.At, at*time.Millisecond)
		}
		bye := p.Expect("BYE")
		near(t, "BYE", first.At, bye.At, 32*time.Second)
		if !strings.Contains(bye.Get("Reason"), "Q.850;cause=102") {
			t.Errorf("Reason %q", bye.Get("Reason"))
		}
		if !errors.Is(<-answer, call.ErrLegGone) {
			t.Error("Answer did not tell that the leg is gone")
		}
		if e := endOf(t, c); e.Reason != call.EndSignalling || e.Remote {
			t.Errorf("ended as %+v", e)
		}
		p.Respond(bye, 200, "", "")
		synctest.Wait()
		if b.l.Calls() != 0 || b.count("answered_unacked") != 1 {
			t.Errorf("%d calls left, %v unacked", b.l.Calls(), b.count("answered_unacked"))
		}
	})
}

func TestLostAckIsMendedByTheNext(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		answer := make(chan error, 1)
		go func() { answer <- c.Answer(b.ctx, []byte(sdpAnswer)) }()
		p.Expect("200 INVITE") // its ACK is lost
		leg.Ack(p.Expect("200 INVITE"), "")
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		p.Quiet(time.Minute)
	})
}

func TestAckInTheInvitesOwnTransaction(t *testing.T) { // as RFC 2543 had it
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		answer := make(chan error, 1)
		go func() { answer <- c.Answer(b.ctx, []byte(sdpAnswer)) }()
		ok := p.Expect("200 INVITE")
		leg.Learn(ok)
		p.Send(leg.Text("ACK", 1, ok.Branch(), ""))
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		p.Quiet(time.Minute)
	})
}

func TestDelayedOffer(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", "")
		c := <-calls
		answer := make(chan error, 1)
		go func() { answer <- c.Answer(b.ctx, []byte(sdpOffer)) }()
		leg.Ack(p.Expect("200 INVITE"), sdpAnswer)
		if err := <-answer; err != nil || string(c.AckBody()) != sdpAnswer {
			t.Fatalf("%v, %q", err, c.AckBody())
		}
	})
}

func TestCancel(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		c.Provisional(b.ctx, 180, nil)
		ring := p.Expect("180 INVITE")
		leg.Cancel()
		ok := p.Await("200 CANCEL")
		gone := p.Await("487 INVITE")
		if ok.Tag("To") != ring.Tag("To") || gone.Tag("To") != ring.Tag("To") {
			t.Errorf("To-tags %q %q %q, want one (RFC 3261 section 9.2)", ring.Tag("To"), ok.Tag("To"), gone.Tag("To"))
		}
		leg.Ack(gone, "")
		if e := endOf(t, c); !e.Remote || e.Reason != call.EndCancelled {
			t.Errorf("ended as %+v", e)
		}
		if err := c.Answer(b.ctx, []byte(sdpAnswer)); !errors.Is(err, call.ErrLegGone) {
			t.Errorf("Answer after CANCEL: %v", err)
		}
		if err := c.Provisional(b.ctx, 183, nil); !errors.Is(err, call.ErrLegGone) {
			t.Errorf("Provisional after CANCEL: %v", err)
		}
		p.Quiet(time.Minute)
	})
}

func TestCancelAfterTheAnswerChangesNothing(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		go c.Answer(b.ctx, []byte(sdpAnswer))
		ok := p.Expect("200 INVITE")
		leg.Cancel()
		p.Await("200 CANCEL")
		leg.Ack(ok, "")
		synctest.Wait()
		if c.Context().Err() != nil {
			t.Error("a CANCEL ended an answered call")
		}
	})
}

func TestReject(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		if err := c.Reject(b.ctx, 200, ""); err == nil {
			t.Error("200 was taken for a refusal")
		}
		if err := c.Reject(b.ctx, 486, "Busy", sip.NewHeader("X-Why", "test")); err != nil {
			t.Fatal(err)
		}
		m := p.Expect("486 INVITE")
		if !strings.Contains(m.Start, "Busy") || m.Get("X-Why") != "test" {
			t.Errorf("got\n%s", m.Raw)
		}
		p.Expect("486 INVITE") // Timer G, the ACK being late
		leg.Ack(m, "")
		p.Quiet(time.Minute)
		if e := endOf(t, c); e.Reason != call.EndRejected || e.Cause != call.CauseBusy {
			t.Errorf("ended as %+v", e)
		}
	})
}

func TestByeBeforeTheAnswerRejectsWithTheCause(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		if err := c.Bye(b.ctx, call.CauseForbidden); err != nil {
			t.Fatal(err)
		}
		m := p.Expect("403 INVITE")
		if m.Get("Reason") != `Q.850;cause=55;text="incoming calls barred"` {
			t.Errorf("Reason %q", m.Get("Reason"))
		}
		leg.Ack(m, "")
	})
}

func TestTheirByeBeforeTheirAck(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		go c.Answer(b.ctx, []byte(sdpAnswer))
		leg.Learn(p.Expect("200 INVITE"))
		leg.Bye()
		if e := endOf(t, c); !e.Remote {
			t.Errorf("ended as %+v", e)
		}
		p.Quiet(time.Minute)
	})
}

func TestTheirByeInTheEarlyDialog(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		c.Provisional(b.ctx, 183, []byte(sdpAnswer))
		leg.Learn(p.Expect("183 INVITE"))
		leg.Request("BYE", "")
		p.Await("200 BYE")
		leg.Ack(p.Await("487 INVITE"), "")
		if e := endOf(t, c); !e.Remote || e.Reason != call.EndCancelled {
			t.Errorf("ended as %+v", e)
		}
	})
}

// RFC 3261 section 15: no BYE before the ACK, or before 64*T1 are over.
func TestOurByeWaitsForTheAck(t *testing.T) {
	for _, acks := range []bool{true, false} {
		deps, calls := incoming()
		run(t, deps, func(b *bench) {
			p := b.phone("alice", "10.0.0.2:5060")
			leg := p.Invite("12345", sdpOffer)
			c := <-calls
			go c.Answer(b.ctx, []byte(sdpAnswer))
			ok := p.Expect("200 INVITE")
			byed := make(chan error, 1)
			go func() { byed <- c.Bye(b.ctx, call.CauseNormal) }()
			<-c.Context().Done()
			if acks {
				leg.Ack(ok, "")
				p.Respond(p.Expect("BYE"), 200, "", "")
			} else {
				p.Respond(p.AwaitFor(time.Minute, "BYE"), 200, "", "")
			}
			if err := <-byed; err != nil || b.l.Calls() != 0 {
				t.Errorf("acks %v: %v, %d calls left", acks, err, b.l.Calls())
			}
		})
	}
}

func TestOurBye(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		go c.Answer(b.ctx, []byte(sdpAnswer))
		leg.Answered()
		go c.Bye(b.ctx, call.CauseNormal)
		bye := p.Expect("BYE")
		if n, _ := bye.CSeq(); n != 1 || bye.URI() != p.Contact() || bye.Tag("To") == "" {
			t.Errorf("got\n%s", bye.Raw)
		}
		leg.Request("BYE", "") // the two cross
		p.Await("200 BYE")
		p.Respond(bye, 200, "", "")
		synctest.Wait()
		if b.l.Calls() != 0 {
			t.Error("a call is left")
		}
		if err := c.Bye(b.ctx, call.CauseBusy); err != nil {
			t.Errorf("a second Bye: %v", err)
		}
		if e := endOf(t, c); e.Remote || e.Cause != call.CauseNormal {
			t.Errorf("ended as %+v", e)
		}
	})
}

func TestRetransmittedInviteIsOneCall(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		leg.Resend()
		leg.Resend()
		c := <-calls
		go c.Answer(b.ctx, []byte(sdpAnswer))
		leg.Answered()
		time.Sleep(40 * time.Second) // the transaction is gone, the call is up
		leg.Resend()
		synctest.Wait()
		if b.l.Calls() != 1 || len(calls) != 0 {
			t.Errorf("%d calls, want one", b.l.Calls())
		}
	})
}

func TestMergedRequestLoops(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		<-calls
		p.Send(leg.Text("INVITE", 1, "z9hG4bKanother", sdpOffer))
		p.Await("482 INVITE")
	})
}

func TestAPanicEndsItsCallOnly(t *testing.T) {
	fail := true
	deps := Deps{OnInvite: func(c *Call) {
		if fail {
			fail = false
			panic("of the handler")
		}
		c.OnInfo(func(string, []byte) bool { panic("of the hook") })
		c.Answer(c.Context(), []byte(sdpAnswer))
	}}
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		leg.Ack(p.Await("500 INVITE"), "")
		leg = p.Invite("12345", sdpOffer)
		leg.Answered()
		leg.InfoDigit('1')
		p.Await("500 INFO")
		p.Respond(p.Await("BYE"), 200, "", "")
		leg = p.Invite("12345", sdpOffer)
		leg.Answered()
	})
}

func TestLimits(t *testing.T) {
	cfg := Defaults()
	cfg.MaxCalls = 1
	deps, calls := incoming()
	runWith(t, cfg, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		p.Invite("12345", sdpOffer)
		<-calls
		p.Invite("12345", sdpOffer)
		if m := p.Await("503 INVITE"); m.Get("Retry-After") != "10" {
			t.Errorf("got\n%s", m.Raw)
		}
		if _, err := b.l.Invite(b.ctx, to(p)); !errors.Is(err, ErrFull) {
			t.Errorf("a second call out: %v", err)
		}
	})
}

func TestDrain(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		leg.Answered()
		options := &siptest.Call{Phone: p, ID: "o1", Local: "<sip:a@x>;tag=1", Remote: "<sip:b@y>", Target: "sip:10.0.0.1"}
		options.Request("OPTIONS", "")
		if m := p.Await("200 OPTIONS"); m.Get("Allow") != allow {
			t.Errorf("got\n%s", m.Raw)
		}
		b.l.Drain(true)
		options.Request("OPTIONS", "")
		p.Await("503 OPTIONS")
		p.Invite("12345", sdpOffer)
		if m := p.Await("503 INVITE"); m.Get("Retry-After") == "" {
			t.Errorf("got\n%s", m.Raw)
		}
		leg.Bye() // what runs is finished
		b.l.Drain(false)
		p.Forget()
		leg = p.Invite("12345", sdpOffer)
		leg.Answered()
	})
}

func TestServeEndsWhatIsLeft(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		go c.Answer(b.ctx, []byte(sdpAnswer))
		leg.Answered()
		early := p.Invite("12345", sdpOffer)
		<-calls
		done := make(chan struct{})
		go func() { b.quit(); close(done) }()
		p.Respond(p.Await("BYE"), 200, "", "")
		early.Ack(p.Await("480 INVITE"), "")
		if e := endOf(t, c); e.Reason != call.EndDrained {
			t.Errorf("ended as %+v", e)
		}
		<-done
		b.quit = func() {}
	})
}

// An INVITE and its CANCEL in one instant, in the order in which the library may hand them over: the
// INVITE is ended, and not left to ring.
func TestCancelOvertakesItsInvite(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := &siptest.Call{Phone: p, ID: "both", Local: "<sip:alice@10.0.0.2>;tag=a", Remote: "<sip:12345@10.0.0.1>",
			Target: "sip:12345@10.0.0.1:5060"}
		p.Send(leg.Text("CANCEL", 1, "z9hG4bKboth", "", "Reason: SIP;cause=200"))
		synctest.Wait()
		p.Send(leg.Text("INVITE", 1, "z9hG4bKboth", sdpOffer))
		ok, gone := p.Await("200 CANCEL"), p.Await("487 INVITE")
		if ok.Tag("To") != gone.Tag("To") {
			t.Errorf("To-tags %q and %q, want one", ok.Tag("To"), gone.Tag("To"))
		}
		leg.Ack(gone, "")
		if e := endOf(t, <-calls); !e.Remote || e.Reason != call.EndCancelled || e.Cause != call.CauseElsewhere {
			t.Errorf("ended with %+v", e)
		}
		if n := b.l.Calls(); n != 0 {
			t.Errorf("%d calls are up", n)
		}
		// A CANCEL of nothing, and more of them than may wait.
		for i := range 2 * maxOvertakes {
			leg.ID = "none" + string(rune('a'+i))
			p.Send(leg.Text("CANCEL", 1, "z9hG4bK"+leg.ID, ""))
		}
		for range 2 * maxOvertakes {
			p.Await("481 CANCEL")
		}
		synctest.Wait()
		b.l.mu.Lock()
		defer b.l.mu.Unlock()
		if len(b.l.arrived) != 0 {
			t.Errorf("%d CANCELs are waited for", len(b.l.arrived))
		}
	})
}
