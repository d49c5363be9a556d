package nodes

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// list is a registry in memory. Who does not beat is absent when the test says so.
type list struct {
	mu    sync.Mutex
	nodes map[string]store.Node
	away  bool
}

var errAway = errors.New("redis is away")

func (l *list) Beat(_ context.Context, self store.Node) ([]store.Node, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return nil, errAway
	}
	self.Seen, self.Alive = time.Now(), true
	l.nodes[self.Name] = self
	return l.all(), nil
}

func (l *list) List(context.Context) ([]store.Node, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return nil, errAway
	}
	return l.all(), nil
}

func (l *list) Forget(_ context.Context, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nodes[name].Alive {
		return store.ErrNodeAlive
	}
	delete(l.nodes, name)
	return nil
}

func (l *list) all() (out []store.Node) {
	for _, n := range l.nodes {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b store.Node) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// set changes what the list says of a node.
func (l *list) set(name string, change func(*store.Node)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodes[name]
	n.Name = name
	change(&n)
	l.nodes[name] = n
}

func secretFile(t *testing.T, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const secret = "0123456789abcdef0123456789abcdef"

// node makes a gateway's end, listening on a free port, not yet running.
func node(t *testing.T, name string, l *list, cfg Config, h http.Handler) *Cluster {
	t.Helper()
	if cfg.SecretFile == "" {
		cfg.SecretFile = secretFile(t, secret)
	}
	cfg.Listen = "127.0.0.1:0"
	keys, err := OpenKeys(cfg, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(cfg, Deps{Registry: l, Keys: keys, Handler: h, Log: slog.New(slog.DiscardHandler),
		Errors: map[string]error{"no_call": session.ErrNoCall}, Self: func() store.Node { return store.Node{Name: name, Version: "1", ConfigHash: "same"} }})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs parts until the test, or the returned func, ends them.
func run(t *testing.T, parts ...func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	for _, part := range parts {
		g.Go(func() error { return part(ctx) })
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !is() {
		select {
		case <-deadline:
			t.Fatal("never: " + what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestKeys(t *testing.T) {
	cfg := Config{SecretFile: secretFile(t, secret)}
	one, err := OpenKeys(cfg, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	two, err := OpenKeys(Config{SecretFile: secretFile(t, secret)}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.For(Vault), two.For(Vault)) || len(one.For(Vault)) != 32 {
		t.Error("gateways of one secret have different keys")
	}
	if bytes.Equal(one.For(Vault), one.For(Calls)) {
		t.Error("two purposes share a key")
	}
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	alone, err := OpenKeys(Config{}, data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenKeys(Config{}, data)
	if err != nil || !bytes.Equal(alone.For(Places), again.For(Places)) {
		t.Errorf("a gateway's own secret does not last: %v", err)
	}
	n := call.Number{E164: "+8613800138000", Raw: "13800138000"}
	seal, open := one.Sealer()
	_, openElsewhere := two.Sealer()
	if got, err := openElsewhere(seal(n)); err != nil || got != n {
		t.Errorf("opened %q, %v", got.E164, err)
	}
	if bytes.Contains(seal(n), []byte("138001")) {
		t.Error("the number lies in clear")
	}
	if _, err := open(func() []byte { s, _ := alone.Sealer(); return s(n) }()); err == nil {
		t.Error("what another secret sealed opens")
	}
	if one.Place()(n) != two.Place()(n) || one.Place()(n) == alone.Place()(n) || one.Place()(call.Number{}) != "" {
		t.Error("pseudonyms do not follow the secret")
	}
	if _, err := OpenKeys(Config{SecretFile: secretFile(t, "short")}, data); err == nil || !strings.Contains(err.Error(), "write 32 or more") {
		t.Errorf("a short secret: %v", err)
	}
	if _, err := OpenKeys(Config{SecretFile: filepath.Join(data, "none")}, data); err == nil || !strings.Contains(err.Error(), "head -c 32 /dev/urandom") {
		t.Errorf("no secret: %v", err)
	}
}

func TestProofIsOfOneRequestAndOnce(t *testing.T) {
	keys, other := Keys{[]byte(secret)}, Keys{[]byte(strings.ToUpper(secret))}
	asker, receiver := newProver(keys, "n1"), newProver(keys, "n2")
	at := time.Now()
	request := func(method, path string) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://n2"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for name, c := range map[string]struct {
		prove func(r *http.Request)
		path  string
		now   time.Time
		want  error
	}{
		"right":          {func(r *http.Request) { asker.prove(r, "n2", []byte("b"), at) }, "/x", at, nil},
		"none":           {func(*http.Request) {}, "/x", at, errNoProof},
		"other secret":   {func(r *http.Request) { newProver(other, "n1").prove(r, "n2", []byte("b"), at) }, "/x", at, errNoProof},
		"other body":     {func(r *http.Request) { asker.prove(r, "n2", []byte("c"), at) }, "/x", at, errNoProof},
		"other receiver": {func(r *http.Request) { asker.prove(r, "n3", []byte("b"), at) }, "/x", at, errNoProof},
		"other path": {func(r *http.Request) {
			q := request("GET", "/y")
			asker.prove(q, "n2", []byte("b"), at)
			r.Header = q.Header
		}, "/x", at, errNoProof},
		"late":  {func(r *http.Request) { asker.prove(r, "n2", []byte("b"), at) }, "/x", at.Add(proofWindow + time.Second), errStale},
		"early": {func(r *http.Request) { asker.prove(r, "n2", []byte("b"), at) }, "/x", at.Add(-proofWindow - time.Second), errStale},
	} {
		r := request("GET", c.path)
		c.prove(r)
		from, _, body, err := receiver.check(r, c.now)
		if err == nil && body != digest([]byte("b")) {
			err = errNoProof // as the server says
		}
		if !errors.Is(err, c.want) || err == nil && from != "n1" {
			t.Errorf("%s: from %q, %v; want %v", name, from, err, c.want)
		}
		if c.want == nil {
			if _, _, _, err := receiver.check(r, c.now); !errors.Is(err, errReplayed) {
				t.Errorf("%s: taken twice: %v", name, err)
			}
		}
	}
	sealed := asker.seal([]byte("fact"), asks, "n1")
	if _, err := receiver.open(sealed, answers, "n1"); err == nil {
		t.Error("a question passes for an answer")
	}
	if _, err := receiver.open(nil, answers, "n1"); err == nil {
		t.Error("nothing passes for an answer without words")
	}
}

// unread is a body of which nothing may be read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body of a stranger is read")
	return 0, io.EOF
}

func TestAStrangersBodyIsNotRead(t *testing.T) {
	s := &server{prover: newProver(Keys{[]byte(secret)}, "n1"), metrics: newMetrics(nil), now: time.Now}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/x", unread{t}))
	if w.Code != http.StatusUnauthorized || w.Header().Get("Connection") != "close" {
		t.Errorf("a stranger gets %d and %v", w.Code, w.Header())
	}
}

// echo is a handler with one route for each way that an answer can go.
func echo(hang <-chan struct{}) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		var in string
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			panic(err)
		}
		_ = json.NewEncoder(w).Encode(From(r.Context()) + " said " + in)
	})
	mux.HandleFunc("GET /who", func(w http.ResponseWriter, r *http.Request) { _ = json.NewEncoder(w).Encode(From(r.Context())) })
	mux.HandleFunc("GET /known", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(Fault{Kind: "no_call", Text: "gone"})
	})
	mux.HandleFunc("GET /words", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(Fault{Text: "the disk is full"})
	})
	mux.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic("a fault") })
	mux.HandleFunc("GET /hang", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	return mux
}

func TestAskAndGather(t *testing.T) {
	l, hang := &list{nodes: map[string]store.Node{}}, make(chan struct{})
	two := node(t, "n2", l, Config{}, echo(hang))
	one := node(t, "n1", l, Config{}, echo(hang))
	run(t, one.Run, two.Run)
	defer close(hang)
	var said string
	if err := one.Ask(t.Context(), "n2", "POST", "/echo", "hello", &said); err != nil || said != "n1 said hello" {
		t.Errorf("%q, %v", said, err)
	}
	if err := one.Ask(t.Context(), "n2", "GET", "/known", nil, nil); !errors.Is(err, session.ErrNoCall) {
		t.Errorf("a known error came as %v", err)
	}
	if err := one.Ask(t.Context(), "n2", "GET", "/words", nil, nil); err == nil || !strings.Contains(err.Error(), "node n2: the disk is full") {
		t.Errorf("an error came as %v", err)
	}
	if err := one.Ask(t.Context(), "n2", "GET", "/panic", nil, nil); !errors.Is(err, ErrAway) {
		t.Errorf("a panic came as %v", err)
	}
	if n := testutil.ToFloat64(two.metrics.requests.WithLabelValues("panic")); n != 1 {
		t.Errorf("%v panics are counted", n)
	}
	if err := one.Ask(t.Context(), "n2", "GET", "/hang", nil, nil); !errors.Is(err, ErrAway) {
		t.Errorf("silence came as %v", err)
	}
	if w := one.Checks()[1].Test(t.Context()); w == nil || !strings.Contains(w.Error(), "n2: ") {
		t.Errorf("the warning of a silent gateway is %v", w)
	}
	for _, name := range []string{"n1", "n9"} {
		if err := one.Ask(t.Context(), name, "GET", "/who", nil, nil); !errors.Is(err, store.ErrNodeUnknown) {
			t.Errorf("asking %s: %v", name, err)
		}
	}
	l.set("n3", func(n *store.Node) { n.Seen = time.Now().Add(-time.Minute) })
	one.Look(t.Context())
	got := Gather(t.Context(), one, "/who", func(context.Context) (string, error) { return "myself", nil })
	if len(got) != 3 || got[0].Value != "myself" || got[1].Value != "n1" || got[1].Err != nil || !errors.Is(got[2].Err, ErrAway) {
		t.Errorf("gathered %+v", got)
	}
}

// A start that takes long does not make a gateway look dead.
func TestWhileAGatewayStarts(t *testing.T) {
	l := &list{nodes: map[string]store.Node{}}
	one := node(t, "n1", l, Config{}, nil)
	alive := func() bool { all, err := l.List(t.Context()); return err == nil && len(all) == 1 && all[0].Alive }
	silent := func(n *store.Node) { n.Alive = false }
	l.set("n1", silent)
	err := one.While(t.Context(), func(context.Context) error {
		eventually(t, "it is alive", alive)
		l.set("n1", silent)
		eventually(t, "it is alive still", alive)
		return errors.ErrUnsupported
	})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("the error is %v", err)
	}
}

// A gateway of another secret, and somebody with none, learn nothing and are counted.
func TestStrangersAreRefused(t *testing.T) {
	l := &list{nodes: map[string]store.Node{}}
	one := node(t, "n1", l, Config{}, echo(nil))
	stranger := node(t, "n2", l, Config{SecretFile: secretFile(t, strings.ToUpper(secret))}, echo(nil))
	run(t, one.Run, stranger.Run)
	err := stranger.Ask(t.Context(), "n1", "GET", "/who", nil, nil)
	if !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "nodes.secret_file") {
		t.Errorf("the stranger is told %v", err)
	}
	resp, err := http.Get(one.self().API + "/who")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if n := testutil.ToFloat64(one.metrics.requests.WithLabelValues("refused")); resp.StatusCode != http.StatusUnauthorized || n != 2 {
		t.Errorf("status %d, %v refused", resp.StatusCode, n)
	}
}

