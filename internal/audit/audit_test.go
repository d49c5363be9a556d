package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func open(t *testing.T, dir string, c *clock) *Log {
	t.Helper()
	l, err := Open(Defaults(), dir, "n1", c.now, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func add(t *testing.T, l *Log, act string) Receipt {
	t.Helper()
	r, err := l.Append(t.Context(), Entry{Actor: "cli", Act: act, Detail: map[string]string{"why": "test"}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func acts(t *testing.T, dir string) []string {
	t.Helper()
	var got []string
	for rec, err := range Records(dir, "n1") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, rec.Act)
	}
	return got
}

func TestAppendSurvivesReopenAndDayAndSize(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	l := open(t, dir, c)
	add(t, l, "a")
	add(t, l, "b")
	l.Close()
	l = open(t, dir, c)
	add(t, l, "c")
	c.at = noon.Add(24 * time.Hour) // a new day, a new file
	add(t, l, "d")
	l.cfg.MaxBytes = l.size + 1 // and a full one
	head := add(t, l, "e")

	if got := acts(t, dir); !cmp.Equal(got, []string{"a", "b", "c", "d", "e"}) {
		t.Errorf("acts %v", got)
	}
	files, _ := chainFiles(dir, "n1")
	if len(files) != 3 {
		t.Errorf("files %v, want 3", files)
	}
	heads, err := Verify(dir, head)
	if err != nil || !cmp.Equal(heads, []Receipt{head}) || l.Head() != head {
		t.Errorf("Verify = %v, %v; want head %v", heads, err, head)
	}
	if l.Dir() != dir || l.Node() != "n1" {
		t.Errorf("chain of %q in %q", l.Node(), l.Dir())
	}
}

func TestVerifyNamesTheBrokenLine(t *testing.T) {
	for name, c := range map[string]struct {
		harm func([]byte) []byte
		line int
	}{
		"a letter changed": {func(b []byte) []byte { return bytes.Replace(b, []byte(`"act":"b"`), []byte(`"act":"x"`), 1) }, 2},
		"a line removed":   {func(b []byte) []byte { return cutLines(b, 1, 2) }, 2},
		"the first removed": {func(b []byte) []byte {
			return cutLines(b, 0, 1)
		}, 1},
		"a line doubled": {func(b []byte) []byte { return append(bytes.Clone(b), cutLines(b, 0, 2)...) }, 4},
		"not JSON":       {func(b []byte) []byte { return append(bytes.Clone(b), "hello\n"...) }, 4},
		"too long":       {func(b []byte) []byte { return append(bytes.Clone(b), bytes.Repeat([]byte("x"), MaxLine+1)...) }, 4},
		"torn":           {func(b []byte) []byte { return b[:len(b)-9] }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir, &clock{noon})
			add(t, l, "a")
			add(t, l, "b")
			add(t, l, "c")
			path := chainFile(dir, "n1", 1)
			b, _ := os.ReadFile(path)
			if err := os.WriteFile(path, c.harm(b), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Verify(dir)
			broken, ok := errors.AsType[*Broken](err)
			if !ok || broken.Line != c.line || broken.File != path {
				t.Errorf("Verify = %v, want line %d", err, c.line)
			}
			if broken != nil && !strings.HasPrefix(broken.Error(), fmt.Sprintf("%s:%d: ", path, c.line)) {
				t.Errorf("error %q does not name the line", broken)
			}
		})
	}
}

func cutLines(b []byte, from, to int) []byte {
	lines := bytes.SplitAfter(b, []byte("\n"))
	return bytes.Join(append(lines[:from:from], lines[to:]...), nil)
}

func TestVerifyFindsAMissingFileAndACutEnd(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	l := open(t, dir, c)
	for range 3 {
		add(t, l, "a")
		c.at = c.at.Add(24 * time.Hour)
	}
	head := l.Head()
	l.Close()

	last := chainFile(dir, "n1", 3)
	b, _ := os.ReadFile(last)
	os.Remove(last)
	if _, err := Verify(dir); err != nil {
		t.Errorf("a cut end shows only against a kept head: %v", err)
	}
	if _, err := Verify(dir, head); err == nil || !strings.Contains(err.Error(), "entry 3") {
		t.Errorf("Verify against the head = %v", err)
	}
	os.WriteFile(last, b, 0o600)
	os.Remove(chainFile(dir, "n1", 2))
	if _, err := Verify(dir); err == nil {
		t.Error("a missing file went unseen")
	}
	if _, err := Open(Defaults(), dir, "n1", c.now, slog.New(slog.DiscardHandler), nil); err == nil {
		t.Error("a log with a missing file was opened")
	}
}

func TestOpenRepairsATornLastLine(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	l := open(t, dir, c)
	add(t, l, "a")
	add(t, l, "b")
	l.Close()
	path := chainFile(dir, "n1", 1)
	b, _ := os.ReadFile(path)

	for cut := 1; cut < 40; cut += 13 { // the second line, cut anywhere
		os.WriteFile(path, b[:len(b)-cut], 0o600)
		l = open(t, dir, c)
		add(t, l, "c")
		l.Close()
		if got := acts(t, dir); !cmp.Equal(got, []string{"a", "audit.repaired", "c"}) {
			t.Fatalf("cut %d: acts %v", cut, got)
		}
	}

	first := bytes.IndexByte(b, '\n')
	os.WriteFile(path, b[:first/2], 0o600) // the very first line was cut
	l = open(t, dir, c)
	if got := acts(t, dir); !cmp.Equal(got, []string{"audit.repaired"}) {
		t.Errorf("acts %v", got)
	}
	l.Close()

	os.WriteFile(path, bytes.Replace(b, []byte("test"), []byte("TEST"), 1), 0o600)
	if _, err := Open(Defaults(), dir, "n1", c.now, slog.New(slog.DiscardHandler), nil); err == nil {
		t.Error("a changed line was taken for a torn one")
	}
}

func TestAnEmptyNewFileAfterACrash(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	l := open(t, dir, c)
	add(t, l, "a")
	l.Close()
	os.WriteFile(chainFile(dir, "n1", 2), nil, 0o600)
	l = open(t, dir, c)
	add(t, l, "b")
	if got := acts(t, dir); !cmp.Equal(got, []string{"a", "b"}) {
		t.Errorf("acts %v", got)
	}
}

func TestConcurrentAppendsShareFsyncs(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, &clock{noon})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			if _, err := l.Append(context.Background(), Entry{Actor: "a", Act: fmt.Sprintf("act%d", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	heads, err := Verify(dir)
	if err != nil || len(heads) != 1 || heads[0].Seq != 64 {
		t.Errorf("Verify = %v, %v", heads, err)
	}
}

func TestAFailedWriteTakesNothingWithIt(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, &clock{noon})
	first := add(t, l, "a")

	good := l.file
	readOnly, err := os.Open(good.Name())
	if err != nil {
		t.Fatal(err)
	}
	l.file = readOnly // the write fails, and so does the cut
	if _, err := l.Append(t.Context(), Entry{Actor: "a", Act: "lost"}); err == nil {
		t.Fatal("a write to a read-only file succeeded")
	}
	if l.Head() != first {
		t.Errorf("head %v moved", l.Head())
	}
	l.file = good
	if _, err := l.Append(t.Context(), Entry{Actor: "a", Act: "later"}); !errors.Is(err, ErrBroken) {
		t.Errorf("append to a broken log = %v", err)
	}
	readOnly.Close()
	l.Close()
	l = open(t, dir, &clock{noon})
	add(t, l, "b")
	if got := acts(t, dir); !cmp.Equal(got, []string{"a", "b"}) {
		t.Errorf("acts %v", got)
	}
}

func TestAppendRefuses(t *testing.T) {
	l := open(t, t.TempDir(), &clock{noon})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		e    Entry
		want error
	}{
		"ended":           {ended, Entry{Actor: "a", Act: "b"}, context.Canceled},
		"long":            {t.Context(), Entry{Actor: "a", Act: "b", Call: strings.Repeat("x", MaxLine)}, ErrTooLarge},
		"mobile":          {t.Context(), Entry{Actor: "a", Act: "b", Subject: "13800138000"}, ErrClearNumber},
		"E.164 in detail": {t.Context(), Entry{Actor: "a", Act: "b", Detail: map[string]string{"n": "caller +8657112345678."}}, ErrClearNumber},
		"no actor":        {t.Context(), Entry{Act: "b"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := l.Append(c.ctx, c.e)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("Append = %v, want %v", err, c.want)
			}
		})
	}
	for _, s := range []string{"01JD3W2M8N4567890123456789", "2026-03-02T10:00:00+08:00", "138****5678", "192.168.100.100:50600"} {
		if err := l.Record(t.Context(), "a", "b", s, nil); err != nil {
			t.Errorf("Record(%q) = %v", s, err)
		}
	}
	if got := l.Head().Seq; got != 4 {
		t.Errorf("head %d, want 4", got)
	}
}

func TestTwoProcessesNeverShareAChain(t *testing.T) {
	dir, c := t.TempDir(), &clock{noon}
	open(t, dir, c)
	if _, err := Open(Defaults(), dir, "n1", c.now, slog.New(slog.DiscardHandler), nil); !errors.Is(err, ErrInUse) {
		t.Errorf("second Open = %v", err)
	}
	if _, err := Open(Defaults(), dir, "../n1", c.now, slog.New(slog.DiscardHandler), nil); err == nil {
		t.Error("a path was taken for a node's name")
	}
}

func TestCommitment(t *testing.T) {
	c, salt := Commit("+8613800138000")
	again, _ := Commit("+8613800138000")
	if c == again || !c.Opens("+8613800138000", salt) || c.Opens("+8613800138001", salt) {
		t.Errorf("commitments %q and %q", c, again)
	}
}

func TestConfigAndMetrics(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "max_bytes: ") {
		t.Errorf("Validate = %v", err)
	}
	reg := prometheus.NewPedanticRegistry()
	l, err := Open(Defaults(), t.TempDir(), "n1", time.Now, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	add(t, l, "a")
	if got := testutil.ToFloat64(l.metrics.entries); got != 1 {
		t.Errorf("entries %v", got)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}

func TestVerifyOfNothing(t *testing.T) {
	if heads, err := Verify(t.TempDir()); err != nil || len(heads) != 0 {
		t.Errorf("an empty directory: %v, %v", heads, err)
	}
	if _, err := Verify(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing directory verified")
	}
}

// FuzzScan: whatever the bytes, Scan ends, and what it yields is a chain that seals to the same bytes.
func FuzzScan(f *testing.F) {
	prev := Receipt{Hash: genesis}
	var file []byte
	for i := range 3 {
		rec := Record{Seq: prev.Seq + 1, At: noon, Node: "n1", Prev: prev.Hash, Entry: Entry{Actor: "a", Act: fmt.Sprint("act", i)}}
		line, err := rec.seal()
		if err != nil {
			f.Fatal(err)
		}
		file, prev = append(file, line...), rec.receipt()
	}
	f.Add(file)
	f.Add(file[:len(file)-5])
	f.Add(bytes.ToUpper(file))
	f.Add([]byte("\n\n"))
	f.Add([]byte(hashOpen + genesis + hashClose + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var last Receipt
		broken := false
		for rec, err := range Scan(bytes.NewReader(b), Receipt{}) {
			if broken {
				t.Fatal("Scan went on after a break")
			}
			if err != nil {
				broken = true
				continue
			}
			if rec.Seq != last.Seq+1 {
				t.Fatalf("entry %d after %d", rec.Seq, last.Seq)
			}
			last = rec.receipt()
		}
	})
}
