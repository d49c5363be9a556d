package dialog

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
)

// torture is a request with one thing changed.
func torture(change func(lines []string) []string, body string) string {
	lines := []string{
		"INVITE sip:12345@10.0.0.1 SIP/2.0",
		"Via: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bKtorture;rport",
		"Max-Forwards: 70",
		"From: <sip:a@10.0.0.2>;tag=f1",
		"To: <sip:12345@10.0.0.1>",
		"Call-ID: torture",
		"CSeq: 1 INVITE",
		"Contact: <sip:a@10.0.0.2:5060>",
		"Content-Type: application/sdp",
	}
	lines = change(lines)
	return strings.Join(lines, "\r\n") + fmt.Sprintf("\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func swap(from, to string) func([]string) []string {
	return func(lines []string) []string {
		for i, l := range lines {
			lines[i] = strings.Replace(l, from, to, 1)
		}
		return lines
	}
}

func add(extra ...string) func([]string) []string {
	return func(lines []string) []string { return append(lines, extra...) }
}

func drop(prefix string) func([]string) []string {
	return func(lines []string) []string {
		var out []string
		for _, l := range lines {
			if !strings.HasPrefix(l, prefix) {
				out = append(out, l)
			}
		}
		return out
	}
}

func TestTorture(t *testing.T) {
	for name, c := range map[string]struct {
		change func([]string) []string
		want   int // 0: dropped; 180: taken
		header string
	}{
		"as it should be":            {add(), 180, ""},
		"folded, spaced, lower case": {swap("CSeq: 1 INVITE", "cseq :\r\n 1\tINVITE"), 180, ""},
		"compact forms":              {swap("Call-ID: ", "i: "), 180, ""},
		"unknown headers":            {add("X-Nonsense: ;;,,\"", "P-Unheard-Of: 1"), 180, ""},
		"escaped user":               {swap("sip:12345@", "sip:%31%32345@"), 180, ""},
		"tel URI":                    {swap("INVITE sip:12345@10.0.0.1", "INVITE tel:12345"), 180, ""},
		"no Max-Forwards":            {drop("Max-Forwards"), 180, ""},
		"Accept of SDP among others": {add("Accept: text/plain, application/*;q=0.5"), 180, ""},
		"another version":            {swap(" SIP/2.0", " SIP/7.0"), 505, ""},
		"CSeq of another method":     {swap("CSeq: 1 INVITE", "CSeq: 1 BYE"), 400, ""},
		"two Content-Length":         {add("Content-Length: 0"), 400, ""},
		"two Call-ID":                {add("Call-ID: other"), 400, ""},
		"two CSeq":                   {add("CSeq: 2 INVITE"), 400, ""},
		"two From":                   {add("From: <sip:b@x>;tag=2"), 400, ""},
		"no From-tag":                {swap(";tag=f1", ""), 400, ""},
		"no From":                    {drop("From"), 400, ""},
		"no CSeq":                    {drop("CSeq"), 400, ""},
		"Max-Forwards too high":      {swap("Max-Forwards: 70", "Max-Forwards: 300"), 400, ""},
		"Max-Forwards used up":       {swap("Max-Forwards: 70", "Max-Forwards: 0"), 483, ""},
		"unknown scheme":             {swap("INVITE sip:12345@10.0.0.1", "INVITE nobodyKnows:x"), 416, ""},
		"Require":                    {add("Require: 100rel, foo"), 420, "Unsupported: 100rel, foo"},
		"body of another type":       {swap("application/sdp", "text/plain"), 415, "Accept: application/sdp"},
		"coded body":                 {add("Content-Encoding: gzip"), 415, "Accept-Encoding: identity"},
		"Accept without SDP":         {add("Accept: text/plain"), 406, ""},
		"To-tag of no dialog":        {swap("To: <sip:12345@10.0.0.1>", "To: <sip:12345@10.0.0.1>;tag=gone"), 481, ""},
		"unknown method":             {swap("INVITE", "NEWMETHOD"), 405, "Allow: INVITE"},
		"no Via":                     {drop("Via"), 400, ""},
		"noise":                      {func([]string) []string { return []string{"\x00\x01hello"} }, 0, ""},
		"a scanner":                  {add("User-Agent: friendly-scanner"), 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Deps{OnInvite: func(c *Call) { c.Provisional(c.Context(), 180, nil) }}, func(b *bench) {
				p := b.phone("a", "10.0.0.2:5060")
				p.Send(torture(c.change, sdpOffer))
				if c.want == 0 {
					p.Quiet(time.Second)
					return
				}
				m := p.Next()
				if m.Status() != c.want {
					t.Fatalf("got %d, want %d\n%s", m.Status(), c.want, m.Raw)
				}
				if !strings.HasPrefix(m.Start, "SIP/2.0 ") || !strings.Contains(m.Raw, c.header) {
					t.Errorf("got\n%s", m.Raw)
				}
			})
		})
	}
}

