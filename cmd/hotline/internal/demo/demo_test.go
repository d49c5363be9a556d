package demo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/internal/asterisk/asterisktest"
	"github.com/hotline12345/gateway/internal/asterisk/instance"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/sip/trunk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// play runs a demo that judges, and returns its report.
func play(t *testing.T, o Options) (Report, error) {
	t.Helper()
	var out bytes.Buffer
	o.Once, o.JSON, o.Backend, o.Out = true, true, cmp.Or(o.Backend, "sip"), &out
	o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	if o.Load == nil {
		o.Load = func(sets ...string) (config.Config, error) { return config.Load("", sets) }
	}
	err := Run(t.Context(), o)
	var rep Report
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
			t.Fatalf("the report is no JSON: %v\n%s", err, out.String())
		}
	}
	return rep, err
}

// TestDemoOnce plays every scenario; HOTLINE_SOAK=1 as many calls as the demo does of itself.
func TestDemoOnce(t *testing.T) {
	calls := len(scenarios)
	if soaks() {
		calls = 24
	}
	judge(t, Options{Calls: calls})
}

// TestDemoAsterisk plays the scenarios that the way in matters to with an Asterisk as the carrier's and the phones' side;
// HOTLINE_SOAK=1 plays them all.
func TestDemoAsterisk(t *testing.T) {
	o := Options{Calls: len(scenarios), Backend: "asterisk", AsteriskSetup: asterisktest.Setup(t)}
	if !soaks() {
		o.only = []string{"answered", "emergency-prompt", "emergency-queue", "call-back", "no-answer", "hold", "own-number"}
		o.Calls = len(o.only)
	}
	judge(t, o)
}

func soaks() bool { return os.Getenv("HOTLINE_SOAK") == "1" }

