package console

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// api sends JSON with a person's token.
func (b *bench) api(person, method, path, body string) (int, string) {
	b.t.Helper()
	b.as(person)
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.srv.URL+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Authorization", "bearer api-token-"+person)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode, readAll(b.t, resp)
}

func TestAPI(t *testing.T) {
	b := newBench(t, noon)
	cases := []struct {
		person, method, path, body string
		status                     int
		want                       string
	}{
		{"chief", "GET", "/calls", "", 200, `"call_id":"C2"`},
		{"1001", "GET", "/calls", "", 403, `"status":403`},
		{"chief", "GET", "/calls/OLD", "", 200, `"caller":"138****5678"`},
		{"chief", "GET", "/calls/NONE", "", 404, `no such live call`},
		{"1001", "GET", "/calls/C2", "", 200, `"kind":"digit"`},
		{"1002", "GET", "/calls/C2", "", 403, `another agent`},
		{"1001", "GET", "/queues", "", 200, `"waiting":1`},
		{"chief", "GET", "/agents", "", 200, `"state":"talk"`},
		{"chief", "GET", "/trunks", "", 200, `"up":false`},
		{"1001", "PUT", "/calls/C2/facts", `{"outcome":"silent"}`, 204, ""},
		{"1001", "PUT", "/calls/C2/facts", `{"requests":[{"id":"FOREIGN","kind":"report","summary":"x","mark":-5}]}`, 204, ""},
		{"1001", "PUT", "/calls/C2/facts", `{"feedback":true}`, 422, "contact, name"},
		{"1001", "PUT", "/calls/C2/facts", `{"outcom":"silent"}`, 422, "unknown field"},
		{"1001", "PUT", "/calls/C2/facts", `{} {}`, 422, "more than one"},
		{"1002", "PUT", "/calls/C2/facts", `{}`, 404, ""},
		{"1001", "POST", "/calls/C2/emergency", `{"service":"119"}`, 204, ""},
		{"1001", "POST", "/calls/C2/emergency", `{"service":"1"}`, 422, ""},
		{"1001", "POST", "/calls/C2/done", ``, 204, ""},
		{"1001", "POST", "/calls/C2/hangup", `{}`, 204, ""},
		{"1001", "POST", "/calls/C3/hangup", `{"reason":"stuck"}`, 403, ""},
		{"chief", "POST", "/calls/C3/hangup", `{"reason":"stuck"}`, 204, ""},
		{"chief", "POST", "/calls/C3/hangup", `{}`, 422, ""},
		{"audit", "POST", "/calls/C3/hangup", `{"reason":"stuck"}`, 403, ""},
		{"1002", "POST", "/agents/1002/ready", ``, 204, ""},
		{"1002", "POST", "/agents/1001/ready", ``, 403, ""},
		{"1002", "POST", "/agents/1002/pause", `{"reason":"meal"}`, 204, ""},
		{"1002", "POST", "/agents/1002/pause", `{"reason":"whim"}`, 422, ""},
		{"1002", "POST", "/agents/1001/pause", `{"reason":"meal"}`, 403, ""},
		{"chief", "POST", "/agents/1001/pause", `{"reason":"meal"}`, 204, ""},
		{"chief", "POST", "/agents/1001/logout", ``, 204, ""},
		{"1002", "POST", "/agents/1001/logout", ``, 403, ""},
		{"1002", "POST", "/agents/1002/logout", ``, 204, ""},
		{"1002", "POST", "/agents/1002/login", `{"extension":"8002"}`, 204, ""},
		{"1002", "POST", "/agents/1002/login", `{"extension":"x"}`, 422, ""},
		{"1002", "POST", "/agents/1001/login", `{"extension":"8002"}`, 403, ""},
	}
	for _, tc := range cases {
		status, out := b.api(tc.person, tc.method, "/api/v1"+tc.path, tc.body)
		if status != tc.status || !strings.Contains(out, tc.want) {
			t.Errorf("%s %s %s %s: %d %s", tc.person, tc.method, tc.path, tc.body, status, out)
		}
	}
	if r := b.world.Views()[0].Facts.Requests[0]; r.ID != "R1" || r.Mark != 0 { // a new one's identity
		t.Errorf("another call's request was taken over: %+v", r)
	}
	var acts []string
	for _, a := range b.world.logged() {
		acts = append(acts, a.by+" "+a.what+" "+a.on)
	}
	if d := cmp.Diff([]string{"chief call.hangup C3", "chief agent.pause 1001", "chief agent.logout 1001"}, acts); d != "" {
		t.Error(d)
	}
}

