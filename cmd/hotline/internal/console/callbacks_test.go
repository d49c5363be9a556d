package console

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hotline12345/gateway/queue"
)

func TestCallBacksAPI(t *testing.T) {
	b := newBench(t, noon)
	b.world.owe(noon)
	b.world.join(noon)
	cases := []struct {
		person, method, path, body string
		status                     int
		want                       string
	}{
		{"1001", "GET", "/callbacks", "", 200, `[{"id":"t1"`},
		{"audit", "GET", "/callbacks?closed=false", "", 200, `[{"id":"t1"`},
		{"chief", "GET", "/callbacks?closed=true", "", 200, `[{"id":"t5"`},
		{"chief", "GET", "/callbacks?closed=perhaps", "", 422, ""},
		{"1001", "POST", "/callbacks/t1/call", "", 200, `{"call_id":"B1"}`},
		{"1001", "POST", "/callbacks/t1/call", "", 409, "another agent"},
		{"1001", "POST", "/callbacks/NONE/call", "", 404, "no such call back"},
		{"chief", "POST", "/callbacks/t2/call", "", 403, ""},
		{"1001", "POST", "/callbacks/t2/close", `{"reason":"reached"}`, 403, ""},
		{"chief", "POST", "/callbacks/t2/close", `{"reason":"whim"}`, 422, ""},
		{"chief", "POST", "/callbacks/t2/close", `{"reason":"other","note":"打 138 1234 5678"}`, 422, "must not hold a number"},
		{"chief", "POST", "/callbacks/t2/close", `{"reason":"other","note":"房间１２３４５"}`, 422, "must not hold a number"},
		{"chief", "POST", "/callbacks/t2/close", `{"reason":"other","note":"` + strings.Repeat("x", 201) + `"}`, 422, ""},
		{"chief", "POST", "/callbacks/t2/close", `{"reason":"other","note":" 3 号楼 "}`, 204, ""},
		{"chief", "POST", "/callbacks/t2/close", `{"reason":"other"}`, 404, ""},

		{"audit", "GET", "/nodes", "", 200, `"name":"gw-3"`},
		{"1001", "GET", "/nodes", "", 403, ""},
		{"chief", "POST", "/nodes/gw-1/drain", "", 403, ""},
		{"root", "POST", "/nodes/gw-1/drain", "", 204, ""},
		{"root", "POST", "/nodes/gw-2/resume", "", 204, ""},
		{"root", "POST", "/nodes/gw-3/drain", "", 502, "does not answer"},
		{"root", "POST", "/nodes/gw-9/drain", "", 404, "no such node"},
		{"root", "POST", "/nodes/gw-1/forget", "", 409, "lives"},
		{"root", "POST", "/nodes/gw-3/forget", "", 204, ""},
	}
	for _, tc := range cases {
		status, out := b.api(tc.person, tc.method, "/api/v1"+tc.path, tc.body)
		if status != tc.status || !strings.Contains(out, tc.want) {
			t.Errorf("%s %s %s %s: %d %s", tc.person, tc.method, tc.path, tc.body, status, out)
		}
	}
	if note := b.world.shut[3].Note; note != "other: 3 号楼" {
		t.Errorf("closed because of %q", note)
	}
	var names []string
	for _, n := range b.world.nodes {
		names = append(names, n.Name)
	}
	if d := cmp.Diff([]string{"gw-1", "gw-2", "gw-4"}, names); d != "" || !b.world.nodes[0].Draining || b.world.nodes[1].Draining {
		t.Errorf("%s, %+v", d, b.world.nodes)
	}
}

