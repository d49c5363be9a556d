package ivr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// phone is a caller who presses the keys of a script: '.' is silence until the time-out. Prompts take
// as long as their clips; a key ends those that it may, as the session's own voice does.
type phone struct {
	keys  string
	speak time.Duration // the length of a message
	said  []string
	nodes []string
}

func (p *phone) Node(node, language string) { p.nodes = append(p.nodes, node+" "+language) }

func (p *phone) Say(ctx context.Context, barge bool, clips ...*call.Clip) error {
	for _, c := range clips {
		if barge && p.keys != "" && p.keys[0] != '.' {
			p.said = append(p.said, c.ID+"…") // cut short
			return context.Cause(ctx)
		}
		if err := p.pass(ctx, c.Duration()); err != nil {
			return err
		}
		p.said = append(p.said, c.ID)
	}
	return context.Cause(ctx)
}

func (p *phone) pass(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *phone) Key(ctx context.Context, timeout time.Duration) (byte, error) {
	if p.keys != "" {
		k := p.keys[0]
		p.keys = p.keys[1:]
		if k != '.' {
			return k, nil
		}
	}
	if err := p.pass(ctx, timeout); err != nil {
		return 0, err
	}
	return 0, session.ErrNoKey
}

func (p *phone) Collect(ctx context.Context, c session.Collect) (string, error) {
	if err := c.Ask(ctx); err != nil {
		return "", err
	}
	var run string
	for wait := c.First; len(run) < c.Max; wait = c.Next {
		k, err := p.Key(ctx, wait)
		switch {
		case errors.Is(err, session.ErrNoKey) && run != "", err == nil && k == c.Terminator:
			return run, nil
		case err != nil:
			return "", err
		}
		run += string(k)
	}
	return run, nil
}

func (p *phone) Message(ctx context.Context, limit time.Duration) (time.Duration, error) {
	return min(p.speak, limit), p.pass(ctx, min(p.speak, limit))
}

var _ session.Voice = (*phone)(nil)

// engineOf makes an engine of flows given by name.
func engineOf(t *testing.T, cfg Config, files fstest.MapFS) *Engine {
	t.Helper()
	cat := catalogue(t)
	known := Known{Prompts: cat}
	flows, _, err := load(files, "", known)
	if err != nil {
		t.Fatal(err)
	}
	return &Engine{cfg: cfg, flows: flows, files: files, prompts: cat, metrics: newMetrics(nil), log: slog.New(slog.DiscardHandler), within: context.WithTimeoutCause}
}

func file(lines string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(lines)} }

func at(node string) session.FlowPoint {
	return session.FlowPoint{Node: node, Called: "12345", Trunk: "loopback", Now: time.Date(2026, 3, 3, 9, 0, 0, 0, china)}
}

func TestDefaultFlow(t *testing.T) {
	e, err := New(Defaults(), catalogue(t), []string{"default"}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	queue := func(node, language string, credit time.Duration) session.FlowExit {
		return session.FlowExit{Kind: session.ExitQueue, Queue: "default", Node: node, Language: language, Credit: credit, Data: map[string]string{}}
	}
	all := "zh/welcome zh/rec_notice zh/emerg_hint zh/key_english zh/key_progress zh/key_enterprise"
	tests := []struct {
		name, keys string
		said       string
		exit       session.FlowExit
		longest    time.Duration
	}{
		{"no key: a person, within 16 s", "", all, queue("person", "zh", 0), 16 * time.Second},
		{"a wrong key: a person", "7", "zh/welcome… zh/rec_notice zh/emerg_hint…", queue("person", "zh", 0), 3 * time.Second},
		{"English", "2", "zh/welcome… zh/rec_notice zh/emerg_hint…", queue("person", "en", 0), 3 * time.Second},
		{"progress", "3", "zh/welcome… zh/rec_notice zh/emerg_hint…", queue("progress", "zh", 0), 3 * time.Second},
		{"an enterprise", "5", "zh/welcome… zh/rec_notice zh/emerg_hint…", queue("enterprise", "zh", 30*time.Second), 3 * time.Second},
		{"a person at once", "9", "zh/welcome… zh/rec_notice zh/emerg_hint…", queue("person", "zh", 0), 3 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &phone{keys: tt.keys}
				began := time.Now()
				exit, err := e.Run(t.Context(), p, at(""))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.exit, exit); diff != "" {
					t.Errorf("exit (-want +got):\n%s", diff)
				}
				if got := strings.Join(p.said, " "); got != tt.said {
					t.Errorf("said %s; want %s", got, tt.said)
				}
				if took := time.Since(began); took > tt.longest {
					t.Errorf("a person only after %s; want at most %s", took, tt.longest)
				}
			})
		})
	}
}

