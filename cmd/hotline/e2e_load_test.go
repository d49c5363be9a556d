package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
)

// TestLoad100 and TestLoad1300 are the measurements of `make bench`: calls that wait with music, and calls
// in talk that are recorded, in one gateway. Callers and agents' phones run in this process, on the same
// machine; the sizes in between find what it carries. With HOTLINE_PROFILE=file a CPU profile of the gateway
// is written there, and beside it what its memory and its goroutines are for.
func TestLoad100(t *testing.T)  { load(t, 50, 50) }
func TestLoad400(t *testing.T)  { load(t, 100, 300) }
func TestLoad650(t *testing.T)  { load(t, 150, 500) }
func TestLoad910(t *testing.T)  { load(t, 210, 700) }
func TestLoad1300(t *testing.T) { load(t, 300, 1000) }

func load(t *testing.T, talks, waits int) {
	if os.Getenv("HOTLINE_BENCH") != "1" {
		t.Skip("a measurement; HOTLINE_BENCH=1 runs it")
	}
	const span = 30 * time.Second
	g := newGateway(t, "store.addrs=["+startRedis(t).addr()+"]", "store.timeout=200ms", "ivr.flows="+toQueue(t), "ivr.default=queue", "sip.max_calls=2000", "sip.media.port_min=10000", "sip.media.port_max=17999",
		"queue.queues=[{name: default, display: {zh: 综合, en: General}, max_waiting: 2000, ring: 20s, wrapup: 0s}]",
		"sip.trunks=[{name: loopback, sources: [127.0.0.0/8], identity: pai, max_calls: 2000}]")
	people(t, g, 2001, talks)
	profile := os.Getenv("HOTLINE_PROFILE")
	at := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	if profile != "" {
		t.Setenv(profileAt, at)
	}
	g.start()
	c := newCrowd(t)
	for n := range talks {
		extension := strconv.Itoa(2001 + n)
		if status := c.desk(extension, g, func() time.Duration { return 0 }).register(600); status != 200 {
			t.Fatalf("REGISTER of %s: %d", extension, status)
		}
		g.login(extension)
	}
	calls := talks + waits
	pace := time.NewTicker(25 * time.Millisecond) // forty new calls a second
	defer pace.Stop()
	for n := range calls {
		<-pace.C
		c.dial(&visit{number: fmt.Sprintf("136%08d", n), speaks: true, gateways: []*gateway{g}})
	}
	until(t, 120*time.Second, "all are answered, and every agent talks", func() bool {
		talking, waiting := 0, 0
		c.look(func() {
			for _, v := range c.visits {
				talking += btoi(v.ring != nil && v.ended.IsZero())
				waiting += btoi(v.ring == nil && !v.answered.IsZero() && v.ended.IsZero())
			}
		})
		return talking == talks && waiting == waits
	})
	recorded := 0
	for _, v := range g.calls() {
		recorded += btoi(v.Stage == session.StageTalk && v.Evidence == "recorded")
	}
	if recorded != talks {
		t.Errorf("%d calls are recorded, want %d", recorded, talks)
	}
	time.Sleep(6 * time.Second) // the first reports come, and the burst of the beginning is over

	c.look(func() {
		for _, p := range c.parties {
			p.stream.forget()
		}
	})
	before, own, busy, heard := cpu(t, g.proc.cmd.Process.Pid), cpu(t, os.Getpid()), machine(t), c.hearings()
	start := time.Now()
	if profile != "" {
		pprof := "http://" + at + "/debug/pprof/"
		fetch(t, fmt.Sprintf("%sprofile?seconds=%d", pprof, int(span.Seconds())-5), profile)
		fetch(t, pprof+"heap", profile+".heap")
		fetch(t, pprof+"goroutine", profile+".goroutine")
	}
	time.Sleep(time.Until(start.Add(span))) // the time of the measurement
	took := time.Since(start)
	used, mine, all, then := cpu(t, g.proc.cmd.Process.Pid)-before, cpu(t, os.Getpid())-own, machine(t)-busy, c.hearings()
	rss, goroutines, files := status(t, g, "VmRSS:"), metric(t, g, "go_goroutines"), metric(t, g, "process_open_fds")
	dropped := metric(t, g, "hotline_rtp_sink_dropped_frames_total")
	time.Sleep(6 * time.Second) // the last reports
	sum := then.minus(heard)
	sum.lostThere = c.hearings().lostThere - heard.lostThere

	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	share := func(d time.Duration) float64 { return 100 * d.Seconds() / took.Seconds() }
	fmt.Fprintf(w, "calls, in talk and recorded, waiting with music\t%d, %d, %d\n", calls, talks, waits)
	fmt.Fprintf(w, "seconds, cores\t%.1f, %d\n", took.Seconds(), runtime.NumCPU())
	fmt.Fprintf(w, "CPU of the gateway, of one core\t%.1f %%\n", share(used))
	fmt.Fprintf(w, "CPU of the crowd, of one core\t%.1f %%\n", share(mine))
	fmt.Fprintf(w, "CPU of all else on this machine, of one core\t%.1f %%\n", share(all-used-mine))
	fmt.Fprintf(w, "RSS, goroutines, open files of the gateway\t%s, %s, %s\n", rss, goroutines, files)
	fmt.Fprintf(w, "RTP from the gateway, lost\t%d, %d\n", sum.got, sum.lost)
	fmt.Fprintf(w, "RTP to the gateway, lost by its reports\t%d, %d\n", sum.said, sum.lostThere)
	fmt.Fprintf(w, "a packet came after its time by, at most (waiting)\t%v\n", then.worst.Round(100*time.Microsecond))
	fmt.Fprintf(w, "frames that recordings dropped\t%s\n", dropped)
	fmt.Fprintf(w, "turns that the crowd was too late for\t%d\n", c.sound.skipped.Load())
	_ = w.Flush()
	t.Logf("\n%s", b.String())
	if sum.lost != 0 || sum.lostThere != 0 || dropped != "0" {
		t.Errorf("%d packets were lost on the way from the gateway, %d on the way to it, %s frames of recordings", sum.lost, sum.lostThere, dropped)
	}
	if want := uint64(took.Seconds()*50) * uint64(calls+talks); sum.got < want*98/100 {
		t.Errorf("the crowd got %d packets, want about %d", sum.got, want)
	}
	c.noFaults()
	c.hangupAll()
	until(t, 60*time.Second, "the calls have ended", func() bool { return len(g.calls()) == 0 })
	g.stop()
}

