package sip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/registrar"
	"github.com/hotline12345/gateway/sip/trunk"
)

// service is a wire with an outgoing trunk, and someone who answers at its far side.
func service(t *testing.T) (*wire, *person) {
	t.Helper()
	far := newPerson(t, "110", netip.AddrPort{})
	t.Cleanup(far.leave)
	w := newWire(t, func(c *Config) {
		c.Trunks = append(c.Trunks, trunk.Config{Name: "police", Sources: []string{"127.0.0.9/32"}, Identity: trunk.ByNone,
			Address: far.conn.LocalAddr().String(), Caller: "0571-12345", MaxCalls: trunk.MinCalls})
	})
	at := w.sw.Addr(false)
	far.phone = newPhone(far, "110", at)
	return w, far.sit()
}

func TestDialForms(t *testing.T) {
	w, far := service(t)
	caller := call.Number{E164: "+8613812345678"}
	own, theirs := "<sip:+8657112345@127.0.0.1;user=phone>", "<sip:+8613812345678@127.0.0.1;user=phone>"
	for form, want := range map[call.CallerForm][3]string{
		call.FormFrom:      {theirs, "", ""},
		call.FormPAI:       {own, theirs, ""},
		call.FormDiversion: {own, "", theirs + ";reason=unconditional;privacy=off"},
		call.FormSpoken:    {own, "", ""},
	} {
		got := make(chan [3]string, 1)
		go func() {
			m := <-far.rung
			from, _, _ := strings.Cut(m.Get("From"), ";tag=")
			if !strings.HasPrefix(m.Start, "INVITE sip:110@127.0.0.1") || !strings.Contains(m.Start, ";user=phone") {
				t.Errorf("%s", m.Start)
			}
			got <- [3]string{from, m.Get("P-Asserted-Identity"), m.Get("Diversion")}
			far.PickUp()
		}()
		leg, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToTrunk, Name: "police", Number: "110"},
			call.DialOptions{Caller: caller, Form: form, Emergency: true})
		if err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		if g := <-got; g != want {
			t.Errorf("%s: %q, want %q", form, g, want)
		}
		if i := leg.Info(); i.Trunk != "police" || i.Called != "110" || i.Direction != call.Outgoing || i.Codec != call.PCMA {
			t.Errorf("%+v", i)
		}
		if err := leg.Hangup(t.Context(), call.CauseNormal); err != nil {
			t.Error(err)
		}
	}
	tr, _ := w.sw.Trunks().Get("police")
	for tr.InUse() != 0 {
		runtime.Gosched()
	}
}

func TestDialTrunkFull(t *testing.T) {
	w, far := service(t)
	to := call.Endpoint{Kind: call.ToTrunk, Name: "police", Number: "110"}
	go func() {
		for range 2 {
			<-far.rung
			far.PickUp()
		}
	}()
	// One ordinary place beside the four that are kept; an emergency passes every cap.
	var legs []call.Leg
	for i, emergency := range []bool{false, false, true} {
		leg, err := w.sw.Dial(t.Context(), to, call.DialOptions{Emergency: emergency})
		e, _ := errors.AsType[*call.DialError](err)
		if full := e != nil && e.Cause == call.CauseCongestion; full != (i == 1) {
			t.Errorf("dial %d: %v", i, err)
		}
		if err == nil {
			legs = append(legs, leg)
		}
	}
	w.sw.EndAll(call.CauseTempUnavailable)
	for _, l := range legs {
		if e := why(t, l); e.Reason != call.EndDrained || e.Remote {
			t.Errorf("ended with %+v", e)
		}
	}
}

func TestDialRefused(t *testing.T) {
	w, far := service(t)
	for status, cause := range map[int]call.Cause{403: call.CauseRejected, 404: call.CauseUnallocated,
		484: call.CauseBadNumber, 503: call.CauseCongestion} {
		go func() { <-far.rung; far.Refuse(status) }()
		_, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToTrunk, Name: "police", Number: "110"}, call.DialOptions{})
		if e, ok := errors.AsType[*call.DialError](err); !ok || e.Status != status || e.Cause != cause {
			t.Errorf("%d: %v", status, err)
		}
	}
	for name, to := range map[string]call.Endpoint{
		"no trunk":      {Kind: call.ToTrunk, Name: "none", Number: "110"},
		"incoming only": {Kind: call.ToTrunk, Name: "carrier", Number: "110"},
		"no phone":      {Kind: call.ToExtension, Name: "1009"},
	} {
		if _, err := w.sw.Dial(t.Context(), to, call.DialOptions{}); err == nil {
			t.Error(name)
		} else if _, ok := errors.AsType[*call.DialError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: "uri"}, call.DialOptions{}); !errors.Is(err, call.ErrUnsupported) {
		t.Errorf("a free URI: %v", err)
	}
	if n := testutil.ToFloat64(w.sw.metrics.responses.WithLabelValues("police", "INVITE", "4xx")); n != 0 {
		t.Errorf("responses are counted for the trunk of the source alone: %v", n)
	}
}

