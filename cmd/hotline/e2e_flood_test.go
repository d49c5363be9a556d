package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/hotline12345/gateway/sip/siptest"
)

// inFull tells whether tests run in full, and not a sample of them.
func inFull() bool { return os.Getenv("HOTLINE_SOAK") == "1" }

// soak is the full number with HOTLINE_SOAK=1, else a sample of it.
func soak(full, sample int) int {
	if inFull() {
		return full
	}
	if raced { // everything is ten times as slow
		return sample / 4
	}
	return sample
}

// flood is a running call, and what is done to its gateway.
type flood struct {
	t             *testing.T
	g             *gateway
	caller, agent *line
	table         strings.Builder
	sent          int // messages, so that none is another's repetition
}

const (
	unlisted = `hotline_sip_gate_dropped_total{place="carriers",why="unknown_source"}`
	overRate = `hotline_sip_gate_dropped_total{place="carriers",why="rate"}`
)

// TestFlood floods a gateway that has a call from every side, and looks at the call, at the counters and
// at the memory after each.
func TestFlood(t *testing.T) {
	t.Setenv("GOGC", "100") // the memory of the gateway is measured
	g := startGateway(t, "ivr.flows="+toQueue(t), "ivr.default=queue", "sip.phone_sources=[127.0.0.1/32, 127.0.0.4/32]",
		"sip.trunks=[{name: carrier, sources: [127.0.0.1/32], identity: from, max_calls: 200}, "+
			"{name: loud, sources: [127.0.0.3/32], identity: from, numbers: ['057112345'], max_calls: 200}]",
		"emergency.drill_trunk=carrier", "sip.carriers.rate={messages: 200, burst: 1000}", "sip.phones.rate={messages: 1000, burst: 1000}",
		"sip.carriers.dialog.max_conns=40", "sip.carriers.dialog.message_timeout=2s",
		"http.connections=40", "http.read_timeout=2s")
	agent := newPhone(t, "1001", g.phones).answering(1100)
	agent.register(g.people["1001"].secret)
	g.login("1001")
	f := &flood{t: t, g: g, caller: newPhone(t, "13800000001", g.carriers).dial("12345").speak(700)}
	f.caller.connected()
	f.agent = receive(t, "the agent's phone rings", agent.incoming)
	f.caller.hears(1100)
	fmt.Fprintln(&f.table, "FLOOD\tSENT\tCOUNTED\tSECONDS\tRSS BEFORE\tRSS AFTER\tHEAP BEFORE\tHEAP AFTER\tGOROUTINES\tRTP LOST")

	f.run("datagrams of unlisted ports", 48, f.datagrams)
	f.run("INVITEs of an unlisted source", 48, f.strangers)
	f.run("INVITEs of a listed source", 160, f.invites)
	f.run("REGISTERs with wrong passwords", 160, f.registers)
	f.run("half-open SIP streams", 48, f.streams)
	f.run("slow and huge HTTP requests", 48, f.slow)

	late := newPhone(t, "13800000002", g.carriers).dial("12345")
	if took := late.connected(); took > 5*time.Second {
		t.Errorf("after the floods a call is answered in %v", took)
	}
	late.hangup()
	f.caller.hears(1100)
	f.caller.hangup()
	for _, cdr := range g.cdrs(2) {
		if cdr.CallerLeg.Lost != 0 || cdr.AgentLeg != nil && cdr.AgentLeg.Lost != 0 {
			t.Errorf("the gateway lost %d packets of the caller, %v of the agent", cdr.CallerLeg.Lost, cdr.AgentLeg)
		}
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, f.table.String())
	_ = w.Flush()
	t.Logf("\n%s", b.String())
	g.stop()
}

