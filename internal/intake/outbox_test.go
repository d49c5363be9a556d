package intake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/hotline12345/gateway/internal/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const request = "01JNB000000000000000000REQ"

// shelf holds sealed recordings.
type shelf map[string][]byte

func (s shelf) Open(id string) (io.ReadSeekCloser, error) {
	b, ok := s[id]
	if !ok {
		return nil, os.ErrNotExist
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(b), io.NopCloser(nil)}, nil
}
func (shelf) WrappedKey(id string) ([]byte, error) { return []byte("key of " + id), nil }
func (shelf) KeyOf(sealed []byte) ([]byte, error) {
	_, id, ok := bytes.Cut(sealed, []byte("facts of "))
	if !ok {
		return nil, nil
	}
	return append([]byte("key of "), id...), nil
}

var testShelf = shelf{"REC1": bytes.Repeat([]byte("sealed audio "), 1000)}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func recorded(req string, revision int) session.HandOver {
	return session.HandOver{Type: session.RequestRecorded, RequestID: req, Revision: revision, CallID: "CALL1",
		At: time.Unix(1772416800, 0).UTC(), Facts: map[string]any{"trunk": "loopback"}, Sealed: []byte("facts of REC1"), Evidence: "recorded",
		Recording: &session.Sealed{ID: "REC1", SHA256Sealed: hash(testShelf["REC1"]), SHA256Audio: "aa", Bytes: int64(len(testShelf["REC1"])), Duration: 3 * time.Second}}
}

func urgent(req string, revision int) session.HandOver {
	return session.HandOver{Type: session.RequestUrgent, RequestID: req, Revision: revision, CallID: "CALL1",
		At: time.Unix(1772416800, 0).UTC(), Urgent: "gas leak", Evidence: "none"}
}

// told is a log that tells of every hand-over.
type told struct {
	slog.Handler
	events chan string
}

func (h told) Enabled(context.Context, slog.Level) bool { return true }
func (h told) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h told) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "handed over" {
		r.Attrs(func(a slog.Attr) bool { h.events <- a.Value.String(); return false })
	}
	return nil
}

// office is an outbox under test.
type office struct {
	*Outbox
	cfg  Config
	told chan string // the events handed over
	stop func()
}

func newOffice(t *testing.T, cfg Config) *office {
	t.Helper()
	of := &office{cfg: cfg, told: make(chan string, 100), stop: func() {}}
	o, err := New(cfg, Deps{Log: slog.New(told{slog.DiscardHandler, of.told}), Recordings: testShelf})
	if err != nil {
		t.Fatal(err)
	}
	of.Outbox = o
	return of
}

func (of *office) run(t *testing.T) *office {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- of.Run(ctx) }()
	of.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return of
}

func (of *office) submit(t *testing.T, hs ...session.HandOver) {
	t.Helper()
	for _, h := range hs {
		if err := of.Submit(context.Background(), h); err != nil {
			t.Fatal(err)
		}
	}
}

func (of *office) waiting(t *testing.T) []string {
	t.Helper()
	items, err := of.List()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, i := range items {
		ids = append(ids, i.ID)
	}
	return ids
}

func inDir(t *testing.T) Config {
	cfg := Defaults()
	cfg.Dir = t.TempDir()
	cfg.Targets[0].Dir = filepath.Join(t.TempDir(), "out")
	return cfg
}

// stub is a target that answers as told.
type stub struct {
	mu     sync.Mutex
	sent   []string
	answer func(e Event) error
}

func (s *stub) send(_ context.Context, e Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, e.key())
	if s.answer == nil {
		return nil
	}
	return s.answer(e)
}

func (s *stub) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.sent...)
}

func TestRevisionsGoInOrderAndRequestsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := newOffice(t, inDir(t))
		down := true
		s := &stub{answer: func(e Event) error {
			if down && e.RequestID == "A" {
				if e.Revision == 1 && len(of.told) == 0 {
					panic("a fault of ours")
				}
				return errors.New("down")
			}
			return nil
		}}
		of.targets[0].send = s
		of.run(t)
		defer of.stop()
		of.submit(t, urgent("A", 1), urgent("A", 2), urgent("B", 1))
		synctest.Wait()
		time.Sleep(time.Minute)
		if d := cmp.Diff([]string{"A.1", "A.2"}, of.waiting(t)); d != "" {
			t.Error(d)
		}
		s.mu.Lock()
		down = false
		s.mu.Unlock()
		time.Sleep(of.cfg.BackoffMax)
		sent := s.keys()
		if got := sent[len(sent)-2:]; !cmp.Equal(got, []string{"A.1", "A.2"}) {
			t.Errorf("at the end %v went", got)
		}
		if w := of.waiting(t); len(w) != 0 {
			t.Errorf("%v wait", w)
		}
		n := len(s.keys())
		of.submit(t, urgent("A", 2), urgent("A", 1)) // received already, and older
		time.Sleep(time.Hour)
		if len(s.keys()) != n || len(of.waiting(t)) != 0 {
			t.Error("an old revision goes again")
		}
	})
}

func TestTheDeadAreCountedAndCanBeRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := newOffice(t, inDir(t))
		up := false
		s := &stub{answer: func(e Event) error {
			if !up && e.Revision == 1 {
				return &failure{result: "refused", after: time.Minute, err: errors.New("503")}
			}
			return nil
		}}
		of.targets[0].send = s
		of.run(t)
		defer func() { of.stop() }()
		of.submit(t, urgent("A", 1), urgent("B", 1), urgent("B", 2))
		time.Sleep(25 * time.Hour)
		tries := testutil.ToFloat64(of.met.deliveries.WithLabelValues("directory", "refused"))
		if tries < 2*40 || tries > 2*120 {
			t.Errorf("%v tries in a day", tries)
		}
		dead, err := of.Dead()
		if err != nil || len(dead) != 2 || dead[0].ID != "A.1" || dead[0].Error != "503" {
			t.Fatalf("dead: %+v, %v", dead, err)
		}
		if n := testutil.ToFloat64(of.met.deliveries.WithLabelValues("directory", "dead")); n != 2 {
			t.Errorf("%v dead are counted", n)
		}
		// A restart keeps the dead.
		of.stop()
		of = newOffice(t, of.cfg)
		of.targets[0].send = s
		of.run(t)
		if _, dead, _ := of.targets[0].state(time.Now()); dead != 2 {
			t.Errorf("after a restart %d are dead", dead)
		}
		s.mu.Lock()
		up = true
		s.mu.Unlock()
		if err := of.Retry("B.1"); !errors.Is(err, ErrSuperseded) {
			t.Errorf("B.2 was received, and B.1 is retried: %v", err)
		}
		if err := of.Retry("../A.1"); err != nil {
			t.Errorf("retry: %v", err)
		}
		if err := of.Retry("C.1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("an unknown event: %v", err)
		}
		synctest.Wait()
		if sent := s.keys(); sent[len(sent)-1] != "A.1" || len(of.waiting(t)) != 0 {
			t.Errorf("last went %s; waiting %v", sent[len(sent)-1], of.waiting(t))
		}
	})
}

func TestSpoolOutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := newOffice(t, inDir(t))
		of.submit(t, recorded("A", 2), urgent("A", 1), recorded("A", 2))
		if d := cmp.Diff([]string{"A.1", "A.2"}, sorted(of.waiting(t))); d != "" {
			t.Error(d)
		}
		junk := filepath.Join(of.cfg.Dir, "spool", "directory", "junk.1.json")
		if err := os.WriteFile(junk, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		next := newOffice(t, of.cfg)
		s := &stub{}
		next.targets[0].send = s
		next.run(t)
		synctest.Wait()
		next.stop()
		if d := cmp.Diff([]string{"A.1", "A.2"}, s.keys()); d != "" {
			t.Error(d)
		}
		if _, err := os.Stat(junk + ".broken"); err != nil {
			t.Errorf("what does not read is not set aside: %v", err)
		}
	})
}

func sorted(s []string) []string {
	if len(s) == 2 && s[0] > s[1] {
		s[0], s[1] = s[1], s[0]
	}
	return s
}

func TestKillBetweenReceiptAndRemovalSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := newOffice(t, inDir(t))
		of.submit(t, urgent("A", 1))
		e, err := newEvent(urgent("A", 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := putJSON(filepath.Join(of.targets[0].files.receipts, "A.json"), receipt{Revision: 1}); err != nil {
			t.Fatal(err)
		}
		next := newOffice(t, of.cfg)
		s := &stub{}
		next.targets[0].send = s
		next.run(t)
		synctest.Wait()
		next.stop()
		if len(s.keys()) != 0 || len(next.waiting(t)) != 0 {
			t.Errorf("%s was received, and %v went, %v waits", e.key(), s.keys(), next.waiting(t))
		}
	})
}

