package queue

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// These tests run gateways' queues as processes of their own, so that they can be killed and frozen for real, on
// real Redis servers. The agents' phones are at the test: each has one line, hears what the processes dial, and
// notices two talks at once whatever Redis believes.

// TestMain is also the entry of a node's process.
func TestMain(m *testing.M) {
	if text := os.Getenv("HOTLINE_QUEUE_NODE"); text != "" {
		if err := runChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// childConfig is what a node's process is told.
type childConfig struct {
	Node   string
	Store  store.Config
	Queue  Config
	Phones string // where the phones listen
	Dir    string
}

// child is a node's process: callers come by standard input, and what becomes of them goes to standard output.
type child struct {
	cfg childConfig
	q   *Queue
	mu  sync.Mutex // guards out
	out io.Writer
}

func runChild(text string) error {
	c := &child{out: os.Stdout}
	if err := json.Unmarshal([]byte(text), &c.cfg); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := store.New(c.cfg.Store, log, nil)
	if err != nil {
		return err
	}
	books := journal.Defaults()
	books.Path = filepath.Join(c.cfg.Dir, c.cfg.Node+".db")
	j, err := journal.New(books, journal.Deps{Log: log})
	if err != nil {
		return err
	}
	c.q, err = New(c.cfg.Queue, Deps{Node: c.cfg.Node, Store: s, Log: log, Pseudonym: pseudonym, Seal: seal, Open: unseal, Ledger: j,
		Registerer: prometheus.NewRegistry(), Owns: func(ext string) bool { return strings.HasPrefix(ext, c.cfg.Node) }})
	if err != nil {
		return err
	}
	ctx := context.Background()
	for _, run := range []func(context.Context) error{s.Run, j.Run, c.q.Run} {
		go func() { _ = run(ctx) }() // ends with the process
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var i int
		if _, err := fmt.Sscanf(lines.Text(), "CALL %d", &i); err != nil {
			return err
		}
		go c.call(ctx, i)
	}
	return nil
}

func (c *child) tell(what string, i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintln(c.out, what, i)
}

// call is a caller's story: waits, is answered, talks; one in eight gives up.
func (c *child) call(ctx context.Context, i int) {
	id := fmt.Sprintf("c%05d", i)
	ticket, err := c.q.Enter(ctx, session.QueueEntry{CallID: id, Queue: "general", Language: "zh", Caller: number(i)})
	if err != nil {
		c.tell("FAILED "+strings.ReplaceAll(err.Error(), " ", "_"), i)
		return
	}
	c.tell("ENTERED", i)
	var leave <-chan time.Time
	if i%8 == 0 {
		leave = time.After(time.Duration(rand.IntN(1500)) * time.Millisecond)
	}
	var late []session.Offer
	for {
		select {
		case u := <-ticket.Updates():
			if u.Offer == nil {
				continue
			}
			if c.ring(ctx, ticket, *u.Offer, i, late) {
				c.tell("SERVED", i)
				return
			}
			late = append(late, *u.Offer)
		case <-leave:
			if err := ticket.Leave(ctx, session.LeaveAbandon); err != nil {
				c.tell("FENCED", i)
				continue
			}
			c.tell("ABANDONED", i)
			return
		}
	}
}

// ring dials the agent's phone; false when the caller waits on.
func (c *child) ring(ctx context.Context, t session.Ticket, o session.Offer, i int, late []session.Offer) bool {
	phone, err := net.Dial("tcp", c.cfg.Phones)
	if err != nil {
		return false
	}
	defer phone.Close()
	fmt.Fprintf(phone, "%s %d\n", o.Agent, i)
	hears := bufio.NewReader(phone)
	answer, _ := hears.ReadString('\n')
	hangup := func() {
		fmt.Fprintln(phone, "BYE")
		_, _ = hears.ReadString('\n') // the phone is on the hook
	}
	if answer != "ANSWER\n" {
		why := session.DeclineNoAnswer
		if answer == "BUSY\n" {
			why = session.DeclineRejected
		}
		_ = t.Decline(ctx, o, why) // fenced when the offer ended meanwhile
		return false
	}
	if err := t.Accept(ctx, o); err != nil {
		c.tell("FENCED", i)
		hangup()
		return false
	}
	fmt.Fprintln(phone, "TALK")
	for _, old := range late {
		if old.Token != o.Token && t.Accept(ctx, old) == nil {
			c.tell("TWICE", i)
		}
	}
	time.Sleep(time.Duration(400+rand.IntN(300)) * time.Millisecond) // the talk
	c.tell("ENDING", i)
	hangup()
	for t.Complete(ctx, o, call.EndCaller) != nil && c.q.Online() {
		time.Sleep(10 * time.Millisecond) // a session tries again
	}
	return true
}

// phones are the agents' telephones, one line each.
type phones struct {
	net.Listener
	mu      sync.Mutex
	lines   map[string]int // agent, callers who ring or talk
	doubles int            // offers to an agent who had another
	twice   int            // talks of an agent at once
	talks   map[string]int
	wg      sync.WaitGroup
}

func newPhones(t *testing.T) *phones {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &phones{Listener: l, lines: make(map[string]int), talks: make(map[string]int)}
	p.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); p.wg.Wait() })
	return p
}

