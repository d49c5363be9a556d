package console

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

func TestCheckFacts(t *testing.T) {
	one := []session.Request{{Kind: session.KindReport, Summary: "x"}}
	cases := []struct {
		name  string
		facts session.Facts
		final bool
		want  []string
	}{
		{"nothing yet", session.Facts{}, false, nil},
		{"an end needs an outcome", session.Facts{}, true, []string{"outcome"}},
		{"a full one", session.Facts{Outcome: session.OutcomeRegistered, Requests: one, Feedback: true, Name: "张三", Contact: "1"}, true, nil},
		{"Art. 7: feedback needs name and contact", session.Facts{Feedback: true}, false, []string{"contact", "name"}},
		{"a name without feedback", session.Facts{Name: "张三"}, false, nil},
		{"registered needs a request", session.Facts{Outcome: session.OutcomeRegistered}, false, []string{"request.0.summary"}},
		{"the line's own outcome", session.Facts{Outcome: session.OutcomeFault}, false, []string{"outcome"}},
		{"no such outcome", session.Facts{Outcome: "x"}, false, []string{"outcome"}},
		{"a request of no kind", session.Facts{Requests: []session.Request{one[0], {Summary: "x"}}}, false, []string{"request.1.kind"}},
		{"a request of nothing", session.Facts{Requests: []session.Request{{Kind: session.KindOther}}}, false, []string{"request.0.summary"}},
		{"long", session.Facts{Name: strings.Repeat("名", maxName+1), Note: strings.Repeat("n", maxNote)}, false, []string{"name"}},
		{"many", session.Facts{Requests: slices.Repeat(one, maxRequests+1)}, false, []string{"requests"}},
	}
	for _, tc := range cases {
		var got []string
		for field := range checkFacts(tc.facts, tc.final) {
			got = append(got, field)
		}
		slices.Sort(got)
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
}

// A form cannot take over a request of another call.
func TestReadFactsKeepsIdentities(t *testing.T) {
	in := url.Values{"request.0.kind": {"report"}, "request.0.id": {"MINE"}, "request.0.mark": {"1500"},
		"request.1.kind": {"other"}, "request.1.id": {"FOREIGN"}, "request.1.mark": {"-9"}, "request.1.summary": {" x "},
		"request.3.kind": {"other"}, "feedback": {"1"}, "name": {" 张三 "}}
	got := readFacts(in, []session.Request{{ID: "MINE"}})
	want := session.Facts{Feedback: true, Name: "张三", Requests: []session.Request{
		{ID: "MINE", Kind: session.KindReport, Mark: 1500 * time.Millisecond}, {Kind: session.KindOther, Summary: "x"}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func FuzzReadFacts(f *testing.F) {
	f.Add("request.0.kind=report&request.0.mark=99999999999999999999&feedback=1")
	f.Add("request.0.kind=&request.1.kind=&do=remove.7")
	f.Fuzz(func(t *testing.T, query string) {
		in, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		facts := readFacts(in, nil)
		if len(facts.Requests) > maxRequests {
			t.Fatal("more requests than allowed")
		}
		for _, r := range facts.Requests {
			if r.Mark < 0 || r.ID != "" {
				t.Fatalf("%+v", r)
			}
		}
		checkFacts(facts, true)
	})
}

// The whole form works without JavaScript: plain posts and pages.
func TestFactsWithoutScripts(t *testing.T) {
	b := newBench(t, noon)
	do := b.as("1001")
	const path = "/agent/calls/C2/facts"
	form := url.Values{"request.0.kind": {"opinion"}, "request.0.summary": {"路灯不亮"}, "outcome": {"registered"}}
	with := func(pairs ...string) url.Values {
		f := url.Values{}
		maps.Copy(f, form)
		for i := 0; i < len(pairs); i += 2 {
			f.Set(pairs[i], pairs[i+1])
		}
		return f
	}
	resp, page := do("POST", path, with("do", "add"))
	if resp.StatusCode != 200 || !strings.Contains(page, `name="request.1.summary"`) || !strings.Contains(page, "路灯不亮") ||
		!strings.Contains(page, `name="request.1.mark" value="95250"`) || !strings.Contains(page, "<html") {
		t.Fatalf("add: %d", resp.StatusCode)
	}
	if !strings.Contains(page, `name="request.1.kind" autofocus`) {
		t.Error("the new request is not where one writes next")
	}
	resp, page = do("POST", path, with("request.1.kind", "report", "request.1.summary", "井盖", "do", "remove.0"))
	if resp.StatusCode != 200 || strings.Contains(page, "路灯不亮") || !strings.Contains(page, "井盖") {
		t.Errorf("remove: %d", resp.StatusCode)
	}
	if resp, page = do("POST", path, with("do", "remove.99")); resp.StatusCode != 200 || !strings.Contains(page, "路灯不亮") {
		t.Errorf("remove nothing: %d", resp.StatusCode)
	}
	resp, page = do("POST", path, with("feedback", "1", "do", "save"))
	if resp.StatusCode != 422 || !strings.Contains(page, `id="name-error"`) || strings.Count(page, "autofocus") != 1 || !strings.Contains(page, "路灯不亮") {
		t.Errorf("without a name: %d", resp.StatusCode)
	}
	resp, _ = do("POST", path, with("do", "save"))
	if resp.StatusCode != 303 || resp.Header.Get("Location") != "/agent?said=said.saved" {
		t.Errorf("save: %d", resp.StatusCode)
	}
	facts := b.world.Views()[0].Facts
	want := session.Facts{Outcome: session.OutcomeRegistered, By: "1001",
		Requests: []session.Request{{ID: "R1", Kind: session.KindOpinion, Summary: "路灯不亮"}}}
	if d := cmp.Diff(want, facts); d != "" {
		t.Error(d)
	}
	resp, _ = do("POST", path, with("request.0.id", "R1", "do", "finish"))
	if resp.StatusCode != 303 || !slices.Equal(b.world.done(), []string{"finish C2"}) || b.world.Views()[0].Facts.Requests[0].ID != "R1" {
		t.Errorf("finish: %d, %v", resp.StatusCode, b.world.done())
	}
	full := with("do", "add")
	for i := range maxRequests {
		full.Set(strings.Replace("request.N.kind", "N", strconv.Itoa(i), 1), "other")
	}
	if _, page = do("POST", path, full); !strings.Contains(page, "最多登记 20 项") {
		t.Error("one request too many is not refused")
	}
}

// An agent acts on their own call alone.
func TestOwnCallOnly(t *testing.T) {
	b := newBench(t, noon)
	other, own := b.as("1002"), b.as("1001")
	for _, act := range []string{"facts", "done", "emergency", "hangup", "hold", "resume"} {
		form := url.Values{"service": {"119"}, "outcome": {"silent"}}
		if resp, _ := other("POST", "/agent/calls/C2/"+act, form); resp.StatusCode != 403 && resp.StatusCode != 404 {
			t.Errorf("%s of another's call: %d", act, resp.StatusCode)
		}
		if resp, _ := own("POST", "/agent/calls/C3/"+act, form); resp.StatusCode != 403 {
			t.Errorf("%s of a waiting call: %d", act, resp.StatusCode)
		}
	}
	if did := b.world.done(); len(did) != 0 {
		t.Fatalf("did %v", did)
	}
	for _, act := range []string{"done", "emergency", "hangup", "hold", "resume"} {
		if resp, _ := own("POST", "/agent/calls/C2/"+act, url.Values{"service": {"119"}}); resp.StatusCode != 303 {
			t.Errorf("%s: %d", act, resp.StatusCode)
		}
	}
	want := []string{"finish C2", "emergency 119 C2", "hangup C2", "hold C2", "resume C2"}
	if d := cmp.Diff(want, b.world.done()); d != "" {
		t.Error(d)
	}
	if resp, _ := own("POST", "/agent/calls/C2/emergency", url.Values{"service": {"911"}}); resp.StatusCode != 422 {
		t.Errorf("no such service: %d", resp.StatusCode)
	}
}

func TestAgentState(t *testing.T) {
	b := newBench(t, noon)
	do := b.as("1002")
	steps := []struct {
		path, key, value string
		status           int
		want             queue.AgentState
	}{
		{"/agent/ready", "", "", 303, queue.Idle},
		{"/agent/pause", "reason", "meal", 303, queue.Paused},
		{"/agent/pause", "reason", "whim", 422, queue.Paused},
		{"/agent/logout", "", "", 303, queue.LoggedOut},
		{"/agent/login", "extension", "80x", 422, queue.LoggedOut},
		{"/agent/login", "extension", "8002", 303, queue.LoggedOut}, // a second entry: the first is shown
	}
	for _, s := range steps {
		if resp, _ := do("POST", s.path, url.Values{s.key: {s.value}}); resp.StatusCode != s.status {
			t.Errorf("%s %s: %d", s.path, s.value, resp.StatusCode)
		}
		b.world.mu.Lock()
		if got := b.world.agents[1].State; got != s.want {
			t.Errorf("%s %s: %s", s.path, s.value, got)
		}
		b.world.mu.Unlock()
	}
}

// The form is sent again only when the call is another one.
func TestFactsPart(t *testing.T) {
	b := newBench(t, noon)
	do := b.as("1001")
	if resp, _ := do("GET", "/agent/facts?call=C2", nil, "HX-Request", "true"); resp.StatusCode != http.StatusNoContent {
		t.Errorf("the same call: %d", resp.StatusCode)
	}
	if resp, part := do("GET", "/agent/facts?call=", nil, "HX-Request", "true"); resp.StatusCode != 200 || !strings.Contains(part, "facts-form") {
		t.Errorf("another call: %d", resp.StatusCode)
	}
	if resp, _ := do("GET", "/agent/facts", nil); resp.StatusCode != 303 {
		t.Errorf("without scripts: %d", resp.StatusCode)
	}
}