func TestBounds(t *testing.T) {
	cfg := inDir(t)
	cfg.MaxSpool, cfg.MaxEvent = 2, 1024
	of := newOffice(t, cfg)
	of.submit(t, urgent("A", 1), urgent("B", 1), urgent("B", 1))
	ctx := context.Background()
	if err := of.Submit(ctx, urgent("C", 1)); !errors.Is(err, ErrFull) {
		t.Errorf("a full spool: %v", err)
	}
	big := urgent("A", 2)
	big.Facts = map[string]any{"text": strings.Repeat("x", 2000)}
	if err := of.Submit(ctx, big); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large event: %v", err)
	}
	odd := recorded("A", 3)
	odd.Recording.ID = "../../etc"
	for _, h := range []session.HandOver{urgent("../A", 1), urgent("", 1), urgent("A", 0), odd, {Facts: map[string]any{"f": func() {}}, RequestID: "A", Revision: 9}} {
		if err := of.Submit(ctx, h); !errors.Is(err, ErrEvent) {
			t.Errorf("%q.%d: %v", h.RequestID, h.Revision, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := of.Submit(ended, urgent("A", 4)); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

func TestDirectoryTarget(t *testing.T) {
	of := newOffice(t, inDir(t)).run(t)
	of.submit(t, recorded(request, 2))
	if got := <-of.told; got != request+".2" {
		t.Errorf("%s was handed over", got)
	}
	of.stop()
	out := of.cfg.Targets[0].Dir
	sealed, err := os.ReadFile(filepath.Join(out, "REC1.hlr"))
	if err != nil || !bytes.Equal(sealed, testShelf["REC1"]) {
		t.Errorf("the sealed recording: %d bytes, %v", len(sealed), err)
	}
	b, err := os.ReadFile(filepath.Join(out, request+".2.json"))
	if err != nil {
		t.Fatal(err)
	}
	e := parse(t, b)
	if e.Recording.File != "REC1.hlr" || e.Recording.Seconds != 3 || string(e.WrappedKey) != "key of REC1" || e.Evidence != "recorded" {
		t.Errorf("%+v, %+v", e, e.Recording)
	}
	spooled, err := filepath.Glob(filepath.Join(of.cfg.Dir, "*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range spooled {
		if b, err := os.ReadFile(name); err != nil || bytes.Contains(b, []byte("wrapped_key")) {
			t.Errorf("%s holds the key, or: %v", name, err)
		}
	}
}

func TestDirectoryTargetRefusesAnotherRecording(t *testing.T) {
	of := newOffice(t, inDir(t))
	h := recorded(request, 1)
	h.Recording.SHA256Sealed = strings.Repeat("0", 64)
	e, err := newEvent(h)
	if err != nil {
		t.Fatal(err)
	}
	var f *failure
	if err := of.targets[0].send.send(context.Background(), e); !errors.As(err, &f) || f.result != "mismatch" {
		t.Errorf("%v", err)
	}
	if names, err := filepath.Glob(filepath.Join(of.cfg.Targets[0].Dir, "*")); err != nil || len(names) != 0 {
		t.Errorf("%v lie there, %v", names, err)
	}
}

func TestConfig(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	c := Defaults()
	c.Targets = []Target{
		{Name: "A b", Kind: "ftp", Timeout: time.Millisecond, Parallel: 99, Networks: []string{"10.0.0.0/33"}},
		{Name: "w", Kind: Webhook, URL: "http://intake.example/x", Networks: []string{"127.0.0.0/8", "10.0.0.0/8"}},
		{Name: "w", Kind: Webhook, URL: "ftp://x/", SecretFile: "s"},
		{Name: "d", Kind: Directory},
		{Name: "u", Kind: Webhook, URL: "https://user:pw@x/", SecretFile: "s"},
		{Name: "f", Kind: Directory, Dir: "x"},
	}
	c.Dir, c.Source, c.AudioURL, c.GrantFor, c.BackoffMin, c.MaxSpool, c.MaxEvent = "", "", "x", 0, 0, 0, 0
	err := c.Validate()
	for _, path := range []string{"dir: ", "source: ", "targets: ", "audio_url: ", "grant_for: ", "backoff_min: ", "max_spool: ", "max_event: ",
		"targets[0].name: ", "targets[0].kind: ", "targets[0].timeout: ", "targets[0].parallel: ", `targets[0].networks: "10.0.0.0/33"`,
		"targets[1].url: ", "targets[1].secret_file: ", "targets[2].url: ", "targets[2].name: ", "targets[3].dir: ", "targets[4].url: "} {
		if !strings.Contains(err.Error(), "\n"+path) && !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%q is missing in\n%v", path, err)
		}
	}
}

func TestMetrics(t *testing.T) {
	of := newOffice(t, inDir(t))
	of.submit(t, urgent("A", 1))
	reg := prometheus.NewPedanticRegistry()
	newMetrics(reg, of.targets)
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	want := "# HELP hotline_intake_spool Events that wait to be delivered.\n# TYPE hotline_intake_spool gauge\nhotline_intake_spool{target=\"directory\"} 1\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "hotline_intake_spool"); err != nil {
		t.Error(err)
	}
}

func TestBackoffGrowsToItsBound(t *testing.T) {
	of := newOffice(t, inDir(t))
	for n, most := range map[int]time.Duration{1: 2 * time.Second, 3: 8 * time.Second, 12: 30 * time.Minute, 500: 30 * time.Minute} {
		for range 100 {
			if d := of.targets[0].backoff(n); d < most/2 || d > most {
				t.Errorf("after %d tries: %v", n, d)
			}
		}
	}
}