const walks = `start: first
person: desk
nodes:
  first:
    type: menu
    say: [welcome]
    keys: {1: second, 2: case, 3: tongue, 4: message, 5: out, 6: fire, 8: any, "*": repeat}
    retries: 2
    on_fail: desk
  second:
    type: menu
    say: [all_busy]
    keys: {1: first, 9: back}
    on_fail: desk
  case: {type: collect, say: [ask_case], store: case_no, min: 4, max: 6, timeout: 5s, gap: 2s, retries: 1, on_fail: desk, next: desk}
  tongue: {type: language, say: [menu_lang], keys: {1: zh, 2: en}, next: hi}
  hi: {type: say, say: [hold_agent, "count:2"], next: desk}
  message: {type: message, limit: 1m, next: bye}
  bye: {type: hangup, say: [goodbye]}
  out: {type: transfer, endpoint: centre, say: [hold_agent]}
  fire: {type: emergency, service: 119}
  any: {type: emergency}
  desk: {type: queue, queue: default, credit: 5s, say: [all_busy]}
`

func TestNodes(t *testing.T) {
	cfg := Defaults()
	cfg.Default = "walks"
	cfg.Targets = map[string]Target{"centre": {Trunk: "carrier", Number: "96345"}}
	e := engineOf(t, cfg, fstest.MapFS{"walks.yaml": file(walks)})
	tests := []struct {
		name, keys string
		speak      time.Duration
		said       string // what was heard whole, without the menus
		nodes      string
		exit       session.FlowExit
	}{
		{name: "silence, three times", keys: "...", said: "no_input no_input all_busy", nodes: "first desk", exit: session.FlowExit{Kind: "queue"}},
		{name: "wrong keys, three times", keys: "777", said: "all_busy", nodes: "first desk", exit: session.FlowExit{Kind: "queue"}},
		{name: "heard again", keys: "**1.9.6", nodes: "first first first second first fire", exit: session.FlowExit{Kind: "emergency", Service: session.Fire}},
		{name: "back", keys: "1.9.1..9.8", nodes: "first second first second first any", exit: session.FlowExit{Kind: "emergency"}},
		{name: "digits, ended", keys: "21234#", said: "all_busy", nodes: "first case desk", exit: session.FlowExit{Kind: "queue", Data: map[string]string{"case_no": "1234"}}},
		{name: "digits, full", keys: "2123456", said: "all_busy", nodes: "first case desk", exit: session.FlowExit{Kind: "queue", Data: map[string]string{"case_no": "123456"}}},
		{name: "too few digits, then a pause", keys: "212#1234.", said: "all_busy", nodes: "first case desk", exit: session.FlowExit{Kind: "queue", Data: map[string]string{"case_no": "1234"}}},
		{name: "no number", keys: "212*4#.", said: "invalid_key ask_case all_busy", nodes: "first case desk", exit: session.FlowExit{Kind: "queue"}},
		{name: "another language", keys: "32", said: "hold_agent n2 all_busy", nodes: "first tongue hi desk", exit: session.FlowExit{Kind: "queue", Language: "en"}},
		{name: "no language", keys: "3.", said: "menu_lang hold_agent n2liang all_busy", nodes: "first tongue hi desk", exit: session.FlowExit{Kind: "queue"}},
		{name: "a message", keys: "4", speak: 20 * time.Second, said: "leave_msg beep msg_saved goodbye", nodes: "first message bye", exit: session.FlowExit{Kind: "message", Data: map[string]string{"message": "20s"}}},
		{name: "no message", keys: "4", said: "leave_msg beep msg_none goodbye", nodes: "first message bye", exit: session.FlowExit{Kind: "hangup"}},
		{name: "a transfer", keys: "5", said: "hold_agent", nodes: "first out", exit: session.FlowExit{Kind: "transfer", Endpoint: call.Endpoint{Kind: call.ToTrunk, Name: "carrier", Number: "96345"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &phone{keys: tt.keys, speak: tt.speak}
				exit, err := e.Run(t.Context(), p, at(""))
				if err != nil {
					t.Fatal(err)
				}
				want := tt.exit
				names := strings.Fields(tt.nodes)
				want.Node = names[len(names)-1]
				if want.Language == "" {
					want.Language = "zh"
				}
				if want.Data == nil {
					want.Data = map[string]string{}
				}
				if want.Kind == session.ExitQueue {
					want.Queue, want.Credit = "default", 5*time.Second
				}
				if diff := cmp.Diff(want, exit); diff != "" {
					t.Errorf("exit (-want +got):\n%s", diff)
				}
				var nodes, said []string
				for _, n := range p.nodes {
					nodes = append(nodes, strings.Fields(n)[0])
				}
				for _, id := range p.said {
					if id = id[3:]; !strings.HasSuffix(id, "…") && id != "welcome" {
						said = append(said, strings.TrimPrefix(id, "mon/"))
					}
				}
				if got := strings.Join(nodes, " "); got != tt.nodes {
					t.Errorf("nodes %s; want %s", got, tt.nodes)
				}
				if got := strings.Join(said, " "); tt.said != "" && got != tt.said {
					t.Errorf("said %s; want %s", got, tt.said)
				}
			})
		})
	}
}

