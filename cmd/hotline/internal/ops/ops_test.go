package ops

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops/opstest"
)

var quiet = slog.New(slog.DiscardHandler)

func TestConfig(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Listen: "x", CertFile: "c"}.Validate()
	for _, want := range []string{"listen: ", "cert_file: ", "read_timeout: ", "write_timeout: ", "connections: ", "max_body: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %s in %v", want, err)
		}
	}
	if _, err := NewServer(Config{}, http.NotFoundHandler(), quiet, nil); err == nil {
		t.Error("made with a bad configuration")
	}
}

func serve(t *testing.T, h http.Handler, edit func(*Config)) (*Server, *prometheus.Registry, func() error) {
	t.Helper()
	cfg := Defaults()
	cfg.Listen = "127.0.0.1:0"
	if edit != nil {
		edit(&cfg)
	}
	reg := prometheus.NewRegistry()
	s, err := NewServer(cfg, h, quiet, reg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var ended bool
	stop := func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return s, reg, stop
}

// A request that runs when the server stops is answered.
func TestServerFinishes(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	s, _, stop := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-goOn
		_, _ = io.WriteString(w, "done")
	}), nil)
	got := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + s.Addr().String())
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	close(goOn)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if answer := <-got; answer != "done" {
		t.Errorf("got %q", answer)
	}
}

func TestServerBounds(t *testing.T) {
	s, reg, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		}
	}), func(c *Config) { c.Connections, c.MaxBody = 10, 64<<10 })
	resp, err := http.Post("http://"+s.Addr().String(), "text/plain", bytes.NewReader(make([]byte, 64<<10+1)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body: %d", resp.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()

	// More connections than allowed: those beyond are closed at once, without an answer.
	var conns []net.Conn
	for range 10 {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	// The last accepted one answers only after all before it were accepted.
	refused := 0
	for i := 0; refused == 0 && i < 5; i++ {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("an answer to nothing")
		} else {
			refused++
		}
		c.Close()
	}
	if n := value(t, reg, "hotline_http_connections_refused_total"); n < 1 {
		t.Errorf("%v refused", n)
	}
	for _, c := range conns {
		c.Close()
	}
}

func value(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestPortInUse(t *testing.T) {
	s, _, _ := serve(t, http.NotFoundHandler(), nil)
	cfg := Defaults()
	cfg.Listen = s.Addr().String()
	other, err := NewServer(cfg, http.NotFoundHandler(), quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), cfg.Listen) {
		t.Errorf("%v", err)
	}
	found := Examine(t.Context(), Inputs{Ports: []Port{{"tcp", cfg.Listen, "console"}, {"udp", "127.0.0.1:0", "sip"}}})
	f := find(t, found, "ports")
	if f.Level != Bad || !strings.Contains(f.Detail, "console "+cfg.Listen+"/tcp") || strings.Contains(f.Detail, "sip") {
		t.Errorf("%+v", f)
	}
}

func find(t *testing.T, found []Finding, code string) Finding {
	t.Helper()
	i := slices.IndexFunc(found, func(f Finding) bool { return f.Code == code })
	if i < 0 {
		t.Fatalf("no finding %s", code)
	}
	return found[i]
}

func TestReadyz(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		var draining, slow error
		h := NewHealth(
			Check{Code: "draining", Title: "The node is going down", Mend: "Wait.", Blocks: true,
				Test: func(context.Context) error { asked++; return draining }},
			Check{Code: "intake-slow", Title: "Case intake is slow", Mend: "Look at it.",
				Test: func(context.Context) error { return slow }},
			Check{Code: "hung", Title: "It hangs", Mend: "Kick it.", Test: func(ctx context.Context) error {
				if slow == nil {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			}})
		get := func() (int, map[string]any) {
			w := httptest.NewRecorder()
			h.Readyz().ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
			var out map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
				t.Fatal(err)
			}
			return w.Code, out
		}
		if code, out := get(); code != 200 || out["ready"] != true || len(out["checks"].([]any)) != 3 {
			t.Errorf("well: %d %v", code, out)
		}
		get()
		if asked != 1 {
			t.Errorf("asked %d times at once", asked)
		}
		time.Sleep(healthFresh)
		slow = errors.New("2 s")
		if code, _ := get(); code != 200 { // a warning does not take the node out
			t.Errorf("slow: %d", code)
		}
		got := h.Warnings(t.Context())
		want := []Warning{{"intake-slow", "Case intake is slow", "2 s", "Look at it."},
			{"hung", "It hangs", context.DeadlineExceeded.Error(), "Kick it."}}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		time.Sleep(healthFresh)
		slow, draining = nil, errors.New("until 12:00")
		if code, out := get(); code != 503 || out["ready"] != false {
			t.Errorf("draining: %d %v", code, out)
		}
	})
}

