package intake

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/hotline12345/gateway/internal/session"
)

// parse reads a CloudEvent and the event in it.
func parse(t *testing.T, b []byte) Event {
	t.Helper()
	ce := event.New()
	if err := json.Unmarshal(b, &ce); err != nil {
		t.Fatal(err)
	}
	if err := ce.Validate(); err != nil {
		t.Fatal(err)
	}
	var e Event
	if err := ce.DataAs(&e); err != nil {
		t.Fatal(err)
	}
	if ce.ID() != e.key() || ce.Type() != e.Type || ce.Subject() != e.RequestID || ce.Source() != "urn:hotline:12345" || !ce.Time().Equal(e.At) {
		t.Errorf("the envelope %v does not fit the event", ce)
	}
	return e
}

var secret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("a secret of more than 24 bytes"))

// fault is what goes wrong at the receiver; an empty one is none.
type fault string

const (
	refuse    fault = "500"
	redirect  fault = "redirect"
	wrongHash fault = "wrong hash"
	noReceipt fault = "no receipt"
	flood     fault = "flood"
	hang      fault = "hang"      // nothing is answered
	cut       fault = "cut"       // the connection is closed
	swallow   fault = "swallow"   // the event has its effect, and the answer is lost
	twiceOver fault = "twiceover" // as swallow
)

// receiver is case intake: it verifies, fetches the audio, has effects once by webhook-id.
type receiver struct {
	t      *testing.T
	of     *office
	hook   *standardwebhooks.Webhook
	server *httptest.Server

	mu      sync.Mutex
	faults  map[string][]fault // to come, by event
	effects map[string]int
	seen    []string
	order   []string
}

func newReceiver(t *testing.T, tls bool, faults map[string][]fault) *receiver {
	t.Helper()
	hook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, hook: hook, faults: faults, effects: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hook", r.receive)
	mux.HandleFunc("/intake/audio/", func(w http.ResponseWriter, q *http.Request) { r.office().AudioHandler().ServeHTTP(w, q) })
	mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") })
	if tls {
		r.server = httptest.NewTLSServer(mux)
	} else {
		r.server = httptest.NewServer(mux)
	}
	t.Cleanup(r.server.Close)
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Defaults()
	cfg.Dir = filepath.Join(dir, "intake")
	cfg.AudioURL = r.server.URL + "/intake/audio/"
	cfg.BackoffMin, cfg.BackoffMax = time.Millisecond, 2*time.Millisecond
	cfg.Targets = []Target{{Name: "case-intake", Kind: Webhook, URL: r.server.URL + "/hook", SecretFile: file,
		Networks: []string{"127.0.0.0/8"}, Timeout: time.Second}}
	if tls {
		ca := filepath.Join(dir, "ca.pem")
		block := &pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw}
		if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg.Targets[0].CAFile = ca
	}
	r.of = newOffice(t, cfg)
	return r
}

func (r *receiver) office() *office {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of
}

func (r *receiver) receive(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil || r.hook.Verify(body, q.Header) != nil || q.Header.Get("Content-Type") != "application/cloudevents+json" {
		r.t.Errorf("the request does not verify: %v", err)
		return
	}
	id := q.Header.Get("webhook-id")
	e := parse(r.t, body)
	r.mu.Lock()
	r.seen = append(r.seen, id)
	var f fault
	if len(r.faults[id]) > 0 {
		f, r.faults[id] = r.faults[id][0], r.faults[id][1:]
	}
	r.mu.Unlock()
	switch f {
	case refuse:
		http.Error(w, "no", http.StatusInternalServerError)
	case redirect:
		http.Redirect(w, q, "/elsewhere", http.StatusTemporaryRedirect)
	case hang:
		<-q.Context().Done()
	case cut:
		panic(http.ErrAbortHandler)
	case wrongHash:
		answer(w, strings.Repeat("0", 64))
	case noReceipt:
		w.WriteHeader(http.StatusNoContent)
	case flood:
		for range 100 {
			_, _ = w.Write(make([]byte, 4096)) // the outbox closes the connection
		}
	case swallow, twiceOver:
		r.effect(id, e)
		panic(http.ErrAbortHandler)
	default:
		answer(w, r.effect(id, e))
	}
}

func answer(w http.ResponseWriter, sum string) {
	_ = json.NewEncoder(w).Encode(map[string]string{"sha256_sealed": sum}) // a lost answer is tried again
}

// effect does what an event asks, once, and returns the hash of the audio that it fetched.
func (r *receiver) effect(id string, e Event) (sum string) {
	if e.Recording != nil {
		res, err := r.server.Client().Get(e.Recording.URL)
		if err != nil {
			r.t.Error(err)
			return ""
		}
		defer res.Body.Close()
		audio, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			r.t.Errorf("the audio: %s, %v", res.Status, err)
		}
		sum = hash(audio)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.effects[id] == 0 {
		r.effects[id]++
		r.order = append(r.order, id)
	}
	return sum
}