func TestNoProgressLeadsToAPerson(t *testing.T) {
	cfg := Defaults()
	cfg.Default = "walks"
	e := engineOf(t, cfg, fstest.MapFS{"walks.yaml": file(walks)})
	synctest.Test(t, func(t *testing.T) {
		p := &phone{keys: strings.Repeat("1.1.", 100)} // round and round two menus
		began := time.Now()
		exit, err := e.Run(t.Context(), p, at(""))
		if err != nil {
			t.Fatal(err)
		}
		if exit.Kind != session.ExitQueue || exit.Node != "desk" {
			t.Errorf("exit %+v; want the person", exit)
		}
		if got := p.said[len(p.said)-1]; got != "zh/ivr_stuck" {
			t.Errorf("said %s at last; want zh/ivr_stuck", got)
		}
		if took := time.Since(began); took < 5*time.Minute || took > 6*time.Minute {
			t.Errorf("after %s; want five minutes", took)
		}
	})
	if got := testutil.ToFloat64(e.metrics.faults.WithLabelValues(faultStuck)); got != 1 {
		t.Errorf("%v counted as stuck; want 1", got)
	}
}

func TestEndlessKeysLeadToAPerson(t *testing.T) {
	cfg := Defaults()
	cfg.Default = "walks"
	e := engineOf(t, cfg, fstest.MapFS{"walks.yaml": file(walks)})
	synctest.Test(t, func(t *testing.T) {
		p := &phone{keys: strings.Repeat("*", maxSteps+1)} // faster than any clock
		exit, err := e.Run(t.Context(), p, at(""))
		if err != nil || exit.Kind != session.ExitQueue {
			t.Errorf("exit %+v, %v; want the person", exit, err)
		}
	})
}

func TestInterruptionEndsAWalk(t *testing.T) {
	danger := errors.New("danger")
	cfg := Defaults()
	cfg.Default = "walks"
	e := engineOf(t, cfg, fstest.MapFS{"walks.yaml": file(walks)})
	for _, keys := range []string{"", ".", "1", "2", "2123", "3", "4", "5"} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(3*time.Second, func() { cancel(danger) })
			if _, err := e.Run(ctx, &phone{keys: keys, speak: time.Minute}, at("")); !errors.Is(err, danger) {
				t.Errorf("after %q: %v; want the cause", keys, err)
			}
		})
	}
}

