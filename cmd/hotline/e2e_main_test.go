package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	_ "net/http/pprof" // of a gateway under measurement
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

// TestMain lets the test binary be the program: with HOTLINE_E2E=1 it is `hotline`, so that the
// gateway under test is a process of its own, which can be killed, and has the race detector when the
// tests have.
func TestMain(m *testing.M) {
	if os.Getenv("HOTLINE_E2E") == "1" {
		if at := os.Getenv(profileAt); at != "" {
			go func() { _ = http.ListenAndServe(at, http.DefaultServeMux) }() //nolint:gosec // of a measurement, on loopback
		}
		main()
		os.Exit(0)
	}
	testscript.Main(m, map[string]func(){"hotline": main})
}

// profileAt is the variable that lets a gateway serve its profiles at an address.
const profileAt = "HOTLINE_E2E_PROFILE"

// need skips a test whose tool is not installed; in continuous integration it fails.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", tool)
		}
		t.Skipf("%s is not installed", tool)
	}
}

// process is a program that a test started; it ends with the test, by its own pid.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of its end
}

// launch starts cmd. Output goes where cmd says.
func launch(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", cmd.Path, err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() { p.kill() })
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// await fails the test unless the process ends in time, and returns how it ended.
func (p *process) await(t *testing.T, patience time.Duration) error {
	t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(patience):
		t.Fatalf("%s did not end in %v", filepath.Base(p.cmd.Path), patience)
		return nil
	}
}

// gateway is `hotline serve` in a process of its own.
type gateway struct {
	t       *testing.T
	sets    []string
	proc    *process
	log     *logFile
	control *client

	carriers, phones netip.AddrPort
	console          string
	people           map[string]credentials // of the first start
}

// credentials are what the first start prints of an agent.
type credentials struct{ secret, pin string }

// startGateway starts a gateway with its data in a directory, on free ports, and returns when its line
// is open. Each set overrides a setting.
func startGateway(t *testing.T, sets ...string) *gateway {
	t.Helper()
	g := newGateway(t, sets...)
	g.start()
	return g
}

// newGateway is a gateway that is not started yet.
func newGateway(t *testing.T, sets ...string) *gateway {
	t.Helper()
	g := &gateway{t: t, people: map[string]credentials{}}
	g.sets = append([]string{
		"data=" + t.TempDir(), "sip.carriers.listen=127.0.0.1:0", "sip.phones.listen=127.0.0.1:0", "http.listen=127.0.0.1:0",
		// The machine also runs the peers, and the race detector: what a call waits for may take longer.
		"store.timeout=50ms",
		"session.wrap_up=0s", "session.announce_agent=false",
		"queue.queues=[{name: default, display: {zh: 综合, en: General}, max_waiting: 200, ring: 20s, wrapup: 0s}]",
	}, sets...)
	g.log = newLog(t, "gateway")
	t.Cleanup(g.report)
	return g
}

// set overrides a setting for the next start.
func (g *gateway) set(sets ...string) { g.sets = append(g.sets, sets...) }

// data is where the gateway keeps everything.
func (g *gateway) data() string { return strings.TrimPrefix(g.sets[0], "data=") }

// again starts a gateway that has ended, on the ports that it had.
func (g *gateway) again() {
	g.t.Helper()
	g.set("sip.carriers.listen="+g.carriers.String(), "sip.phones.listen="+g.phones.String(), "http.listen="+g.console)
	g.start()
}

func (g *gateway) start() {
	g.t.Helper()
	self, err := os.Executable()
	if err != nil {
		g.t.Fatal(err)
	}
	args := []string{"serve"}
	for _, s := range g.sets {
		args = append(args, "--set", s)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "HOTLINE_E2E=1")
	out, in, err := os.Pipe()
	if err != nil {
		g.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, g.log
	open := g.log.watch("the line is open")
	g.proc = launch(g.t, cmd)
	_ = in.Close()
	welcomed := make(chan struct{})
	go func() {
		defer close(welcomed)
		g.welcome(out)
	}()
	select {
	case <-open:
	case <-g.proc.done:
		g.t.Fatalf("the gateway ended: %v\n%s", g.proc.err, g.log.tail())
	case <-time.After(60 * time.Second):
		g.t.Fatalf("the gateway does not open its line\n%s", g.log.tail())
	}
	// What is printed before the line opens has been written by now, but the pipe stays open as long
	// as the process: read up to the console's address, and the people of a first start.
	select {
	case <-welcomed:
	case <-time.After(10 * time.Second):
		g.t.Fatal("the gateway prints no addresses")
	}
	g.control, err = dial(&options{sets: g.sets})
	if err != nil {
		g.t.Fatal(err)
	}
}

// welcome reads what the gateway prints at its start, and discards the rest.
func (g *gateway) welcome(out io.ReadCloser) {
	first := len(g.people) == 0
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) < 2:
		case f[0] == "carriers":
			g.carriers = netip.MustParseAddrPort(strings.TrimPrefix(f[1], "sip:"))
		case f[0] == "phones":
			g.phones = netip.MustParseAddrPort(strings.TrimPrefix(f[1], "sip:"))
		case f[0] == "console":
			g.console = strings.TrimPrefix(f[1], "http://")
		case len(f) == 6 && f[1] == "[agent]":
			g.people[f[0]] = credentials{secret: f[4], pin: f[5]}
		}
		if g.console != "" && (!first || len(g.people) == 3) {
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out); _ = out.Close() }()
}

