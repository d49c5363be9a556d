package nodes

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
)

// line is a gateway's live calls.
type line struct {
	mu    sync.Mutex
	calls map[string]session.View
	watch map[chan struct{}]struct{}
}

func newLine() *line {
	return &line{calls: map[string]session.View{}, watch: map[chan struct{}]struct{}{}}
}

func (l *line) Views() []session.View {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.calls))
}

func (l *line) Watch() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch[ch] = struct{}{}
	return ch, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watch, ch)
	}
}

func (l *line) change(do func(calls map[string]session.View)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do(l.calls)
	for ch := range l.watch {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func stagesOf(m *Mirror) map[string]session.Stage {
	out := map[string]session.Stage{}
	for _, v := range m.Views() {
		out[v.Gateway+"/"+v.CallID] = v.Stage
	}
	return out
}

func TestMirrorFollowsTheOtherGatewaysCalls(t *testing.T) {
	l, calls := &list{nodes: map[string]store.Node{}}, newLine()
	feed := NewFeed(calls)
	two := node(t, "n2", l, Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(feed.Since(r.Context(), r.URL.Query().Get("since")))
	}))
	one := node(t, "n1", l, Config{}, http.NotFoundHandler())
	m := NewMirror(one)
	changed, unwatch := m.Watch()
	defer unwatch()
	run(t, one.Run, m.Run)
	stop := run(t, two.Run)
	calls.change(func(c map[string]session.View) {
		c["a"] = session.View{CallID: "a", Stage: session.StageQueue, Facts: session.Facts{Note: "of the call"}}
		c["b"] = session.View{CallID: "b", Stage: session.StageFlow}
	})
	shows := func(want map[string]session.Stage) {
		t.Helper()
		eventually(t, "what is shown", func() bool { return maps.Equal(stagesOf(m), want) })
	}
	shows(map[string]session.Stage{"n2/a": session.StageQueue, "n2/b": session.StageFlow})
	if m.Owner("a") != "n2" || m.Owner("c") != "" || m.Missing("n2") != nil {
		t.Errorf("owners %q and %q, missing %v", m.Owner("a"), m.Owner("c"), m.Missing("n2"))
	}
	<-changed
	calls.change(func(c map[string]session.View) {
		c["a"] = session.View{CallID: "a", Stage: session.StageRing}
		delete(c, "b")
	})
	<-changed
	shows(map[string]session.Stage{"n2/a": session.StageRing})
	stop() // the gateway is killed: its calls are not shown, and it is named
	shows(map[string]session.Stage{})
	eventually(t, "the silent gateway is named", func() bool { err := m.Missing("n2"); return err != nil && strings.Contains(err.Error(), "n2") })
}

func TestFeedTellsEachChangeOnce(t *testing.T) {
	calls := newLine()
	f := NewFeed(calls)
	calls.change(func(c map[string]session.View) {
		c["a"] = session.View{CallID: "a"}
		c["b"] = session.View{CallID: "b"}
	})
	first := f.Since(t.Context(), "")
	if !first.Full || len(first.Changed) != 2 {
		t.Fatalf("first %+v", first)
	}
	calls.change(func(c map[string]session.View) { delete(c, "a") })
	next := f.Since(t.Context(), first.Cursor)
	if next.Full || len(next.Changed) != 0 || !slices.Equal(next.Gone, []string{"a"}) {
		t.Errorf("next %+v", next)
	}
	if again := f.Since(t.Context(), "of-another-process.7"); !again.Full || len(again.Changed) != 1 {
		t.Errorf("a cursor of another process gets %+v", again)
	}
	// Who has not asked for longer than ends are remembered gets the whole.
	for range 2 {
		calls.change(func(c map[string]session.View) {
			for i := range maxGone {
				c[string(rune('c'+i))] = session.View{CallID: string(rune('c' + i))}
			}
		})
		f.mu.Lock()
		f.mu.Unlock()
		f.news(0, true)
		calls.change(func(c map[string]session.View) { clear(c) })
		f.mu.Lock()
		f.mu.Unlock()
		f.news(0, true)
	}
	if late := f.Since(t.Context(), next.Cursor); !late.Full || len(late.Changed) != 0 || len(f.gone) > maxGone {
		t.Errorf("a late one gets %d changes, full %t; %d ends are kept", len(late.Changed), late.Full, len(f.gone))
	}
}

