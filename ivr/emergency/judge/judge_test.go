package judge

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/ivr/emergency"
)

// court is an endpoint that answers as the test says.
func court(t *testing.T, answer http.HandlerFunc) *Judge {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	cfg := Defaults()
	cfg.URL, cfg.Model, cfg.AtOnce = s.URL+"/v1", "m", 1
	cfg.KeyFile = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(cfg.KeyFile, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	j, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

func says(content string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"choices": []any{map[string]any{"message": map[string]string{"role": "assistant", "content": content}}}})
	}
}

func raw(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

// hang answers never. The body is read, since a server notices only then that the other side has left.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

var (
	unsure = emergency.Verdict{Danger: 0.3}
	ask    = emergency.Verdict{Action: emergency.Confirm, Service: session.Fire, Danger: 0.6}
)

func TestReview(t *testing.T) {
	const yes, no = `{"danger":true,"service":"120"}`, `{"danger":false,"service":"none"}`
	ruled, firm, sure, calm := ask, ask, ask, unsure
	ruled.Rules, firm.Firm, sure.Action, calm.Danger = true, true, emergency.Transfer, 0.01
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		in     emergency.Verdict
		want   emergency.Action
		result string // empty: not asked
	}{
		"raises":               {says(yes), unsure, emergency.Confirm, raised},
		"lowers":               {says(no), ask, emergency.None, lowered},
		"agrees to ask":        {says(yes), ask, emergency.Confirm, agreed},
		"agrees to nothing":    {says(no), unsure, emergency.None, agreed},
		"not against rules":    {says(no), ruled, emergency.Confirm, ""},
		"not against a caller": {says(no), firm, emergency.Confirm, ""},
		"not against transfer": {says(no), sure, emergency.Transfer, ""},
		"not of calm words":    {says(yes), calm, emergency.None, ""},
		"error":                {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, ask, emergency.Confirm, away},
		"redirect":             {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", 302) }, ask, emergency.Confirm, away},
		"cut off":              {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ask, emergency.Confirm, away},
		"slow":                 {hang, ask, emergency.Confirm, slow},
		"no JSON":              {raw("<html>"), ask, emergency.Confirm, garbled},
		"no choice":            {raw(`{"choices":[]}`), ask, emergency.Confirm, garbled},
		"endless":              {raw(strings.Repeat("x", 1<<20)), ask, emergency.Confirm, garbled},
		"prose":                {says("I think it is fine"), ask, emergency.Confirm, garbled},
		"prose after":          {says(no + " because"), ask, emergency.Confirm, garbled},
		"two answers":          {says(no + yes), ask, emergency.Confirm, garbled},
		"another field":        {says(`{"danger":false,"service":"none","transfer":true}`), ask, emergency.Confirm, garbled},
		"no danger field":      {says(`{"service":"none"}`), ask, emergency.Confirm, garbled},
		"danger as text":       {says(`{"danger":"no","service":"none"}`), ask, emergency.Confirm, garbled},
		"service unknown":      {says(`{"danger":true,"service":"911"}`), unsure, emergency.None, garbled},
		"danger for nobody":    {says(`{"danger":true,"service":"none"}`), unsure, emergency.None, garbled},
		"empty":                {says(""), ask, emergency.Confirm, garbled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := court(t, tt.answer)
			if got := j.Review(t.Context(), "厨房有味道", tt.in); got.Action != tt.want {
				t.Errorf("%v; want %v", got.Action, tt.want)
			}
			for _, r := range []string{raised, lowered, agreed, slow, away, garbled, busy} {
				want := 0.0
				if r == tt.result {
					want = 1
				}
				if got := testutil.ToFloat64(j.asked.WithLabelValues(r)); got != want {
					t.Errorf("%s is %v; want %v", r, got, want)
				}
			}
		})
	}
}

func TestQuestion(t *testing.T) {
	var got, key, path string
	j := court(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, key, path = string(b), r.Header.Get("Authorization"), r.URL.Path
		says(`{"danger":true,"service":"110"}`)(w, r)
	})
	v := j.Review(t.Context(), "打110 我电话13800138000 门牌一三零五零六", unsure)
	if v.Service != session.Police || key != "Bearer secret" || path != "/v1/chat/completions" {
		t.Errorf("%s, %s, %s", v.Service, key, path)
	}
	if strings.Contains(got, "13800138000") || strings.Contains(got, "一三零五") || !strings.Contains(got, "打110") || !strings.Contains(got, "json_object") {
		t.Errorf("the endpoint got %s", got)
	}
}

func TestBusy(t *testing.T) {
	arrived, leave := make(chan struct{}), make(chan struct{})
	j := court(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-leave
		says(`{"danger":false,"service":"none"}`)(w, r)
	})
	first := make(chan emergency.Verdict)
	go func() { first <- j.Review(t.Context(), "厨房有味道", ask) }()
	<-arrived
	if v := j.Review(t.Context(), "厨房有味道", ask); v.Action != emergency.Confirm || testutil.ToFloat64(j.asked.WithLabelValues(busy)) != 1 {
		t.Errorf("%v of a second question", v.Action)
	}
	close(leave)
	<-first
}

func TestValidate(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{URL: "ftp://x", Timeout: time.Minute, Least: 2, AtOnce: 0}.Validate()
	for _, key := range []string{"url", "model", "timeout", "least", "at_once"} {
		if want := fmt.Sprintf("emergency.judge.%s: ", key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in %v", want, err)
		}
	}
	cfg := Defaults()
	cfg.URL, cfg.KeyFile = "http://10.0.0.5/v1", filepath.Join(t.TempDir(), "absent")
	if _, err := New(cfg, nil); err == nil {
		t.Error("a key file that is absent is no error")
	}
}
