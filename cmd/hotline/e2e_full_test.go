package main

import (
	"bufio"
	"database/sql"
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

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

// full is a gateway of which one cap after the other is full, and what its callers get then.
type full struct {
	t        *testing.T
	g        *gateway
	services *phone // where the drills go
	agent    *phone
	pages    *http.Client // with a connection of its own, which it keeps
	number   int          // of the next caller
	table    strings.Builder
}

func newFull(t *testing.T, sets ...string) *full {
	t.Helper()
	flows := t.TempDir()
	for _, q := range []string{"default", "narrow"} {
		flow := fmt.Sprintf("start: person\nperson: person\nnodes:\n  person: {type: queue, queue: %s}\n", q)
		if err := os.WriteFile(filepath.Join(flows, q+".yaml"), []byte(flow), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := &full{t: t, services: newPhone(t, "services", netip.AddrPort{}).answering(0), pages: &http.Client{Transport: &http.Transport{}}}
	f.g = startGateway(t, append([]string{"ivr.flows=" + flows, "ivr.default=default", "ivr.routes=[{called: '12347', flow: narrow}]",
		"sip.own_numbers=['12345', '12347']",
		"queue.queues=[{name: default, display: {zh: 综合, en: General}, max_waiting: 200, ring: 20s, wrapup: 0s}, " +
			"{name: narrow, display: {zh: 窄, en: Narrow}, max_waiting: 1, ring: 20s, wrapup: 0s}]",
		"emergency.drill_trunk=loopback", "emergency.drill_number=9",
		fmt.Sprintf("sip.trunks=[{name: loopback, sources: [127.0.0.0/8], identity: from, address: '%s', max_calls: 200, caller: '057112345'}, "+
			"{name: small, sources: [127.0.0.2/32], identity: from, max_calls: 5}]", f.services.addr())}, sets...)...)
	f.agent = newPhone(t, "1001", f.g.phones).answering(1100)
	f.agent.register(f.g.people["1001"].secret)
	fmt.Fprintln(&f.table, "CAP\tAN ORDINARY CALLER\tCOUNTER\tBY\tTHE EMERGENCY KEY\tMS FROM KEY TO INVITE")
	return f
}

// value is a metric of the gateway; the name has its labels.
func (f *full) value(name string) int {
	f.t.Helper()
	res, err := f.pages.Get("http://" + f.g.console + "/metrics")
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	_, rest, ok := strings.Cut("\n"+string(body), "\n"+name+" ")
	if !ok {
		f.t.Fatalf("there is no metric %s", name)
	}
	text, _, _ := strings.Cut(rest, "\n")
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		f.t.Fatal(err)
	}
	return int(v)
}

// from places a call from a number that has not called yet.
func (f *full) from(at, called string) *line {
	f.t.Helper()
	f.number++
	return newPhoneAt(f.t, netip.MustParseAddr(at), fmt.Sprintf("139%08d", f.number), f.g.carriers).dial(called)
}

// in places a call and waits for its answer.
func (f *full) in(at, called string) *line {
	f.t.Helper()
	l := f.from(at, called)
	l.connected()
	return l
}

// stages are the stages of the live calls.
func (f *full) stages(s session.Stage) (n int) {
	for _, v := range f.g.calls() {
		n += btoi(v.Stage == s)
	}
	return n
}

// await waits until so many calls are at a stage.
func (f *full) await(s session.Stage, n int) {
	f.t.Helper()
	until(f.t, 20*time.Second, fmt.Sprintf("%d calls are at %s", n, s), func() bool { return f.stages(s) == n })
}

// refused waits for the refusal of a call and tells it.
func (f *full) refused(l *line) string {
	f.t.Helper()
	select {
	case m := <-l.refused:
		return fmt.Sprintf("%d, Retry-After %s s", m.Status(), m.Get("Retry-After"))
	case <-l.answered:
		return "answered"
	case <-time.After(15 * time.Second):
		return "no answer"
	}
}

// row writes down a cap that is full: what an ordinary caller got, a counter that it made grow since
// before, and the drill that a caller reaches who presses the key.
func (f *full) row(name, got, want, counter string, before int, danger *line) {
	f.t.Helper()
	if got != want {
		f.t.Errorf("%s: an ordinary caller got %q, want %q", name, got, want)
	}
	danger.press("0")
	until(f.t, 20*time.Second, name+": the emergency key is heard", func() bool { return f.stages(session.StageEmergency) > 0 })
	chosen := danger.press("2")
	reached := receive(f.t, name+": the drill rings", f.services.incoming)
	took := reached.invite.At.Sub(chosen)
	number, _, _ := strings.Cut(strings.TrimPrefix(reached.invite.URI(), "sip:"), "@")
	if number != "9119" {
		f.t.Errorf("%s: the drill was called as %q", name, number)
	}
	// Another program may have its turn at the processor or the disk: the table tells the time, TestEmergencyTable judges it.
	if took > 3*time.Second {
		f.t.Errorf("%s: the INVITE came %v after the choosing key", name, took)
	}
	until(f.t, 20*time.Second, name+": the caller speaks with the drill", func() bool { return f.stages(session.StageService) > 0 })
	grown := 0
	until(f.t, 20*time.Second, name+": "+counter+" grows", func() bool { grown = f.value(counter) - before; return grown > 0 })
	fmt.Fprintf(&f.table, "%s\t%s\t%s\t+%d\treaches %s\t%.1f\n", name, got, counter, grown, number, float64(took.Microseconds())/1000)
}

// end hangs up and waits until the gateway has no call.
func (f *full) end(lines ...*line) {
	f.t.Helper()
	for _, l := range lines {
		l.hangup()
	}
	until(f.t, 40*time.Second, "the calls are over", func() bool { return len(f.g.calls()) == 0 })
}

func (f *full) print() {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, f.table.String())
	_ = w.Flush()
	f.t.Logf("\n%s", b.String())
}

const (
	reserved  = "hotline_sip_calls_reserve_total"
	exitAlone = "answered for the emergency exit alone"
	noPlace   = "503, Retry-After 10 s"
)

// exit tells whether one more of the calls hears that all is full and may leave by the exit alone.
func (f *full) exit(n int) string {
	f.t.Helper()
	f.await(session.StageReserve, n)
	return exitAlone
}

// TestFullPlaces fills the caps of calls, the queue, the ports and the connections.
func TestFullPlaces(t *testing.T) {
	t.Parallel()
	low := 26000 + 40*(os.Getpid()%100) // twenty pairs of ports: four are kept
	f := newFull(t, fmt.Sprintf("sip.media.port_min=%d", low), fmt.Sprintf("sip.media.port_max=%d", low+39),
		"sip.carriers.dialog.max_conns=5", "http.connections=10")
	f.calls("a trunk's calls", "127.0.0.2", "trunk_full", 1)
	f.queueLength()
	f.streams()
	f.http()
	f.ports()
	f.print()
	f.g.stop()
}

// TestFullBooks fills what is kept of calls, and the cap of the whole gateway.
func TestFullBooks(t *testing.T) {
	t.Parallel()
	closed := freePort(t)
	secret := filepath.Join(t.TempDir(), "intake.secret")
	if err := os.WriteFile(secret, []byte("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFull(t, "sip.max_calls=10", "recording.max_open=1", "journal.buffer=64", "intake.max_spool=1",
		fmt.Sprintf("intake.targets=[{name: cases, kind: webhook, url: 'http://127.0.0.1:%d/', secret_file: %q, networks: [127.0.0.0/8]}]", closed, secret))
	f.recordings()
	f.spool()
	f.calls("calls in all", "127.0.0.1", "all_full", 6)
	f.journal()
	f.print()
	f.g.stop()
}

// TestFullDisk has no room for recordings from the start.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	f := newFull(t, "recording.watermarks={alarm: 0.999999, optional: 0.999999, stop: 0.999999}")
	f.disk()
	f.print()
	f.g.stop()
}

// calls fills a cap of calls: the ordinary ones, and the four that are kept.
func (f *full) calls(name, at, why string, ordinary int) {
	var first []*line
	for range ordinary {
		first = append(first, f.in(at, "12345"))
	}
	f.await(session.StageQueue, ordinary)
	before := f.value(reserved)
	kept := []*line{f.in(at, "12345")}
	f.row(name+", ordinary", f.exit(1), exitAlone, reserved, before, kept[0])
	for range 3 {
		kept = append(kept, f.in(at, "12345"))
	}
	counter := fmt.Sprintf("hotline_sip_calls_refused_total{why=%q}", why)
	before = f.value(counter)
	f.row(name+", kept too", f.refused(f.from(at, "12345")), noPlace, counter, before, kept[1])
	f.end(append(kept, first...)...)
}

func (f *full) queueLength() {
	const counter = `hotline_queue_exit_total{queue="narrow",reason="full"}`
	first := f.in("127.0.0.1", "12347")
	f.await(session.StageQueue, 1)
	before := f.value(counter)
	ordinary, danger := f.in("127.0.0.1", "12347"), f.in("127.0.0.1", "12347")
	got := "hears that the queue is full, then BYE"
	f.row("queue length", got, got, counter, before, danger)
	receiveIn(f.t, 40*time.Second, "the ordinary caller is let go", ordinary.ended)
	f.end(first, danger)
	for _, cdr := range f.g.cdrs(2) {
		if cdr.Queue == "narrow" && cdr.Connected.IsZero() && cdr.EndReason != "full" && cdr.EndReason != "caller" {
			f.t.Errorf("queue length: a call ended by %q", cdr.EndReason)
		}
	}
}

// ports takes every pair that is not kept, and then those too.
func (f *full) ports() {
	before := f.value(reserved)
	var taken []*line
	for n := 1; f.stages(session.StageReserve) == 0; n++ {
		taken = append(taken, f.in("127.0.0.1", "12345"))
		until(f.t, 20*time.Second, "the call is at its stage", func() bool {
			return f.stages(session.StageQueue)+f.stages(session.StageReserve) == n
		})
	}
	danger := taken[len(taken)-1]
	f.row("RTP ports, ordinary", f.exit(1), exitAlone, reserved, before, danger)
	const counter = "hotline_rtp_port_pool_exhausted_total"
	before = f.value(counter)
	got, last := "answered", danger
	for got == "answered" {
		taken = append(taken, last)
		last = f.from("127.0.0.1", "12345")
		got = f.refused(last)
	}
	danger.hangup() // its pair, and the drill's, are what a second caller in danger needs
	until(f.t, 10*time.Second, "the first caller in danger has left", func() bool { return f.stages(session.StageService) == 0 })
	f.row("RTP ports, kept too", got, noPlace, counter, before, taken[len(taken)-1])
	f.end(taken...)
}

func (f *full) streams() {
	const counter = `hotline_sip_refused_total{why="connections_full"}`
	dial := func() net.Conn {
		c, err := net.Dial("tcp", f.g.carriers.String())
		if err != nil {
			f.t.Fatal(err)
		}
		return c
	}
	before := f.value(counter)
	for range 5 {
		defer func(c net.Conn) { _ = c.Close() }(dial())
	}
	sixth := dial()
	defer func() { _ = sixth.Close() }()
	danger := f.in("127.0.0.1", "12345")
	f.row("TCP connections", closedAtOnce(sixth), "closed at once", counter, before, danger)
	f.end(danger)
}

func (f *full) http() {
	const counter = "hotline_http_connections_refused_total"
	before := f.value(counter) // and has its connection
	for range 9 {
		c, err := net.Dial("tcp", f.g.console)
		if err != nil {
			f.t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	more, err := net.Dial("tcp", f.g.console)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = more.Close() }()
	danger := f.in("127.0.0.1", "12345")
	f.row("HTTP connections", closedAtOnce(more), "closed at once", counter, before, danger)
	f.end(danger)
}

// closedAtOnce is what a connection gets that is one too many.
func closedAtOnce(c net.Conn) string {
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := bufio.NewReader(c).ReadByte(); err != nil && !os.IsTimeout(err) {
		return "closed at once"
	}
	return "stays"
}

// talk lets an ordinary caller speak with the agent.
func (f *full) talk() *line {
	f.t.Helper()
	f.g.login("1001")
	f.g.awaitAgent("1001", queue.Idle)
	l := f.in("127.0.0.1", "12345")
	receive(f.t, "the agent rings", f.agent.incoming)
	l.hears(1100)
	return l
}

// talked ends a talk, and tells whether it has a recording.
func (f *full) talked(l *line) string {
	f.t.Helper()
	n := len(f.g.cdrs(0))
	l.hangup()
	cdr := f.g.cdrs(n + 1)[0]
	f.g.post("/agents/1001/logout", map[string]string{}, nil)
	return fmt.Sprintf("talks to an agent, evidence %s", cdr.Evidence)
}

// recordings has the one recording open that may be, of a caller in danger.
func (f *full) recordings() {
	const counter = `hotline_recordings_total{result="too_many"}`
	first := f.in("127.0.0.1", "12345")
	first.press("0")
	f.await(session.StageEmergency, 1)
	first.press("1")
	receive(f.t, "the first drill rings", f.services.incoming)
	until(f.t, 10*time.Second, "a recording is open", func() bool { return f.value("hotline_recordings_open") == 1 })
	before := f.value(counter)
	got := f.talked(f.talk())
	danger := f.in("127.0.0.1", "12345")
	f.row("recordings open", got, "talks to an agent, evidence none", counter, before, danger)
	f.end(first, danger)
}

// spool is full of the event that the caller in danger left: case intake does not answer.
func (f *full) spool() {
	const counter = `hotline_intake_refused_total{reason="full"}`
	until(f.t, 10*time.Second, "an event waits for case intake", func() bool { return f.value(`hotline_intake_spool{target="cases"}`) == 1 })
	before := f.value(counter)
	got := f.talked(f.talk())
	danger := f.in("127.0.0.1", "12345")
	f.row("intake spool", got, "talks to an agent, evidence recorded", counter, before, danger)
	f.end(danger)
}

// journal is locked by another program, so that its buffer fills.
func (f *full) journal() {
	const counter = "hotline_journal_dropped_total"
	db, err := sql.Open("sqlite", "file:"+filepath.Join(f.g.data(), "journal.db")+"?_txlock=immediate&_pragma=busy_timeout(20000)") // the gateway may be writing
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	lock, err := db.Begin()
	if err != nil {
		f.t.Fatal(err)
	}
	before := f.value(counter)
	fill := []*line{f.in("127.0.0.1", "12345"), f.in("127.0.0.1", "12345")}
	for f.value(counter) == before {
		for _, l := range fill {
			l.press("1") // each key is an entry of the timeline
		}
	}
	ordinary, danger := f.in("127.0.0.1", "12345"), f.in("127.0.0.1", "12345")
	f.await(session.StageQueue, 4)
	f.row("journal buffer", "waits for an agent", "waits for an agent", counter, before, danger)
	if err := lock.Rollback(); err != nil {
		f.t.Error(err)
	}
	f.end(append(fill, ordinary, danger)...)
}

func (f *full) disk() {
	const counter = `hotline_recordings_total{result="no_space"}`
	before := f.value(counter)
	got := f.talked(f.talk())
	danger := f.in("127.0.0.1", "12345")
	f.row("recording disk at its stop mark", got, "talks to an agent, evidence none", counter, before, danger)
	f.end(danger)
}
