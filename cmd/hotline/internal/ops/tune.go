package ops

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

// schedLatencies is the first sign that audio will be late.
var schedLatencies = regexp.MustCompile(`^/sched/latencies:seconds$`)

// The settings of the garbage collector: collection is the largest cost of a call, so it comes
// seldom, and the memory limit keeps seldom from being too late.
const (
	gcPercent      = 400
	cgroupShare    = 80 // percent of what the control group allows
	machineShare   = 60 // percent of the machine's memory, which is shared
	leastMemory    = 256 << 20
	unlimitedFloor = 1 << 60 // version 1 of control groups tells "no limit" by a number above this
)

// Tune sets the garbage collector unless GOGC and GOMEMLIMIT say otherwise, and lets the process open as
// many files as the system allows it.
func Tune(log *slog.Logger) {
	tune(log, os.DirFS("/"), os.LookupEnv)
	raiseFiles(log)
}

// raiseFiles raises the soft limit of open files to the hard one, which alone the system means: the soft
// one is low for the sake of programs that use select(2).
func raiseFiles(log *slog.Logger) {
	var lim syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim)
	if err == nil && lim.Cur < lim.Max {
		lim.Cur = lim.Max
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim)
	}
	if err != nil {
		log.Warn("the limit of open files could not be raised", "err", err)
		return
	}
	log.Info("open files", "limit", lim.Cur)
}

func tune(log *slog.Logger, root fs.FS, env func(string) (string, bool)) {
	if _, set := env("GOGC"); !set {
		debug.SetGCPercent(gcPercent)
		log.Debug("garbage collector set", slog.Int("gogc", gcPercent))
	}
	if _, set := env("GOMEMLIMIT"); set {
		return
	}
	limit, from := memory(root)
	if limit < leastMemory { // a limit near what is used would collect without end
		return
	}
	debug.SetMemoryLimit(limit)
	log.Debug("memory limit set", slog.Int64("bytes", limit), slog.String("from", from))
}

// memory is how much this process should use and what says so; 0 if nothing does.
func memory(root fs.FS) (int64, string) {
	total := machine(root)
	if limit := cgroup(root); limit > 0 && (total == 0 || limit < total) {
		return limit / 100 * cgroupShare, "cgroup"
	}
	return total / 100 * machineShare, "machine"
}

// cgroup is the least limit of the process's control group and those above it.
func cgroup(root fs.FS) int64 {
	var least int64
	note := func(file string) {
		b, err := fs.ReadFile(root, file)
		if err != nil {
			return
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64) // "max" is no number
		if err == nil && n > 0 && n < unlimitedFloor && (least == 0 || n < least) {
			least = n
		}
	}
	note("sys/fs/cgroup/memory/memory.limit_in_bytes") // version 1
	b, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return least
	}
	for line := range strings.Lines(string(b)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::") // version 2
		for ok {
			note(path.Join("sys/fs/cgroup", group, "memory.max"))
			if group == "/" || group == "." || group == "" {
				break
			}
			group = path.Dir(group)
		}
	}
	return least
}

// machine is the machine's memory in bytes; 0 if it is not known.
func machine(root fs.FS) int64 {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if n, err := fmt.Sscanf(line, "MemTotal: %d kB", &kib); err == nil && n == 1 {
			return kib << 10
		}
	}
	return 0
}