func TestJoin(t *testing.T) {
	l := &list{nodes: map[string]store.Node{}}
	one := node(t, "n1", l, Config{}, http.NotFoundHandler())
	defer one.Close()
	make2 := func() *Cluster {
		t.Helper()
		l.mu.Lock()
		keep := maps.Clone(l.nodes)
		l.nodes = map[string]store.Node{}
		l.mu.Unlock()
		c := node(t, "n2", l, Config{}, http.NotFoundHandler())
		l.mu.Lock()
		l.nodes = keep
		l.mu.Unlock()
		return c
	}
	two := make2()
	defer two.Close()
	l.set("n1", func(n *store.Node) { n.Schema = schema + 1 })
	if err := two.Join(t.Context()); err == nil || !strings.Contains(err.Error(), "gateway n1 (version 1) keeps what is shared in form 2, this one in form 1") {
		t.Errorf("beside another form: %v", err)
	}
	l.set("n1", func(n *store.Node) { n.Alive = false })
	if err := two.Join(t.Context()); err != nil {
		t.Errorf("beside an absent one: %v", err)
	}
	l.away = true
	if err := two.Join(t.Context()); err != nil {
		t.Errorf("with Redis away: %v", err)
	}
	two.Look(t.Context())
	if got := two.Members(); len(got) != 2 {
		t.Errorf("with Redis away the list is %v", got)
	}
	l.away = false
}

// A namesake that lives is told by its heartbeat; one that was killed is waited out.
func TestNamesake(t *testing.T) {
	l := &list{nodes: map[string]store.Node{}}
	one := node(t, "n1", l, Config{}, http.NotFoundHandler())
	twin := &Cluster{cfg: one.cfg, deps: one.deps, name: "n1", now: make(chan struct{}, 1), metrics: one.metrics, silent: map[string]error{}}
	twin.cfg.Advertise = "10.0.0.9:7443"
	if err := twin.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer twin.Close()
	stop := run(t, one.Run)
	if err := twin.Join(t.Context()); err == nil || !strings.Contains(err.Error(), `another gateway is called "n1"`) {
		t.Errorf("beside a namesake: %v", err)
	}
	stop()
	if err := twin.Join(t.Context()); err != nil {
		t.Errorf("after a namesake that was killed: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	l := &list{nodes: map[string]store.Node{}}
	one := node(t, "n1", l, Config{}, http.NotFoundHandler())
	defer one.Close()
	wrong := func() (codes []string) {
		for _, c := range one.Checks() {
			if c.Test(t.Context()) != nil {
				codes = append(codes, c.Code)
			}
		}
		return codes
	}
	if got := wrong(); len(got) != 0 {
		t.Errorf("one gateway by itself has %v", got)
	}
	l.set("n2", func(n *store.Node) { n.Alive, n.ConfigHash, n.Version = true, "same", "1" })
	one.Look(t.Context())
	if got := wrong(); len(got) != 0 {
		t.Errorf("two alike have %v", got)
	}
	l.set("n2", func(n *store.Node) { n.ConfigHash, n.PolicyHash, n.Version = "other", "other", "2" })
	one.Look(t.Context())
	if got := wrong(); !slices.Equal(got, []string{"config-differs", "policy-differs", "version-beside"}) {
		t.Errorf("two that differ have %v", got)
	}
	l.set("n2", func(n *store.Node) { n.Alive = false })
	one.Look(t.Context())
	if got := wrong(); !slices.Equal(got, []string{"node-absent"}) {
		t.Errorf("with one absent there is %v", got)
	}
	if err := one.Forget(t.Context(), "n2"); err != nil {
		t.Error(err)
	}
	one.Look(t.Context())
	if got := wrong(); len(got) != 0 {
		t.Errorf("with it forgotten there is %v", got)
	}
}