// toQueue is a directory with the flow queue, which leads to a person at once.
func toQueue(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	flow := "start: person\nperson: person\nnodes:\n  person: {type: queue, queue: default}\n"
	if err := os.WriteFile(filepath.Join(dir, "queue.yaml"), []byte(flow), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run runs a flood, which returns how much it sent and how much of that the gateway counted. The
// gateway's memory may grow by so many MiB.
func (f *flood) run(name string, growth int, flood func() (sent, counted int)) {
	f.t.Helper()
	rss, heap, goroutines := f.rss(), f.value("go_memstats_heap_inuse_bytes"), f.value("go_goroutines")
	start := time.Now()
	sent, counted := flood()
	took := time.Since(start)
	var lost int64
	for _, l := range []*line{f.caller, f.agent} {
		l.sound.Lock()
		lost += l.lost
		if time.Since(l.last) > time.Second {
			f.t.Errorf("%s: %s hears nothing any more", name, l.p.user)
		}
		l.sound.Unlock()
	}
	if lost != 0 {
		f.t.Errorf("%s: %d packets of the running call were lost", name, lost)
	}
	if sent != counted {
		f.t.Errorf("%s: %d were sent, %d counted", name, sent, counted)
	}
	after, running := f.rss(), f.value("go_goroutines")
	if raced { // the race detector keeps shadows of all that was ever used
		growth *= 8
	}
	if after > rss+growth<<10 {
		f.t.Errorf("%s: the gateway's RSS went from %d to %d KiB", name, rss, after)
	}
	if running > goroutines+200 {
		f.t.Errorf("%s: %d goroutines became %d", name, goroutines, running)
	}
	fmt.Fprintf(&f.table, "%s\t%d\t%d\t%.1f\t%d MiB\t%d MiB\t%d MiB\t%d MiB\t%d → %d\t%d\n", name, sent, counted, took.Seconds(),
		rss>>10, after>>10, heap>>20, f.value("go_memstats_heap_inuse_bytes")>>20, goroutines, running, lost)
}

// rss is the resident memory of the gateway in KiB.
func (f *flood) rss() int {
	kib, _ := strconv.Atoi(strings.TrimSuffix(status(f.t, f.g, "VmRSS:"), " kB"))
	return kib
}

func (f *flood) value(name string) int {
	f.t.Helper()
	v, err := strconv.ParseFloat(metric(f.t, f.g, name), 64)
	if err != nil {
		f.t.Fatal(err)
	}
	return int(v)
}

// counts waits until some counters together have grown by n, and returns by how much they have.
func (f *flood) counts(n int, from int, names ...string) int {
	f.t.Helper()
	got := 0
	deadline := time.Now().Add(15 * time.Second)
	for got < n && time.Now().Before(deadline) {
		got = f.sum(names...) - from
	}
	return got
}

func (f *flood) sum(names ...string) (all int) {
	f.t.Helper()
	for _, n := range names {
		all += f.value(n)
	}
	return all
}

// burst is what is sent before the gateway's counters are waited for: it fits into a socket's buffer,
// so that what the kernel drops does not blur the count.
const burst = 1000

// pour sends n messages from sockets in turn, and returns how many the counters tell.
func (f *flood) pour(from []*net.UDPConn, to netip.AddrPort, n int, message func(i int, from net.Addr) string, counters ...string) int {
	f.t.Helper()
	before := f.sum(counters...)
	for i := range n {
		c := from[i%len(from)]
		if _, err := c.WriteToUDPAddrPort([]byte(message(i, c.LocalAddr())), to); err != nil {
			f.t.Fatal(err)
		}
		if (i+1)%burst == 0 {
			f.counts(i+1, before, counters...)
		}
	}
	return f.counts(n, before, counters...)
}

func (f *flood) sockets(n int, at func(i int) netip.Addr) []*net.UDPConn {
	f.t.Helper()
	all := make([]*net.UDPConn, n)
	for i := range all {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at(i), 0)))
		if err != nil {
			f.t.Fatal(err)
		}
		all[i] = c
	}
	return all
}

func closeAll(all []*net.UDPConn) {
	for _, c := range all {
		_ = c.Close()
	}
}

func at(addr string) func(int) netip.Addr {
	return func(int) netip.Addr { return netip.MustParseAddr(addr) }
}

// request is a request that is like no other.
func (f *flood) request(method, user string, from net.Addr, to netip.AddrPort, more string) string {
	f.sent++
	return fmt.Sprintf("%[1]s sip:%[6]s SIP/2.0\r\nVia: SIP/2.0/UDP %[2]s;branch=z9hG4bKflood%[3]d;rport\r\nMax-Forwards: 70\r\n"+
		"From: <sip:%[4]s@%[2]s>;tag=%[3]d\r\nTo: <sip:%[4]s@%[2]s>\r\nCall-ID: flood%[3]d\r\nCSeq: 1 %[1]s\r\nContact: <sip:%[4]s@%[2]s>\r\n%[5]sContent-Length: 0\r\n\r\n",
		method, from, f.sent, user, more, map[bool]string{true: to.String(), false: "12345@" + to.String()}[method == "REGISTER"])
}

// datagrams come from many ports of addresses that nobody knows: half is noise, half is SIP.
func (f *flood) datagrams() (sent, counted int) {
	from := f.sockets(soak(10_000, 2000), func(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + i%200)}) })
	defer closeAll(from)
	sent = soak(100_000, 20_000)
	return sent, f.pour(from, f.g.carriers, sent, func(i int, a net.Addr) string {
		if i%2 == 0 {
			return strings.Repeat("\x00\xffnoise", 40)
		}
		return f.request("OPTIONS", "x", a, f.g.carriers, "")
	}, unlisted)
}

func (f *flood) strangers() (sent, counted int) {
	from := f.sockets(1, at("127.0.2.1"))
	defer closeAll(from)
	sent = soak(20_000, 5000)
	return sent, f.pour(from, f.g.carriers, sent, func(_ int, a net.Addr) string {
		return f.request("INVITE", "13900000000", a, f.g.carriers, "")
	}, unlisted)
}

