package sip

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/textproto"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/trunk"
)

func TestDrain(t *testing.T) {
	w, legs, release := taken(t, nil)
	first := w.caller("13812345678").dial("12345")
	leg := <-legs
	if err := leg.Answer(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-first.answered
	w.stop()
	// A node that drains says so to INVITE and OPTIONS; until it knows, it takes calls as before.
	status := 0
	for status != 503 {
		p := w.caller("13812345678")
		p.mu.Lock()
		p.call = p.phone.Invite("12345", p.offer("sendrecv"))
		p.call.Request("OPTIONS", "")
		p.mu.Unlock()
		select {
		case m := <-p.refused:
			status = m.Status()
			if m.Get("Retry-After") == "" {
				t.Errorf("%s", m.Raw)
			}
		case l := <-legs:
			_ = l.Reject(t.Context(), call.CauseBusy)
		}
	}
	// The call that runs goes on, and may still ring an agent.
	agent := w.agent("1001")
	go func() { <-agent.rung; agent.PickUp() }()
	out, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Hangup(t.Context(), call.CauseNormal); err != nil {
		t.Error(err)
	}
	if leg.Context().Err() != nil {
		t.Error("the drain ended a call")
	}
	release()
	if e := why(t, leg); e.Remote || e.Reason != "" {
		t.Errorf("ended with %+v", e)
	}
	if err := <-w.served; err != nil {
		t.Error(err)
	}
	w.served <- nil
	if _, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{}); !errors.Is(err, errClosed) {
		t.Errorf("Dial after Serve: %v", err)
	}
	if w.sw.Addr(false).IsValid() {
		t.Error("a closed switch has an address")
	}
}

func TestEndAll(t *testing.T) {
	w, legs, _ := taken(t, nil)
	ringing := w.caller("13812345678").dial("12345")
	unanswered := <-legs
	talking := w.caller("13912345678").dial("12345")
	answered := <-legs
	if err := answered.Answer(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-talking.answered
	w.sw.EndAll(call.CauseTempUnavailable)
	for _, l := range []call.Leg{unanswered, answered} {
		if e := why(t, l); e.Reason != call.EndDrained {
			t.Errorf("ended with %+v", e)
		}
	}
	if m := <-ringing.refused; m.Status() != 480 {
		t.Errorf("%s", m.Start)
	}
	if m := <-talking.ended; !strings.HasPrefix(m.Get("Reason"), "Q.850;cause=41") {
		t.Errorf("%s", m.Raw)
	}
}

func TestPortInUse(t *testing.T) {
	taken, stream, err := listen("127.0.0.1:0") // nobody has the stream's port either
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_ = stream.Close()
	for listen, want := range map[string]string{
		taken.LocalAddr().String(): "phones.listen: UDP port " + taken.LocalAddr().String() + " is in use by another program; stop it, or write another port",
		"192.0.2.1:0":              "phones.listen: 192.0.2.1:0 is no address of this machine; write one of its own",
	} {
		cfg := loopback()
		cfg.Phones.Listen = listen
		sw, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler), Credentials: staff{}})
		if err != nil {
			t.Fatal(err)
		}
		if err := sw.Open(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	sw, err := New(loopback(), Deps{Log: slog.New(slog.DiscardHandler), Credentials: staff{}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := sw.Open(); err != nil {
			t.Fatal(err)
		}
	}
	if err := sw.Close(); err != nil {
		t.Error(err)
	}
}

// loopbackPort is a port that is free on UDP and TCP.
func loopbackPort(t *testing.T) netip.AddrPort {
	t.Helper()
	packets, stream, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(packets.Close(), stream.Close()) }()
	return netip.MustParseAddrPort(stream.Addr().String())
}

func TestStaleDialogsAreEnded(t *testing.T) {
	dir := t.TempDir()
	far := newPerson(t, "1001", loopbackPort(t))
	t.Cleanup(far.leave)
	s, err := dialog.NewFileSpool(filepath.Join(dir, "dialogs"))
	if err != nil {
		t.Fatal(err)
	}
	listener := far.phone.Peer().String()
	if err := s.Save("a", dialog.DialogState{Listener: "UDP " + listener, CallID: "old", Local: "<sip:12345@127.0.0.1>;tag=ours",
		Remote: "<sip:1001@127.0.0.1>;tag=theirs", Target: far.phone.Contact(), LocalCSeq: 7}); err != nil {
		t.Fatal(err)
	}
	w := newWire(t, func(c *Config) { c.Carriers.Listen, c.SpoolDir = listener, dir })
	if m := far.phone.Await("BYE"); m.Get("Call-ID") != "old" || m.Tag("From") != "ours" || m.Tag("To") != "theirs" {
		t.Errorf("%s", m.Raw)
	} else {
		far.phone.Respond(m, 200, "", "")
	}
	for testutil.ToFloat64(w.sw.metrics.stale) != 1 {
		runtime.Gosched()
	}
}

