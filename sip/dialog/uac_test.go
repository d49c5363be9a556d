package dialog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/google/go-cmp/cmp"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/siptest"
)

func TestInviteIsAnswered(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("agent", "10.0.0.3:5060")
		var told []int
		inv := to(p)
		inv.OnProvisional = func(res *sip.Response) { told = append(told, res.StatusCode) }
		out := b.dial(b.ctx, inv)
		leg, m := p.AwaitCall()
		if m.From != gateway || m.Body != sdpOffer || m.Get("Max-Forwards") != "70" || m.Contact() != "sip:12345@10.0.0.1:5060" {
			t.Errorf("from %v:\n%s", m.From, m.Raw)
		}
		for i := range 15 { // any number of provisionals, repeated ones told once
			leg.Respond(m, 180+i%2*3, []string{"", sdpAnswer}[i%2])
			synctest.Wait()
			leg.Respond(m, 180+i%2*3, []string{"", sdpAnswer}[i%2])
			synctest.Wait()
		}
		leg.Respond(m, 200, sdpAnswer)
		ack := p.Expect("ACK")
		r := <-out
		if r.err != nil || string(r.c.Response().Body()) != sdpAnswer || len(told) != 15 {
			t.Fatalf("%v, told %v", r.err, told)
		}
		if ack.URI() != p.Contact() || ack.Tag("To") == "" || ack.Branch() == m.Branch() {
			t.Errorf("the ACK is\n%s", ack.Raw)
		}
		leg.Respond(m, 200, sdpAnswer) // the ACK was lost
		if again := p.Expect("ACK"); again.Raw != ack.Raw {
			t.Errorf("the ACK came again as\n%s", again.Raw)
		}
		leg.Bye()
		if e := endOf(t, r.c); !e.Remote {
			t.Errorf("ended as %+v", e)
		}
		p.Quiet(time.Minute)
	})
}

func TestInviteIsRefused(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("agent", "10.0.0.3:5060")
		out := b.dial(b.ctx, to(p))
		leg, m := p.AwaitCall()
		leg.Respond(m, 486, "", "Retry-After: 5", `Reason: Q.850;cause=21`)
		ack := p.Expect("ACK")
		if ack.Branch() != m.Branch() {
			t.Errorf("the ACK left the transaction:\n%s", ack.Raw)
		}
		r := <-out
		var d *call.DialError
		var why *Refusal
		if !errors.As(r.err, &d) || d.Status != 486 || d.Cause != call.CauseRejected || !errors.As(r.err, &why) ||
			why.Response.GetHeader("Retry-After").Value() != "5" || r.c != nil {
			t.Errorf("got %v", r.err)
		}
		if b.l.Calls() != 0 {
			t.Error("a call is left")
		}
	})
}

func TestInviteWithoutAnswer(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("agent", "10.0.0.3:5060")
		start := time.Now()
		out := b.dial(b.ctx, to(p))
		r := <-out
		var d *call.DialError
		if !errors.As(r.err, &d) || d.Status != 408 || d.Cause != call.CauseNoResponse {
			t.Errorf("got %v", r.err)
		}
		near(t, "the end", start, time.Now(), 32*time.Second)
		if n := len(p.Collect(time.Second)); n != 7 { // Timer A: 0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 s
			t.Errorf("%d INVITEs, want 7", n)
		}
	})
}

// RFC 3261 section 9.1: no CANCEL before a provisional response.
func TestCancelWaitsForAProvisional(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("agent", "10.0.0.3:5060")
		ctx, cancel := context.WithCancelCause(b.ctx)
		out := b.dial(ctx, to(p))
		leg, m := p.AwaitCall()
		cancel(ErrElsewhere)
		r := <-out
		var d *call.DialError
		if !errors.As(r.err, &d) || d.Status != 487 || !errors.Is(r.err, ErrElsewhere) {
			t.Errorf("got %v", r.err)
		}
		p.Quiet(400 * time.Millisecond)
		leg.Respond(m, 180, "")
		c := p.Expect("CANCEL")
		if c.Branch() != m.Branch() || c.URI() != m.URI() || c.Get("Reason") != `SIP;cause=200;text="Call completed elsewhere"` {
			t.Errorf("the CANCEL is\n%s", c.Raw)
		}
		leg.Respond(c, 200, "")
		leg.Respond(m, 487, "")
		p.Expect("ACK")
		p.Quiet(time.Minute)
	})
}

