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
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
	"github.com/hotline12345/gateway/queue"
)

// TestLoad100 is the measurement of `make bench`: a hundred calls at once, of which fifty are in talk
// and recorded, and fifty wait with music. The callers and the agents' phones run in this process.
func TestLoad100(t *testing.T) {
	if os.Getenv("HOTLINE_BENCH") != "1" {
		t.Skip("a measurement; HOTLINE_BENCH=1 runs it")
	}
	const calls, talks, span = 100, 50, 20 * time.Second
	g := newGateway(t, "sip.media.receive_buffer=0")
	people(t, g, talks)
	g.start()
	var agents, callers, lines []*line
	var phones []*phone
	for n := range talks {
		extension := strconv.Itoa(2001 + n)
		p := newPhone(t, extension, g.phones).answering(1100)
		p.register(g.people[extension].secret)
		g.login(extension)
		phones = append(phones, p)
	}
	pace := time.NewTicker(50 * time.Millisecond) // twenty new calls a second
	defer pace.Stop()
	for n := range calls {
		<-pace.C
		callers = append(callers, newPhone(t, fmt.Sprintf("136%08d", n), g.carriers).dial("12345").speak(700))
	}
	for _, l := range callers {
		l.connected() // the default flow leads everyone to the queue
	}
	for _, p := range phones {
		agents = append(agents, receiveIn(t, 60*time.Second, p.user+" rings", p.incoming))
	}
	lines = append(append(lines, callers...), agents...)
	until(t, 60*time.Second, "half of the calls talk and half wait", func() bool {
		talking, waiting := 0, 0
		for _, v := range g.calls() {
			talking += btoi(v.Stage == session.StageTalk && v.Evidence == "recorded")
			waiting += btoi(v.Stage == session.StageQueue)
		}
		return talking == talks && waiting == calls-talks
	})

	before, heard := cpu(t, g), packets(lines)
	start := time.Now()
	<-time.After(span) // the time of the measurement
	used, took := cpu(t, g)-before, time.Since(start)
	got, rss, goroutines := packets(lines)-heard, status(t, g, "VmRSS:"), metric(t, g, "go_goroutines")
	var lost int64
	for _, l := range lines {
		l.sound.Lock()
		lost += l.lost
		l.sound.Unlock()
	}
	for _, l := range slices.Backward(callers) { // what the gateway lists are the latest 50: those in talk
		l.hangup()
	}
	var dropped, lostIn uint64
	until(t, 30*time.Second, "the calls have ended", func() bool { return len(g.calls()) == 0 })
	for _, cdr := range g.cdrs(50) {
		lostIn += cdr.CallerLeg.Lost
		dropped += cdr.CallerLeg.SinkDropped
		if cdr.AgentLeg != nil {
			lostIn += cdr.AgentLeg.Lost
		}
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "CALLS\tIN TALK, RECORDED\tWAITING\tSECONDS\tCPU OF ONE CORE\tRSS\tGOROUTINES\tRTP TO PEERS\tLOST\tRTP LOST IN THE GATEWAY\tDROPPED BY RECORDINGS\tCORES\t")
	fmt.Fprintf(w, "%d\t%d\t%d\t%.1f\t%.1f %%\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t\n", calls, talks, calls-talks, took.Seconds(),
		100*used.Seconds()/took.Seconds(), rss, goroutines, got, lost, lostIn, dropped, runtime.NumCPU())
	_ = w.Flush()
	t.Logf("\n%s", b.String())
	if lost != 0 || lostIn != 0 || dropped != 0 {
		t.Errorf("%d packets were lost on the way to the peers, %d on the way from them, %d frames of recordings", lost, lostIn, dropped)
	}
	if want := uint64(took.Seconds()*50) * uint64(len(lines)); got < want*98/100 {
		t.Errorf("the peers got %d packets, want about %d", got, want)
	}
	for n := range talks {
		g.awaitAgent(strconv.Itoa(2001+n), queue.Idle)
	}
	g.stop()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// people makes agents with a phone each, before the gateway's first start.
func people(t *testing.T, g *gateway, n int) {
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
		id := strconv.Itoa(2001 + i)
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

func packets(lines []*line) (n uint64) {
	for _, l := range lines {
		l.sound.Lock()
		n += l.heard
		l.sound.Unlock()
	}
	return n
}

// cpu is the time that the gateway's process has used, in user mode and in the kernel (proc(5)).
func cpu(t *testing.T, g *gateway) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.proc.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // a tick is 10 ms on Linux
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