func TestHealthz(t *testing.T) {
	w := httptest.NewRecorder()
	Healthz().ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
	if w.Code != 200 || w.Body.String() != "ok\n" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

func TestMetrics(t *testing.T) {
	reg := NewRegistry()
	if _, err := NewServer(Defaults(), http.NotFoundHandler(), quiet, reg); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	Metrics(reg).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{"hotline_build_info{", "go_sched_latencies_seconds", "process_open_fds", "hotline_http_connections 0"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
	opstest.Lint(t, reg)
	if n, err := testutil.GatherAndCount(reg, "hotline_build_info"); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if Version() == "" {
		t.Error("no version")
	}
}

func TestLintFinds(t *testing.T) {
	reg := prometheus.NewRegistry()
	bad := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_things", Help: "x"}, []string{"caller"})
	bad.WithLabelValues("x")
	other := prometheus.NewGauge(prometheus.GaugeOpts{Name: "things", Help: "x"})
	reg.MustRegister(bad, other)
	got := strings.Join(opstest.Faults(t, reg), "\n")
	for _, want := range []string{"_total", "label caller", "things: the prefix"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not found in %s", want, got)
		}
	}
}

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

func TestMemory(t *testing.T) {
	meminfo := file("MemFree: 1 kB\nMemTotal:        8388608 kB\n")
	cases := []struct {
		name  string
		files fstest.MapFS
		limit int64
		from  string
	}{
		{"nothing known", fstest.MapFS{}, 0, "machine"},
		{"machine", fstest.MapFS{"proc/meminfo": meminfo}, (8 << 30) / 100 * machineShare, "machine"},
		{"group above", fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/a/b\n"),
			"sys/fs/cgroup/a/memory.max": file("1073741824\n"), "sys/fs/cgroup/a/b/memory.max": file("max\n")},
			(1 << 30) / 100 * cgroupShare, "cgroup"},
		{"version 1", fstest.MapFS{"proc/meminfo": meminfo, "sys/fs/cgroup/memory/memory.limit_in_bytes": file("2147483648\n")},
			(2 << 30) / 100 * cgroupShare, "cgroup"},
		{"version 1, none", fstest.MapFS{"proc/meminfo": meminfo, "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n")},
			(8 << 30) / 100 * machineShare, "machine"},
		{"group larger than the machine", fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/\n"),
			"sys/fs/cgroup/memory.max": file("99999999999\n")}, (8 << 30) / 100 * machineShare, "machine"},
	}
	for _, tc := range cases {
		if limit, from := memory(fs.FS(tc.files)); limit != tc.limit || from != tc.from {
			t.Errorf("%s: %d by %s, want %d by %s", tc.name, limit, from, tc.limit, tc.from)
		}
	}
}

