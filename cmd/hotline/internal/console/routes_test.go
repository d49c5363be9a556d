package console

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each route lets exactly its roles through.
func TestRoles(t *testing.T) {
	b := newBench(t, noon)
	all := map[string]func(string, string, url.Values, ...string) (*http.Response, string){}
	for id := range people {
		all[id] = b.as(id)
	}
	param := regexp.MustCompile(`\{[a-z]+\}`)
	for _, rt := range b.c.routes {
		if rt.roles == nil || rt.op != nil || rt.path == "/logout" || strings.HasSuffix(rt.path, "/stream") {
			continue
		}
		path := param.ReplaceAllString(strings.TrimSuffix(rt.path, "{$}"), "NONE")
		for id, do := range all {
			resp, _ := do(rt.method, path, url.Values{})
			refused := resp.StatusCode == http.StatusForbidden
			if allowed := people[id].Has(rt.roles...); allowed == refused && !strings.Contains(path, "/agent/calls/") {
				t.Errorf("%s %s as %s: %d, allowed %v", rt.method, path, id, resp.StatusCode, allowed)
			} else if !allowed && !refused {
				t.Errorf("%s %s as %s: %d", rt.method, path, id, resp.StatusCode)
			}
		}
		nobody, _ := b.request(rt.method, path, url.Values{})
		if nobody.StatusCode != http.StatusSeeOther || !strings.HasPrefix(nobody.Header.Get("Location"), "/login") {
			t.Errorf("%s %s by nobody: %d", rt.method, path, nobody.StatusCode)
		}
	}
}

func TestLogin(t *testing.T) {
	b := newBench(t, noon)
	cases := []struct {
		name           string
		id, pass, next string
		status         int
		to             string
	}{
		{"right", "chief", "secret-chief", "/live", 303, "/live"},
		{"wrong", "chief", "x", "/live", 401, ""},
		{"nobody", "nobody", "x", "", 401, ""},
		{"flood", "flood", "x", "", 429, ""},
		{"other site", "chief", "secret-chief", "//evil.example/", 303, "/"},
		{"other site, backslash", "chief", "secret-chief", `/\evil.example/`, 303, "/"},
		{"other site, whole", "chief", "secret-chief", "https://evil.example/", 303, "/"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			resp, page := b.request("POST", "/login", url.Values{"id": {tc.id}, "password": {tc.pass}, "next": {tc.next}})
			if resp.StatusCode != tc.status || resp.Header.Get("Location") != tc.to {
				t.Fatalf("%d to %q", resp.StatusCode, resp.Header.Get("Location"))
			}
			if strings.Contains(page, tc.pass+`"`) && tc.pass != "x" {
				t.Error("the page gives the password back")
			}
			if tc.status != 303 {
				return
			}
			k := resp.Cookies()[0]
			if !k.HttpOnly || k.SameSite != http.SameSiteStrictMode || k.Path != "/" || k.Value == "" {
				t.Errorf("cookie %v", k)
			}
		})
	}
	do := b.as("chief")
	if resp, _ := do("POST", "/logout", url.Values{}); resp.StatusCode != 303 || resp.Cookies()[0].MaxAge >= 0 {
		t.Errorf("log-out: %d %v", resp.StatusCode, resp.Cookies())
	}
	if resp, _ := do("GET", "/live", nil); resp.StatusCode != 303 {
		t.Errorf("after the log-out: %d", resp.StatusCode)
	}
}

func TestSecureCookies(t *testing.T) {
	b := newBench(t, noon, func(c *Config) { c.SecureCookies = true })
	resp, _ := b.request("POST", "/login", url.Values{"id": {"chief"}, "password": {"secret-chief"}})
	if !resp.Cookies()[0].Secure {
		t.Error("the cookie is not for HTTPS only")
	}
}

func TestHeadersAndOrigin(t *testing.T) {
	b := newBench(t, noon)
	do := b.as("chief")
	resp, _ := do("GET", "/live", nil)
	for name, want := range map[string]string{"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff",
		"Cache-Control": "no-store", "Referrer-Policy": "same-origin"} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Error("the policy has an exception")
	}
	resp, _ = do("POST", "/calls/C2/hangup", url.Values{"reason": {"stuck"}}, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
	if resp.StatusCode != http.StatusForbidden || len(b.world.done()) != 0 {
		t.Errorf("another site's form: %d, done %v", resp.StatusCode, b.world.done())
	}
	if resp, _ = do("GET", "/static/", nil); resp.StatusCode != 404 {
		t.Errorf("a listing: %d", resp.StatusCode)
	}
	if resp, body := do("GET", "/static/LICENSES.txt", nil); resp.StatusCode != 200 || !strings.Contains(body, "Zero-Clause BSD") {
		t.Errorf("licences: %d", resp.StatusCode)
	}
	if resp, body := do("GET", "/nowhere", nil); resp.StatusCode != 404 || !strings.Contains(body, "没有这个页面") {
		t.Errorf("no such page: %d", resp.StatusCode)
	}
}