// TestDemoNamedAsterisk plays at an Asterisk that runs already, and refuses one whose trunk leads off this host.
func TestDemoNamedAsterisk(t *testing.T) {
	carrier, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = carrier.Close() // the demo's carrier takes its port
	ast := asterisktest.Start(t, "node1", carrier.LocalAddr().String())
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(ast.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{Calls: 2, Backend: "asterisk", Asterisk: ast.URL, only: []string{"answered", "emergency-prompt"}, Load: func(sets ...string) (config.Config, error) {
		return config.Load("", append(sets, "asterisk.password_file="+password, "asterisk.sounds_dir="+filepath.Join(ast.Dir, "sounds"),
			"session.node=node1", "emergency.drill_trunk=city", "session.call_back.trunk=city",
			"asterisk.trunks=[{name: city, endpoint: carrier, trusted: true, carrier: true, caller: '12345'}]"))
	}}
	judge(t, o)
	ast.Carrier("192.0.2.1:5060")
	if _, err := play(t, o); !errors.Is(err, ErrLive) {
		t.Errorf("with a trunk that leads off this host: %v", err)
	}
}

// judge plays a demo in which every call comes to what is expected, and every service rings.
func judge(t *testing.T, o Options) {
	t.Helper()
	rep, err := play(t, o)
	if err != nil {
		t.Error(err)
	}
	var services []string
	emergencies := 0
	for _, r := range rep.Calls {
		if isEmergency(find(r.Scenario)) {
			emergencies++
		}
		if !r.OK {
			t.Errorf("#%d %s, expected: %s\n%s", r.Number, r.Scenario, r.Expectation, r.Fault)
		}
		if rang := r.Seen["rang"]; rang != "" {
			services = append(services, rang)
			t.Logf("%s at %s: %s rang, saw %s, INVITE %s ms after the key", r.Scenario, r.Seen["pressed_at"], rang, r.Seen["shown"], r.Seen["ms_after_key"])
		}
	}
	if rep.Summary.Calls != o.Calls || rep.Summary.OK != o.Calls {
		t.Errorf("the summary is %+v", rep.Summary)
	}
	for _, s := range session.Services()[:min(emergencies, len(session.Services()))] {
		if !slices.Contains(services, "9"+string(s)) {
			t.Errorf("service %s never rang", s)
		}
	}
	t.Logf("%.0f s", rep.Summary.Seconds)
}

func TestBrokenExpectationFails(t *testing.T) {
	rep, err := play(t, Options{Calls: 2, Break: "greeting", only: []string{"greeting", "own-number"}})
	if !errors.Is(err, ErrBroken) {
		t.Errorf("the error is %v, want %v", err, ErrBroken)
	}
	for _, r := range rep.Calls {
		if broken := r.Scenario == "greeting"; r.OK == broken || broken && !strings.Contains(r.Fault, "anything but") {
			t.Errorf("%s: ok %v, fault %q", r.Scenario, r.OK, r.Fault)
		}
	}
}

// TestTarget plays callers at a gateway of somebody else.
func TestTarget(t *testing.T) {
	cfg, err := config.Load("", once(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	rep, err := play(t, Options{Calls: 2, Target: serve(t, cfg)})
	if err != nil {
		t.Error(err)
	}
	for _, r := range rep.Calls {
		if !r.OK || r.Outcome == "" {
			t.Errorf("%+v", r)
		}
	}
	if !slices.Contains(rep.LeftOut, "emergency-queue") || slices.Contains(rep.LeftOut, "greeting") {
		t.Errorf("left out: %v", rep.LeftOut)
	}
}

func TestRefusals(t *testing.T) {
	off := func(sets ...string) (config.Config, error) {
		cfg, err := config.Load("", sets)
		cfg.SIP.Trunks = []trunk.Config{{Name: "loopback", Sources: []string{"127.0.0.0/8"}, Address: "192.0.2.1:5060", Identity: trunk.ByFrom}}
		return cfg, err
	}
	live := func(sets ...string) (config.Config, error) {
		cfg, err := off(sets...)
		cfg.Emergency.Live, cfg.Emergency.Agreement = true, "agreement 1/2026"
		cfg.Emergency.Routes = map[session.Service][]session.Route{session.Police: {{Trunk: "loopback", Number: "110"}}}
		return cfg, err
	}
	for name, c := range map[string]struct {
		o    Options
		want error
	}{
		"backend":         {Options{Backend: "kamailio", Once: true, Calls: 1}, ErrBackend},
		"no asterisk":     {Options{Backend: "asterisk", AsteriskSetup: "nowhere/setup", Once: true, Calls: 1}, instance.ErrAbsent},
		"asterisk target": {Options{Backend: "asterisk", Target: "127.0.0.1:5060", Once: true, Calls: 1}, ErrUsage},
		"asterisk, sip":   {Options{Backend: "sip", Asterisk: "http://127.0.0.1:8088/ari", Once: true, Calls: 1}, ErrUsage},
		"calls":           {Options{Backend: "sip", Once: true}, ErrUsage},
		"target for ever": {Options{Backend: "sip", Target: "127.0.0.1:5060"}, ErrUsage},
		"target":          {Options{Backend: "sip", Once: true, Calls: 1, Target: "nowhere"}, ErrUsage},
		"break":           {Options{Backend: "sip", Once: true, Calls: 1, Break: "nothing"}, ErrUsage},
		"drill off host":  {Options{Backend: "sip", Once: true, Calls: 1, Load: off}, ErrLive},
		"live route":      {Options{Backend: "sip", Once: true, Calls: 1, Load: live}, ErrLive},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Out, c.o.Log = io.Discard, slog.New(slog.DiscardHandler)
			if c.o.Load == nil {
				c.o.Load = func(sets ...string) (config.Config, error) { return config.Load("", sets) }
			}
			if err := Run(t.Context(), c.o); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestGoesOn lets the demo go round until it is told to end; the second start finds the first one's
// directory, where the phones' secrets are not known any more.
func TestGoesOn(t *testing.T) {
	old := calm
	t.Cleanup(func() { calm = old })
	calm = pace{think: 100 * time.Millisecond, talk: time.Second, gap: 200 * time.Millisecond}
	dir := t.TempDir()
	for _, start := range []string{"first", "second"} {
		t.Run(start, func(t *testing.T) {
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			lines := &lines{until: []string{"call-back", "no-answer", "answered"}, reached: stop}
			var shown bytes.Buffer
			err := Run(ctx, Options{Backend: "sip", Out: lines, only: []string{"answered", "abandon", "emergency-queue", "no-answer", "call-back"},
				Log:     slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
				Welcome: func(_ io.Writer, g *app.App, _ Line) { fmt.Fprint(&shown, len(g.Newcomers)) },
				Load: func(sets ...string) (config.Config, error) {
					cfg, err := config.Load("", append(sets, once(dir)...))
					cfg.Queue.Queues[0].Ring = ringTime
					return cfg, err
				}})
			if err != nil {
				t.Fatal(err)
			}
			if newcomers := map[string]string{"first": "4", "second": "0"}[start]; shown.String() != newcomers {
				t.Errorf("%q people were shown, want %s", shown.String(), newcomers)
			}
			if got, missing := lines.text(); strings.Contains(got, mark(false)) || len(missing) > 0 {
				t.Errorf("without %v, the calls were:\n%s", missing, got)
			}
		})
	}
}

// lines is an output that tells when a line came that holds a word.
type lines struct {
	reached func() // once all of until were shown

	mu    sync.Mutex
	until []string // not shown yet
	got   []string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, string(b))
	l.until = slices.DeleteFunc(l.until, func(name string) bool { return strings.Contains(string(b), " "+name+" ") })
	if len(l.until) == 0 {
		l.reached()
	}
	return len(b), nil
}

func (l *lines) text() (all string, missing []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.got, ""), l.until
}

// serve runs a gateway that is none of the demo's, and returns where callers reach it.
func serve(t *testing.T, cfg config.Config) string {
	t.Helper()
	gateway, err := app.New(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- gateway.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	carriers, _, _ := gateway.Addrs()
	return carriers
}

func TestNational(t *testing.T) {
	for in, want := range map[string]string{"+8613800138000": "13800138000", "13800138000": "13800138000", "": ""} {
		if got := national(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	if _, err := netip.ParseAddr(publicAddr); err != nil {
		t.Error(err)
	}
}