// invites come from a carrier whose number is not dialled, many times over its rate: what is let in is
// refused, and another carrier's caller is answered in the middle of it.
func (f *flood) invites() (sent, counted int) {
	from := f.sockets(100, at("127.0.0.3"))
	defer closeAll(from)
	sent = soak(40_000, 12_000)
	counters := []string{overRate, `hotline_sip_calls_refused_total{why="number"}`, `hotline_sip_refused_total{why="calls_full"}`}
	dropped := f.value(overRate)
	var other *line
	counted = f.pour(from, f.g.carriers, sent, func(i int, a net.Addr) string {
		if i == sent/2 {
			other = newPhone(f.t, "13800000003", f.g.carriers).dial("12345")
		}
		return strings.Replace(f.request("INVITE", "13900000000", a, f.g.carriers, ""), "sip:12345@", "sip:99999@", 1)
	}, counters...)
	other.connected()
	other.hangup()
	if f.value(overRate) == dropped {
		f.t.Error("no INVITE was over the rate")
	}
	return sent, counted
}

// registers guess an agent's password with one nonce.
func (f *flood) registers() (sent, counted int) {
	from := f.sockets(1, at("127.0.0.4"))
	defer closeAll(from)
	c := from[0]
	if _, err := c.WriteToUDPAddrPort([]byte(f.request("REGISTER", "1001", c.LocalAddr(), f.g.phones, "")), f.g.phones); err != nil {
		f.t.Fatal(err)
	}
	buf := make([]byte, 65535)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := c.Read(buf)
	if err != nil {
		f.t.Fatal(err)
	}
	challenge := siptest.ParseMessage(string(buf[:n])).Get("WWW-Authenticate")
	const denied, locked = `hotline_registrar_requests_total{result="denied"}`, `hotline_registrar_requests_total{result="locked"}`
	sent = soak(10_000, 4000)
	guess := func(i int, a net.Addr) string {
		return f.request("REGISTER", "1001", a, f.g.phones, "Authorization: "+
			siptest.Authorize(challenge, "1001", strconv.Itoa(i), "REGISTER", "sip:"+f.g.phones.String())+"\r\n")
	}
	wrong := f.value(denied)
	counted = f.pour(from, f.g.phones, sent, guess, denied, locked, `hotline_sip_gate_dropped_total{place="phones",why="rate"}`)
	if got := f.value(denied) - wrong; got != 10 {
		f.t.Errorf("%d passwords were tried before the source was locked out", got)
	}
	newPhone(f.t, "1002", f.g.phones).register(f.g.people["1002"].secret)
	return sent, counted
}

// streams connect and send nothing, or half a message, many more than may be open.
func (f *flood) streams() (sent, counted int) {
	const streams = 120
	refused := []string{`hotline_sip_refused_total{why="connections_full"}`, `hotline_sip_refused_total{why="half_message"}`}
	before := f.sum(refused...)
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 3)}}
	for i := range streams {
		c, err := from.Dial("tcp", f.g.carriers.String())
		if err != nil {
			f.t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if i%2 == 0 {
			_, _ = io.WriteString(c, "INVITE sip:12345@x SIP/2.0\r\nVia: SIP/2.0/TCP") // it may be closed already
		}
	}
	counted = f.counts(streams, before, refused...)
	c, err := from.Dial("tcp", f.g.carriers.String())
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, strings.Replace(f.request("OPTIONS", "x", c.LocalAddr(), f.g.carriers, ""), "/UDP", "/TCP", 1)); err != nil {
		f.t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "SIP/2.0 200") {
		f.t.Errorf("after the half-open streams: %q, %v", line, err)
	}
	return streams, counted
}

// slow sends bodies a byte at a time, on more connections than may be open, and a header without an end.
func (f *flood) slow() (sent, counted int) {
	const connections, open, full = 100, 40, "hotline_http_connections_refused_total"
	http.DefaultClient.CloseIdleConnections()
	refused := f.value(full)
	http.DefaultClient.CloseIdleConnections()
	over := make(chan time.Duration, connections)
	start := time.Now()
	for range connections {
		c, err := net.Dial("tcp", f.g.console)
		if err != nil {
			f.t.Fatal(err)
		}
		_, _ = io.WriteString(c, "POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4096\r\n\r\n")
		go func() {
			defer func() { _ = c.Close() }()
			stop := make(chan struct{})
			go func() {
				defer close(stop)
				_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
				_, _ = io.Copy(io.Discard, c)
			}()
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					over <- time.Since(start)
					return
				case <-tick.C:
					_, _ = io.WriteString(c, " ")
				}
			}
		}()
	}
	for range connections {
		if took := <-over; took > 15*time.Second {
			f.t.Errorf("a slow body held its connection for %v", took)
		}
	}
	c, err := net.Dial("tcp", f.g.console)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 64<<10))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, " 431 ") {
		f.t.Errorf("a huge header: %q, %v", line, err)
	}
	if got := f.value(full) - refused; got < connections-open {
		f.t.Errorf("%d connections were refused, want %d", got, connections-open)
	}
	return connections, connections // each was closed
}
