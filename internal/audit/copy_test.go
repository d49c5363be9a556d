package audit

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// chain is three entries, and the file that they are in.
func chain(t *testing.T) (dir, path string, text []byte) {
	t.Helper()
	dir = t.TempDir()
	l := open(t, dir, &clock{noon})
	for _, act := range []string{"a", "b", "c"} {
		add(t, l, act)
	}
	l.Close()
	path = chainFile(dir, "n1", 1)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return dir, path, text
}

// broke verifies a changed text and returns the line that is named, or 0.
func broke(t *testing.T, dir, path string, text []byte) int {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Verify(dir)
	if b, ok := errors.AsType[*Broken](err); ok && b.File == path {
		return b.Line
	}
	return 0
}

// TestEveryByteIsGuarded flips each bit of each byte of a chain in turn: it is found, in its line.
func TestEveryByteIsGuarded(t *testing.T) {
	dir, path, text := chain(t)
	for i := range text {
		line := 1 + bytes.Count(text[:i], []byte("\n"))
		flipped := bytes.Clone(text)
		flipped[i] ^= 1 << (i % 8)
		if got := broke(t, dir, path, flipped); got != line {
			t.Fatalf("byte %d of line %d flipped: line %d is named", i, line, got)
		}
	}
}

// TestLinesKeepTheirPlace swaps, removes and cuts: what is found is the first line that is not in its place.
// A tail that is cut off whole shows against the copy alone.
func TestLinesKeepTheirPlace(t *testing.T) {
	dir, path, text := chain(t)
	kept := t.TempDir()
	l := open(t, dir, &clock{noon})
	if err := l.Copy(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	l.Close()
	lines := bytes.SplitAfter(text, []byte("\n"))
	for name, c := range map[string]struct {
		order []int
		line  int
	}{
		"first pair swapped": {[]int{1, 0, 2}, 1}, "last pair swapped": {[]int{0, 2, 1}, 2}, "ends swapped": {[]int{2, 1, 0}, 1},
		"first removed": {[]int{1, 2}, 1}, "middle removed": {[]int{0, 2}, 2}, "doubled": {[]int{0, 1, 1, 2}, 3},
	} {
		var changed []byte
		for _, i := range c.order {
			changed = append(changed, lines[i]...)
		}
		if got := broke(t, dir, path, changed); got != c.line {
			t.Errorf("%s: line %d is named, want %d", name, got, c.line)
		}
	}
	heads, err := Verify(kept)
	if err != nil {
		t.Fatal(err)
	}
	if got := broke(t, dir, path, bytes.Join(lines[:2], nil)); got != 0 {
		t.Errorf("a whole tail cut off: line %d is named", got)
	}
	if _, err := Verify(dir, heads...); err == nil {
		t.Error("a tail that was cut off is not found against the copy")
	}
	if l, err = Open(Defaults(), dir, "n1", (&clock{noon}).now, slog.New(slog.DiscardHandler), nil); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	add(t, l, "x") // another third entry
	if err := l.Copy(t.Context(), kept); !errors.Is(err, ErrForked) {
		t.Errorf("a copy of a log that was rewritten: %v", err)
	}
	if _, err := Verify(kept); err != nil {
		t.Errorf("the copy was touched: %v", err)
	}
}

// TestTheCopyGrows: each copy adds what came since, over days and files, and verifies by itself.
func TestTheCopyGrows(t *testing.T) {
	dir, kept, c := t.TempDir(), filepath.Join(t.TempDir(), "kept"), &clock{noon}
	l := open(t, dir, c)
	for range 4 {
		for range 3 {
			add(t, l, "a")
		}
		if err := l.Copy(t.Context(), kept); err != nil {
			t.Fatal(err)
		}
		heads, err := Verify(kept)
		if err != nil || len(heads) != 1 || heads[0] != l.Head() {
			t.Fatalf("the copy has %v, %v; the log %v", heads, err, l.Head())
		}
		c.at = c.at.Add(24 * time.Hour)
	}
	if err := os.Remove(chainFile(dir, "n1", 10)); err != nil {
		t.Fatal(err)
	}
	if err := l.Copy(t.Context(), kept); !errors.Is(err, ErrForked) {
		t.Errorf("the log lacks a file that the copy has: %v", err)
	}
}
