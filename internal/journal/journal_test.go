package journal

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/hotline12345/gateway/internal/call"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is the tests' time. It is recent, for Run sweeps what is old.
var noon = time.Now().UTC().Truncate(24 * time.Hour)

func testDeps() Deps {
	return Deps{Seal: func(n call.Number) ([]byte, error) { return []byte("sealed:" + n.E164[len(n.E164)-2:]), nil }}
}

// open opens a journal and runs it; stop ends it and flushes.
func opened(t *testing.T, change func(*Config, *Deps)) (j *Journal, stop func()) {
	t.Helper()
	cfg, deps := Defaults(), testDeps()
	cfg.Path = filepath.Join(t.TempDir(), "a dir", "journal #1?.db")
	cfg.Patience = time.Minute // a busy machine is no slow disk
	if change != nil {
		change(&cfg, &deps)
	}
	j, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		stop()
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j, stop
}

func cdr(id string, at time.Time) CDR {
	return CDR{CallID: id, Trunk: "loopback", Caller: call.Number{E164: "+8613800005678"}, Called: "12345", Started: at,
		Queue: "general", Agent: "a1", Outcome: "registered", RequestIDs: []string{id}}
}

func TestCDRsKeepNoNumber(t *testing.T) {
	j, stop := opened(t, nil)
	ctx := context.Background()
	for i := range 3 {
		if err := j.SaveCDR(ctx, cdr(fmt.Sprint("c", i), noon.Add(time.Duration(i)*time.Minute))); err != nil {
			t.Fatal(err)
		}
	}
	c := cdr("c1", noon.Add(time.Minute))
	c.Outcome = "consultation" // in place of the first
	if err := j.SaveCDR(ctx, c); err != nil {
		t.Fatal(err)
	}
	got, err := j.Call(ctx, "c1")
	if err != nil {
		t.Fatal(err)
	}
	want := Row{CDR: c, Masked: "138****5678", Sealed: []byte("sealed:78")}
	want.Caller = call.Number{}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := j.Call(ctx, "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unknown call: %v", err)
	}
	for _, tc := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "c2 c1 c0"},
		{Filter{Limit: 2}, "c2 c1"},
		{Filter{To: noon.Add(2 * time.Minute)}, "c1 c0"},
		{Filter{From: noon.Add(time.Minute)}, "c2 c1"},
		{Filter{Outcome: "registered", Agent: "a1", Queue: "general", Trunk: "loopback"}, "c2 c0"},
		{Filter{Agent: "a2"}, ""},
	} {
		rows, err := j.CDRs(ctx, tc.f)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, r := range rows {
			ids = append(ids, r.CallID)
		}
		if got := strings.Join(ids, " "); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.f, got, tc.want)
		}
	}
	stop()
	files, err := filepath.Glob(filepath.Join(filepath.Dir(j.cfg.Path), "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || bytes.Contains(b, []byte("13800005678")) {
			t.Errorf("%s holds the number, or: %v", f, err)
		}
	}
}