// authority makes the files of a certificate, of an authority of its own unless one is given.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = a.sign(t, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nodes"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.file = filepath.Join(t.TempDir(), "ca.crt")
	write(t, a.file, "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) sign(t *testing.T, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) tls(t *testing.T, name string) TLS {
	t.Helper()
	cert, key := a.sign(t, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := TLS{CertFile: filepath.Join(dir, "node.crt"), KeyFile: filepath.Join(dir, "node.key"), CAFile: a.file}
	write(t, out.CertFile, "CERTIFICATE", cert.Raw)
	write(t, out.KeyFile, "PRIVATE KEY", der)
	return out
}

func write(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMutualTLS(t *testing.T) {
	l, ours, theirs := &list{nodes: map[string]store.Node{}}, newAuthority(t), newAuthority(t)
	one := node(t, "n1", l, Config{TLS: ours.tls(t, "n1")}, echo(nil))
	two := node(t, "n2", l, Config{TLS: ours.tls(t, "n2")}, echo(nil))
	stranger := node(t, "n3", l, Config{TLS: theirs.tls(t, "n3")}, echo(nil))
	one.Look(t.Context())
	run(t, one.Run, two.Run, stranger.Run)
	var who string
	if err := one.Ask(t.Context(), "n2", "GET", "/who", nil, &who); err != nil || who != "n1" {
		t.Errorf("%q, %v", who, err)
	}
	if err := stranger.Ask(t.Context(), "n1", "GET", "/who", nil, nil); !errors.Is(err, ErrAway) {
		t.Errorf("another authority's gateway asks: %v", err)
	}
	eventually(t, "n1 knows n3", func() bool { _, ok := one.Member("n3"); return ok })
	if err := one.Ask(t.Context(), "n3", "GET", "/who", nil, nil); !errors.Is(err, ErrAway) {
		t.Errorf("another authority's gateway answers: %v", err)
	}
	bare := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer bare.CloseIdleConnections()
	if resp, err := bare.Get(one.self().API + "/who"); err == nil {
		_ = resp.Body.Close()
		t.Error("somebody without a certificate is answered")
	}
}
