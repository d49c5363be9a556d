package console

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops/opstest"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTextsAreComplete(t *testing.T) {
	all, err := loadTexts()
	if err != nil {
		t.Fatal(err)
	}
	verb := regexp.MustCompile(`%[a-z]`)
	for _, lang := range languages {
		for key, text := range all[languages[0]] {
			other, ok := all[lang][key]
			if !ok || strings.TrimSpace(other) == "" {
				t.Errorf("%s has no text for %q", lang, key)
			}
			if a, b := verb.FindAllString(text, -1), verb.FindAllString(other, -1); !slices.Equal(a, b) {
				t.Errorf("%q: values %v in %s, %v in %s", key, a, languages[0], b, lang)
			}
		}
		if len(all[lang]) != len(all[languages[0]]) {
			t.Errorf("%s has %d texts, %s has %d", lang, len(all[lang]), languages[0], len(all[languages[0]]))
		}
	}
}

// Every key that a template or the code names must have a text, and so must each value of the
// enumerations that are shown.
func TestEveryKeyHasText(t *testing.T) {
	all, err := loadTexts()
	if err != nil {
		t.Fatal(err)
	}
	texts := all["en"]
	want := map[string]string{}
	named := regexp.MustCompile(`\.T "([^"]+)"`)
	err = fs.WalkDir(templateFS, "templates", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(templateFS, path)
		for _, m := range named.FindAllSubmatch(b, -1) {
			want[string(m[1])] = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range failures {
		want[f.key] = "failures"
	}
	enums := map[string][]string{
		"stage": strs(session.Stages()), "outcome": strs(session.Outcomes()), "kind": strs(session.Kinds()),
		"service": strs(session.Services()), "agent": strs(queue.AgentStates()), "pause": pauseReasons, "hangup": hangupReasons,
		"banner":     strs([]session.Banner{session.BannerRepeat, session.BannerLong}),
		"bannertext": strs([]session.Banner{session.BannerRepeat, session.BannerLong}),
		"identity":   strs([]call.Identity{call.Verified, call.Shared, call.Anonymous, call.Spoof}),
		"missed":     {"abandon", "drained", "node_lost", "full"},
		"attempt":    strs([]session.CallBackResult{session.CallBackAnswered, session.CallBackNoAnswer, session.CallBackBusy, session.CallBackFailed, session.CallBackAgentMissed}),
		"callback":   {"open", "taken", "closed"}, "ending": {"answered", "unreached", "dismissed", "dropped"}, "close": closeReasons,
		"evidence": {"recorded", "partial", "none"}, "language": languages, "lane": callData{}.Lanes(),
	}
	for kind, values := range enums {
		for _, v := range values {
			want[kind+"."+v] = "enumeration"
		}
	}
	for key, from := range want {
		if _, ok := texts[key]; !ok {
			t.Errorf("no text for %q (%s)", key, from)
		}
	}
}

func strs[T ~string](in []T) (out []string) {
	for _, v := range in {
		out = append(out, string(v))
	}
	return out
}

func testConsole(t *testing.T, w *world) *Console {
	t.Helper()
	c, err := New(Defaults(), w.deps(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.now = noon.Local
	return c
}

// fixture is a page to be made, and what must stand in it.
type fixture struct {
	name, person string
	data         func(v *visit) any
	want         []string
}

func fixtures(t *testing.T, c *Console) []fixture {
	form := factsForm{CallID: "C2", Outcomes: agentOutcomes, Kinds: session.Kinds(), Problem: "error.badfacts",
		Errors: map[string]string{"name": "facts.noname", "request.0.summary": "facts.nosummary"},
		Facts:  session.Facts{Feedback: true, Requests: []session.Request{{Kind: session.KindReport}, {Summary: "<b>&"}}}}
	return []fixture{
		{"login", "", func(*visit) any { return loginForm{ID: "x", Next: "/live", Error: "login.wrong"} }, []string{`name="password"`}},
		{"live", "chief", func(v *visit) any { return liveData{c.snapshot(t.Context()), pauseReasons} },
			[]string{"138****5678", "119", `id="call-C2"`, "row-danger", "/agents/1001/pause", "8 ms", "trunk-down"}},
		{"live", "audit", func(v *visit) any { return liveData{Snapshot{}, pauseReasons} }, []string{`class="empty"`}},
		{"agent", "1001", func(v *visit) any {
			d := c.deskOf(v, c.snapshot(t.Context()))
			c.retrace(v, &d)
			return agentData{d, form}
		}, []string{"138****5678", "厨房着火了", `role="alert"`, "<kbd>9</kbd>", "welcome", "/agent/calls/C2/emergency", `id="name-error"`, "&lt;b&gt;&amp;", `aria-invalid="true"`, "/hold"}},
		{"agent", "1002", func(v *visit) any {
			return agentData{Desk: desk{Agent: Agent{State: queue.LoggedOut}}, Form: factsForm{}}
		},
			[]string{`name="extension"`, "8002"}},
		{"call", "chief", func(v *visit) any {
			v.SetPathValue("id", "C2")
			d, err := c.callData(v)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}, []string{"CONNECT", "9.120", "agent 1001", "/calls/C2/hangup"}},
		{"call", "audit", func(v *visit) any {
			v.SetPathValue("id", "OLD")
			d, err := c.callData(v)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}, []string{"138****5678", "REC1"}},
		{"callbacks", "chief", func(v *visit) any { s := c.snapshot(t.Context()); return c.callBacksOf(v, s, s.CallBacks) },
			[]string{`id="task-t1"`, "/callbacks/t1/close", `href="/calls/OLD"`, "李强", `hx-swap-oob="true">4<`}},
		{"callbacks", "1001", func(v *visit) any { return c.callBacksOf(v, Snapshot{}, nil) }, []string{`class="empty"`}},
		{"nodes", "root", func(*visit) any { return nodesOf(c.snapshot(t.Context()).Nodes) },
			[]string{`id="node-gw-3"`, "/nodes/gw-1/drain", "/nodes/gw-2/resume", "/nodes/gw-3/forget", "3f9c1d2e<", "10.20.0.14:5080"}},
		{"nodes", "root", func(*visit) any { return nodesOf([]Node{{Name: "gw-1", Alive: true, Draining: true}}) }, []string{"notice-danger"}},
		{"nodes", "chief", func(*visit) any { return nodesOf(nil) }, []string{`class="empty"`}},
		{"message", "", func(*visit) any { return "error.notfound" }, []string{`href="/"`}},
	}
}

// Every page is made from fixtures in both languages, and obeys what the policy and WCAG ask of it.
func TestPagesRender(t *testing.T) {
	w := newWorld(noon)
	w.owe(noon)
	w.join(noon)
	c := testConsole(t, w)
	visitBy := func(person string) *visit {
		return &visit{Request: httptest.NewRequest("GET", "/agent", nil), person: people[person]}
	}
	for _, lang := range languages {
		for i, p := range fixtures(t, c) {
			t.Run(fmt.Sprintf("%s/%d-%s", lang, i, p.name), func(t *testing.T) {
				v := visitBy(p.person)
				v.lang = lang
				html, err := c.render(p.name, "layout", c.model(v, p.data(v)))
				if err != nil {
					t.Fatal(err)
				}
				for _, want := range append(p.want, fmt.Sprintf(`<html lang="%s">`, c.model(v, nil).HTMLLang())) {
					if !strings.Contains(string(html), want) {
						t.Errorf("lacks %q", want)
					}
				}
				checkHTML(t, string(html))
			})
		}
	}
}

var (
	inline    = regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|javascript:|<script(?:[^>]*)>[^<]`)
	inputs    = regexp.MustCompile(`<(?:input|select|textarea)\b[^>]*>`)
	idOf      = regexp.MustCompile(`\sid="([^"]+)"`)
	unescaped = regexp.MustCompile(`ZgotmplZ|%!|&lt;no value`)
	untold    = regexp.MustCompile(`>[a-z]+\.[a-z]+<`) // a key shown for want of its text
)

// checkHTML holds a page to what the content security policy and WCAG 2.2 ask of its source.
func checkHTML(t *testing.T, html string) {
	t.Helper()
	for _, re := range []*regexp.Regexp{inline, unescaped, untold} {
		if m := re.FindString(html); m != "" {
			t.Errorf("the page holds %q", m)
		}
	}
	for _, in := range inputs.FindAllString(html, -1) {
		if strings.Contains(in, `type="hidden"`) {
			continue
		}
		m := idOf.FindStringSubmatch(in)
		if m == nil || !strings.Contains(html, `for="`+m[1]+`"`) { // WCAG 3.3.2
			t.Errorf("no label for %s", in)
		}
	}
	seen := map[string]bool{}
	for _, m := range idOf.FindAllStringSubmatch(html, -1) {
		if seen[m[1]] {
			t.Errorf("id %q twice", m[1])
		}
		seen[m[1]] = true
	}
	if n := strings.Count(html, "<h1"); n > 1 {
		t.Errorf("%d first headings", n)
	}
}

func TestMetricsAreLinted(t *testing.T) {
	reg := prometheus.NewRegistry()
	if _, err := New(Defaults(), newWorld(noon).deps(), slog.New(slog.DiscardHandler), reg); err != nil {
		t.Fatal(err)
	}
	opstest.Lint(t, reg)
}

func TestClock(t *testing.T) {
	for in, want := range map[int]string{-3: "0:00", 0: "0:00", 65: "1:05", 3600: "1:00:00", 7384: "2:03:04"} {
		if got := clock(time.Duration(in) * time.Second); got != want {
			t.Errorf("clock(%ds) = %s, want %s", in, got, want)
		}
	}
}