// The API takes tokens alone: a page's cookie is no way in, nor a token a way to the pages.
func TestAPITokens(t *testing.T) {
	b := newBench(t, noon)
	do := b.as("chief")
	resp, out := do("GET", "/api/v1/calls", nil)
	if resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") == "" || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("by cookie: %d %s", resp.StatusCode, out)
	}
	if resp, _ := b.request("GET", "/live", nil, "Authorization", "Bearer api-token-chief"); resp.StatusCode != 303 {
		t.Errorf("a page by token: %d", resp.StatusCode)
	}
	for _, h := range []string{"", "Basic api-token-chief", "api-token-chief", "Bearer token-chief", "Bearer x"} {
		if resp, _ := b.request("GET", "/api/v1/calls", nil, "Authorization", h); resp.StatusCode != 401 {
			t.Errorf("%q: %d", h, resp.StatusCode)
		}
	}
	if resp, out := b.request("GET", "/api/v1/calls", nil, "Authorization", "Bearer api-broken"); resp.StatusCode != 500 || strings.Contains(out, "disk") {
		t.Errorf("without the staff: %d %s", resp.StatusCode, out)
	}
	if resp, _ := b.request("GET", "/live", nil, "Cookie", sessionCookie+"=broken"); resp.StatusCode != 500 {
		t.Errorf("a page without the staff: %d", resp.StatusCode)
	}
}

// The document has each route of the API and no other, and its references lead somewhere.
func TestOpenAPI(t *testing.T) {
	b := newBench(t, noon)
	_, out := b.request("GET", "/api/v1/openapi.json", nil)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Parameters  []struct{ Name string }
			Security    []map[string][]string
			RequestBody json.RawMessage
			Responses   map[string]json.RawMessage
		}
		Components struct{ Responses, Schemas map[string]json.RawMessage }
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || doc.Components.Responses["Problem"] == nil || doc.Components.Schemas["Problem"] == nil {
		t.Errorf("%s, %v", doc.OpenAPI, doc.Components)
	}
	ids, want := map[string]bool{}, 0
	for _, r := range b.c.routes {
		if strings.HasPrefix(r.path, "/api/") != (r.op != nil) {
			t.Errorf("%s %s: an API route has an operation, and only it", r.method, r.path)
		}
		if r.op == nil {
			continue
		}
		want++
		o, ok := doc.Paths[r.path][strings.ToLower(r.method)]
		if !ok || ids[o.OperationID] {
			t.Errorf("%s %s is missing or twice", r.method, r.path)
		}
		ids[o.OperationID] = true
		if len(o.Parameters) != strings.Count(r.path, "{")+len(r.op.flags) || (r.op.in != nil) != (o.RequestBody != nil) || o.Responses["default"] == nil {
			t.Errorf("%s %s: %+v", r.method, r.path, o)
		}
		if open := r.roles == nil; open != (len(o.Security) == 0) {
			t.Errorf("%s %s: security %v", r.method, r.path, o.Security)
		}
	}
	got := 0
	for _, methods := range doc.Paths {
		got += len(methods)
	}
	if got != want {
		t.Errorf("%d operations, %d routes", got, want)
	}
	if strings.Contains(out, "$defs") || strings.Contains(out, `"$schema"`) {
		t.Error("a schema has marks of a document of its own")
	}
	for _, field := range []string{"call_id", "in_time", "extension"} {
		if !strings.Contains(out, `"`+field+`"`) {
			t.Errorf("no field %s", field)
		}
	}
}
