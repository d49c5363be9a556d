package dialog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/siptest"
)

// keys makes OnInvite answer and tell each INFO's key. The channel is made inside the bubble.
func keys(out *chan byte) Deps {
	return Deps{OnInvite: func(c *Call) {
		c.OnInfo(func(contentType string, body []byte) bool {
			if contentType != "application/dtmf-relay" {
				return false
			}
			*out <- body[len("Signal=")]
			return true
		})
		c.Answer(c.Context(), []byte(sdpAnswer))
	}}
}

// press sends 1 2 3 4 back to back and returns what was heard.
func press(t *testing.T, leg *siptest.Call, out <-chan byte) string {
	t.Helper()
	for _, k := range []byte("1234") {
		leg.InfoDigit(k)
	}
	var heard []byte
	for range 4 {
		select {
		case k := <-out:
			heard = append(heard, k)
		case <-time.After(siptest.Patience):
			t.Fatalf("heard %q", heard)
		}
	}
	return string(heard)
}

const presses = 1000

func TestDigitsInOrderUnderReorder(t *testing.T) {
	var out chan byte
	run(t, keys(&out), func(b *bench) {
		out = make(chan byte, 8)
		p := b.phone("alice", "10.0.0.2:5060")
		b.net.SetLink(p.Addr(), gateway, siptest.Link{Delay: 5 * time.Millisecond, Jitter: time.Millisecond, Reorder: 0.3, Duplicate: 0.1})
		leg := p.Invite("12345", sdpOffer)
		leg.Answered()
		for i := range presses {
			if heard := press(t, leg, out); heard != "1234" {
				t.Fatalf("run %d: heard %q", i, heard)
			}
			p.Collect(100 * time.Millisecond)
		}
		if skipped := b.count("gap_skipped"); skipped != 0 {
			t.Errorf("%v gaps were skipped", skipped)
		}
	})
}

func TestDigitsInOrderOverUDP(t *testing.T) {
	out := make(chan byte, 8)
	deps := keys(&out)
	deps.Log = slog.New(slog.DiscardHandler)
	l, err := New(Defaults(), deps)
	if err != nil {
		t.Fatal(err)
	}
	listen := func() net.PacketConn {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- l.ServeUDP(ctx, listen()) }()
	<-l.Ready()
	conn := listen()
	p := siptest.NewPhone(t, conn, "alice", l.Addr())
	leg := p.Invite("12345", sdpOffer)
	leg.Answered()
	for i := range presses {
		if heard := press(t, leg, out); heard != "1234" {
			t.Fatalf("run %d: heard %q", i, heard)
		}
		for range 4 {
			p.Await("200 INFO")
		}
		p.Forget()
	}
	leg.Bye()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	conn.Close()
}

func TestAMissingRequestIsWaitedForThirtyMilliseconds(t *testing.T) {
	var out chan byte
	run(t, keys(&out), func(b *bench) {
		out = make(chan byte, 8)
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		leg.Answered()
		leg.CSeq++ // never comes
		start := time.Now()
		leg.InfoDigit('2')
		p.Await("200 INFO")
		near(t, "the digit after a gap", start, time.Now(), hold)
		<-out
		leg.CSeq -= 2
		leg.InfoDigit('1') // too late
		p.Await("500 INFO")
		if b.count("gap_skipped") != 1 || len(out) != 0 {
			t.Errorf("%v skipped, %d digits more", b.count("gap_skipped"), len(out))
		}
	})
}