func TestEveryFaultAndOneEffect(t *testing.T) {
	for _, tls := range []bool{false, true} {
		r := newReceiver(t, tls, map[string][]fault{
			"A.1": {refuse, cut, swallow, redirect, twiceOver},
			"A.2": {wrongHash, noReceipt, flood, swallow, refuse, wrongHash},
			"B.1": {hang, cut},
		})
		r.of.run(t)
		r.of.submit(t, urgent("A", 1), recorded("A", 2), recorded("B", 1))
		r.of.submit(t, urgent("A", 1), recorded("B", 1)) // submitted again
		for range 3 {
			<-r.of.told
		}
		r.of.stop()
		if d := cmp.Diff(map[string]int{"A.1": 1, "A.2": 1, "B.1": 1}, r.effects); d != "" {
			t.Error(d)
		}
		var ofA []string
		for _, id := range r.order {
			if strings.HasPrefix(id, "A") {
				ofA = append(ofA, id)
			}
		}
		if d := cmp.Diff([]string{"A.1", "A.2"}, ofA); d != "" {
			t.Error(d)
		}
		if len(r.seen) != 6+7+3 {
			t.Errorf("%d deliveries: %v", len(r.seen), r.seen)
		}
		for result, want := range map[string]float64{"delivered": 3, "timeout": 1, "refused": 3, "mismatch": 4} {
			if got := testutil.ToFloat64(r.of.met.deliveries.WithLabelValues("case-intake", result)); got != want {
				t.Errorf("%v %s, want %v", got, result, want)
			}
		}
		if w := r.of.waiting(t); len(w) != 0 {
			t.Errorf("%v wait", w)
		}
	}
}