func TestMethodsOutsideADialog(t *testing.T) {
	deps := Deps{OnRequest: map[sip.RequestMethod]func(*sip.Request, func(*sip.Response)){
		sip.REGISTER: func(req *sip.Request, respond func(*sip.Response)) {
			respond(sip.NewResponseFromRequest(req, 200, "OK", nil))
		},
		sip.MESSAGE:   func(*sip.Request, func(*sip.Response)) {},
		sip.SUBSCRIBE: func(*sip.Request, func(*sip.Response)) { panic("of the handler") },
	}}
	run(t, deps, func(b *bench) {
		p := b.phone("a", "10.0.0.2:5060")
		for method, want := range map[string]int{"REGISTER": 200, "MESSAGE": 500, "SUBSCRIBE": 500, "OPTIONS": 200, "BYE": 481,
			"INFO": 481, "REFER": 481, "CANCEL": 481, "PUBLISH": 405, "WHATEVER": 405} {
			p.Send(torture(func(lines []string) []string {
				lines = swap("INVITE", method)(lines)
				return drop("Content-Type")(swap("branch=z9hG4bK", "branch=z9hG4bK"+method)(lines))
			}, ""))
			m := p.Next()
			if m.Status() != want || want == 405 && m.Get("Allow") != allow {
				t.Errorf("%s: got\n%s", method, m.Raw)
			}
		}
	})
}

func TestReceivedAndRport(t *testing.T) {
	deps, calls := incoming()
	run(t, deps, func(b *bench) {
		p := b.phone("a", "10.0.0.2:6000")
		p.Send(torture(swap("10.0.0.2:5060;branch", "192.168.1.9:5060;branch"), sdpOffer)) // RFC 3581
		(<-calls).Provisional(b.ctx, 180, nil)
		if m := p.Expect("180"); !strings.Contains(m.Get("Via"), "received=10.0.0.2") || !strings.Contains(m.Get("Via"), "rport=6000") {
			t.Errorf("Via: %s", m.Get("Via"))
		}
	})
}

func TestDropAndTrace(t *testing.T) {
	var traced []Message
	deps := Deps{
		Drop: func(data []byte, from net.Addr, transport string) bool {
			return strings.HasPrefix(from.String(), "10.6.6.6")
		},
		Trace: func(m Message) { m.Raw = append([]byte(nil), m.Raw...); traced = append(traced, m) },
	}
	run(t, deps, func(b *bench) {
		evil := b.phone("evil", "10.6.6.6:5060")
		evil.Invite("12345", sdpOffer)
		evil.Quiet(time.Second)
		p := b.phone("a", "10.0.0.2:5060")
		leg := p.Invite("12345", sdpOffer)
		leg.Answered()
		synctest.Wait()
		if len(traced) != 3 || !traced[1].Sent || traced[1].CallID != leg.ID || traced[0].Peer != p.Addr() || !strings.HasPrefix(string(traced[2].Raw), "ACK") {
			t.Errorf("traced %+v", traced)
		}
		if v := testutil.ToFloat64(b.l.m.refused.WithLabelValues("filter")); v != 1 {
			t.Errorf("%v dropped", v)
		}
		leg.Bye()
	})
}

// Every state meets every event; what the table does not name changes nothing.
func TestStateMachine(t *testing.T) {
	states := []state{ringing, calling, accepted, confirmed, closing, ended}
	events := []event{answered, connected, acked, unacked, cancelled, refused, theirBye, ourBye}
	for _, s := range states {
		for _, e := range events {
			c := &Call{state: s}
			from, ok := c.step(e)
			to, known := moves[s][e]
			switch {
			case from != s || ok != known:
				t.Errorf("%s + %s: from %s, %v", s, e, from, ok)
			case !ok && c.state != s, ok && c.state != to:
				t.Errorf("%s + %s: went to %s", s, e, c.state)
			}
		}
		if len(moves[s]) == 0 && s != ended {
			t.Errorf("no way out of %s", s)
		}
	}
}

func TestReasons(t *testing.T) {
	for value, want := range map[string]call.Cause{
		`Q.850;cause=17;text="busy"`:                    call.CauseBusy,
		`SIP;cause=200;text="Call completed elsewhere"`: call.CauseElsewhere,
		`SIP ;cause=486`:                                call.CauseBusy,
		`SIP;cause=480, q.850 ; Cause=16`:               call.CauseNormal,
		`Q.850`:                                         0,
		`Q.850;cause=x, FOO;cause=3`:                    0,
	} {
		req := sip.NewRequest(sip.BYE, sip.Uri{})
		req.AppendHeader(sip.NewHeader("Reason", value))
		if got, ok := ReasonOf(req); got != want || ok != (want != 0) {
			t.Errorf("%s: %d %v, want %d", value, got, ok, want)
		}
	}
	if v := reason(call.CauseBusy).Value(); v != `Q.850;cause=17;text="user busy"` {
		t.Errorf("wrote %s", v)
	}
}