func TestFirstRequestsOfACalledPartyInOrder(t *testing.T) {
	var got []byte
	run(t, Deps{}, func(b *bench) {
		p := b.phone("agent", "10.0.0.3:5060")
		inv := to(p)
		inv.Setup = func(c *Call) {
			c.OnInfo(func(_ string, body []byte) bool { got = append(got, body[7]); return true })
		}
		out := b.dial(b.ctx, inv)
		leg, m := p.AwaitCall()
		leg.Respond(m, 200, sdpAnswer)
		p.Expect("ACK")
		<-out
		leg.Target = "sip:12345@10.0.0.1:5060"
		info := func(n uint32, key byte) string {
			return leg.Text("INFO", n, p.Name("z9hG4bK"), fmt.Sprintf("Signal=%c", key), "Content-Type: application/dtmf-relay")
		}
		p.Send(info(8, '2'))
		p.Send(info(7, '1'))
		p.Await("200 INFO")
		p.Await("200 INFO")
		if string(got) != "12" {
			t.Errorf("heard %q", got)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	cfg := Defaults()
	cfg.MaxQueued = 4
	var release chan bool
	deps := Deps{OnInvite: func(c *Call) {
		c.OnInfo(func(string, []byte) bool { return <-release })
		c.Answer(c.Context(), []byte(sdpAnswer))
	}}
	runWith(t, cfg, deps, func(b *bench) {
		release = make(chan bool)
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		leg.Answered()
		for k := range 6 {
			leg.InfoDigit('0' + byte(k))
			synctest.Wait()
		}
		if m := p.Expect("500 INFO"); m.Get("Retry-After") == "" {
			t.Errorf("got\n%s", m.Raw)
		}
		leg.Request("BYE", "")
		close(release)
		p.Await("200 BYE")
	})
}

func TestInfoOfOtherKinds(t *testing.T) {
	var out chan byte
	run(t, keys(&out), func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		leg.Answered()
		leg.Request("INFO", "x", "Content-Type: application/x-unknown")
		if m := p.Await("415 INFO"); !strings.Contains(m.Get("Accept"), "application/dtmf-relay") {
			t.Errorf("got\n%s", m.Raw)
		}
		leg.Request("INFO", "")
		p.Await("200 INFO")
		leg.Request("OPTIONS", "")
		p.Await("200 OPTIONS")
		leg.Request("PRACK", "", "RAck: 1 1 INVITE")
		p.Await("481 PRACK")
		leg.Request("MESSAGE", "")
		if m := p.Await("405 MESSAGE"); m.Get("Allow") != allow {
			t.Errorf("got\n%s", m.Raw)
		}
		leg.Request("INFO", "", "Require: foo")
		if m := p.Await("420 INFO"); m.Get("Unsupported") != "foo" {
			t.Errorf("got\n%s", m.Raw)
		}
		leg.Request("INFO", "")
		p.Await("200 INFO")
		leg.Bye()
	})
}

// talking is an answered incoming call with its phone.
func talking(b *bench, calls chan *Call) (*siptest.Phone, *siptest.Call, *Call) {
	p := b.phone("alice", "10.0.0.2:5060")
	leg := p.Invite("12345", sdpOffer)
	c := <-calls
	go c.Answer(b.ctx, []byte(sdpAnswer))
	leg.Answered()
	synctest.Wait()
	return p, leg, c
}

func TestTheirReInvite(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p, leg, c := talking(b, calls)
		leg.Request("INVITE", sdpOffer)
		leg.Ack(p.Await("491 INVITE"), "") // no hook yet: again, please
		var offers []string
		c.OnOffer(func(offer []byte) ([]byte, int) {
			offers = append(offers, string(offer))
			return []byte(sdpAnswer), 0
		})
		leg.Request("INVITE", "hold")
		ok := p.Await("200 INVITE")
		if ok.Body != sdpAnswer || !strings.Contains(leg.Remote, ok.Tag("To")) {
			t.Errorf("got\n%s", ok.Raw)
		}
		near(t, "the 200 again", ok.At, p.Await("200 INVITE").At, 500*time.Millisecond)
		leg.Ack(ok, "")
		leg.Request("INVITE", "") // a delayed offer
		leg.Ack(p.Await("200 INVITE"), "answer")
		synctest.Wait()
		if got := fmt.Sprintf("%q", offers); got != `["hold" "" "answer"]` {
			t.Errorf("offers %s", got)
		}
		c.OnOffer(func([]byte) ([]byte, int) { return nil, 488 })
		leg.Request("INVITE", "video")
		leg.Ack(p.Await("488 INVITE"), "")
		if c.Context().Err() != nil {
			t.Error("a refused offer ended the call")
		}
		leg.Bye()
	})
}

func TestTheirReInviteWithoutAck(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p, leg, c := talking(b, calls)
		c.OnOffer(func([]byte) ([]byte, int) { return []byte(sdpAnswer), 200 })
		leg.Request("INVITE", sdpOffer)
		bye := p.AwaitFor(time.Minute, "BYE")
		p.Respond(bye, 200, "", "")
		if e := endOf(t, c); e.Reason != call.EndSignalling {
			t.Errorf("ended as %+v", e)
		}
	})
}

func TestUpdate(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		c.OnOffer(func(offer []byte) ([]byte, int) { return append([]byte("re:"), offer...), 200 })
		c.Provisional(b.ctx, 183, []byte(sdpAnswer))
		leg.Learn(p.Expect("183 INVITE"))
		leg.Request("UPDATE", sdpOffer)
		if m := p.Await("500 UPDATE"); m.Get("Retry-After") == "" {
			t.Errorf("got\n%s", m.Raw)
		}
		leg.Request("UPDATE", "")
		p.Await("200 UPDATE")
		go c.Answer(b.ctx, []byte(sdpAnswer))
		res := p.Await("200 INVITE")
		n := leg.CSeq
		leg.Ack(res, "")
		leg.CSeq = n
		synctest.Wait() // an offer that overtakes the ACK is refused
		leg.Request("UPDATE", "new")
		if m := p.Await("200 UPDATE"); m.Body != "re:new" || m.Contact() == "" {
			t.Errorf("got\n%s", m.Raw)
		}
		leg.Bye()
	})
}

