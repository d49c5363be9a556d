package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/hotline12345/gateway/internal/asterisk/asterisktest"
	"github.com/hotline12345/gateway/internal/session"
)

// bench is one way to serve calls that are all in talk and recorded, under measurement.
type bench struct {
	name string
	g    *gateway // with the addresses that callers and phones use; its process only where there is one
	ast  *asterisktest.Server
	// recorded is how many calls are recorded.
	recorded func() int
}

// TestSideBySide measures recorded talks by our own SIP, by an Asterisk that the gateway drives, and by a plain Asterisk
// with Queue() and MixMonitor, one after the other on the same machine: 50, 100 and 200, or HOTLINE_BENCH_CALLS.
func TestSideBySide(t *testing.T) {
	if os.Getenv("HOTLINE_BENCH") != "1" {
		t.Skip("a measurement; HOTLINE_BENCH=1 runs it")
	}
	sizes := []int{50, 100, 200}
	if n, err := strconv.Atoi(os.Getenv("HOTLINE_BENCH_CALLS")); err == nil {
		sizes = []int{n}
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TALKS\tBY\tCPU A TALK, MS A SECOND: GATEWAY + ASTERISK\tTOGETHER\tTIME TO RING P50\tP95\tMAX\tRSS MIB: GATEWAY + ASTERISK\tRECORDED\tALL ELSE, CORES")
	for _, n := range sizes {
		for _, way := range []func(*testing.T, int) *bench{bySIP, byAsterisk, byQueue} {
			t.Run("", func(t *testing.T) { fmt.Fprintln(w, way(t, n).measure(t, n)) })
		}
	}
	_ = w.Flush()
	t.Logf("\n%s", b.String())
}

// benchSets are the settings of a gateway under measurement.
func benchSets(t *testing.T) []string {
	return []string{"store.addrs=[" + startRedis(t).addr() + "]", "store.timeout=200ms", "ivr.flows=" + toQueue(t), "ivr.default=queue",
		"queue.queues=[{name: default, display: {zh: 综合, en: General}, max_waiting: 2000, ring: 20s, wrapup: 0s}]"}
}

// serve starts a bench's gateway with agents, 2001 and up.
func (b *bench) serve(t *testing.T, n int) {
	t.Helper()
	people(t, b.g, 2001, n)
	b.g.start()
	b.recorded = func() (talks int) {
		for _, v := range b.g.calls() {
			talks += btoi(v.Stage == session.StageTalk && v.Evidence == "recorded")
		}
		return talks
	}
}

func bySIP(t *testing.T, n int) *bench {
	b := &bench{name: "our own SIP", g: newGateway(t, append(benchSets(t), "sip.max_calls=2000",
		"sip.media.port_min=10000", "sip.media.port_max=17999",
		"sip.trunks=[{name: loopback, sources: [127.0.0.0/8], identity: pai, max_calls: 2000}]")...)}
	b.serve(t, n)
	return b
}

func byAsterisk(t *testing.T, n int) *bench {
	b := &bench{name: "Asterisk, by ARI", ast: benchAsterisk(t, n, nil)}
	b.g = newGateway(t, append(benchSets(t), astSets(t, b.ast, b.ast.URL)...)...)
	b.serve(t, n)
	until(t, 20*time.Second, "the gateway is connected", func() bool { return metric(t, b.g, "hotline_ari_connected") == "1" })
	b.at()
	return b
}

// byQueue is what an administrator has without a gateway.
func byQueue(t *testing.T, n int) *bench {
	var members strings.Builder
	for i := range n {
		fmt.Fprintf(&members, "member => PJSIP/%d\n", 2001+i)
	}
	b := &bench{name: "plain Asterisk: Queue(), MixMonitor"}
	b.ast = benchAsterisk(t, n, map[string]string{
		"queues.conf": "[general]\nautofill = yes\n[bench]\nstrategy = rrmemory\nringinuse = no\ntimeout = 20\nretry = 1\n" + members.String(),
		"extensions.conf": "[hotline-carriers]\nexten => _[+0-9].,1,Answer()\n same => n,MixMonitor(" + filepath.Join(t.TempDir(), "${UNIQUEID}.wav") +
			")\n same => n,Queue(bench)\n[hotline-phones]\n"})
	b.g = &gateway{t: t, people: map[string]credentials{}}
	b.at()
	b.recorded = func() int { return n } // Asterisk does not tell
	return b
}

// benchAsterisk is an Asterisk with phones and room for n talks; files take the place of its own.
func benchAsterisk(t *testing.T, n int, files map[string]string) *asterisktest.Server {
	t.Helper()
	ast := asterisktest.Start(t, "node1", "127.0.0.1:9")
	astPhones(t, ast, n)
	ast.Kill()
	all := map[string]string{"rtp.conf": "[general]\nrtpstart = 20000\nrtpend = 29999\nstrictrtp = no\nicesupport = no\n"}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(ast.Dir, "etc", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ast.Boot()
	return ast
}

// at lets callers and phones go to the Asterisk.
func (b *bench) at() {
	b.g.carriers = netip.MustParseAddrPort(b.ast.SIP)
	b.g.phones = b.g.carriers
}

// measure brings n callers into a talk each, at ten a second, and measures while all talk.
func (b *bench) measure(t *testing.T, n int) string {
	t.Helper()
	const span = 15 * time.Second
	c := newCrowd(t)
	for i := range n {
		id := strconv.Itoa(2001 + i)
		if b.ast != nil {
			b.g.people[id] = credentials{secret: b.ast.Secret}
		}
		if status := c.desk(id, b.g, func() time.Duration { return 0 }).register(600); status != 200 {
			t.Fatalf("REGISTER of %s: %d", id, status)
		}
		if b.g.proc != nil {
			b.g.login(id)
		}
	}
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	for i := range n {
		<-pace.C
		c.dial(&visit{number: fmt.Sprintf("136%08d", i), speaks: true, gateways: []*gateway{b.g}})
	}
	until(t, 120*time.Second, "all talk", func() bool {
		talks := 0
		c.look(func() {
			for _, v := range c.visits {
				talks += btoi(v.ring != nil && v.ended.IsZero())
			}
		})
		return talks == n
	})
	time.Sleep(3 * time.Second) // the burst of the beginning is over
	gateway, asterisk, crowd, all, start := b.cpu(t, true), b.cpu(t, false), cpu(t, os.Getpid()), machine(t), time.Now()
	time.Sleep(span) // the time of the measurement
	took := time.Since(start)
	gateway, asterisk = b.cpu(t, true)-gateway, b.cpu(t, false)-asterisk
	others := machine(t) - all - gateway - asterisk - (cpu(t, os.Getpid()) - crowd)
	each := func(d time.Duration) float64 { return 1000 * d.Seconds() / took.Seconds() / float64(n) }
	var rings []time.Duration
	c.look(func() {
		for _, v := range c.visits {
			rings = append(rings, v.ring.rang.Sub(v.sent))
		}
	})
	slices.Sort(rings)
	at := func(share int) time.Duration { return rings[(len(rings)-1)*share/100].Round(time.Millisecond) }
	row := fmt.Sprintf("%d\t%s\t%.1f + %.1f\t%.1f\t%v\t%v\t%v\t%.0f + %.0f\t%d\t%.1f", n, b.name, each(gateway), each(asterisk), each(gateway+asterisk),
		at(50), at(95), at(100), b.rss(t, true), b.rss(t, false), b.recorded(), others.Seconds()/took.Seconds())
	if b.recorded() != n {
		t.Errorf("%d calls are recorded, want %d", b.recorded(), n)
	}
	c.noFaults()
	c.hangupAll()
	until(t, 60*time.Second, "the calls have ended", func() bool {
		left := 0
		c.look(func() { left = len(c.parties) })
		return left == 0
	})
	if b.g.proc != nil {
		b.g.stop()
	}
	return row
}

// pid is the process of the gateway, or of the Asterisk; 0 is none.
func (b *bench) pid(gateway bool) int {
	switch {
	case gateway && b.g.proc != nil:
		return b.g.proc.cmd.Process.Pid
	case !gateway && b.ast != nil:
		return b.ast.Pid()
	}
	return 0
}

func (b *bench) cpu(t *testing.T, gateway bool) time.Duration {
	t.Helper()
	if b.pid(gateway) == 0 {
		return 0
	}
	return cpu(t, b.pid(gateway))
}

// rss is the memory of a process in MiB (proc(5)).
func (b *bench) rss(t *testing.T, gateway bool) float64 {
	t.Helper()
	if b.pid(gateway) == 0 {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.pid(gateway)))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kb / 1024
}