func TestCancelGlare(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("agent", "10.0.0.3:5060")
		ctx, cancel := context.WithCancel(b.ctx)
		out := b.dial(ctx, to(p))
		leg, m := p.AwaitCall()
		leg.Respond(m, 180, "")
		synctest.Wait()
		cancel()
		if r := <-out; r.c != nil || !errors.Is(r.err, context.Canceled) {
			t.Errorf("got %v", r.err)
		}
		leg.Respond(m, 200, sdpAnswer) // crosses the CANCEL
		c := p.Await("CANCEL")
		leg.Respond(c, 200, "")
		p.Await("ACK")
		bye := p.Await("BYE")
		if bye.URI() != p.Contact() || bye.Tag("To") == "" {
			t.Errorf("the BYE is\n%s", bye.Raw)
		}
		leg.Respond(m, 200, sdpAnswer)
		p.Await("ACK")
		leg.Respond(bye, 200, "")
		p.Quiet(time.Minute)
		if b.count("cancel_glare") != 1 {
			t.Errorf("counted %v", b.count("cancel_glare"))
		}
	})
}

func TestCancelWithoutAFinalResponse(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("agent", "10.0.0.3:5060")
		ctx, cancel := context.WithCancel(b.ctx)
		out := b.dial(ctx, to(p))
		leg, m := p.AwaitCall()
		leg.Respond(m, 180, "")
		synctest.Wait()
		cancel()
		<-out
		leg.Respond(p.Expect("CANCEL"), 200, "")
		time.Sleep(33 * time.Second)
		synctest.Wait()
		p.Forget()
		p.Quiet(time.Minute)
	})
}

// RFC 3261 section 13.2.2.4: each 2xx of a fork gets an ACK of its own; all but the first a BYE.
func TestForkedSecondAnswer(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("agent", "10.0.0.3:5060")
		out := b.dial(b.ctx, to(p))
		leg, m := p.AwaitCall()
		leg.Respond(m, 200, sdpAnswer)
		first := p.Expect("ACK")
		r := <-out
		if r.err != nil {
			t.Fatal(r.err)
		}
		for range 2 {
			p.Respond(m, 200, "forked", sdpAnswer)
			if ack := p.Await("ACK"); ack.Tag("To") != "forked" {
				t.Errorf("the ACK went to %q", ack.Tag("To"))
			}
		}
		bye := p.Await("BYE")
		if bye.Tag("To") != "forked" {
			t.Errorf("the BYE went to %q", bye.Tag("To"))
		}
		p.Respond(bye, 200, "", "")
		if first.Tag("To") == "forked" || r.c.Context().Err() != nil {
			t.Error("the first answer lost its call")
		}
		p.Quiet(time.Second)
		leg.Remote, leg.Target = m.Get("From"), "sip:10.0.0.1"
		leg.Bye()
	})
}

func TestRecordRouteAndTargetRefresh(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("agent", "10.0.0.3:5060")
		proxy := b.phone("proxy", "10.0.0.9:5060")
		out := b.dial(b.ctx, to(p))
		leg, m := p.AwaitCall()
		leg.Respond(m, 200, sdpAnswer, "Record-Route: <sip:10.0.0.8;lr>", "Record-Route: <sip:10.0.0.9:5060;lr>")
		ack := proxy.Expect("ACK")
		want := []string{"<sip:10.0.0.9:5060;lr>", "<sip:10.0.0.8;lr>"}
		if diff := cmp.Diff(want, ack.All("Route")); diff != "" || ack.URI() != p.Contact() {
			t.Errorf("Route (-want +got)\n%s\n%s", diff, ack.Raw)
		}
		c := (<-out).c
		c.OnOffer(func([]byte) ([]byte, int) { return []byte(sdpAnswer), 200 })
		leg.Remote, leg.Target = m.Get("From"), "sip:12345@10.0.0.1"
		leg.CSeq++
		p.Send(strings.Replace(leg.Text("INVITE", leg.CSeq, p.Name("z9hG4bK"), sdpOffer), "sip:agent@10.0.0.3:5060", "sip:moved@10.0.0.3:5061", 1))
		leg.Ack(p.Await("200 INVITE"), "")
		synctest.Wait()
		go c.Bye(b.ctx, call.CauseNormal)
		bye := proxy.Expect("BYE")
		if bye.URI() != "sip:moved@10.0.0.3:5061" || len(bye.All("Route")) != 2 {
			t.Errorf("the BYE is\n%s", bye.Raw)
		}
		proxy.Respond(bye, 200, "", "")
	})
}