// A service that we call may not call us, when it is no source of a trunk.
func TestAnswersAloneComeFromWhereCallsGo(t *testing.T) {
	far := newPerson(t, "110", netip.AddrPort{})
	t.Cleanup(far.leave)
	w := newWire(t, func(c *Config) {
		c.Trunks = []trunk.Config{{Name: "police", Sources: []string{"127.0.0.9/32"}, Identity: trunk.ByNone,
			Address: far.conn.LocalAddr().String(), Caller: "12345"}}
	})
	far.phone = newPhone(far, "110", w.sw.Addr(false))
	far.sit()
	go func() { <-far.rung; far.PickUp() }()
	leg, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToTrunk, Name: "police", Number: "110"}, call.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := leg.Hangup(t.Context(), call.CauseNormal); err != nil {
		t.Error(err)
	}
	far.dial("12345")
	if m := <-far.refused; m.Status() != 403 {
		t.Errorf("%s", m.Start)
	}
}

func TestUnspeakableAnswer(t *testing.T) {
	w, far := service(t)
	far.sdp = "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 4000 RTP/AVP 18\n"
	go func() { <-far.rung; far.PickUp() }()
	_, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToTrunk, Name: "police", Number: "110"}, call.DialOptions{})
	if e, ok := errors.AsType[*call.DialError](err); !ok || e.Cause != call.CauseCodec {
		t.Errorf("%v", err)
	}
	<-far.ended
}

func TestEveryPhoneRingsAndOneAnswers(t *testing.T) {
	w := newWire(t, nil)
	a, b := w.agent("1001"), w.agent("1001")
	go func() {
		<-a.rung
		<-b.rung
		a.Ring()
		b.Ring()
		b.PickUp()
	}()
	leg, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToExtension, Name: "1001"},
		call.DialOptions{Caller: call.Number{E164: "+8613812345678"}, Masked: "138****5678", Display: "市民热线 138****5678", Token: "abc"})
	if err != nil {
		t.Fatal(err)
	}
	m := <-a.cancelled
	if got := m.Get("Reason"); got != `SIP;cause=200;text="Call completed elsewhere"` {
		t.Errorf("the other phone was told %q", got)
	}
	for _, p := range []*person{a, b} {
		p.mu.Lock()
		i := p.invite
		p.mu.Unlock()
		if i.Get(tokenHeader) != "abc" || !strings.HasPrefix(i.Get("From"), `"市民热线 138****5678" <sip:138****5678@`) ||
			strings.Contains(i.Raw, "13812345678") {
			t.Errorf("the phone got\n%s", i.Raw)
		}
	}
	if leg.Info().Extension != "1001" || leg.Info().Token != "abc" {
		t.Errorf("%+v", leg.Info())
	}
	b.Hang()
	if e := why(t, leg); !e.Remote || e.Reason != "" {
		t.Errorf("ended with %+v", e)
	}
}

func TestDeclineSpeaksForEveryPhone(t *testing.T) {
	w := newWire(t, nil)
	a, b := w.agent("1001"), w.agent("1001")
	go func() {
		<-a.rung
		<-b.rung
		a.Ring()
		b.Refuse(603)
	}()
	_, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{})
	if e, ok := errors.AsType[*call.DialError](err); !ok || e.Status != 603 {
		t.Errorf("%v", err)
	}
	<-a.cancelled
}

func TestBusyIsToldBeforeNoAnswer(t *testing.T) {
	w := newWire(t, nil)
	a, b := w.agent("1001"), w.agent("1001")
	for p, status := range map[*person]int{a: 480, b: 486} {
		go func() { <-p.rung; p.Refuse(status) }()
	}
	_, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{})
	if e, ok := errors.AsType[*call.DialError](err); !ok || e.Status != 486 {
		t.Errorf("%v", err)
	}
}

func TestPhoneOfAnotherNode(t *testing.T) {
	cfg := loopback()
	store := registrar.NewMemory(10)
	if err := store.Put(context.Background(), registrar.Binding{Extension: "1001", Contact: "sip:1001@127.0.0.1:9",
		Node: "n2", Expires: farFuture}); err != nil {
		t.Fatal(err)
	}
	w := newWireOn(t, cfg, func(d *Deps) { d.Bindings = store })
	_, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{})
	if e, ok := errors.AsType[*call.DialError](err); !ok || e.Status != 480 {
		t.Errorf("%v", err)
	}
}

func TestStepsAreToldOnceInOrder(t *testing.T) {
	var got []call.Progress
	d := &dialling{opts: call.DialOptions{OnProgress: func(p call.Progress) { got = append(got, p) }}}
	for _, p := range []call.Progress{call.Sent, call.Trying, call.Trying, call.EarlyMedia, call.Ringing, call.Trying} {
		d.tell(p)
	}
	if want := []call.Progress{call.Sent, call.Trying, call.EarlyMedia}; !slices.Equal(got, want) {
		t.Errorf("told %v", got)
	}
}

func TestEarlyMediaOfATrunkIsTold(t *testing.T) {
	w, far := service(t)
	told := make(chan struct{})
	go func() {
		<-far.rung
		far.respond(183, far.offer("sendrecv"))
		<-told
		far.Refuse(486)
	}()
	steps := make(chan call.Progress, 8)
	_, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToTrunk, Name: "police", Number: "110"},
		call.DialOptions{OnProgress: func(p call.Progress) {
			if steps <- p; p == call.EarlyMedia {
				close(told)
			}
		}})
	if err == nil {
		t.Fatal("answered")
	}
	close(steps)
	var got []string
	for s := range steps {
		got = append(got, fmt.Sprint(s))
	}
	if s := strings.Join(got, " "); s != "sent trying ringing early_media" {
		t.Errorf("steps: %s", s)
	}
}