func TestGoingOn(t *testing.T) {
	cfg := Defaults()
	cfg.Default = "walks"
	e := engineOf(t, cfg, fstest.MapFS{"walks.yaml": file(walks)})
	synctest.Test(t, func(t *testing.T) {
		point := at("hi")
		point.Language = "en"
		p := &phone{}
		if exit, err := e.Run(t.Context(), p, point); err != nil || exit.Language != "en" {
			t.Errorf("%+v, %v; want English as before", exit, err)
		}
		if diff := cmp.Diff([]string{"hi en", "desk en"}, p.nodes); diff != "" {
			t.Error(diff)
		}
		if exit, err := e.Run(t.Context(), &phone{}, at("gone")); err != nil || exit.Node != "desk" {
			t.Errorf("%+v, %v; want the person of a flow that changed", exit, err)
		}
	})
}

func TestRoutes(t *testing.T) {
	flow := func(queue string) *fstest.MapFile {
		return file("start: a\nperson: a\nnodes:\n  a: {type: queue, queue: " + queue + "}\n")
	}
	cfg := Defaults()
	cfg.Routes = []Route{{Called: "12345", Trunk: "mobile", Flow: "m"}, {Called: "96345", Flow: "n"}}
	e := engineOf(t, cfg, fstest.MapFS{"default.yaml": flow("d"), "m.yaml": flow("m"), "n.yaml": flow("n")})
	for _, tt := range []struct{ flow, called, trunk, want string }{
		{"", "12345", "fixed", "d"}, {"", "12345", "mobile", "m"}, {"", "96345", "fixed", "n"}, {"n", "12345", "mobile", "n"}, {"gone", "1", "x", "d"},
	} {
		exit, err := e.Run(t.Context(), &phone{}, session.FlowPoint{Flow: tt.flow, Called: tt.called, Trunk: tt.trunk})
		if err != nil || exit.Queue != tt.want {
			t.Errorf("%+v led to %q, %v", tt, exit.Queue, err)
		}
	}
}

func TestNew(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	write := func(name, src string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("default.yaml", "start: a\nperson: a\nnodes:\n  a: {type: queue, queue: gone}\n")
	write("other.yaml", "start: a\n")
	write("events.yaml", "announcements: []\n")
	cfg := Defaults()
	cfg.Flows = dir
	_, err := New(cfg, catalogue(t), []string{"default"}, log, nil)
	for _, want := range []string{"default.yaml:4:27: no queue is named \"gone\"", "other.yaml:1:1: the flow has no person"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v; want %s", err, want)
		}
	}
	cfg = Defaults()
	cfg.Default, cfg.Routes = "defalt", []Route{{Called: "1", Flow: "nite"}}
	_, err = New(cfg, catalogue(t), nil, log, nil)
	for _, want := range []string{`default: no flow is named "defalt"; did you mean "default"?`, `routes[0].flow: no flow is named "nite"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v; want %s", err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	err := Config{Flows: "/none", Language: "fr", StuckAfter: time.Second, Routes: []Route{{}},
		Targets: map[string]Target{"none": {}, "both": {Trunk: "a", Number: "b", Extension: "c"}, "half": {Trunk: "a"}, "good": {Extension: "1"}}}.Validate()
	for _, want := range []string{"flows: ", "default: ", "routes[0].flow: ", "routes[0]: ", "language: ", "stuck_after: ", "targets.none: ", "targets.both: ", "targets.half: "} {
		if !strings.Contains(fmt.Sprint("\n", err), "\n"+want) {
			t.Errorf("no fault begins with %q in:\n%v", want, err)
		}
	}
	if strings.Contains(fmt.Sprint(err), "targets.good") {
		t.Error("a good target is refused")
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	e, err := New(Defaults(), catalogue(t), nil, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		if _, err := e.Run(t.Context(), &phone{keys: "2"}, at("")); err != nil {
			t.Fatal(err)
		}
	})
	want := `# HELP hotline_ivr_exits_total Calls that a flow led out, by where; broken: the call ended in the flow.
# TYPE hotline_ivr_exits_total counter
hotline_ivr_exits_total{exit="broken"} 0
hotline_ivr_exits_total{exit="emergency"} 0
hotline_ivr_exits_total{exit="hangup"} 0
hotline_ivr_exits_total{exit="message"} 0
hotline_ivr_exits_total{exit="queue"} 1
hotline_ivr_exits_total{exit="transfer"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "hotline_ivr_exits_total"); err != nil {
		t.Error(err)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}