func TestRecordRouteOfAnIncomingCall(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("alice", "10.0.0.2:5060")
		proxy := b.phone("proxy", "10.0.0.9:5060")
		leg := p.Invite("12345", sdpOffer, "Record-Route: <sip:10.0.0.9;lr>, <sip:10.0.0.8;lr>")
		c := <-calls
		go c.Answer(b.ctx, []byte(sdpAnswer))
		ok := leg.Answered()
		if n := len(ok.All("Record-Route")); n != 2 {
			t.Errorf("%d Record-Route in the 200, want 2", n)
		}
		synctest.Wait()
		go c.Bye(b.ctx, call.CauseNormal)
		bye := proxy.Expect("BYE")
		if diff := cmp.Diff([]string{"<sip:10.0.0.9;lr>", "<sip:10.0.0.8;lr>"}, bye.All("Route")); diff != "" {
			t.Errorf("Route (-want +got)\n%s", diff)
		}
		proxy.Respond(bye, 200, "", "")
	})
}

func TestStrictRouter(t *testing.T) {
	l := &Layer{network: "UDP", host: "h"}
	id := identity{target: sip.Uri{Scheme: "sip", Host: "target"}, routes: []sip.Uri{{Scheme: "sip", Host: "strict"}, {Scheme: "sip", Host: "next"}}}
	req := l.inDialog(id, sip.BYE)
	var routes []string
	for _, h := range req.GetHeaders("Route") {
		routes = append(routes, h.Value())
	}
	if got := fmt.Sprintf("%s %s", req.Recipient.String(), routes); got != "sip:strict [<sip:next> <sip:target>]" {
		t.Errorf("got %s", got)
	}
}

func TestAuthentication(t *testing.T) {
	for _, algorithm := range []string{"MD5", "SHA-256"} {
		for _, status := range []int{401, 407} {
			run(t, Deps{}, func(b *bench) {
				ask, answer := "WWW-Authenticate", "Authorization"
				if status == 407 {
					ask, answer = "Proxy-Authenticate", "Proxy-Authorization"
				}
				p := b.phone("trunk", "10.0.0.3:5060")
				inv := to(p)
				inv.RequestURI.UriParams.Add("user", "phone")
				inv.Auth = &Credentials{Username: "hot", Password: "line"}
				out := b.dial(b.ctx, inv)
				leg, m := p.AwaitCall()
				challenge := fmt.Sprintf(`Digest realm="a, b", nonce="n1", algorithm=%s, opaque="o", qop="auth,auth-int"`, algorithm)
				leg.Respond(m, status, "", ask+": Digest realm=x, algorithm=AKAv1-MD5, nonce=z", ask+": "+challenge)
				p.Expect("ACK")
				m2 := p.Expect("INVITE")
				first, _ := m.CSeq()
				if n, _ := m2.CSeq(); n != first+1 || m2.Get("Call-ID") != m.Get("Call-ID") || m2.Tag("From") != m.Tag("From") || m2.Branch() == m.Branch() {
					t.Errorf("again as\n%s", m2.Raw)
				}
				checkDigest(t, m2.Get(answer), challenge, "hot", "line", "INVITE", m.URI())
				if !strings.HasSuffix(m.URI(), ";user=phone") {
					t.Errorf("Request-URI %s", m.URI())
				}
				leg.Respond(m2, 200, sdpAnswer)
				if ack := p.Expect("ACK"); ack.Get(answer) != m2.Get(answer) {
					t.Errorf("the ACK has other credentials:\n%s", ack.Raw)
				}
				c := (<-out).c
				go c.Bye(b.ctx, call.CauseNormal)
				bye := p.Expect("BYE")
				leg.Respond(bye, status, "", ask+": "+challenge)
				bye = p.Expect("BYE")
				checkDigest(t, bye.Get(answer), challenge, "hot", "line", "BYE", bye.URI())
				leg.Respond(bye, 200, "")
			})
		}
	}
}

// checkDigest recomputes an answer with the phone's own digest.
func checkDigest(t *testing.T, got, challenge, user, password, method, uri string) {
	t.Helper()
	f := authFields(strings.TrimPrefix(got, "Digest "))
	if f["uri"] != uri {
		t.Errorf("uri=%q, want the Request-URI %q", f["uri"], uri)
	}
	if f["cnonce"] == "" || f["nc"] != "00000001" || f["qop"] != "auth" || f["opaque"] != "o" || f["username"] != user ||
		!siptest.Verify(got, password, method) {
		t.Errorf("got %s for %s", got, challenge)
	}
}

