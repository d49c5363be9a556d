package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/hotline12345/gateway/queue"
)

// soaking is a line of two gateways in its ordinary day: every kind of call, and what people do besides.
type soaking struct {
	t       *testing.T
	c       *crowd
	nodes   []*gateway
	desks   []*desk
	length  time.Duration
	start   time.Time
	number  int
	samples [][]sample // of each gateway
	table   strings.Builder

	drills, callBacks, pauses, refreshes atomic.Int64
}

// sample is what a gateway holds at a moment.
type sample struct{ goroutines, files, rss, heap float64 }

const (
	soakRate   = 400 * time.Millisecond // between two calls: leaves two cores half idle
	soakSample = 10 * time.Second
	soakDesks  = 5 // a gateway
)

// TestSoak lets a line of two gateways go on for HOTLINE_SOAK_FOR (30m): goroutines, files and memory are
// flat, nothing is stuck, nobody is lost.
func TestSoak(t *testing.T) {
	if !inFull() {
		t.Skip("takes half an hour; HOTLINE_SOAK=1 runs it, HOTLINE_SOAK_FOR=2m for so long")
	}
	length, err := time.ParseDuration(cmp.Or(os.Getenv("HOTLINE_SOAK_FOR"), "30m"))
	if err != nil {
		t.Fatal(err)
	}
	s := newSoaking(t, length)
	s.call(2 * soakDesks * 10) // what grows at first use has grown then
	s.idle()
	before := s.look()
	s.start = time.Now()
	acting, stop := context.WithCancel(t.Context())
	acts := make(chan struct{})
	go func() { defer close(acts); s.people(acting) }()
	watching := make(chan struct{})
	go func() { defer close(watching); s.watch(acting) }()
	s.call(int(length / soakRate))
	stop()
	<-acts
	<-watching
	s.idle()
	s.judge(before)
	for _, g := range s.nodes {
		g.stop()
	}
}

func newSoaking(t *testing.T, length time.Duration) *soaking {
	t.Helper()
	s := &soaking{t: t, length: length}
	redis := startRedis(t)
	secret := filepath.Join(t.TempDir(), "cluster.secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("s0aking!", 8)), 0o600); err != nil {
		t.Fatal(err)
	}
	city := newPhone(t, "city", netip.AddrPort{}).answering(0)
	go func() { // whom the call backs and the drills reach
		for {
			select {
			case l := <-city.incoming:
				if number, _, _ := strings.Cut(strings.TrimPrefix(l.invite.URI(), "sip:"), "@"); strings.HasPrefix(number, "9") {
					s.drills.Add(1)
				}
			case <-t.Context().Done():
				return
			}
		}
	}()
	flows := toQueue(t)
	for n := range 2 {
		g := newGateway(t, "session.node=node"+strconv.Itoa(n+1), "store.addrs=["+redis.addr()+"]", "ivr.flows="+flows, "ivr.default=queue",
			"nodes.secret_file="+secret, "nodes.listen=127.0.0.1:0", "sip.nodes.listen=127.0.0.1:0",
			"emergency.drill_trunk=loopback", "emergency.drill_number=9", "session.call_back.trunk=loopback", "sip.own_numbers=['12345']",
			fmt.Sprintf("sip.trunks=[{name: loopback, sources: [127.0.0.0/8], identity: pai, address: '%s', max_calls: 200, caller: '057112345'}]", city.addr()),
			"queue.queues=[{name: default, display: {zh: 综合, en: General}, max_waiting: 200, ring: 20s, wrapup: 500ms}]",
			fmt.Sprintf("intake.targets=[{name: directory, kind: directory, dir: %q}]", t.TempDir()))
		people(t, g, 2001+100*n, soakDesks)
		g.start()
		s.nodes = append(s.nodes, g)
	}
	for _, g := range s.nodes {
		until(t, 30*time.Second, "the gateways know one another", func() bool { return g.peers() == 1 })
	}
	s.c = newCrowd(t)
	for n, g := range s.nodes {
		for i := range soakDesks {
			d := s.c.desk(strconv.Itoa(2001+100*n+i), g, func() time.Duration { return 2*time.Second + rand.N(2*time.Second) })
			if status := d.register(120); status != http.StatusOK {
				t.Fatalf("REGISTER of %s: %d", d.extension, status)
			}
			g.login(d.extension)
			s.desks = append(s.desks, d)
		}
	}
	s.samples = make([][]sample, len(s.nodes))
	return s
}

