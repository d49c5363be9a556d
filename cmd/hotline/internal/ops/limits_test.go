package ops

import (
	"bytes"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

func TestLimits(t *testing.T) {
	rmem := func(n string) fs.FS { return fstest.MapFS{"proc/sys/net/core/rmem_max": file(n + "\n")} }
	machine := fstest.MapFS{"proc/meminfo": file("MemTotal: 1048576 kB\n")}
	group := fstest.MapFS{"proc/self/cgroup": file("0::/hotline\n"), "sys/fs/cgroup/hotline/memory.max": file("2147483648\n")}
	unset := func(string) (string, bool) { return "", false }
	set := func(string) (string, bool) { return "2GiB", true }
	for _, c := range []struct {
		name  string
		look  func() (Level, string, string)
		level Level
		words string // in what was found, or the mend
	}{
		{"small buffers", func() (Level, string, string) { return buffers(rmem("212992"), Inputs{Buffer: 4 << 20}) }, Warn, "rmem_max=4194304"},
		{"large buffers", func() (Level, string, string) { return buffers(rmem("8388608"), Inputs{Buffer: 4 << 20}) }, Well, "8388608"},
		{"no buffers", func() (Level, string, string) { return buffers(rmem("1"), Inputs{}) }, Skipped, notGiven},
		{"unreadable buffers", func() (Level, string, string) { return buffers(fstest.MapFS{}, Inputs{Buffer: 1}) }, Warn, "cannot be read"},
		{"strange buffers", func() (Level, string, string) { return buffers(rmem("x"), Inputs{Buffer: 1}) }, Warn, "invalid"},
		{"no limit", func() (Level, string, string) { return bounds(fstest.MapFS{}, unset, Inputs{Calls: 1000}) }, Warn, "GOMEMLIMIT=756MiB"},
		{"GOMEMLIMIT", func() (Level, string, string) { return bounds(fstest.MapFS{}, set, Inputs{Calls: 1000}) }, Well, "2GiB"},
		{"a control group", func() (Level, string, string) { return bounds(group, unset, Inputs{Calls: 1000}) }, Well, "cgroup"},
		{"a small machine", func() (Level, string, string) { return bounds(machine, unset, Inputs{Calls: 1000}) }, Warn, "need 756 MiB"},
		{"few ports", func() (Level, string, string) { return lookRTP(t.Context(), Inputs{Calls: 1000, RTPPairs: 1000}) }, Warn, "4000 ports apart"},
		{"enough ports", func() (Level, string, string) { return lookRTP(t.Context(), Inputs{Calls: 1000, RTPPairs: 2000}) }, Well, "2000 pairs"},
	} {
		level, detail, mend := c.look()
		if level != c.level || !strings.Contains(detail+" "+mend, c.words) {
			t.Errorf("%s: %s, %q, %q; want %s with %q", c.name, level, detail, mend, c.level, c.words)
		}
		if level == Warn && mend == "" {
			t.Errorf("%s: no mend", c.name)
		}
	}
}

func TestRaiseFiles(t *testing.T) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim) }()
	low := lim
	low.Cur = min(lim.Max, 256)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	raiseFiles(slog.New(slog.NewTextHandler(&told, nil)))
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil || now.Cur != lim.Max {
		t.Errorf("%d files may be open, want %d (%v)", now.Cur, lim.Max, err)
	}
	if !strings.Contains(told.String(), "open files") {
		t.Errorf("the log has %q", told.String())
	}
}