func TestDigestVectors(t *testing.T) {
	// RFC 2617 section 3.5's user without qop (RFC 2069); the value is known.
	v, err := digest(authFields(`realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"`),
		"GET", "/dir/index.html", Credentials{"Mufasa", "Circle Of Life"})
	if err != nil || authFields(v)["response"] != "670fd8c2df070c60b045671b8b24ff02" {
		t.Errorf("%v %s", err, v)
	}
	for _, algorithm := range []string{"MD5", "SHA-256"} { // against the phone's own digest, cnonce for cnonce
		ch := `Digest realm="r", nonce="n", qop="auth", algorithm=` + algorithm
		v, err := digest(authFields(ch[7:]), "REGISTER", "sip:x;transport=udp", Credentials{"u", "p"})
		if err != nil {
			t.Fatal(err)
		}
		cnonce := authFields(v)["cnonce"]
		if !siptest.Verify(v, "p", "REGISTER") || cnonce == "" {
			t.Errorf("%s: %s", algorithm, v)
		}
	}
	if _, err := digest(authFields(`realm="r", nonce="n", qop="auth-int"`), "BYE", "sip:x", Credentials{}); err == nil {
		t.Error("auth-int was answered")
	}
}

func TestWrongPasswordIsRefusedAfterThree(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("trunk", "10.0.0.3:5060")
		inv := to(p)
		inv.Auth = &Credentials{"hot", "wrong"}
		out := b.dial(b.ctx, inv)
		for range 3 {
			leg, m := p.AwaitCall()
			leg.Respond(m, 401, "", `WWW-Authenticate: Digest realm="r", nonce="n"`)
			p.Expect("ACK")
		}
		var d *call.DialError
		if r := <-out; !errors.As(r.err, &d) || d.Status != 401 {
			t.Errorf("got %v", r.err)
		}
	})
}

func TestRequestOutsideADialog(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("trunk", "10.0.0.3:5060")
		type result struct {
			res *sip.Response
			err error
		}
		send := func(auth *Credentials) chan result {
			out := make(chan result, 1)
			go func() {
				res, err := b.l.Request(b.ctx, sip.NewRequest(sip.OPTIONS, sip.Uri{Scheme: "sip", Host: "10.0.0.3"}), auth)
				out <- result{res, err}
			}()
			return out
		}
		out := send(nil)
		m := p.Expect("OPTIONS")
		if m.From != gateway || m.Get("Call-ID") == "" || m.Tag("From") == "" || m.Get("Content-Length") != "0" {
			t.Errorf("from %v\n%s", m.From, m.Raw)
		}
		p.Respond(m, 200, "x", "")
		if r := <-out; r.err != nil || r.res.StatusCode != 200 {
			t.Errorf("%+v", r)
		}
		out = send(&Credentials{"u", "p"})
		p.Respond(p.Expect("OPTIONS"), 401, "x", "", `WWW-Authenticate: Digest realm="r", nonce="n"`)
		m = p.Expect("OPTIONS")
		if !siptest.Verify(m.Get("Authorization"), "p", "OPTIONS") {
			t.Errorf("got\n%s", m.Raw)
		}
		p.Respond(m, 200, "x", "")
		<-out
		if r := <-send(nil); !errors.Is(r.err, sip.ErrTransactionTimeout) {
			t.Errorf("silence: %v", r.err)
		}
	})
}

func TestEndWhilePlacing(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("agent", "10.0.0.3:5060")
		var mine *Call
		inv := to(p)
		inv.Setup = func(c *Call) { mine = c }
		out := b.dial(b.ctx, inv)
		leg, m := p.AwaitCall()
		leg.Respond(m, 180, "")
		synctest.Wait()
		if err := mine.Bye(b.ctx, call.CauseNormal); err != nil {
			t.Fatal(err)
		}
		if r := <-out; !errors.Is(r.err, call.ErrLegGone) {
			t.Errorf("got %v", r.err)
		}
		leg.Respond(p.Expect("CANCEL"), 200, "")
		leg.Respond(m, 487, "")
		p.Expect("ACK")
	})
}

func TestDelayedOfferOut(t *testing.T) {
	run(t, Deps{}, func(b *bench) {
		p := b.phone("agent", "10.0.0.3:5060")
		inv := to(p)
		inv.Body = nil
		inv.Ack = func(offer []byte) []byte {
			if string(offer) != sdpOffer {
				t.Errorf("offer %q", offer)
			}
			return []byte(sdpAnswer)
		}
		out := b.dial(b.ctx, inv)
		leg, m := p.AwaitCall()
		leg.Respond(m, 200, sdpOffer)
		if ack := p.Expect("ACK"); ack.Body != sdpAnswer {
			t.Errorf("the ACK is\n%s", ack.Raw)
		}
		<-out
	})
}