// serve is one call of a phone: it answers soon, one in twelve never does; a second caller hears that the line is busy.
func (p *phones) serve(conn net.Conn) {
	defer conn.Close()
	var agent string
	var i int
	in := bufio.NewReader(conn)
	if _, err := fmt.Fscanln(in, &agent, &i); err != nil {
		return
	}
	p.mu.Lock()
	busy := p.lines[agent] > 0
	if busy {
		p.doubles++
	} else {
		p.lines[agent]++
	}
	p.mu.Unlock()
	if busy {
		_, _ = io.WriteString(conn, "BUSY\n") // the process may be dead
		return
	}
	time.Sleep(time.Duration(5+rand.IntN(40)) * time.Millisecond) // it rings
	if rand.IntN(12) == 0 {
		p.mu.Lock()
		p.lines[agent]--
		p.mu.Unlock()
		_, _ = io.WriteString(conn, "NOANSWER\n")
		return
	}
	_, _ = io.WriteString(conn, "ANSWER\n")
	talks := false
	line, _ := in.ReadString('\n')
	if line == "TALK\n" {
		talks = true
		p.mu.Lock()
		p.talks[agent]++
		if p.talks[agent] > 1 {
			p.twice++
		}
		p.mu.Unlock()
		line, _ = in.ReadString('\n') // until the process hangs up, or is gone
	}
	p.mu.Lock()
	p.lines[agent]--
	if talks {
		p.talks[agent]--
	}
	p.mu.Unlock()
	if line == "BYE\n" {
		_, _ = io.WriteString(conn, "OK\n")
	}
}

// centre is a call centre of three processes under load. Most of the time it waits for talks to end, so the tests
// of it run beside others.
type centre struct {
	t      *testing.T
	phones *phones
	desk   *node // sees what the processes see
	conf   store.Config
	queue  Config
	procs  map[string]*proc

	mu     sync.Mutex
	state  map[int]string // the last word on a call
	at     map[int]string // the process that has it
	said   map[string]int
	calls  int
	readWG sync.WaitGroup
}

type proc struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

func newCentre(t *testing.T, conf store.Config) *centre {
	t.Helper()
	conf.Timeout, conf.SlowTimeout = time.Second, time.Second
	cfg := testConfig()
	cfg.AutoPauseAfter, cfg.StoreTimeout = 10, 300*time.Millisecond
	cfg.Queues[0].Ring, cfg.Queues[0].Wrapup = 5*time.Second, 0
	c := &centre{t: t, phones: newPhones(t), conf: conf, queue: cfg, procs: make(map[string]*proc), state: make(map[int]string),
		at: make(map[int]string), said: make(map[string]int)}
	b := &bed{t: t, store: storetest.Run(t, conf), cfg: cfg, ledger: &shelf{}}
	c.desk = b.node("desk")
	dir := t.TempDir()
	for _, name := range []string{"n1", "n2", "n3"} {
		c.start(name, dir)
	}
	t.Cleanup(func() {
		for _, p := range c.procs {
			_ = p.cmd.Process.Kill() // one was killed already
			_ = p.cmd.Wait()
		}
		c.readWG.Wait()
	})
	for name := range c.procs {
		c.desk.await("the process attaches", func() bool {
			return b.store.Blocking().ZScore(t.Context(), prefix+":nodes", name).Err() == nil
		})
		for i := range 4 {
			id := fmt.Sprintf("%sa%d", name, i)
			c.desk.must(c.desk.Login(t.Context(), Agent{ID: id, Extension: id, Node: name, Queues: map[string]int{"general": 1}}))
		}
	}
	return c
}

