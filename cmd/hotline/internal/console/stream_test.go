package console

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/session"
)

// open opens a stream and gives its lines.
func (b *bench) open(person, path string) (<-chan string, context.CancelFunc, *http.Response) {
	b.t.Helper()
	s, err := w2{b.world}.Login(b.t.Context(), person, "secret-"+person, "")
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", b.srv.URL+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	r.AddCookie(&http.Cookie{Name: sessionCookie, Value: s.Token})
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	lines, done := make(chan string, 4096), make(chan struct{})
	go func() {
		defer close(done)
		defer close(lines)
		defer resp.Body.Close()
		in := bufio.NewScanner(resp.Body)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			lines <- in.Text()
		}
	}()
	b.t.Cleanup(func() { cancel(); <-done })
	return lines, cancel, resp
}

// await reads lines until one holds the text.
func await(t *testing.T, lines <-chan string, text string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("the stream ended before %q", text)
			}
			if strings.Contains(line, text) {
				return
			}
		case <-limit:
			t.Fatalf("no %q", text)
		}
	}
}

func ended(t *testing.T, lines <-chan string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case _, ok := <-lines:
			if !ok {
				return
			}
		case <-limit:
			t.Fatal("the stream goes on")
		}
	}
}

func TestLiveStream(t *testing.T) {
	b := newBench(t, time.Now(), func(c *Config) { c.Streams = 1 })
	lines, leave, resp := b.open("chief", "/live/stream")
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("type %q", got)
	}
	await(t, lines, "138****5678")
	b.world.change(func() { b.world.views[0].Caller = "199****0000" })
	await(t, lines, "199****0000")
	b.world.change(func() { b.world.queues[0].Waiting = 4711 }) // by the tick or by the change
	await(t, lines, "4711")

	// One page more than allowed is told so, and counted; room given back is used again.
	more, _, resp := b.open("chief", "/live/stream")
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d", resp.StatusCode)
	}
	ended(t, more)
	if n := testutil.ToFloat64(b.c.metrics.refused); n != 1 {
		t.Errorf("%v refused", n)
	}
	leave()
	ended(t, lines)
	eventually(t, func() bool { return testutil.ToFloat64(b.c.metrics.streams) == 0 })
	lines, _, _ = b.open("chief", "/live/stream")
	await(t, lines, "199****0000")
}

// eventually waits for what another goroutine is about to do.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-limit:
			t.Fatal("never")
		case <-time.After(time.Millisecond):
		}
	}
}

// Facts are personal: no list, page or stream for others shows them.
func TestFactsStayPrivate(t *testing.T) {
	b := newBench(t, time.Now())
	b.world.change(func() { b.world.views[0].Facts = session.Facts{Name: "张三丰", Contact: "13900001111"} })
	chief, own := b.as("chief"), b.as("1001")
	for _, path := range []string{"/live", "/calls/C2"} {
		if _, page := chief("GET", path, nil); strings.Contains(page, "张三丰") || strings.Contains(page, "13900001111") {
			t.Errorf("%s shows the facts", path)
		}
	}
	if _, page := own("GET", "/agent", nil); !strings.Contains(page, "张三丰") {
		t.Error("the agent of the call does not see them")
	}
	for _, path := range []string{"/api/v1/calls", "/api/v1/calls/C2"} {
		_, out := b.request("GET", path, nil, "Authorization", "Bearer api-token-chief")
		if !strings.Contains(out, "138****5678") || strings.Contains(out, "张三丰") {
			t.Errorf("%s: %s", path, out)
		}
	}
	b.as("1001")
	if _, out := b.request("GET", "/api/v1/calls/C2", nil, "Authorization", "Bearer api-token-1001"); !strings.Contains(out, "张三丰") {
		t.Error("the agent's program does not see them")
	}
	lines, _, _ := b.open("chief", "/live/stream")
	await(t, lines, "138****5678")
	for {
		select {
		case line := <-lines:
			if strings.Contains(line, "张三丰") {
				t.Fatal("the stream shows the facts")
			}
			continue
		default:
		}
		break
	}
}

// Who is logged out sees no more at the next heartbeat.
func TestStreamEndsWithTheSession(t *testing.T) {
	b := newBench(t, time.Now(), func(c *Config) { c.Heartbeat = time.Second })
	lines, _, _ := b.open("chief", "/live/stream")
	await(t, lines, "138****5678")
	await(t, lines, ": beat")
	if err := (w2{b.world}).Logout(t.Context(), "token-chief"); err != nil {
		t.Fatal(err)
	}
	ended(t, lines)
}

// A call that comes or goes is an event; other changes are not.
func TestAgentStream(t *testing.T) {
	b := newBench(t, time.Now())
	lines, _, _ := b.open("1002", "/agent/stream")
	await(t, lines, "event: call-changed")
	b.world.change(func() { b.world.views[1].Agent, b.world.views[1].Stage = "1002", session.StageRing })
	await(t, lines, "139****0021")
	await(t, lines, "event: call-changed")
	b.world.change(func() { b.world.views[1].Stage = session.StageTalk })
	await(t, lines, "s-talk")
	b.world.change(func() { b.world.views[1].Agent = "" })
	await(t, lines, "event: call-changed")
}

// The console's end ends its streams, so that the server's can.
func TestRunEnds(t *testing.T) {
	w := newWorld(time.Now())
	c := testConsole(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	pictures, _, err := c.feed.join()
	if err != nil {
		t.Fatal(err)
	}
	<-pictures
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, open := <-pictures; open {
		<-pictures
	}
	if _, _, err := c.feed.join(); err == nil {
		t.Error("joined a feed that ended")
	}
	if n := len(w.watchers); n != 0 {
		t.Errorf("%d watchers are left", n)
	}
}

// A part that does not answer is a warning, and the rest is shown.
func TestSnapshotWithoutStore(t *testing.T) {
	w := newWorld(noon)
	w.away = context.DeadlineExceeded
	s := testConsole(t, w).snapshot(t.Context())
	if len(s.Calls) != 6 || len(s.Warnings) != 6 {
		t.Errorf("%d calls, warnings %v", len(s.Calls), s.Warnings)
	}
}
