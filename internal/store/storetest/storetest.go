// Package storetest gives tests a Redis: a real server that can be paused, killed and restarted, or
// the embedded one, behind a running [store.Store].
package storetest

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/store"
)

// Redis is a real server on a loopback port, with its files in the test's directory. Each test
// that asks has one of its own (it starts in some ten milliseconds), so that one test's pause is
// not another's.
type Redis struct {
	Addr string
	dir  string
	port string
	args []string

	mu  sync.Mutex
	cmd *exec.Cmd // nil while killed
}

// Start starts a server that ends with the test; args are options of redis-server beside those it has
// anyway. Without redis-server the test is skipped, and in continuous integration (CI=true) it fails.
func Start(tb testing.TB, args ...string) *Redis {
	tb.Helper()
	return start(tb, func(r *Redis) []string {
		return append([]string{"--port", r.port, "--bind", "127.0.0.1", "--dir", r.dir, "--appendonly", "yes",
			"--appendfsync", "always", "--save", "", "--loglevel", "warning"}, args...)
	})
}

// start starts a redis-server with the options that args makes of its directory and port.
func start(tb testing.TB, args func(*Redis) []string) *Redis {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatal("redis-server is not installed: apt-get install redis-server")
		}
		tb.Skip("redis-server is not installed")
	}
	r := &Redis{dir: tb.TempDir()}
	tb.Cleanup(r.stop)
	for range 5 { // another process may take the port that was picked
		r.Addr = FreeAddr(tb)
		_, r.port, _ = net.SplitHostPort(r.Addr)
		r.args = args(r)
		if r.launch() == nil {
			return r
		}
	}
	tb.Fatal("redis-server did not start")
	return nil
}

// FreeAddr is an address of this machine that was free a moment ago.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// launch starts the process and returns when it answers.
func (r *Redis) launch() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	cmd := exec.Command("redis-server", r.args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that panics leaves no server behind
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ; !r.answers(cmd.Process.Pid); <-tick.C {
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return fmt.Errorf("redis-server on %s does not answer", r.Addr)
		}
	}
	r.cmd = cmd
	return nil
}

// answers tells whether the process answers on the port, rather than another that took it.
func (r *Redis) answers(pid int) bool {
	conn, err := net.DialTimeout("tcp", r.Addr, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("INFO server\r\n")); err != nil {
		return false
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); { // not to the end: a sentinel knows no QUIT
		if id, ok := strings.CutPrefix(lines.Text(), "process_id:"); ok {
			return id == strconv.Itoa(pid)
		}
	}
	return false
}

// Pause freezes the server: its connections stay, and nothing answers.
func (r *Redis) Pause(tb testing.TB) { r.signal(tb, syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (r *Redis) Resume(tb testing.TB) { r.signal(tb, syscall.SIGCONT) }

func (r *Redis) signal(tb testing.TB, sig syscall.Signal) {
	tb.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		tb.Fatal("the server was killed")
	}
	if err := r.cmd.Process.Signal(sig); err != nil {
		tb.Fatal(err)
	}
}

// Kill ends the server at once, as a crash does.
func (r *Redis) Kill(tb testing.TB) {
	tb.Helper()
	r.stop()
}

// Restart starts a killed server again on the same port, with what it had written.
func (r *Redis) Restart(tb testing.TB) {
	tb.Helper()
	if err := r.launch(); err != nil {
		tb.Fatal(err)
	}
}

// running tells whether the process is there, paused or not.
func (r *Redis) running() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cmd != nil
}

func (r *Redis) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill() // ends a paused process too
	_ = r.cmd.Wait()
	r.cmd = nil
}

// Open runs a store on addr ("" is the embedded server) until the test ends, and returns it when it
// is healthy. Its time-outs are those of a loaded test machine.
func Open(tb testing.TB, addr string) *store.Store {
	tb.Helper()
	cfg := store.Defaults()
	cfg.Timeout, cfg.SlowTimeout = time.Second, 5*time.Second
	if addr != "" {
		cfg.Addrs = []string{addr}
	}
	return Run(tb, cfg)
}

// Run runs a store until the test ends, and returns it when it is healthy.
func Run(tb testing.TB, cfg store.Config) *store.Store {
	tb.Helper()
	s, err := store.New(cfg, slog.New(slog.NewTextHandler(tb.Output(), nil)), nil)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("the store's end: %v", err)
		}
	})
	Await(tb, s, true)
	return s
}

// Await returns when the store's health is as asked.
func Await(tb testing.TB, s *store.Store, healthy bool) {
	tb.Helper()
	changes, cancel := s.Changes()
	defer cancel()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case now := <-changes:
			if now == healthy {
				return
			}
		case <-timeout:
			tb.Fatalf("the store did not become healthy=%v", healthy)
		}
	}
}

// Each runs a test twice: on a real server, and on the embedded one.
func Each(t *testing.T, test func(t *testing.T, s *store.Store)) {
	t.Helper()
	t.Run("redis", func(t *testing.T) { test(t, Open(t, Start(t).Addr)) })
	t.Run("embedded", func(t *testing.T) { test(t, Open(t, "")) })
}

// Fault is a hook that fails on demand: client.AddHook(fault).
type Fault struct{ err atomic.Pointer[error] }

// Fail lets every command fail with err, unsent; nil heals.
func (f *Fault) Fail(err error) {
	if err == nil {
		f.err.Store(nil)
		return
	}
	f.err.Store(&err)
}

// DialHook leaves dialling alone.
func (f *Fault) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook fails a command on demand.
func (f *Fault) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := f.err.Load(); err != nil {
			cmd.SetErr(*err)
			return *err
		}
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook fails a pipeline on demand.
func (f *Fault) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := f.err.Load(); err != nil {
			for _, cmd := range cmds {
				cmd.SetErr(*err)
			}
			return *err
		}
		return next(ctx, cmds)
	}
}