func TestTune(t *testing.T) {
	gogc, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	defer func() { debug.SetGCPercent(gogc); debug.SetMemoryLimit(limit) }()
	machine := fstest.MapFS{"proc/meminfo": file("MemTotal: 8388608 kB\n")}
	env := func(set ...string) func(string) (string, bool) {
		return func(name string) (string, bool) { return "", slices.Contains(set, name) }
	}
	tune(quiet, machine, env("GOGC", "GOMEMLIMIT"))
	if got := debug.SetMemoryLimit(-1); got != limit {
		t.Errorf("limit %d in spite of GOMEMLIMIT", got)
	}
	if got := debug.SetGCPercent(100); got != 100 {
		t.Errorf("GOGC %d in spite of GOGC", got)
	}
	tune(quiet, machine, env())
	if got := debug.SetGCPercent(100); got != gcPercent {
		t.Errorf("GOGC %d", got)
	}
	if got := debug.SetMemoryLimit(math.MaxInt64); got != (8<<30)/100*machineShare {
		t.Errorf("limit %d", got)
	}
	tune(quiet, fstest.MapFS{"proc/meminfo": file("MemTotal: 1024 kB\n")}, env())
	if got := debug.SetMemoryLimit(-1); got != math.MaxInt64 {
		t.Errorf("limit %d on a tiny machine", got)
	}
	Tune(quiet)
}