func TestTimelineIsOrderedBoundedAndFlushedAtTheEnd(t *testing.T) {
	j, stop := opened(t, nil)
	long := strings.Repeat("字", maxText)
	j.Append(Entry{CallID: "c1", At: noon.Add(time.Second), Kind: "digit", Text: "key 0"})
	j.Append(Entry{CallID: "c1", At: noon, Kind: "sip", Text: long, Attrs: map[string]string{"method": "INVITE"}})
	j.Append(Entry{CallID: "c1", At: noon.Add(time.Minute), Kind: "sip", Attrs: map[string]string{"body": long}})
	j.Append(Entry{CallID: "c2", At: noon, Kind: "stage"})
	stop() // writes what waits
	got, err := j.Timeline(context.Background(), "c1")
	if err != nil || len(got) != 3 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	if got[0].Kind != "sip" || got[0].Attrs["method"] != "INVITE" || got[1].Text != "key 0" || !got[0].At.Equal(noon) {
		t.Errorf("%+v", got[:2])
	}
	if n := len(got[0].Text); n > maxText || n < maxText-6 || !strings.HasSuffix(got[0].Text, "字…") {
		t.Errorf("a text of %d bytes is kept", n)
	}
	if got[2].Attrs["attrs"] != "too long" {
		t.Error("attributes without a bound are kept")
	}
	j.Append(Entry{CallID: "c1"})
	if n := testutil.ToFloat64(j.met.dropped); n != 1 {
		t.Errorf("%v entries after the end are counted as dropped", n)
	}
	if err := j.SaveCDR(context.Background(), cdr("late", noon)); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestCheckpoints(t *testing.T) {
	var closed []string
	j, _ := opened(t, func(_ *Config, d *Deps) { d.Closed = func(id string) { closed = append(closed, id) } })
	ctx := context.Background()
	a := call.Checkpoint{CallID: "a", Stage: "queue", At: noon.Add(time.Second)}
	b := call.Checkpoint{CallID: "b", Stage: "flow", At: noon}
	for _, c := range []call.Checkpoint{a, b, a} {
		if err := j.SaveCheckpoint(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	got, err := j.Checkpoints(ctx)
	if d := cmp.Diff([]call.Checkpoint{b, a}, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if err := j.DropCheckpoint(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if got, err = j.Checkpoints(ctx); err != nil || len(got) != 1 || got[0].CallID != "b" {
		t.Errorf("%+v, %v", got, err)
	}
	if d := cmp.Diff([]string{"a"}, closed); d != "" {
		t.Error(d)
	}
}

func TestLoadAt(t *testing.T) {
	j, _ := opened(t, nil)
	ctx := context.Background()
	for i := range 3 {
		if err := j.SaveLoad(LoadSample{At: noon.Add(time.Duration(i) * 10 * time.Second), Queue: "general", Waiting: i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.SaveCheckpoint(ctx, call.Checkpoint{CallID: "barrier"}); err != nil {
		t.Fatal(err)
	}
	s, err := j.LoadAt(ctx, "general", noon.Add(19*time.Second))
	if err != nil || s.Waiting != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := j.LoadAt(ctx, "general", noon.Add(-time.Second)); !errors.Is(err, ErrNotFound) {
		t.Errorf("before the first: %v", err)
	}
	if all, err := j.Load(ctx, "general", noon, noon.Add(20*time.Second)); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestSweep(t *testing.T) {
	j, _ := opened(t, func(c *Config, _ *Deps) { c.Retention, c.LoadRetention = 48*time.Hour, 96*time.Hour })
	ctx := context.Background()
	for i := range sweepRows + 50 {
		j.Append(Entry{CallID: "old", At: noon.Add(time.Duration(i)), Text: "x"})
	}
	j.Append(Entry{CallID: "new", At: noon.Add(47 * time.Hour)})
	for id, at := range map[string]time.Time{"old": noon, "new": noon.Add(47 * time.Hour)} {
		if err := errors.Join(j.SaveCDR(ctx, cdr(id, at)), j.SaveLoad(LoadSample{Queue: "q", At: at})); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Sweep(ctx, noon.Add(49*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]int{"old": 0, "new": 1} {
		entries, err := j.Timeline(ctx, id)
		if err != nil || len(entries) != want {
			t.Errorf("%s: %d entries, %v", id, len(entries), err)
		}
		if _, err := j.Call(ctx, id); (err == nil) != (want == 1) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := j.LoadAt(ctx, "q", noon); err != nil {
		t.Errorf("a load sample is deleted before its time: %v", err)
	}
}

// lock holds the file as a program that misbehaves would.
func lock(t *testing.T, j *Journal) (release func()) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+strings.NewReplacer(" ", "%20", "#", "%23", "?", "%3F").Replace(j.cfg.Path)+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := conn.ExecContext(context.Background(), "ROLLBACK"); err != nil {
			t.Error(err)
		}
		if err := errors.Join(conn.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestLockedFileHoldsNoCall(t *testing.T) {
	j, stop := opened(t, func(c *Config, _ *Deps) { c.Patience, c.Buffer = 200*time.Millisecond, 64 })
	release := lock(t, j)
	if err := j.SaveCDR(context.Background(), cdr("c1", noon)); !errors.Is(err, ErrSlow) {
		t.Errorf("a locked file: %v", err)
	}
	for range 1000 {
		j.Append(Entry{CallID: "c1"})
	}
	if err := j.SaveCDR(context.Background(), cdr("c2", noon)); !errors.Is(err, ErrFull) {
		t.Errorf("a full buffer: %v", err)
	}
	if n := testutil.ToFloat64(j.met.dropped); n < 400 {
		t.Errorf("%v of 1000 entries are counted as dropped", n)
	}
	if _, err := j.CDRs(context.Background(), Filter{}); err != nil {
		t.Errorf("a reader waits for the writer: %v", err)
	}
	release()
	stop()
	if _, err := j.Call(context.Background(), "c1"); err != nil {
		t.Errorf("what was slow was not written: %v", err)
	}
}

func TestFullDiskIsCountedAndCallsGoOn(t *testing.T) {
	j, _ := opened(t, nil)
	if _, err := j.w.Exec("PRAGMA max_page_count = 20"); err != nil { // SQLITE_FULL beyond 80 KB
		t.Fatal(err)
	}
	var err error
	for i := 0; err == nil && i < 100; i++ {
		c := cdr(fmt.Sprint(i), noon)
		c.EndReason = strings.Repeat("x", 4000)
		err = j.SaveCDR(context.Background(), c)
	}
	if err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("a full disk: %v", err)
	}
	if n := testutil.ToFloat64(j.met.errors.WithLabelValues("cdr")); n == 0 {
		t.Error("a full disk is not counted")
	}
	if _, err := j.w.Exec("PRAGMA max_page_count = 100000"); err != nil {
		t.Fatal(err)
	}
	if err := j.SaveCDR(context.Background(), cdr("after", noon)); err != nil {
		t.Errorf("room again: %v", err)
	}
}

func TestOneBadActDoesNotTakeTheOthers(t *testing.T) {
	j, _ := opened(t, nil)
	bad := act{kind: "load", do: func(context.Context, *sql.Tx) error { return errors.New("bad") }}
	j.Append(Entry{CallID: "c1", At: noon, Text: "before"})
	if err := j.push(bad); err != nil {
		t.Fatal(err)
	}
	if err := j.push(act{kind: "load", do: func(context.Context, *sql.Tx) error { panic("worse") }}); err != nil {
		t.Fatal(err)
	}
	j.Append(Entry{CallID: "c1", At: noon, Text: "after"})
	if err := j.SaveCDR(context.Background(), cdr("c1", noon)); err != nil {
		t.Error(err)
	}
	if got, err := j.Timeline(context.Background(), "c1"); err != nil || len(got) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestSchemaIsKeptAndALaterOneRefused(t *testing.T) {
	j, stop := opened(t, nil)
	if err := j.SaveCDR(context.Background(), cdr("c1", noon)); err != nil {
		t.Fatal(err)
	}
	stop()
	again, err := New(j.cfg, testDeps())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Call(context.Background(), "c1"); err != nil {
		t.Error(err)
	}
	if _, err := again.w.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := New(j.cfg, testDeps()); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("a later schema: %v", err)
	}
}

func TestConfigAndMetrics(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{}.Validate()
	for _, path := range []string{"path: ", "buffer: ", "patience: ", "retention: ", "load_retention: "} {
		if !strings.Contains(err.Error(), path) {
			t.Errorf("%q is missing in %v", path, err)
		}
	}
	reg := prometheus.NewPedanticRegistry()
	newMetrics(reg)
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