func TestConfig(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	bad := Config{Advertise: "host:port", UserAgent: "a\nb", Scanners: []string{" "}}
	err := bad.Validate()
	for _, path := range []string{"max_calls:", "max_queued:", "max_conns:", "idle_conn:", "retry_after:", "advertise:", "user_agent:", "scanners[0]:"} {
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s is not told: %v", path, err)
		}
	}
	if _, err := New(Config{}, Deps{}); err == nil {
		t.Error("New took an empty configuration")
	}
	if _, err := New(Defaults(), Deps{}); err == nil {
		t.Error("New took no dependencies")
	}
	reg := prometheus.NewPedanticRegistry()
	newMetrics(reg).refuse("filter")
	if newMetrics(reg).refuse("filter"); testutil.ToFloat64(newMetrics(reg).refused.WithLabelValues("filter")) != 2 {
		t.Error("two layers do not share a metric")
	}
}

func TestSpool(t *testing.T) {
	spool, err := NewFileSpool(t.TempDir() + "/dialogs")
	if err != nil {
		t.Fatal(err)
	}
	deps, calls := incoming()
	deps.Spool = spool
	run(t, deps, func(b *bench) {
		p, leg, c := talking(b, calls)
		if all, _ := spool.All(); len(all) != 1 {
			t.Fatalf("kept %v", all)
		}
		if n, err := b.l.EndStale(b.ctx); n != 0 || err != nil {
			t.Errorf("a running call is not stale: %d %v", n, err)
		}
		c.OnOffer(func([]byte) ([]byte, int) { return []byte(sdpAnswer), 200 })
		go c.ReInvite(b.ctx, []byte("offer"))
		leg.Respond(p.Expect("INVITE"), 200, "answer")
		p.Expect("ACK")
		synctest.Wait()
		all, _ := spool.All()

		leg.Bye()
		if left, _ := spool.All(); len(left) != 0 {
			t.Errorf("left %v", left)
		}
		for id, d := range all { // as kill -9 leaves it
			d.Routes = []string{"sip:10.0.0.2:5060;lr"}
			if err := spool.Save(id, d); err != nil {
				t.Fatal(err)
			}
			d.Listener = "UDP 10.0.0.77:5060"
			if err := spool.Save("another listener's", d); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan error, 1)
		go func() {
			n, err := b.l.EndStale(b.ctx)
			if n != 1 {
				err = errors.Join(err, fmt.Errorf("%d ended", n))
			}
			done <- err
		}()
		bye := p.Expect("BYE")
		n, _ := bye.CSeq()
		if n != 2 || bye.From != gateway || bye.URI() != p.Contact() || bye.Get("From") != leg.Remote || bye.Get("To") != leg.Local ||
			bye.Get("Route") != "<sip:10.0.0.2:5060;lr>" || bye.Get("Call-ID") != leg.ID {
			t.Errorf("from %v\n%s\nwant From %s", bye.From, bye.Raw, leg.Remote)
		}
		p.Respond(bye, 481, "", "")
		if err := <-done; err != nil {
			t.Error(err)
		}
		if left, _ := spool.All(); len(left) != 1 {
			t.Errorf("left %v", left)
		}
	})
}

func FuzzSanity(f *testing.F) {
	f.Add([]byte(torture(add(), sdpOffer)))
	f.Add([]byte(torture(add("Require: x", "Reason: Q.850;cause=1", "Accept: */*"), "")))
	f.Add([]byte("OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := &Layer{cfg: Defaults(), m: newMetrics(nil), calls: map[key]*Call{}, network: "UDP", host: "h"}
		l.scanner(data)
		msg, err := sip.ParseMessage(data)
		req, ok := msg.(*sip.Request)
		if err != nil || !ok {
			return
		}
		req.SetSource("10.0.0.2:5060")
		l.arrive(req)
		if l.check(req) == nil && (fromTag(req) == "" || toTag(req) == "") && !req.IsAck() {
			t.Fatalf("taken without tags:\n%s", data)
		}
		if l.check(req) == nil && req.IsInvite() {
			l.inDialog(identityUAS(req), sip.BYE)
			merging(req)
			ReasonOf(req)
		}
		if l.m.panics != nil && testutil.ToFloat64(l.m.panics) != 0 {
			t.Fatalf("a panic on\n%s", data)
		}
	})
}