func (c *centre) start(name, dir string) {
	c.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOTLINE_QUEUE_NODE="+encode(childConfig{Node: name, Store: c.conf, Queue: c.queue,
		Phones: c.phones.Addr().String(), Dir: dir}))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	c.desk.must(err)
	out, err := cmd.StdoutPipe()
	c.desk.must(err)
	cmd.Stderr = c.t.Output()
	c.desk.must(cmd.Start())
	c.procs[name] = &proc{cmd: cmd, in: in}
	c.readWG.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.hear(lines.Text())
		}
	})
}

func (c *centre) hear(line string) {
	i, what := 0, strings.Fields(line)
	if _, err := fmt.Sscan(what[len(what)-1], &i); err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said[what[0]]++
	if what[0] != "FENCED" && what[0] != "TWICE" {
		c.state[i] = what[0]
	}
	if what[0] == "FAILED" {
		c.t.Errorf("call %d: %s", i, line)
	}
}

// load brings callers, twenty a second, to the processes that live; the fault comes after a third of them.
func (c *centre) load(calls int, fault func()) {
	c.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	done := make(chan struct{})
	for range calls {
		if c.calls++; c.calls == calls/3 {
			go func() { defer close(done); fault() }()
		}
		c.mu.Lock()
		names := slices.Sorted(func(yield func(string) bool) {
			for name := range c.procs {
				if !yield(name) {
					return
				}
			}
		})
		name := names[c.calls%len(names)]
		c.at[c.calls], c.state[c.calls] = name, "SENT"
		in := c.procs[name].in
		c.mu.Unlock()
		_, _ = fmt.Fprintln(in, "CALL", c.calls) // a process that is killed at this moment has one caller fewer
		<-tick.C
	}
	<-done
}

// kill ends a process as a crash does, and returns the calls that it had.
func (c *centre) kill(name string) (had []int) {
	p := c.procs[name]
	c.mu.Lock()
	delete(c.procs, name)
	c.mu.Unlock()
	if err := p.cmd.Process.Kill(); err != nil {
		c.t.Error(err)
	}
	_ = p.cmd.Wait() // it was killed
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, at := range c.at {
		if at == name && c.state[i] == "ENTERED" {
			had = append(had, i)
		}
	}
	return had
}

func (c *centre) freeze(name string, d time.Duration) {
	p := c.procs[name].cmd.Process
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		c.t.Error(err)
	}
	time.Sleep(d)
	if err := p.Signal(syscall.SIGCONT); err != nil {
		c.t.Error(err)
	}
}

// owed is the numbers in the ledger that are not closed.
func (c *centre) owed() map[string]CallBack {
	list, err := c.desk.CallBacks(context.Background(), false)
	if err != nil {
		return nil
	}
	out := make(map[string]CallBack)
	for _, cb := range list {
		out[cb.ID] = cb
	}
	return out
}

// settle waits until every call has ended and looks at the books: served, abandoned and in the ledger, or lost with its
// process and in the ledger; nobody else is; nothing is stuck.
func (c *centre) settle(lost []int) {
	c.t.Helper()
	gone := make(map[int]bool)
	for _, i := range lost {
		gone[i] = true
	}
	ended := func(i int) bool {
		s := c.state[i]
		return s == "SERVED" || s == "ABANDONED" || c.procs[c.at[i]] == nil
	}
	c.desk.await("every call has ended", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i := range c.state {
			if !ended(i) {
				return false
			}
		}
		return true
	})
	c.desk.await("the books are right: "+c.wrong(gone), func() bool { return c.wrong(gone) == "" })
	c.desk.await("no call is left in Redis", func() bool {
		n, err := c.desk.scripts.client.SCard(c.t.Context(), prefix+":calls").Result()
		return err == nil && n == 0
	})
	c.desk.await("every agent is free", func() bool {
		agents, err := c.desk.Agents(c.t.Context())
		return err == nil && len(agents) == 12 && !slices.ContainsFunc(agents, func(a AgentView) bool {
			return a.State == Offered || a.State == Talk || a.Stuck
		})
	})
	c.desk.check(c.t.Context())
	if n := c.desk.stuck(); n != 0 {
		c.t.Errorf("%v are stuck", n)
	}
	c.phones.mu.Lock()
	defer c.phones.mu.Unlock()
	c.t.Logf("%d calls: %v; second offers to a busy phone: %d", c.calls, c.said, c.phones.doubles)
	if c.phones.doubles > 3 { // an offer that Redis made in the millisecond before it froze is nobody's fault
		c.t.Errorf("busy phones were rung %d times", c.phones.doubles)
	}
	if c.phones.twice != 0 || c.said["TWICE"] != 0 {
		c.t.Errorf("agents with two talks: %d; late answers that were taken: %d", c.phones.twice, c.said["TWICE"])
	}
}