func TestLadder(t *testing.T) {
	w, legs, release := taken(t, nil)
	p := w.caller("13812345678").dial("12345")
	leg := <-legs
	if err := leg.Answer(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-p.answered
	release()
	<-p.ended
	w.stop()
	if err := <-w.served; err != nil {
		t.Error(err)
	}
	w.served <- nil
	w.mu.Lock()
	defer w.mu.Unlock()
	var got []string
	for _, m := range w.ladder {
		id, rest, _ := strings.Cut(m, " ")
		line, text, _ := strings.Cut(rest, "\n")
		if id != leg.Info().ID || strings.Contains(text, "sip:13812345678") {
			t.Errorf("for leg %s:\n%s", leg.Info().ID, m)
		}
		got = append(got, strings.Join(strings.Fields(line)[:2], " "))
	}
	for _, want := range []string{"< INVITE", "> SIP/2.0", "< ACK", "> BYE", "< SIP/2.0"} {
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	m := w.sw.metrics.responses
	if a, b := testutil.ToFloat64(m.WithLabelValues("carrier", "INVITE", "2xx")), testutil.ToFloat64(m.WithLabelValues("carrier", "BYE", "2xx")); a != 1 || b != 1 {
		t.Errorf("responses counted: %v to INVITE, %v to BYE", a, b)
	}
}

func TestOverTCP(t *testing.T) {
	w, legs, _ := taken(t, nil)
	c, err := net.Dial("tcp", w.sw.Addr(false).String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	body := "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
	fmt.Fprintf(c, "INVITE sip:12345@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP %s;branch=z9hG4bKtcp1;rport\r\nMax-Forwards: 70\r\n"+
		"From: <sip:13812345678@127.0.0.1>;tag=1\r\nTo: <sip:12345@127.0.0.1>\r\nCall-ID: tcp\r\nCSeq: 1 INVITE\r\n"+
		"Contact: <sip:x@%s;transport=tcp>\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
		c.LocalAddr(), c.LocalAddr(), len(body), body)
	leg := <-legs
	r := textproto.NewReader(bufio.NewReader(c))
	next := func() (start string, h textproto.MIMEHeader) {
		t.Helper()
		start, err := r.ReadLine()
		if err != nil {
			t.Fatal(err)
		}
		if h, err = r.ReadMIMEHeader(); err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(h.Get("Content-Length"))
		if _, err := io.CopyN(io.Discard, r.R, int64(n)); err != nil {
			t.Fatal(err)
		}
		return start, h
	}
	answered := make(chan error, 1)
	go func() { answered <- leg.Answer(context.Background()) }()
	start, h := next()
	for !strings.HasPrefix(start, "SIP/2.0 200") {
		start, h = next()
	}
	fmt.Fprintf(c, "ACK sip:12345@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP %s;branch=z9hG4bKtcp2;rport\r\nMax-Forwards: 70\r\n"+
		"From: <sip:13812345678@127.0.0.1>;tag=1\r\nTo: %s\r\nCall-ID: tcp\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
		c.LocalAddr(), h.Get("To"))
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	if got := leg.Info(); got.Caller.E164 != "+8613812345678" || got.Codec != call.PCMU {
		t.Errorf("%+v", got)
	}
	over := make(chan error, 1)
	go func() { over <- leg.Hangup(context.Background(), call.CauseNormal) }()
	if start, h = next(); !strings.HasPrefix(start, "BYE ") {
		t.Errorf("got %s", start)
	}
	fmt.Fprintf(c, "SIP/2.0 200 OK\r\nVia: %s\r\nFrom: %s\r\nTo: %s\r\nCall-ID: tcp\r\nCSeq: %s\r\nContent-Length: 0\r\n\r\n",
		h.Get("Via"), h.Get("From"), h.Get("To"), h.Get("Cseq"))
	if err := <-over; err != nil {
		t.Error(err)
	}
}

func TestForeignLeg(t *testing.T) {
	w, legs, _ := taken(t, nil)
	w.caller("13812345678").dial("12345")
	own := <-legs
	b, err := w.sw.Bridge(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	foreign := struct{ call.Leg }{}
	for name, err := range map[string]error{"Add": b.Add(foreign, call.Member{Role: call.Talk}), "Remove": b.Remove(foreign),
		"Hold": b.Hold(foreign)} {
		if !errors.Is(err, call.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.Add(own, call.Member{Role: call.Talk}); !errors.Is(err, call.ErrNotAnswered) {
		t.Errorf("Add before the answer: %v", err)
	}
	if err := own.Hangup(t.Context(), call.CauseNormal); err != nil {
		t.Error(err)
	}
	if err := b.Add(own, call.Member{Role: call.Talk}); !errors.Is(err, call.ErrLegGone) {
		t.Errorf("Add after the end: %v", err)
	}
	if err := errors.Join(b.Remove(own), b.Close()); err != nil {
		t.Error(err)
	}
}

func TestOptionsTellATrunksHealth(t *testing.T) {
	w, far := service(t)
	police, _ := w.sw.Trunks().Get("police")
	status, err := w.sw.ping(t.Context(), police)
	if status != 200 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
	if m := <-far.other; m.Method() != "OPTIONS" {
		t.Errorf("%s", m.Raw)
	}
}

func TestConfigErrors(t *testing.T) {
	cfg := Defaults()
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	cfg.AreaCode, cfg.MaxCalls, cfg.PhoneSources = "x", 3, []string{"10.0.0.0/33"}
	cfg.Carriers.Listen, cfg.Phones.Listen = "5060", "5060"
	cfg.Carriers.Rate.Messages, cfg.Phones.Dialog.MaxQueued, cfg.Registrar.Realm, cfg.Media.DSCP = 0, 0, "", 99
	cfg.Trunks = append(cfg.Trunks, trunk.Config{Name: "b"})
	err := cfg.Validate()
	for _, want := range []string{"area_code: ", "max_calls: 3 ", "carriers.listen: ", "phones.listen: ", "carriers.rate.messages: ",
		"phones.dialog.max_queued: ", "phone_sources[0]: ", "trunks[1].sources: ", "registrar.realm: ", "media.dscp: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if _, err := New(cfg, Deps{}); err == nil {
		t.Error("New took it")
	}
	cfg = loopback()
	cfg.SpoolDir = "serve_test.go/spool"
	if _, err := New(cfg, Deps{}); err == nil || !strings.HasPrefix(err.Error(), "spool_dir: ") {
		t.Errorf("a spool inside a file: %v", err)
	}
}
