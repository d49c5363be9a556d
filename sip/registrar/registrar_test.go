package registrar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/sip/siptest"
)

const password = "correct horse"

// people knows 1001 and 1002, by one password.
type people struct{}

func (people) HA1(_ context.Context, extension, realm, algorithm string) (string, bool) {
	if extension != "1001" && extension != "1002" {
		return "", false
	}
	return HA1(algorithm, extension, realm, password), true
}

// bench is a registrar, and the events that it told.
type bench struct {
	*Registrar
	t      *testing.T
	store  *Memory
	events []string
	cseq   int
}

func newBench(t *testing.T, change func(*Config)) *bench {
	cfg := Defaults()
	if change != nil {
		change(&cfg)
	}
	b := &bench{t: t, store: NewMemory(cfg.MaxBindings)}
	r, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewPedanticRegistry(),
		Credentials: people{}, Bindings: b.store, Node: "n1",
		OnRegistered: func(e string) { b.events = append(b.events, "+"+e) },
		OnExpired:    func(e string) { b.events = append(b.events, "-"+e) }})
	if err != nil {
		t.Fatal(err)
	}
	b.Registrar = r
	return b
}

// request is a message of an extension's phone at 127.0.0.1:7000; source overrides that.
func (b *bench) request(method, ext, source string, lines ...string) *sip.Request {
	b.t.Helper()
	b.cseq++
	text := method + " sip:127.0.0.1:5062 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:7000;branch=z9hG4bK1;rport\r\n" +
		fmt.Sprintf("From: <sip:%s@127.0.0.1>;tag=1\r\nTo: <sip:%s@127.0.0.1>\r\nCall-ID: %s\r\nCSeq: %d %s\r\n", ext, ext, ext, b.cseq, method) +
		strings.Join(append(lines, "Content-Length: 0"), "\r\n") + "\r\n\r\n"
	m, err := sip.ParseMessage([]byte(text))
	if err != nil {
		b.t.Fatalf("%v in %s", err, text)
	}
	if source == "" {
		source = "127.0.0.1:7000"
	}
	m.SetSource(source)
	m.SetTransport("UDP")
	return m.(*sip.Request)
}

func (b *bench) serve(req *sip.Request) *sip.Response {
	b.t.Helper()
	var out *sip.Response
	b.Serve(req, func(r *sip.Response) { out = r })
	if out == nil {
		b.t.Fatal("no response")
	}
	return out
}

// challenge is the value of an algorithm's challenge.
func (b *bench) challenge(res *sip.Response, algorithm string) string {
	b.t.Helper()
	for _, h := range res.GetHeaders("WWW-Authenticate") {
		if strings.Contains(h.Value(), "algorithm="+algorithm+",") {
			return h.Value()
		}
	}
	b.t.Fatalf("no %s in %v", algorithm, res)
	return ""
}

// register sends a REGISTER with the right password and returns the answer.
func (b *bench) register(ext string, lines ...string) *sip.Response {
	b.t.Helper()
	first := b.serve(b.request("REGISTER", ext, "", lines...))
	if first.StatusCode != 401 {
		return first
	}
	auth := siptest.Authorize(b.challenge(first, SHA256), ext, password, "REGISTER", "sip:127.0.0.1:5062")
	return b.serve(b.request("REGISTER", ext, "", append(lines, "Authorization: "+auth)...))
}

func contacts(res *sip.Response) []string {
	var out []string
	for _, h := range res.GetHeaders("Contact") {
		out = append(out, h.Value())
	}
	return out
}

func (b *bench) want(res *sip.Response, status int, list ...string) {
	b.t.Helper()
	if res.StatusCode != status || !slices.Equal(contacts(res), list) {
		b.t.Errorf("got %d %q, want %d %q", res.StatusCode, contacts(res), status, list)
	}
}

