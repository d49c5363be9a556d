package sip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/siptest"
	"github.com/hotline12345/gateway/sip/trunk"
)

// taken is a wire whose calls wait in a channel, each until its leg ends or release is called.
func taken(t *testing.T, change func(*Config)) (w *wire, legs chan call.Leg, release func()) {
	t.Helper()
	over := make(chan struct{})
	w, legs, release = newWire(t, change), make(chan call.Leg, 64), sync.OnceFunc(func() { close(over) })
	t.Cleanup(release)
	w.on(func(_ context.Context, leg call.Leg, _ *call.Checkpoint) {
		legs <- leg
		select {
		case <-leg.Context().Done():
		case <-over:
		}
	})
	return w, legs, release
}

// why is how a leg ended.
func why(t *testing.T, leg call.Leg) call.Ended {
	t.Helper()
	<-leg.Context().Done()
	e, ok := errors.AsType[*call.Ended](context.Cause(leg.Context()))
	if !ok {
		t.Fatalf("the leg ended with %v", context.Cause(leg.Context()))
	}
	return *e
}

// The Call-ID is the caller's choice; the identity under which records are kept is not.
func TestTwoCallsOfOneCallID(t *testing.T) {
	w, legs, _ := taken(t, nil)
	p := w.caller("13812345678").dial("12345")
	first := <-legs
	p.mu.Lock()
	twin := *p.call
	twin.Local = strings.Replace(twin.Local, ";tag=", ";tag=twin", 1)
	p.phone.Send(twin.Text("INVITE", 1, "z9hG4bK-twin", p.offer("sendrecv")))
	p.mu.Unlock()
	second := <-legs
	if a, b := first.Info(), second.Info(); a.WireID != b.WireID || a.ID == b.ID {
		t.Errorf("two calls are %s and %s, on the wire %s and %s", a.ID, b.ID, a.WireID, b.WireID)
	}
}

func TestInfo(t *testing.T) {
	w, legs, _ := taken(t, func(c *Config) {
		c.Trunks[0].Identity = trunk.ByPAI
		c.Trunks[0].Numbers = []string{"12345"}
	})
	for _, c := range []struct {
		from, called string
		lines        []string
		want         call.Info
	}{
		{"13812345678", "12345", []string{"P-Asserted-Identity: <tel:+8613812345678>"},
			call.Info{Caller: call.Number{E164: "+8613812345678"}, Identity: call.Verified}},
		{"13812345678", "+8657112345", nil, call.Info{Caller: call.Number{E164: "+8613812345678"}, Identity: call.Spoof}},
		{"057112345", "8657112345", []string{"P-Asserted-Identity: <sip:0571-12345@c>", "Privacy: id"},
			call.Info{Caller: call.Number{E164: "+8657112345"}, Identity: call.Verified, OwnNumber: true, Withheld: true}},
	} {
		w.caller(c.from).dial(c.called, c.lines...)
		leg := <-legs
		got := leg.Info()
		if got.Called != "12345" || got.Trunk != "carrier" || got.Direction != call.Incoming || len(got.ID) != 26 ||
			!got.Peer.IsValid() || got.WireID == "" || got.At.IsZero() {
			t.Errorf("%s: %+v", c.from, got)
		}
		if got.Caller.E164 != c.want.Caller.E164 || got.Identity != c.want.Identity || got.OwnNumber != c.want.OwnNumber ||
			got.Withheld != c.want.Withheld {
			t.Errorf("%s: %+v, want %+v", c.from, got, c.want)
		}
		if err := leg.Reject(t.Context(), call.CauseForbidden); err != nil {
			t.Error(err)
		}
	}
	p := w.caller("13812345678").dial("88880000")
	if m := <-p.refused; m.Status() != 404 {
		t.Errorf("a number of no one: %s", m.Start)
	}
}