// wrong is what the ledger says that is not so, or the reverse.
func (c *centre) wrong(gone map[int]bool) string {
	owed := c.owed()
	c.mu.Lock()
	defer c.mu.Unlock()
	var wrong []string
	for i, s := range c.state {
		_, in := owed[pseudonym(number(i))]
		alive := c.procs[c.at[i]] != nil
		if want := s == "ABANDONED" || gone[i]; in != want && (alive || want) {
			wrong = append(wrong, fmt.Sprintf("call %d of %s is %s, in the ledger: %v", i, c.at[i], s, in))
		}
	}
	slices.Sort(wrong)
	return strings.Join(wrong, "; ")
}

// soak tells whether the long loads run.
func soak() bool { return os.Getenv("HOTLINE_SOAK") == "1" }

// size is how many callers a load has.
func size() int {
	if soak() {
		return 600
	}
	return 90
}

func single(t *testing.T, args ...string) (*storetest.Redis, store.Config) {
	server := storetest.Start(t, args...)
	conf := store.Defaults()
	conf.Addrs = []string{server.Addr}
	return server, conf
}

func TestLoadWithAKilledNode(t *testing.T) {
	t.Parallel()
	_, conf := single(t)
	c := newCentre(t, conf)
	var had []int
	c.load(size(), func() {
		had = c.kill("n2")
		start := time.Now()
		c.desk.await("the killed node's callers are in the ledger", func() bool {
			owed := c.owed()
			return !slices.ContainsFunc(had, func(i int) bool { return owed[pseudonym(number(i))].Why != "node_lost" })
		})
		took := time.Since(start)
		t.Logf("%d callers were in the ledger after %v", len(had), took)
		if took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		for i := range 4 { // the phones register at another node
			id := fmt.Sprintf("n2a%d", i)
			c.desk.must(c.desk.Login(t.Context(), Agent{ID: id, Extension: id, Node: "n3", Queues: map[string]int{"general": 1}}))
		}
	})
	c.settle(had)
}

func TestLoadWithAFrozenNode(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{3 * time.Second, 6 * time.Second} {
		t.Run(d.String(), func(t *testing.T) {
			_, conf := single(t)
			c := newCentre(t, conf)
			c.load(size(), func() { c.freeze("n2", d) })
			c.settle(nil)
		})
	}
}

func TestLoadWithAFrozenRedis(t *testing.T) {
	t.Parallel()
	server, conf := single(t)
	c := newCentre(t, conf)
	c.load(size(), func() {
		server.Pause(t)
		time.Sleep(3 * time.Second)
		server.Resume(t)
	})
	c.settle(nil)
}

func TestLoadWithAnEmptiedRedis(t *testing.T) {
	t.Parallel()
	server, conf := single(t, "--appendonly", "no")
	c := newCentre(t, conf)
	c.load(size(), func() {
		server.Kill(t)
		server.Restart(t)
	})
	c.settle(nil)
}

// The replica is cut off for a moment before the primary dies: the failover loses the last writes.
func TestLoadWithASentinelFailover(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a failover takes seconds")
	}
	s := storetest.StartSentinels(t, 1)
	c := newCentre(t, s.Config())
	c.load(size(), func() {
		replica := redis.NewClient(&redis.Options{Addr: s.Servers[1].Addr})
		defer replica.Close()
		for _, err := range []error{replica.ConfigSet(t.Context(), "masterauth", "wrong").Err(),
			replica.Do(t.Context(), "CLIENT", "KILL", "TYPE", "master").Err()} {
			c.desk.must(err)
		}
		time.Sleep(500 * time.Millisecond) // of writes that it will not have
		s.Servers[0].Kill(t)
		s.Primary(t)
	})
	c.settle(nil)
}

func TestLoadWithAClusterNodeLost(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a failover takes seconds")
	}
	s := storetest.StartCluster(t)
	c := newCentre(t, s.Config())
	c.load(size(), func() { s.PrimaryOf(t, prefix+":ev").Kill(t) })
	c.settle(nil)
}