// fetch writes what an address gives to a file.
func fetch(t *testing.T, url, file string) {
	t.Helper()
	res, err := http.Get(url) //nolint:gosec // of the gateway under test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// hearings is how well all who are in a call hear; worst is of those who wait.
func (c *crowd) hearings() (sum hearing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.parties {
		h := p.stream.hearing()
		sum.said, sum.lostThere, sum.got, sum.lost = sum.said+h.said, sum.lostThere+h.lostThere, sum.got+h.got, sum.lost+h.lost
		if p.visit != nil && p.visit.ring == nil {
			sum.worst = max(sum.worst, h.worst)
		}
	}
	return sum
}

func (h hearing) minus(o hearing) hearing {
	return hearing{said: h.said - o.said, got: h.got - o.got, lost: h.lost - o.lost}
}

// hangupAll lets every caller hang up, those who wait first, so that none of them is served still.
func (c *crowd) hangupAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, waits := range []bool{true, false} {
		for _, p := range c.parties {
			if p.visit != nil && (p.visit.ring == nil) == waits {
				p.hangup()
			}
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// people makes agents with a phone each, before the gateway's first start.
func people(t *testing.T, g *gateway, first, n int) {
	t.Helper()
	ctx := context.Background()
	log, err := audit.Open(audit.Defaults(), filepath.Join(g.data(), "audit"), "test", time.Now, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := staff.Open(ctx, staff.Defaults(), g.data(), log, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		id := strconv.Itoa(first + i)
		g.people[id] = credentials{secret: "secret" + id}
		p := staff.Person{ID: id, Name: id, Roles: []staff.Role{staff.Agent}, Extension: id, Queues: map[string]int{"default": 1}, Language: "zh"}
		if err := d.Add(ctx, p, "test"); err != nil {
			t.Fatal(err)
		}
		if err := d.SetPhoneSecret(ctx, id, "hotline", g.people[id].secret, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// cpu is the time that a process has used, in user mode and in the kernel (proc(5)).
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // a tick is 10 ms on Linux
}

// machine is the time that the processors were busy since the start of the system (proc(5)).
func machine(t *testing.T) (busy time.Duration) {
	t.Helper()
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line)[1:8] {
		if n, _ := strconv.Atoi(f); i != 3 && i != 4 { // idle, and waiting for a disk
			busy += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return busy
}

// status is a line of the process's status, such as VmRSS.
func status(t *testing.T, g *gateway, key string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.proc.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), key)
	value, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(value)
}

// metric is a metric of the gateway without labels.
func metric(t *testing.T, g *gateway, name string) string {
	t.Helper()
	res, err := http.Get("http://" + g.console + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(io.LimitReader(res.Body, 16<<20))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return value
		}
	}
	t.Fatalf("there is no metric %s", name)
	return ""
}