func TestRegister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.want(b.register("1001", "Contact: <sip:1001@127.0.0.1:7000>", "Expires: 300"), 200, "<sip:1001@127.0.0.1:7000>;expires=300")
		time.Sleep(100 * time.Second)
		b.want(b.register("1001"), 200, "<sip:1001@127.0.0.1:7000>;expires=200")
		b.want(b.register("1001", "Contact: <sip:1001@127.0.0.1:7000>;expires=120, <sip:1001@127.0.0.1:7002>"), 200,
			"<sip:1001@127.0.0.1:7002>;expires=3600", "<sip:1001@127.0.0.1:7000>;expires=120")
		b.want(b.register("1001", "Contact: <sip:1001@127.0.0.1:7002>;expires=0"), 200, "<sip:1001@127.0.0.1:7000>;expires=120")
		b.want(b.register("1001", "Contact: *", "Expires: 0"), 200)
		b.want(b.register("1001", "Contact: <sip:1001@127.0.0.1:7000>", "Expires: 90000"), 200, "<sip:1001@127.0.0.1:7000>;expires=3600")
		if !slices.Equal(b.events, []string{"+1001", "-1001", "+1001"}) {
			t.Errorf("events: %q", b.events)
		}
		all, err := b.Lookup(t.Context(), "1001")
		if err != nil || len(all) != 1 || all[0].Node != "n1" || all[0].Dest() != "127.0.0.1:7000" || all[0].Transport != "udp" {
			t.Errorf("lookup: %+v, %v", all, err)
		}
	})
}

func TestRegisterRefused(t *testing.T) {
	b := newBench(t, nil)
	brief := b.register("1001", "Contact: <sip:1001@127.0.0.1:7000>", "Expires: 30")
	if brief.StatusCode != 423 || brief.GetHeader("Min-Expires").Value() != "60" {
		t.Errorf("a short time: %v", brief)
	}
	b.want(b.register("1001", "Contact: *", "Expires: 300"), 400)
	b.want(b.register("1001", "Contact: *, <sip:1001@127.0.0.1:7000>", "Expires: 0"), 400)
	b.want(b.register("1001", "Contact: <sip:a@h>, <sip:b@h>, <sip:c@h>, <sip:d@h>, <sip:e@h>"), 400)
	if len(b.events) != 0 {
		t.Errorf("events: %q", b.events)
	}
	// Another's address of record.
	req := b.request("REGISTER", "1001", "")
	auth := siptest.Authorize(b.challenge(b.serve(req), MD5), "1001", password, "REGISTER", "sip:127.0.0.1:5062")
	req = b.request("REGISTER", "1001", "", "Authorization: "+auth)
	req.To().Address.User = "1002"
	b.want(b.serve(req), 403)
	// An old request that comes late.
	b.register("1001", "Contact: <sip:1001@127.0.0.1:7000>")
	b.cseq = 0
	b.want(b.register("1001", "Contact: *", "Expires: 0"), 400)
}