// A call back, a closed task and an act on a gateway are in the log first, and are not done when the log fails.
func TestClusterActsAreAudited(t *testing.T) {
	b := newBench(t, noon)
	b.world.owe(noon)
	b.world.join(noon)
	acts := []struct {
		person, path string
		form         url.Values
		to, want     string
	}{
		{"1001", "/callbacks/t1/call", nil, "/agent?said=said.callingback", "callback.call t1"},
		{"chief", "/callbacks/t2/close", url.Values{"reason": {"declined"}}, "/callbacks?said=said.closed", "callback.close t2 declined"},
		{"root", "/nodes/gw-1/drain", nil, "/nodes?said=said.drained", "node.drain gw-1"},
		{"root", "/nodes/gw-1/resume", nil, "/nodes?said=said.undrained", "node.resume gw-1"},
		{"root", "/nodes/gw-3/forget", nil, "/nodes?said=said.forgotten", "node.forget gw-3"},
	}
	b.world.auditErr = http.ErrServerClosed
	for _, a := range acts {
		if resp, _ := b.as(a.person)("POST", a.path, a.form); resp.StatusCode != 503 {
			t.Errorf("%s without a log: %d", a.path, resp.StatusCode)
		}
	}
	if len(b.world.tasks) != 4 || len(b.world.nodes) != 4 || b.world.nodes[0].Draining || len(b.world.Views()) != 6 {
		t.Fatal("something was done without a log")
	}
	b.world.change(func() { b.world.auditErr = nil })
	for i, a := range acts {
		resp, _ := b.as(a.person)("POST", a.path, a.form)
		if resp.StatusCode != 303 || resp.Header.Get("Location") != a.to {
			t.Errorf("%s: %d to %q", a.path, resp.StatusCode, resp.Header.Get("Location"))
		}
		got := b.world.logged()[i]
		if s := strings.TrimSpace(got.what + " " + got.on + " " + got.detail["reason"]); s != a.want || got.by != a.person {
			t.Errorf("%s: %+v", a.path, got)
		}
		if _, page := b.as(a.person)("GET", a.to, nil); !strings.Contains(page, `<p class="flash">`) {
			t.Errorf("%s: the act is not told", a.to)
		}
	}
	// htmx is told to leave for the agent's page, where the call appears.
	resp, _ := b.as("1001")("POST", "/callbacks/t4/call", nil, "HX-Request", "true")
	if resp.Header.Get("HX-Redirect") != "/agent?said=said.callingback" {
		t.Errorf("htmx goes to %q", resp.Header.Get("HX-Redirect"))
	}
}

// Whom an agent calls back next: the oldest place of the agent's queues, open, and not just tried.
func TestNextFor(t *testing.T) {
	w := newWorld(noon)
	w.owe(noon)
	s := Snapshot{CallBacks: slices.Clone(w.tasks)}
	slices.SortFunc(s.CallBacks, func(a, b queue.CallBack) int { return a.Since.Compare(b.Since) })
	cases := []struct {
		name string
		a    Agent
		want string
	}{
		{"the oldest", Agent{State: queue.Idle, Queues: []string{"general", "enterprise"}}, "t1"},
		{"of the queue", Agent{State: queue.Idle, Queues: []string{"enterprise"}}, "t4"},
		{"no queue", Agent{State: queue.Idle}, ""},
		{"busy", Agent{State: queue.Talk, Queues: []string{"general"}}, ""},
		{"paused", Agent{State: queue.Paused, Queues: []string{"general"}}, ""},
	}
	for _, tc := range cases {
		if got, _ := s.nextFor(tc.a, noon); got.ID != tc.want {
			t.Errorf("%s: %q", tc.name, got.ID)
		}
	}
	general := Agent{State: queue.Idle, Queues: []string{"general"}}
	s.CallBacks = s.CallBacks[1:] // the next of the queue was tried 3 minutes ago, and the other is taken
	if got, ok := s.nextFor(general, noon); ok {
		t.Errorf("%s was just tried", got.ID)
	}
	if got, _ := s.nextFor(general, noon.Add(8*time.Minute)); got.ID != "t2" {
		t.Errorf("after the pause: %q", got.ID)
	}
}