func TestRejectTellsWhy(t *testing.T) {
	w, legs, _ := taken(t, nil)
	p := w.caller("13812345678").dial("12345")
	leg := <-legs
	if err := leg.Reject(t.Context(), call.CauseCongestion); err != nil {
		t.Error(err)
	}
	m := <-p.refused
	if m.Status() != 503 || m.Get("Retry-After") != "10" || m.Get("Reason") != `Q.850;cause=42;text="switching equipment congestion"` {
		t.Errorf("%s", m.Raw)
	}
	why(t, leg)
	if err := leg.Reject(t.Context(), call.CauseBusy); !errors.Is(err, call.ErrLegGone) {
		t.Errorf("a second Reject: %v", err)
	}
	if err := leg.Answer(t.Context()); !errors.Is(err, call.ErrLegGone) {
		t.Errorf("Answer after Reject: %v", err)
	}
}

func TestCapsKeepLegsForEmergencies(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"all":   func(c *Config) { c.MaxCalls = 6 },
		"trunk": func(c *Config) { c.Trunks[0].MaxCalls = 6 },
	} {
		t.Run(name, func(t *testing.T) {
			w, legs, release := taken(t, change)
			for i := range 6 {
				w.caller("13812345678").dial("12345")
				if leg := <-legs; leg.Info().Reserve != (i >= 2) {
					t.Errorf("call %d: reserve is %v", i, leg.Info().Reserve)
				}
			}
			p := w.caller("13812345678").dial("12345")
			if m := <-p.refused; m.Status() != 503 || m.Get("Retry-After") == "" {
				t.Errorf("beyond the cap: %s", m.Raw)
			}
			if n, limit, _ := w.sw.Calls(); n != 6 || name == "all" && limit != 6 {
				t.Errorf("%d of %d calls", n, limit)
			}
			if n := testutil.ToFloat64(w.sw.metrics.refused.WithLabelValues(name + "_full")); n != 1 {
				t.Errorf("refusals counted: %v", n)
			}
			release()
			tr, _ := w.sw.Trunks().Get("carrier")
			for tr.InUse() > 0 { // each handler's leg ends by itself now
				runtime.Gosched()
			}
			w.caller("13812345678").dial("12345")
			if leg := <-legs; leg.Info().Reserve {
				t.Error("the places were not given back")
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	w, legs, _ := taken(t, nil)
	p := w.caller("13812345678").dial("12345")
	leg := <-legs
	p.mu.Lock()
	p.call.Cancel()
	p.mu.Unlock()
	if m := <-p.refused; m.Status() != 487 {
		t.Errorf("%s", m.Start)
	}
	if e := why(t, leg); !e.Remote || e.Reason != call.EndCancelled {
		t.Errorf("ended with %+v", e)
	}
	if err := leg.Play(t.Context()); !errors.Is(err, call.ErrLegGone) {
		t.Errorf("Play: %v", err)
	}
}

func TestPanicEndsItsCallAlone(t *testing.T) {
	w, legs, _ := taken(t, nil)
	w.caller("13812345678").dial("12345")
	other := <-legs
	broken := make(chan call.Leg, 1)
	w.on(func(_ context.Context, leg call.Leg, _ *call.Checkpoint) {
		broken <- leg
		panic("a fault")
	})
	p := w.caller("13812345678").dial("12345")
	if e := why(t, <-broken); e.Reason != call.EndFault || e.Remote {
		t.Errorf("ended with %+v", e)
	}
	if m := <-p.refused; m.Status() != 500 {
		t.Errorf("the caller got %s", m.Start)
	}
	if other.Context().Err() != nil || testutil.ToFloat64(w.sw.metrics.panics) != 1 {
		t.Error("the panic reached another call, or was not counted")
	}
}

func TestEarlyMedia(t *testing.T) {
	w, legs, _ := taken(t, nil)
	p := w.caller("13812345678").dial("12345")
	leg := <-legs
	if err := leg.Play(t.Context()); !errors.Is(err, call.ErrNotAnswered) {
		t.Errorf("Play before Progress: %v", err)
	}
	if err := leg.Progress(t.Context()); err != nil {
		t.Error(err)
	}
	if err := leg.Progress(t.Context()); err != nil {
		t.Error(err)
	}
	m := <-p.provision
	if m.Status() != 183 || !strings.Contains(m.Body, "m=audio") {
		t.Errorf("%s", m.Raw)
	}
	if err := leg.Answer(t.Context()); err != nil {
		t.Error(err)
	}
	if err := leg.Progress(t.Context()); !errors.Is(err, call.ErrAnswered) {
		t.Errorf("Progress after Answer: %v", err)
	}
	if leg.Info().Codec != call.PCMA {
		t.Errorf("codec %q", leg.Info().Codec)
	}
}

func TestOfferlessInvite(t *testing.T) {
	w, legs, _ := taken(t, nil)
	p := w.person("13812345678", false)
	c := p.phone.Invite("12345", "")
	leg := <-legs
	if err := leg.Progress(t.Context()); !errors.Is(err, call.ErrUnsupported) {
		t.Errorf("Progress: %v", err)
	}
	answered := make(chan error, 1)
	go func() { answered <- leg.Answer(t.Context()) }()
	res := p.phone.Await("200 INVITE")
	p.aim(res.Body)
	if !p.remote.IsValid() {
		t.Fatalf("no offer in\n%s", res.Raw)
	}
	c.Ack(res, p.offer("sendrecv"))
	p.call = c
	p.sit()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if leg.Info().Codec != call.PCMA {
		t.Errorf("codec %q", leg.Info().Codec)
	}
}

func TestUnspeakableOffer(t *testing.T) {
	w, _, _ := taken(t, nil)
	p := w.caller("13812345678")
	p.sdp = "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 4000 RTP/AVP 18\na=rtpmap:18 G729/8000\n"
	p.dial("12345")
	if m := <-p.refused; m.Status() != 488 {
		t.Errorf("%s", m.Start)
	}
	if n, _, _ := w.sw.Calls(); n != 0 {
		t.Errorf("%d calls are counted", n)
	}
}

func TestInfoDigits(t *testing.T) {
	w, legs, _ := taken(t, nil)
	p := w.caller("13812345678").dial("12345")
	leg := <-legs
	if err := leg.Answer(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-p.answered
	p.mu.Lock()
	for _, k := range []byte("1234") {
		p.call.InfoDigit(k)
	}
	p.call.Request("INFO", "11", "Content-Type: application/dtmf")
	p.mu.Unlock()
	var got []byte
	for range 5 {
		d := <-leg.Digits()
		if d.Source != call.DigitInfo {
			t.Errorf("source %q", d.Source)
		}
		got = append(got, d.Key)
	}
	if string(got) != "1234#" {
		t.Errorf("got %q", got)
	}
	p.mu.Lock()
	p.call.Request("INFO", "hello", "Content-Type: text/plain")
	p.mu.Unlock()
	for m := range p.other {
		if m.Status() == 415 {
			break
		}
	}
}

func TestDigitsDropTheOldest(t *testing.T) {
	w, legs, _ := taken(t, nil)
	w.caller("13812345678").dial("12345")
	l := (<-legs).(*leg)
	for i := range maxDigits + 3 {
		l.press(call.Digit{Key: '0' + byte(i%10)})
	}
	for range maxEvents + 2 {
		l.tell(call.HoldEvent, "")
	}
	if d := <-l.Digits(); d.Key != '3' || len(l.Digits()) != maxDigits-1 || len(l.Events()) != maxEvents {
		t.Errorf("the first is %c, %d follow", d.Key, len(l.Digits()))
	}
	if a, b := testutil.ToFloat64(w.sw.metrics.digitsDropped), testutil.ToFloat64(w.sw.metrics.eventsDropped); a != 3 || b != 2 {
		t.Errorf("counted %v and %v", a, b)
	}
}

func TestInfoKey(t *testing.T) {
	for in, want := range map[[2]string]string{
		{"application/dtmf-relay", "Signal=5\r\nDuration=160\r\n"}: "5",
		{"application/dtmf-relay", "Duration=160\nsignal = *\n"}:   "*",
		{"application/dtmf-relay;x=y", "Signal=10"}:                "*",
		{"application/dtmf", " 11\r\n"}:                            "#",
		{"application/dtmf", "d"}:                                  "D",
		{"application/dtmf", "16"}:                                 "",
		{"application/dtmf", "flash"}:                              "",
		{"application/dtmf-relay", "Duration=160"}:                 "",
		{"text/plain", "5"}:                                        "",
		{";", "5"}:                                                 "",
	} {
		got, ok := infoKey(in[0], in[1])
		if ok != (want != "") || ok && string(got) != want {
			t.Errorf("%q: %c, %v", in, got, ok)
		}
	}
}

func FuzzInfoKey(f *testing.F) {
	f.Add("application/dtmf-relay", "Signal=5\r\n")
	f.Fuzz(func(t *testing.T, kind, body string) {
		if k, ok := infoKey(kind, body); ok && !call.ValidDigit(k) {
			t.Errorf("%q is no key", k)
		}
	})
}

func TestMediaTimeout(t *testing.T) {
	w, legs, _ := taken(t, func(c *Config) { c.Media.InitialTimeout = 300 * time.Millisecond })
	p := w.person("13812345678", false) // says nothing, and answers nothing by itself
	c := p.phone.Invite("12345", p.offer("sendrecv"))
	leg := <-legs
	go c.Answered()
	if err := leg.Answer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := why(t, leg); e.Reason != call.EndMediaTimeout || e.Remote {
		t.Errorf("ended with %+v", e)
	}
	w.stop()
}

func TestFeatureCode(t *testing.T) {
	w, legs, _ := taken(t, nil)
	p := w.agent("1001").dial("*11")
	challenge := <-p.refused
	if challenge.Status() != 401 {
		t.Fatalf("%s", challenge.Raw)
	}
	uri := fmt.Sprintf("sip:*11@%s", w.sw.Addr(true))
	auth := siptest.Authorize(challenge.Get("WWW-Authenticate"), "1001", password, "INVITE", uri)
	p.dial("*11", "Authorization: "+auth)
	leg := <-legs
	if got := leg.Info(); got.Extension != "1001" || got.Trunk != "" || got.Called != "*11" || got.Identity != call.Verified {
		t.Errorf("%+v", got)
	}
	if n, _, _ := w.sw.Calls(); n != 0 {
		t.Errorf("an agent took a caller's place: %d", n)
	}
}

func TestTransferIsAnAgentsRight(t *testing.T) {
	w, legs, _ := taken(t, nil)
	caller := w.caller("13812345678").dial("12345")
	leg := <-legs
	if err := leg.Answer(t.Context()); err != nil {
		t.Fatal(err)
	}
	refer := func(p *person) int {
		p.mu.Lock()
		p.call.Request("REFER", "", "Refer-To: <sip:1002@elsewhere.invalid>")
		p.mu.Unlock()
		for m := range p.other {
			if _, of := m.CSeq(); of == "REFER" {
				return m.Status()
			}
		}
		return 0
	}
	<-caller.answered
	if got := refer(caller); got != 603 {
		t.Errorf("a caller's REFER got %d", got)
	}
	agent := w.agent("1001")
	go func() { <-agent.rung; agent.PickUp() }()
	out, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := refer(agent); got != 202 {
		t.Errorf("an agent's REFER got %d", got)
	}
	if e := <-out.Events(); e.Kind != call.TransferEvent || e.Target != "1002" {
		t.Errorf("%+v", e)
	}
	if err := out.Hangup(t.Context(), call.CauseNormal); err != nil {
		t.Error(err)
	}
}

func TestStrangersAreDropped(t *testing.T) {
	w, legs, _ := taken(t, func(c *Config) { c.Trunks[0].Sources = []string{"127.0.0.2/32"} })
	w.person("13812345678", false).sit().dial("12345")
	c, err := net.Dial("tcp", w.sw.Addr(false).String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a stranger's connection stays")
	}
	for testutil.ToFloat64(w.sw.metrics.dropped.WithLabelValues("carriers", "unknown_source")) < 2 {
		runtime.Gosched()
	}
	if len(legs) != 0 {
		t.Error("a stranger got through")
	}
}