// call places calls of all kinds, one after the other.
func (s *soaking) call(n int) {
	pace := time.NewTicker(soakRate)
	defer pace.Stop()
	var gone *visit
	for i := range n {
		<-pace.C
		s.number++
		v := &visit{number: fmt.Sprintf("136%08d", s.number), speaks: true, gateways: slices.Clone(s.nodes)}
		if i%2 == 1 {
			slices.Reverse(v.gateways)
		}
		switch i % 10 {
		case 3, 6: // hangs up in the queue
			v.patience = time.Millisecond
			gone = v
		case 7: // calls again
			v.number, v.redial = gone.number, gone
		case 8: // presses what means nothing
			v.keys = "7*#"
		case 9: // is in danger, and hangs up after some words with the service
			v.keys, v.patience = "02", 4*time.Second
		}
		s.c.dial(v)
	}
}

// people is what agents and managers do meanwhile.
func (s *soaking) people(ctx context.Context) {
	turn := time.NewTicker(2 * time.Second)
	defer turn.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-turn.C:
		}
		d := s.desks[n/2%len(s.desks)]
		if n%2 == 0 {
			d.at.post("/agents/"+d.extension+"/pause", map[string]string{"reason": "tea"}, nil)
		} else {
			d.at.post("/agents/"+d.extension+"/ready", map[string]string{}, nil)
			s.pauses.Add(1)
		}
		if n%5 == 4 {
			s.callBack(s.desks[(n+3)%len(s.desks)])
		}
		if status := d.register(120); status != http.StatusOK {
			s.t.Errorf("%s refreshes its registration: %d", d.extension, status)
		}
		s.refreshes.Add(1)
	}
}

// callBack lets an agent call somebody of the ledger. An agent in a call is refused that, and a caller may
// have called again meanwhile.
func (s *soaking) callBack(d *desk) {
	var tasks []queue.CallBack
	d.at.get("/callbacks", &tasks)
	if len(tasks) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var id string
	if d.at.control.post(ctx, "/callbacks/"+url.PathEscape(tasks[0].ID)+"/call", map[string]string{"by": "1001", "agent": d.extension}, &id) == nil {
		s.callBacks.Add(1)
	}
}

// watch takes a sample of each gateway each ten seconds, and prints them each minute.
func (s *soaking) watch(ctx context.Context) {
	turn := time.NewTicker(soakSample)
	defer turn.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			s.print()
			return
		case <-turn.C:
		}
		for i, one := range s.look() {
			s.samples[i] = append(s.samples[i], one)
			fmt.Fprintf(&s.table, "%v\tnode%d\t%.0f\t%.0f\t%.1f\t%.1f\t%d\n", time.Since(s.start).Round(time.Second), i+1,
				one.goroutines, one.files, one.rss/(1<<20), one.heap/(1<<20), len(s.nodes[i].calls()))
		}
		if n%6 == 0 {
			s.print()
		}
	}
}

func (s *soaking) print() {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "AT\tGATEWAY\tGOROUTINES\tFILES\tRSS MIB\tHEAP MIB\tCALLS\n"+s.table.String())
	_ = w.Flush()
	s.table.Reset()
	s.t.Logf("\n%s", b.String())
}