// The number in the navigation follows the ledger on every live page.
func TestBadge(t *testing.T) {
	b := newBench(t, time.Now())
	lines, _, _ := b.open("chief", "/live/stream")
	await(t, lines, `id="owed" class="badge" hx-swap-oob="true" hidden>0<`)
	b.world.change(func() { b.world.owe(time.Now()) })
	await(t, lines, `id="owed" class="badge" hx-swap-oob="true">4<`)
	for person, path := range map[string]string{"1002": "/agent", "root": "/nodes"} {
		if _, page := b.as(person)("GET", path, nil); !strings.Contains(page, `hx-swap-oob="true">4<`) {
			t.Errorf("no number on %s", path)
		}
	}
}

// The second tab shows how the tasks of the last days ended.
func TestClosedPage(t *testing.T) {
	b := newBench(t, noon)
	b.world.owe(noon)
	_, page := b.as("chief")("GET", "/callbacks/closed", nil)
	for _, want := range []string{"137****2210", "已由坐席接通", "王芳", "已通过其他方式联系", "已通过微信答复", "多次回拨未接通"} {
		if !strings.Contains(page, want) {
			t.Errorf("lacks %q", want)
		}
	}
	if strings.Index(page, "t5") > strings.Index(page, "t6") {
		t.Error("the last one closed is not the first")
	}
	checkHTML(t, page)
	b.world.away = http.ErrServerClosed
	if resp, _ := b.as("chief")("GET", "/callbacks/closed", nil); resp.StatusCode != 500 {
		t.Errorf("without the store: %d", resp.StatusCode)
	}
}

// A ledger of an outage costs no more to show than its oldest rows.
func TestLongLedger(t *testing.T) {
	b := newBench(t, noon)
	b.world.owe(noon)
	for range maxRows {
		more := b.world.tasks[1]
		more.ID = fmt.Sprintf("m%d", len(b.world.tasks))
		b.world.tasks = append(b.world.tasks, more)
	}
	_, page := b.as("chief")("GET", "/callbacks", nil)
	if n := strings.Count(page, `<tr id="task-`); n != maxRows || !strings.Contains(page, "另有 4 人") {
		t.Errorf("%d rows", n)
	}
}

// A gateway that stands alone and calls nobody back shows neither page.
func TestAlone(t *testing.T) {
	w := newWorld(noon)
	deps := w.deps()
	deps.CallBacks, deps.Nodes = nil, nil
	c, err := New(Defaults(), deps, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range c.routes {
		if strings.Contains(r.path, "/callbacks") || strings.Contains(r.path, "/nodes") {
			t.Errorf("%s is served", r.path)
		}
	}
	v := &visit{Request: httptest.NewRequest("GET", "/live", nil), person: people["chief"], lang: "en"}
	html, err := c.render("live", "layout", c.model(v, liveData{c.snapshot(t.Context()), pauseReasons}))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"/callbacks", "/nodes", `id="owed"`, ">Gateway<"} {
		if strings.Contains(string(html), word) {
			t.Errorf("the page has %q", word)
		}
	}
}

// What differs is what differs from the gateway that shows it; an absent one is not held against anyone.
func TestNodesDiffer(t *testing.T) {
	w := newWorld(noon)
	w.join(noon)
	w.nodes[2].PolicyHash = "old"
	d := nodesOf(w.nodes)
	for i, want := range []struct{ version, config, policy bool }{{}, {}, {}, {version: true, config: true}} {
		r := d.Rows[i]
		if r.OtherVersion != want.version || r.OtherConfig != want.config || r.OtherPolicy != want.policy || d.Last(r) {
			t.Errorf("%+v", r)
		}
	}
	if !d.Differ() || d.Ready != 2 {
		t.Errorf("differ %v, ready %d", d.Differ(), d.Ready)
	}
	w.nodes[3].Draining = true
	if d = nodesOf(w.nodes); !d.Last(d.Rows[0]) {
		t.Error("the last one is not told")
	}
	if d = nodesOf(w.nodes[:2]); d.Differ() {
		t.Error("two alike differ")
	}
}