// kill ends the gateway as kill -9 does.
func (g *gateway) kill() {
	g.proc.kill()
	g.healthy()
}

// stop ends the gateway, its calls too, and fails the test unless it leaves in good order.
func (g *gateway) stop() {
	g.t.Helper()
	running := len(g.calls())
	draining := g.log.watch("draining: no new calls")
	_ = g.proc.cmd.Process.Signal(syscall.SIGTERM)
	receive(g.t, "the gateway drains", draining)
	if running > 0 {
		_ = g.proc.cmd.Process.Signal(syscall.SIGTERM) // ends the calls
	}
	if err := g.proc.await(g.t, 20*time.Second); err != nil {
		g.t.Errorf("the gateway ended: %v\n%s", err, g.log.tail())
	}
	g.healthy()
}

func (g *gateway) healthy() {
	g.t.Helper()
	for _, bad := range []string{"WARNING: DATA RACE", "panic:", "fatal error:"} {
		if text := g.log.text(); strings.Contains(text, bad) {
			g.t.Errorf("the gateway's log has a fault:\n%s", text[strings.Index(text, bad):])
		}
	}
}

func (g *gateway) report() {
	if g.t.Failed() {
		g.t.Logf("the gateway's log ends:\n%s", g.log.tail())
	}
}

// get asks the running gateway, as the command line does.
func (g *gateway) get(path string, into any) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.control.get(ctx, path, into); err != nil {
		g.t.Fatalf("GET %s: %v", path, err)
	}
}

func (g *gateway) post(path string, body, into any) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.control.post(ctx, path, body, into); err != nil {
		g.t.Fatalf("POST %s: %v", path, err)
	}
}

// run runs a verb of the program on the gateway's data and returns what it prints.
func (g *gateway) run(args ...string) string {
	g.t.Helper()
	self, err := os.Executable()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, s := range g.sets {
		args = append(args, "--set", s)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "HOTLINE_E2E=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		g.t.Fatalf("hotline %s: %v\n%s", args[0], err, out)
	}
	return string(out)
}

func (g *gateway) login(agent string) {
	g.t.Helper()
	g.post("/agents/"+agent+"/login", map[string]string{}, nil)
}

// agent is how the queue sees an agent.
func (g *gateway) agent(id string) queue.AgentView {
	g.t.Helper()
	var all []queue.AgentView
	g.get("/agents", &all)
	for _, a := range all {
		if a.ID == id {
			return a
		}
	}
	return queue.AgentView{}
}

func (g *gateway) awaitAgent(id string, state queue.AgentState) {
	g.t.Helper()
	until(g.t, 20*time.Second, fmt.Sprintf("agent %s is %s", id, state), func() bool { return g.agent(id).State == state })
}

func (g *gateway) calls() []session.View {
	g.t.Helper()
	var live []session.View
	g.get("/calls", &live)
	return live
}

// awaitStage waits until the only live call is at a stage, and returns it.
func (g *gateway) awaitStage(stage session.Stage) session.View {
	g.t.Helper()
	var v session.View
	until(g.t, 20*time.Second, "a call is at "+string(stage), func() bool {
		for _, c := range g.calls() {
			if c.Stage == stage {
				v = c
				return true
			}
		}
		return false
	})
	return v
}

// cdrs are the calls that ended, the latest first, once there are so many.
func (g *gateway) cdrs(n int) []journal.Row {
	g.t.Helper()
	var rows []journal.Row
	until(g.t, 20*time.Second, fmt.Sprintf("%d calls have ended", n), func() bool {
		rows = nil
		g.get("/cdrs", &rows)
		return len(rows) >= n
	})
	return rows
}

func (g *gateway) timeline(id string) []journal.Entry {
	g.t.Helper()
	var rec app.CallRecord
	g.get("/calls/"+id, &rec)
	return rec.Timeline
}

// until waits for a state of another process, which can only be asked for.
func until(t *testing.T, patience time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// receive takes from a channel in time.
func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	return receiveIn(t, 15*time.Second, what, c)
}

func receiveIn[T any](t *testing.T, patience time.Duration, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("not in %v: %s", patience, what)
		panic("unreachable")
	}
}

// logFile keeps what a process writes, and tells when a text appears.
type logFile struct {
	mu      sync.Mutex
	file    *os.File
	buf     strings.Builder
	watches map[string]chan struct{}
}

func newLog(t *testing.T, name string) *logFile {
	t.Helper()
	f, err := os.CreateTemp(t.ArtifactDir(), name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &logFile{file: f, watches: map[string]chan struct{}{}}
}

func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(b)
	for text, c := range l.watches {
		if strings.Contains(string(b), text) {
			close(c)
			delete(l.watches, text)
		}
	}
	if _, err := l.file.Write(b); err != nil && !errors.Is(err, os.ErrClosed) {
		return 0, err
	}
	return len(b), nil
}

// watch returns a channel that is closed when the text is written from now on.
func (l *logFile) watch(text string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := make(chan struct{})
	l.watches[text] = c
	return c
}

func (l *logFile) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logFile) tail() string {
	text := l.text()
	return text[max(0, len(text)-6000):]
}