func TestLanguage(t *testing.T) {
	b := newBench(t, noon)
	if _, page := b.request("GET", "/login", nil); !strings.Contains(page, "工号") {
		t.Error("the default is not Chinese")
	}
	resp, _ := b.request("POST", "/language", url.Values{"language": {"en"}, "back": {"/login"}})
	if resp.Header.Get("Location") != "/login" || resp.Cookies()[0].Value != "en" {
		t.Fatalf("to %q, %v", resp.Header.Get("Location"), resp.Cookies())
	}
	if _, page := b.request("GET", "/login", nil, "Cookie", languageCookie+"=en"); !strings.Contains(page, "Staff number") {
		t.Error("not English")
	}
	if resp, _ := b.request("POST", "/language", url.Values{"language": {"../x"}}); len(resp.Cookies()) != 0 {
		t.Error("a language that there is not")
	}
}

// What a supervisor does to others is in the log first, and is not done when the log fails.
func TestActsAreAudited(t *testing.T) {
	b := newBench(t, noon)
	do := b.as("chief")
	for _, a := range []struct {
		path string
		form url.Values
		want string
	}{
		{"/calls/C2/hangup", url.Values{"reason": {"stuck"}}, "call.hangup"},
		{"/agents/1003/pause", url.Values{"reason": {"meeting"}}, "agent.pause"},
		{"/agents/1003/logout", url.Values{}, "agent.logout"},
	} {
		before := len(b.world.logged())
		resp, _ := do("POST", a.path, a.form)
		if resp.StatusCode != 303 || len(b.world.logged()) != before+1 {
			t.Fatalf("%s: %d, %d acts", a.path, resp.StatusCode, len(b.world.logged()))
		}
		got := b.world.logged()[before]
		if got.what != a.want || got.by != "chief" || got.detail["source"] != "127.0.0.1" || got.detail["reason"] != a.form.Get("reason") {
			t.Errorf("%s: %+v", a.path, got)
		}
	}
	if !slices.Equal(b.world.done(), []string{"hangup C2"}) {
		t.Errorf("did %v", b.world.done())
	}
	if resp, _ := do("POST", "/calls/C2/hangup", url.Values{"reason": {"because"}}); resp.StatusCode != 422 {
		t.Errorf("a reason of one's own: %d", resp.StatusCode)
	}
	b.world.change(func() { b.world.auditErr = http.ErrServerClosed })
	if resp, _ := do("POST", "/calls/C2/hangup", url.Values{"reason": {"stuck"}}); resp.StatusCode != 503 || len(b.world.done()) != 1 {
		t.Errorf("without a log: %d, did %v", resp.StatusCode, b.world.done())
	}
}

// The page after an act shows what was said, and only our own texts.
func TestSaid(t *testing.T) {
	b := newBench(t, noon)
	do := b.as("chief")
	resp, _ := do("POST", "/agents/1003/pause", url.Values{"reason": {"meal"}})
	if _, page := do("GET", resp.Header.Get("Location"), nil); !strings.Contains(page, "已设为小休") {
		t.Error("the act is not told")
	}
	for _, said := range []string{"<b>", "login.title", "said"} {
		if _, page := do("GET", "/live?said="+url.QueryEscape(said), nil); strings.Contains(page, `class="flash`) {
			t.Errorf("%q is shown", said)
		}
	}
	resp, line := do("POST", "/agents/1003/pause", url.Values{"reason": {"meal"}}, "HX-Request", "true")
	if resp.StatusCode != 200 || strings.Contains(line, "<html") || !strings.Contains(line, "flash") {
		t.Errorf("htmx got %d %q", resp.StatusCode, line)
	}
}

func TestBodyIsBounded(t *testing.T) {
	b := newBench(t, noon)
	resp, _ := b.as("1001")("POST", "/agent/calls/C2/facts", url.Values{"note": {strings.Repeat("x", maxBody)}})
	if resp.StatusCode != 422 {
		t.Errorf("%d", resp.StatusCode)
	}
}

func TestConfig(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{}.Validate()
	for _, want := range []string{"streams: ", "heartbeat: ", "refresh: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %s in %v", want, err)
		}
	}
	if _, err := New(Config{}, Deps{}, nil, nil); err == nil {
		t.Error("made with a bad configuration")
	}
}