func TestOurReInvite(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p, leg, c := talking(b, calls)
		type result struct {
			answer []byte
			err    error
		}
		again := func(ctx context.Context) chan result {
			out := make(chan result, 1)
			go func() {
				a, err := c.ReInvite(ctx, []byte("offer"))
				out <- result{a, err}
			}()
			return out
		}
		out := again(b.ctx)
		m := p.Expect("INVITE")
		if m.Body != "offer" || m.Tag("To") == "" || m.Contact() == "" {
			t.Errorf("got\n%s", m.Raw)
		}
		leg.Request("INVITE", sdpOffer) // glare: ours is first
		leg.Ack(p.Await("491 INVITE"), "")
		leg.Respond(m, 200, "answer")
		p.Expect("ACK")
		leg.Respond(m, 200, "answer")
		p.Expect("ACK")
		if r := <-out; r.err != nil || string(r.answer) != "answer" {
			t.Errorf("%+v", r)
		}

		out = again(b.ctx) // glare: theirs is first, so ours waits and comes again
		start := time.Now()
		leg.Respond(p.Expect("INVITE"), 491, "")
		p.Expect("ACK")
		m = p.Expect("INVITE")
		if d := m.At.Sub(start); d > 2*time.Second {
			t.Errorf("again after %v; whoever was called waits 0 to 2 s", d)
		}
		leg.Respond(m, 488, "")
		p.Expect("ACK")
		var d *call.DialError
		if r := <-out; !errors.As(r.err, &d) || d.Status != 488 || c.Context().Err() != nil {
			t.Errorf("%+v", r)
		}

		ctx, cancel := context.WithCancel(b.ctx)
		out = again(ctx)
		m = p.Expect("INVITE")
		leg.Respond(m, 100, "")
		synctest.Wait()
		cancel()
		if r := <-out; !errors.Is(r.err, context.Canceled) {
			t.Errorf("%+v", r)
		}
		leg.Respond(p.Expect("CANCEL"), 200, "")
		leg.Respond(m, 200, "answer") // it crossed: acknowledged, and the call goes on
		p.Expect("ACK")
		if c.Context().Err() != nil {
			t.Error("the call ended")
		}

		out = again(b.ctx)
		leg.Respond(p.Expect("INVITE"), 481, "")
		p.Expect("ACK")
		leg.Respond(p.Expect("BYE"), 481, "")
		if r := <-out; !errors.As(r.err, &d) || d.Status != 481 {
			t.Errorf("%+v", r)
		}
		if e := endOf(t, c); e.Reason != call.EndSignalling {
			t.Errorf("ended as %+v", e)
		}
	})
}

func TestRefer(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p, leg, c := talking(b, calls)
		leg.Request("REFER", "", "Refer-To: <sip:1002@10.0.0.1>")
		p.Await("603 REFER")
		wishes := make(chan *Refer, 1)
		c.OnRefer(func(r *Refer) bool { wishes <- r; return true })
		leg.Request("REFER", "")
		p.Await("400 REFER")
		for _, ok := range []bool{true, false} {
			leg.Request("REFER", "", "Refer-To: <sip:1002@10.0.0.1>")
			p.Await("202 REFER")
			r := <-wishes
			if r.Target.User != "1002" {
				t.Errorf("target %v", r.Target)
			}
			r.Done(ok)
			r.Done(!ok)
			m := p.Expect("NOTIFY")
			want := map[bool]string{true: "SIP/2.0 200 OK\r\n", false: "SIP/2.0 503 Service Unavailable\r\n"}[ok]
			if m.Body != want || m.Get("Event") != "refer" || !strings.HasPrefix(m.Get("Subscription-State"), "terminated") {
				t.Errorf("got\n%s", m.Raw)
			}
			p.Respond(m, 200, "", "")
		}
		leg.Bye()
	})
}

func TestSymmetric(t *testing.T) {
	cfg := Defaults()
	cfg.Symmetric = true
	deps, calls := incoming()
	runWith(t, cfg, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		c := <-calls
		c.mu.Lock()
		c.id.target = sip.Uri{Scheme: "sip", User: "alice", Host: "192.168.1.9"} // as behind NAT
		c.mu.Unlock()
		go c.Answer(b.ctx, []byte(sdpAnswer))
		leg.Answered()
		synctest.Wait()
		go c.Bye(b.ctx, call.CauseNormal)
		bye := p.Await("BYE")
		if bye.URI() != "sip:alice@192.168.1.9" {
			t.Errorf("got\n%s", bye.Raw)
		}
		p.Respond(bye, 200, "", "")
	})
}