// look is a sample of each gateway. What the gateways hold for stuck fails the test.
func (s *soaking) look() (all []sample) {
	for i, g := range s.nodes {
		res, err := http.Get("http://" + g.console + "/metrics")
		if err != nil {
			s.t.Errorf("node%d tells no metrics: %v", i+1, err)
			return nil
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			s.t.Errorf("node%d tells no metrics: %v", i+1, err)
			return nil
		}
		values, stuck := map[string]float64{}, 0
		for line := range bytes.Lines(body) {
			name, text, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
			if m := stuckMetric.FindStringSubmatch(strings.TrimSpace(string(line))); m != nil {
				if stuck++; m[1] != "0" {
					s.t.Errorf("node%d: %s", i+1, line)
				}
			}
			values[name], _ = strconv.ParseFloat(text, 64)
		}
		if stuck == 0 {
			s.t.Errorf("node%d has no metric of what is stuck", i+1)
		}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.proc.cmd.Process.Pid))
		if err != nil {
			s.t.Error(err)
		}
		rss, _ := strconv.ParseFloat(strings.TrimSuffix(status(s.t, g, "VmRSS:"), " kB"), 64)
		all = append(all, sample{goroutines: values["go_goroutines"], files: float64(len(files)), rss: rss * 1024, heap: values["go_memstats_heap_inuse_bytes"]})
	}
	return all
}

// idle waits until no call is left anywhere and what is owed to case intake is given.
func (s *soaking) idle() {
	s.t.Helper()
	until(s.t, 90*time.Second, "all legs have ended", func() bool {
		left := 0
		s.c.look(func() { left = len(s.c.parties) })
		return left == 0
	})
	for _, g := range s.nodes {
		until(s.t, 60*time.Second, "the calls are over and the outbox is empty", func() bool {
			var waiting []struct{}
			g.get("/intake/waiting", &waiting)
			return len(g.calls()) == 0 && len(waiting) == 0
		})
	}
}

// judge says what the run was like, and fails the test unless it was flat.
func (s *soaking) judge(before []sample) {
	s.t.Helper()
	var served, left, lost int
	s.c.look(func() {
		for _, v := range s.c.visits {
			switch {
			case v.ring != nil:
				served++
			case v.patience > 0 && v.by == "caller":
				left++
			default:
				lost++
				s.t.Errorf("%s is lost: sent %s, answered %s, ended %s by %s", v.number, v.sent.Format(clock), v.answered.Format(clock), v.ended.Format(clock), v.by)
			}
		}
	})
	s.t.Logf("%v: %d calls: %d served, %d ended by the caller, %d lost; %d drills, %d call backs, %d pauses, %d refreshed registrations",
		s.length, len(s.c.visits), served, left, lost, s.drills.Load(), s.callBacks.Load(), s.pauses.Load(), s.refreshes.Load())
	if s.drills.Load() == 0 || s.callBacks.Load() == 0 {
		s.t.Error("there was no drill, or no call back")
	}
	s.c.noFaults()
	for i, all := range s.samples {
		s.flat(i, all, before[i])
	}
}

// flat compares the second quarter of a run with the last: memory may have grown by a tenth, goroutines and
// files, which go with the calls of the moment, by a tenth and ten. Idle again, a gateway has what it had
// before but for ten connections that are kept.
func (s *soaking) flat(i int, all []sample, before sample) {
	s.t.Helper()
	if len(all) < 8 {
		s.t.Fatalf("node%d: %d samples are too few for a verdict", i+1, len(all))
	}
	quarter := len(all) / 4
	for _, of := range []struct {
		name string
		get  func(sample) float64
		more float64
	}{
		{"goroutines", func(x sample) float64 { return x.goroutines }, 10},
		{"files", func(x sample) float64 { return x.files }, 10},
		{"RSS", func(x sample) float64 { return x.rss }, 0},
	} {
		then, now := median(all[quarter:2*quarter], of.get), median(all[len(all)-quarter:], of.get)
		s.t.Logf("node%d: median of %s in the second quarter %.0f, in the last %.0f", i+1, of.name, then, now)
		if now > 1.1*then+of.more {
			s.t.Errorf("node%d: %s grew from %.0f to %.0f", i+1, of.name, then, now)
		}
	}
	var end sample
	until(s.t, 60*time.Second, "an idle gateway has what it had before", func() bool {
		end = s.look()[i]
		return end.goroutines <= before.goroutines+10 && end.files <= before.files+10
	})
	s.t.Logf("node%d, idle: goroutines %.0f before, %.0f after; files %.0f before, %.0f after", i+1, before.goroutines, end.goroutines, before.files, end.files)
}

func median(all []sample, get func(sample) float64) float64 {
	var v []float64
	for _, s := range all {
		v = append(v, get(s))
	}
	slices.Sort(v)
	return v[len(v)/2]
}