func TestAuthentication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.MaxFailures = 3 })
		const uri = "sip:127.0.0.1:5062"
		auth := func(challenge, user, pass string) string {
			return "Authorization: " + siptest.Authorize(challenge, user, pass, "REGISTER", uri)
		}
		first := b.serve(b.request("REGISTER", "1001", ""))
		if v := first.GetHeaders("WWW-Authenticate"); len(v) != 2 || !strings.Contains(v[0].Value(), "SHA-256") {
			t.Fatalf("challenges: %v", v)
		}
		challenge := b.challenge(first, MD5)
		good := auth(challenge, "1001", password)
		b.want(b.serve(b.request("REGISTER", "1001", "", good)), 200)

		again := b.serve(b.request("REGISTER", "1001", "", good))
		if again.StatusCode != 401 || !strings.Contains(b.challenge(again, MD5), "stale=true") {
			t.Errorf("a replay: %v", again)
		}
		elsewhere := b.serve(b.request("REGISTER", "1001", "127.0.0.9:7000", good))
		if elsewhere.StatusCode != 401 || !strings.Contains(b.challenge(elsewhere, MD5), "stale=true") {
			t.Errorf("a nonce of another source: %v", elsewhere)
		}
		time.Sleep(6 * time.Minute)
		old := b.serve(b.request("REGISTER", "1001", "", good))
		if old.StatusCode != 401 || !strings.Contains(b.challenge(old, MD5), "stale=true") {
			t.Errorf("an old nonce: %v", old)
		}
		b.want(b.serve(b.request("REGISTER", "1001", "", strings.Replace(good, "algorithm=MD5", "algorithm=SHA-512-256", 1))), 400)
		b.want(b.serve(b.request("REGISTER", "1001", "", "Authorization: Digest nonsense")), 400)
		b.want(b.serve(b.request("REGISTER", "1001", "", strings.ReplaceAll(good, uri, "sip:elsewhere"))), 400)
		if res := b.serve(b.request("REGISTER", "1001", "", strings.ReplaceAll(good, `realm="hotline"`, `realm="other"`))); res.StatusCode != 401 {
			t.Errorf("another realm: %v", res)
		}

		// A wrong password and an unknown extension look the same; the fourth try is refused, right or not.
		for _, user := range []string{"1002", "9999"} {
			for range 3 {
				c := b.challenge(b.serve(b.request("REGISTER", user, "")), SHA256)
				res := b.serve(b.request("REGISTER", user, "", auth(c, user, "wrong")))
				if res.StatusCode != 401 || strings.Contains(b.challenge(res, MD5), "stale") {
					t.Errorf("%s with a wrong password: %v", user, res)
				}
			}
			c := b.challenge(b.serve(b.request("REGISTER", user, "")), SHA256)
			if res := b.serve(b.request("REGISTER", user, "", auth(c, user, password))); res.StatusCode != 403 || res.GetHeader("Retry-After") == nil {
				t.Errorf("%s locked out: %v", user, res)
			}
		}
		time.Sleep(5*time.Minute + time.Second)
		b.want(b.register("1002"), 200)
		for r, n := range map[result]float64{denied: 6, locked: 2, replayed: 1, stale: 2, bad: 3, queried: 2} {
			if got := testutil.ToFloat64(b.metrics.requests.WithLabelValues(string(r))); got != n {
				t.Errorf("%s counted %v times, want %v", r, got, n)
			}
		}
	})
}

func TestOldPhonesAreOfferedMD5Alone(t *testing.T) {
	b := newBench(t, nil)
	for agent, want := range map[string]int{"Baresip v1.0.0 (x86_64/linux)": 1, "baresip v4.1": 2, "bare": 2, "Yealink": 2} {
		res := b.serve(b.request("REGISTER", "1001", "", "User-Agent: "+agent))
		if got := res.GetHeaders("WWW-Authenticate"); len(got) != want || want == 1 && !strings.Contains(got[0].Value(), "algorithm=MD5,") {
			t.Errorf("%s: %v", agent, got)
		}
	}
	strict := newBench(t, func(c *Config) { c.Algorithms = []string{SHA256} })
	if got := strict.serve(strict.request("REGISTER", "1001", "", "User-Agent: baresip v1.0.0")).GetHeaders("WWW-Authenticate"); len(got) != 1 ||
		!strings.Contains(got[0].Value(), "SHA-256") {
		t.Errorf("MD5 was offered where it is not allowed: %v", got)
	}
}