func TestKillBetweenDeliveryAndReceipt(t *testing.T) {
	r := newReceiver(t, false, nil)
	r.of.submit(t, recorded("A", 1))
	file := filepath.Join(r.of.cfg.Dir, "spool", "case-intake", "A.1.json")
	spooled, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r.of.run(t)
	<-r.of.told
	r.of.stop()
	// The kill came after the answer and before the receipt was kept.
	if err := os.Remove(filepath.Join(r.of.cfg.Dir, "receipts", "case-intake", "A.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, spooled, 0o600); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.of = newOffice(t, r.of.cfg).run(t)
	r.mu.Unlock()
	<-r.of.told
	r.of.stop()
	if d := cmp.Diff([]string{"A.1", "A.1"}, r.seen); d != "" {
		t.Error(d)
	}
	if r.effects["A.1"] != 1 {
		t.Errorf("%d effects", r.effects["A.1"])
	}
}

func TestNetworksAreHeldAtTheDial(t *testing.T) {
	r := newReceiver(t, true, nil)
	cfg := r.of.cfg
	for _, networks := range [][]string{nil, {"10.0.0.0/8"}} {
		cfg.Targets[0].Networks = networks
		of := newOffice(t, cfg)
		e, err := newEvent(urgent("A", 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := of.targets[0].send.send(context.Background(), e); err == nil || !strings.Contains(err.Error(), "networks do not allow") {
			t.Errorf("networks %v: %v", networks, err)
		}
	}
	if len(r.seen) != 0 {
		t.Errorf("%v arrived", r.seen)
	}
}

func TestAllowed(t *testing.T) {
	ten := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, tc := range []struct {
		addr     string
		networks []netip.Prefix
		want     bool
	}{
		{"8.8.8.8", nil, true}, {"2001:4860::1", nil, true},
		{"127.0.0.1", nil, false}, {"::1", nil, false}, {"10.1.1.1", nil, false}, {"192.168.1.1", nil, false},
		{"169.254.169.254", nil, false}, {"fe80::1", nil, false}, {"fd00::1", nil, false}, {"0.0.0.0", nil, false},
		{"224.0.0.1", nil, false}, {"100.64.0.1", nil, false},
		{"10.1.1.1", ten, true}, {"8.8.8.8", ten, false},
	} {
		if got := allowed(netip.MustParseAddr(tc.addr), tc.networks); got != tc.want {
			t.Errorf("%s in %v: %v", tc.addr, tc.networks, got)
		}
	}
}

func TestReceiptOf(t *testing.T) {
	with, err := newEvent(recorded("A", 1))
	if err != nil {
		t.Fatal(err)
	}
	without, err := newEvent(session.HandOver{RequestID: "A", Revision: 1})
	if err != nil {
		t.Fatal(err)
	}
	good := `{"sha256_sealed":"` + with.Recording.SHA256Sealed + `","more":1}`
	for _, tc := range []struct {
		e      Event
		status int
		body   string
		want   string
	}{
		{with, 200, good, ""}, {with, 201, good, ""}, {without, 204, "", ""}, {without, 200, "ok", ""},
		{with, 200, "", "mismatch"}, {with, 200, `{}`, "mismatch"}, {with, 202, `{"sha256_sealed":"` + with.Recording.SHA256Audio + `"}`, "mismatch"},
		{with, 500, good, "refused"}, {without, 301, "", "refused"}, {without, 404, "", "refused"},
	} {
		res := &http.Response{StatusCode: tc.status, Header: http.Header{"Retry-After": {"7"}}}
		err := check(res, []byte(tc.body), tc.e)
		got := ""
		if f := new(failure); errors.As(err, &f) {
			got = f.result
			if got == "refused" && f.after != 7*time.Second {
				t.Errorf("%d: Retry-After is %v", tc.status, f.after)
			}
		}
		if got != tc.want {
			t.Errorf("%d %q: %q, want %q (%v)", tc.status, tc.body, got, tc.want, err)
		}
	}
}

func TestAudioHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := newOffice(t, inDir(t))
		now := time.Now()
		good := of.grants.url("REC1", "A.1", now)
		_, grant, _ := strings.Cut(good, "?")
		get := func(method, target, rng string) *httptest.ResponseRecorder {
			u, err := url.Parse(target)
			if err != nil {
				t.Fatal(err)
			}
			q := httptest.NewRequest(method, u.RequestURI(), nil)
			if rng != "" {
				q.Header.Set("Range", rng)
			}
			w := httptest.NewRecorder()
			of.AudioHandler().ServeHTTP(w, q)
			return w
		}
		whole := string(testShelf["REC1"])
		for _, tc := range []struct {
			name, method, url, rng string
			status                 int
			body                   string
		}{
			{"whole", "GET", good, "", 200, whole},
			{"head", "HEAD", good, "", 200, ""},
			{"range", "GET", good, "bytes=7-11", 206, whole[7:12]},
			{"suffix", "GET", good, "bytes=-5", 206, whole[len(whole)-5:]},
			{"beyond", "GET", good, "bytes=99999999-", 416, "invalid range: failed to overlap\n"},
			{"post", "POST", good, "", 405, "method not allowed\n"},
			{"none", "GET", "http://x/intake/audio/REC1", "", 403, "forbidden\n"},
			{"another recording", "GET", "http://x/intake/audio/REC2?" + grant, "", 403, "forbidden\n"},
			{"another event", "GET", strings.Replace(good, "A.1", "A.2", 1), "", 403, "forbidden\n"},
			{"a later end", "GET", strings.Replace(good, "~", "~9", 1), "", 403, "forbidden\n"},
			{"an unknown recording", "GET", of.grants.url("REC9", "A.1", now), "", 410, "gone\n"},
		} {
			w := get(tc.method, tc.url, tc.rng)
			if w.Code != tc.status || w.Body.String() != tc.body {
				t.Errorf("%s: %d, %.40q", tc.name, w.Code, w.Body)
			}
		}
		if typ := get("GET", good, "").Header().Get("Content-Type"); typ != "application/octet-stream" {
			t.Errorf("type %s", typ)
		}
		time.Sleep(of.cfg.GrantFor - time.Second)
		if w := get("GET", good, ""); w.Code != 200 {
			t.Errorf("in time: %d", w.Code)
		}
		time.Sleep(time.Second)
		if w := get("GET", good, ""); w.Code != 403 {
			t.Errorf("after its time: %d", w.Code)
		}
		// The key outlives the process.
		if err := newOffice(t, of.cfg).grants.check("REC1", mustQuery(t, good), now); err != nil {
			t.Errorf("after a restart: %v", err)
		}
	})
}

func mustQuery(t *testing.T, s string) string {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("grant")
}

func FuzzGrant(f *testing.F) {
	g := grants{key: make([]byte, 32), base: "http://x", life: time.Hour}
	now := time.Unix(1772416800, 0)
	u, err := url.Parse(g.url("REC1", "A.1", now))
	if err != nil {
		f.Fatal(err)
	}
	good := u.Query().Get("grant")
	f.Add("REC1", good)
	f.Add("REC2", good)
	f.Add("REC1", "A.1~~")
	f.Fuzz(func(t *testing.T, recording, grant string) {
		if err := g.check(recording, grant, now); err == nil && (recording != "REC1" || grant != good) {
			t.Errorf("%q for %q was never granted", grant, recording)
		}
	})
}

func FuzzReceipt(f *testing.F) {
	e := Event{Recording: &Recording{SHA256Sealed: hash(nil)}}
	f.Add(200, []byte(`{"sha256_sealed":"`+hash(nil)+`"}`))
	f.Add(204, []byte{})
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		err := check(&http.Response{StatusCode: status, Header: http.Header{}}, body, e)
		if err == nil && (status < 200 || status > 299 || !strings.Contains(strings.ToLower(string(body)), "sha256")) && !strings.Contains(string(body), `\u`) {
			t.Errorf("%d %q is taken for a receipt", status, body)
		}
	})
}