func TestEmergencyPlan(t *testing.T) {
	far := []EmergencyRoute{{"119", "192.0.2.7:5060"}}
	cases := []struct {
		name string
		plan EmergencyPlan
		ok   bool
	}{
		{"loopback", EmergencyPlan{Routes: []EmergencyRoute{{"119", "127.0.0.9:5060"}, {"110", "[::1]:5060"}, {"120", "::1"}}}, true},
		{"mapped loopback", EmergencyPlan{Routes: []EmergencyRoute{{"119", "[::ffff:127.0.0.1]:5060"}}}, true},
		{"far", EmergencyPlan{Routes: far}, false},
		{"far, live", EmergencyPlan{Live: true, Routes: far}, false},
		{"far, agreed", EmergencyPlan{Agreement: "A-1", Routes: far}, false},
		{"far, live and agreed", EmergencyPlan{Live: true, Agreement: "A-1", Routes: far}, true},
		{"a name", EmergencyPlan{Routes: []EmergencyRoute{{"119", "localhost.example"}}}, false},
		{"a name like loopback", EmergencyPlan{Routes: []EmergencyRoute{{"119", "127.0.0.1.example:5060"}}}, false},
		{"nothing", EmergencyPlan{Routes: []EmergencyRoute{{"119", ""}}}, false},
	}
	for _, tc := range cases {
		if err := tc.plan.Check(); (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestExamine(t *testing.T) {
	ctx, away := t.Context(), errors.New("connection refused")
	redis := func(skew time.Duration, err error) func(context.Context) (time.Time, error) {
		return func(context.Context) (time.Time, error) { return time.Now().Add(skew), err }
	}
	plan := func(live bool, routes ...EmergencyRoute) *EmergencyPlan {
		return &EmergencyPlan{Live: live, Agreement: "A-1", Services: []string{"110", "119"}, Routes: routes}
	}
	here := EmergencyRoute{"110", "127.0.0.1"}
	cases := []struct {
		code  string
		in    Inputs
		level Level
		word  string
	}{
		{"redis", Inputs{}, Skipped, "embedded"},
		{"redis", Inputs{Redis: redis(0, nil)}, Well, ""},
		{"redis", Inputs{Redis: redis(0, away)}, Bad, "refused"},
		{"clock", Inputs{}, Well, "not compared"},
		{"clock", Inputs{Redis: redis(0, nil)}, Well, ""},
		{"clock", Inputs{Redis: redis(-time.Minute, nil)}, Bad, "apart"},
		{"clock", Inputs{Redis: redis(0, away)}, Warn, "compared"},
		{"ports", Inputs{}, Skipped, ""},
		{"ports", Inputs{Ports: []Port{{"udp", "127.0.0.1:0", "sip"}, {"tcp", "127.0.0.1:0", "sip"}}}, Well, "2 of 2"},
		{"ports", Inputs{Ports: []Port{{"tcp", "nonsense", "sip"}}}, Bad, "sip nonsense"},
		{"prompts", Inputs{}, Skipped, ""},
		{"prompts", Inputs{Prompts: func() ([]string, error) { return nil, nil }}, Well, ""},
		{"prompts", Inputs{Prompts: func() ([]string, error) { return []string{"en/q_pos_a"}, nil }}, Warn, "1 missing: en/q_pos_a"},
		{"prompts", Inputs{Prompts: func() ([]string, error) { return nil, away }}, Bad, "refused"},
		{"disk", Inputs{}, Skipped, ""},
		{"disk", Inputs{DataDir: t.TempDir(), MinFree: 1}, Well, "free"},
		{"disk", Inputs{DataDir: t.TempDir(), MinFree: math.MaxUint64}, Bad, "asked for"},
		{"disk", Inputs{DataDir: filepath.Join(t.TempDir(), "none", "yet"), MinFree: 1}, Well, "free"},
		{"nofile", Inputs{}, Well, ""},
		{"nofile", Inputs{Calls: math.MaxInt32}, Bad, "need"},
		{"emergency", Inputs{}, Skipped, ""},
		{"emergency", Inputs{Emergency: plan(false, here)}, Warn, "no route to 119"},
		{"emergency", Inputs{Emergency: plan(true, here)}, Bad, "no route to 119"},
		{"emergency", Inputs{Emergency: plan(false, here, EmergencyRoute{"119", "10.0.0.1"})}, Bad, "leaves this host"},
		{"emergency", Inputs{Emergency: plan(false, here, EmergencyRoute{"119", "127.0.0.1"})}, Warn, "drill"},
		{"emergency", Inputs{Emergency: plan(true, here, EmergencyRoute{"119", "10.0.0.1"})}, Well, "A-1"},
		{"speech", Inputs{}, Skipped, "none is configured"},
		{"speech", Inputs{Recogniser: func(context.Context) error { return nil }}, Well, ""},
		{"speech", Inputs{Recogniser: func(context.Context) error { return os.ErrDeadlineExceeded }}, Warn, "timeout"},
		{"recipients", Inputs{}, Skipped, ""},
		{"recipients", Inputs{Recipients: func() error { return nil }}, Well, ""},
		{"recipients", Inputs{Recipients: func() error { return os.ErrNotExist }}, Bad, "not exist"},
	}
	for _, tc := range cases {
		found := Examine(ctx, tc.in)
		f := find(t, found, tc.code)
		if f.Level != tc.level || !strings.Contains(f.Detail, tc.word) {
			t.Errorf("%s: %+v, want %s with %q", tc.code, f, tc.level, tc.word)
		}
		if needs := f.Level == Bad || f.Level == Warn; needs != (f.Mend != "") {
			t.Errorf("%s %s: mend %q", tc.code, f.Level, f.Mend)
		}
		if bad := f.Level == Bad; bad && Healthy(found) {
			t.Errorf("%s: healthy", tc.code)
		}
	}
}

func TestFindingsPrinted(t *testing.T) {
	found := []Finding{{"redis", Bad, "Redis answers", "refused", "Start it."}, {"disk", Well, "There is room", "9 MiB", ""}}
	var table, doc bytes.Buffer
	if err := errors.Join(WriteTable(&table, found), WriteJSON(&doc, found)); err != nil {
		t.Fatal(err)
	}
	want := "bad  redis  Redis answers  refused\n            → Start it.    \nok   disk   There is room  9 MiB\n"
	if d := cmp.Diff(want, table.String()); d != "" {
		t.Error(d)
	}
	var back []Finding
	if err := json.Unmarshal(doc.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(found, back); d != "" {
		t.Error(d)
	}
}