func TestAuthenticateInvite(t *testing.T) {
	b := newBench(t, nil)
	_, no := b.Authenticate(t.Context(), b.request("INVITE", "1001", ""))
	if no == nil || no.Status != 401 || len(no.Headers) != 2 {
		t.Fatalf("no challenge: %+v", no)
	}
	auth := siptest.Authorize(no.Headers[0].Value(), "1001", password, "INVITE", "sip:127.0.0.1:5062")
	if ext, no := b.Authenticate(t.Context(), b.request("INVITE", "1001", "", "Authorization: "+auth)); ext != "1001" || no != nil {
		t.Errorf("%q, %+v", ext, no)
	}
	_, no = b.Authenticate(t.Context(), b.request("INVITE", "1002", ""))
	auth = siptest.Authorize(no.Headers[0].Value(), "1001", password, "INVITE", "sip:127.0.0.1:5062")
	if _, no := b.Authenticate(t.Context(), b.request("INVITE", "1002", "", "Authorization: "+auth)); no == nil || no.Status != 403 {
		t.Errorf("1001 passed as 1002: %+v", no)
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		b.register("1001", "Contact: <sip:1001@127.0.0.1:7000>", "Expires: 60")
		b.register("1002", "Contact: <sip:1002@127.0.0.1:7000>", "Expires: 90")
		time.Sleep(61 * time.Second)
		synctest.Wait()
		all, err := b.store.List(t.Context())
		if err != nil || len(all) != 1 || all[0].Extension != "1002" {
			t.Errorf("after 61 s: %+v, %v", all, err)
		}
		if !slices.Equal(b.events, []string{"+1001", "+1002", "-1001"}) {
			t.Errorf("events: %q", b.events)
		}
		if n := testutil.ToFloat64(b.metrics.bindings); n != 1 {
			t.Errorf("bindings: %v", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRoom(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxContacts, c.MaxBindings = 2, 3 })
	at := func(port int, more string) string { return fmt.Sprintf("Contact: <sip:x@127.0.0.1:%d>%s", port, more) }
	b.register("1001", at(7001, ""))
	b.register("1001", at(7002, ""))
	b.want(b.register("1001", at(7003, "")), 200, "<sip:x@127.0.0.1:7003>;expires=3600", "<sip:x@127.0.0.1:7002>;expires=3600")
	// The same instance at a new port takes its own place.
	b.register("1001", at(7004, `;+sip.instance="<urn:uuid:1>"`))
	b.want(b.register("1001", at(7005, `;+sip.instance="<urn:uuid:1>"`)), 200,
		"<sip:x@127.0.0.1:7005>;expires=3600", "<sip:x@127.0.0.1:7003>;expires=3600")
	b.register("1002", at(7001, ""))
	if res := b.register("1002", at(7002, "")); res.StatusCode != 503 || res.GetHeader("Retry-After") == nil {
		t.Errorf("beyond the bindings in all: %v", res)
	}
}

// away is a store that has gone.
type away struct{ Bindings }

func (away) Own(context.Context, string) ([]Binding, error) { return nil, errors.New("gone") }

func TestStoreAway(t *testing.T) {
	b := newBench(t, nil)
	b.bindings = away{}
	if res := b.register("1001", "Contact: <sip:1001@127.0.0.1:7000>"); res.StatusCode != 503 {
		t.Errorf("%v", res)
	}
}

func TestDest(t *testing.T) {
	b := newBench(t, nil)
	for contact, want := range map[string]string{
		"<sip:x@127.0.0.1:7010>": "127.0.0.1:7010", // no NAT: the port that it names
		"<sip:x@127.0.0.1>":      "127.0.0.1:5060",
		"<sip:x@10.0.0.1:7010>":  "127.0.0.1:7000", // a NAT: where it came from
		"<sip:x@phone.invalid>":  "127.0.0.1:7000",
	} {
		b.register("1001", "Contact: *", "Expires: 0")
		b.register("1001", "Contact: "+contact)
		all, err := b.Lookup(t.Context(), "1001")
		if err != nil || len(all) != 1 || all[0].Dest() != want {
			t.Errorf("%s: %+v, %v", contact, all, err)
		}
	}
	stream := Binding{Contact: "sip:x@127.0.0.1:7010", Source: netip.MustParseAddrPort("127.0.0.1:40000"), Transport: "tcp"}
	if stream.Dest() != "127.0.0.1:40000" {
		t.Errorf("a stream: %s", stream.Dest())
	}
}

func TestValidate(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Realm: `a"b`, Algorithms: []string{"SHA-1"}}.Validate()
	for _, want := range []string{`realm: "a\"b" is no realm`, `algorithms[0]: "SHA-1" is unknown`, "min_expires: ",
		"max_expires: ", "max_contacts: ", "max_bindings: ", "nonce_life: ", "max_failures: ", "lockout: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if _, err := New(Config{}, Deps{}); err == nil {
		t.Error("an empty configuration was taken")
	}
}
