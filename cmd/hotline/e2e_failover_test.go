package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
	"github.com/hotline12345/gateway/queue"
)

// outage is a Redis that two gateways share, and what happens to it under load.
type outage struct {
	name   string
	sample bool // is in the ordinary run
	start  func(t *testing.T) (cfg store.Config, begin, end func())
}

// outages is every way in which Redis has been seen to leave. Each ends three seconds after it began.
var outages = []outage{
	{"stopped for 3 s", false, func(t *testing.T) (store.Config, func(), func()) {
		r := storetest.Start(t)
		cfg := store.Defaults()
		cfg.Addrs = []string{r.Addr}
		return cfg, func() { r.Pause(t) }, func() { r.Resume(t) }
	}},
	{"killed, back empty after 3 s", true, func(t *testing.T) (store.Config, func(), func()) {
		r := startRedis(t)
		cfg := store.Defaults()
		cfg.Addrs = []string{r.addr()}
		return cfg, func() { _ = r.proc.cmd.Process.Signal(syscall.SIGKILL); <-r.proc.done }, r.start
	}},
	{"sentinels: the primary killed", true, func(t *testing.T) (store.Config, func(), func()) {
		s := storetest.StartSentinels(t, 1)
		return s.Config(), func() { s.Servers[0].Kill(t) }, func() { s.Servers[0].Restart(t) }
	}},
	{"sentinels: the primary stopped for 3 s", false, func(t *testing.T) (store.Config, func(), func()) {
		s := storetest.StartSentinels(t, 1)
		return s.Config(), func() { s.Servers[0].Pause(t) }, func() { s.Servers[0].Resume(t) }
	}},
	{"cluster: the queue's primary killed", false, func(t *testing.T) (store.Config, func(), func()) {
		c := storetest.StartCluster(t)
		var old *storetest.Redis
		return c.Config(), func() { old = c.PrimaryOf(t, "acd:{h}"); old.Kill(t) }, func() { old.Restart(t) }
	}},
}

// TestRedisFailover takes Redis away from two gateways under load, each way in a run of its own: no call is
// lost, no agent has two, nothing is stuck. The times are told, and not judged. HOTLINE_SOAK=1 takes twenty
// calls a second and every outage, one after the other.
func TestRedisFailover(t *testing.T) {
	need(t, "redis-server")
	full := inFull()
	if !full {
		t.Parallel()
	}
	var mu sync.Mutex
	rows := make([]string, len(outages))
	t.Run("outage", func(t *testing.T) {
		for i, o := range outages {
			if !full && !o.sample {
				continue
			}
			t.Run(strings.ReplaceAll(o.name, " ", "-"), func(t *testing.T) {
				f := &redisFailover{outage: o, rate: 20, before: 15, after: 45}
				if !full {
					f.rate, f.before, f.after = 4, 3, 11
					t.Parallel()
				}
				row := f.run(t)
				mu.Lock()
				defer mu.Unlock()
				rows[i] = row
			})
		}
	})
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "redis\tcalls\tlongest INVITE to 200, before\twhile away and after\tlongest to an agent, before\tafter\tlost\tin the ledger\tdouble\tstuck\tagents paused\tto normal")
	for _, row := range rows {
		fmt.Fprintln(w, row)
	}
	_ = w.Flush()
	t.Logf("\n%s", b.String())
}

// redisFailover is one run.
type redisFailover struct {
	outage
	rate, before, after int // calls a second; seconds

	t        *testing.T
	gateways []*gateway
	crowd    *crowd
	broke    time.Time
	stuck    float64        // the most that was seen
	paused   map[string]int // agents at the end whom nobody asked to pause, by the reason
}

func (f *redisFailover) run(t *testing.T) string {
	f.t = t
	cfg, begin, end := f.start(t)
	f.open(cfg)
	f.crowd = newCrowd(t)
	f.staff(3*f.rate + 2)
	pace := time.NewTicker(time.Second / time.Duration(f.rate))
	defer pace.Stop()
	calls := f.rate * (f.before + f.after)
	for n := range calls {
		<-pace.C
		switch n {
		case f.rate * f.before:
			f.broke = time.Now()
			begin()
		case f.rate * (f.before + 3):
			end()
		}
		order := slices.Clone(f.gateways)
		if n%2 == 1 {
			slices.Reverse(order)
		}
		f.crowd.dial(&visit{number: fmt.Sprintf("138%08d", n), speaks: true, gateways: order[:1]})
		if n%f.rate == 0 {
			f.look()
		}
	}
	f.settle()
	return f.judge(calls)
}

// open starts two gateways on one Redis.
func (f *redisFailover) open(cfg store.Config) {
	f.t.Helper()
	secret := filepath.Join(f.t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("0123456789abcdef", 2)), 0o600); err != nil {
		f.t.Fatal(err)
	}
	for _, node := range []string{"a", "b"} {
		g := newGateway(f.t, "session.node="+node, "ivr.flows="+toQueue(f.t), "ivr.default=queue", "sip.max_calls=1000",
			"store.addrs=["+strings.Join(cfg.Addrs, ",")+"]", "store.mode="+string(cfg.Mode), "store.master_name="+cfg.MasterName,
			"nodes.secret_file="+secret, fmt.Sprintf("nodes.listen=127.0.0.1:%d", freePort(f.t)),
			fmt.Sprintf("sip.nodes.listen=127.0.0.1:%d", freePort(f.t)),
			"sip.trunks=[{name: loopback, sources: [127.0.0.0/8], identity: pai, max_calls: 1000}]")
		people(f.t, g, 2001, 3*f.rate+2)
		g.start()
		f.gateways = append(f.gateways, g)
	}
}

// staff seats agents at both gateways in turn; each talks for two to three seconds.
func (f *redisFailover) staff(n int) {
	f.t.Helper()
	for i := range n {
		g, extension := f.gateways[i%2], strconv.Itoa(2001+i)
		d := f.crowd.desk(extension, g, func() time.Duration { return 2*time.Second + rand.N(time.Second) })
		if status := d.register(600); status != 200 {
			f.t.Fatalf("REGISTER of %s: %d", extension, status)
		}
		g.login(extension)
	}
}

// settle waits until every caller is done and no agent is in a call.
func (f *redisFailover) settle() {
	f.t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for left := 1; left > 0 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) { // judge counts who is left
		f.crowd.look(func() {
			left = 0
			for _, v := range f.crowd.visits {
				left += btoi(v.ended.IsZero())
			}
		})
	}
	for _, g := range f.gateways {
		until(f.t, 60*time.Second, "the calls are over", func() bool { return len(g.calls()) == 0 })
		until(f.t, 60*time.Second, "no agent is in a call", func() bool {
			var all []queue.AgentView
			g.get("/agents", &all)
			f.paused = map[string]int{}
			for _, a := range all {
				if a.State == queue.Paused {
					f.paused[a.Reason]++
				}
			}
			return !slices.ContainsFunc(all, func(a queue.AgentView) bool { return a.State != queue.Idle && a.State != queue.Paused })
		})
	}
	f.look()
}

var stuckMetric = regexp.MustCompile(`^hotline_\w*stuck(?:\{[^}]*\})? (\S+)$`)

// look reads what the gateways themselves hold for stuck.
func (f *redisFailover) look() {
	f.t.Helper()
	for _, g := range f.gateways {
		res, err := http.Get("http://" + g.console + "/metrics")
		if err != nil {
			f.t.Fatal(err)
		}
		found, sum := 0, 0.0
		for lines := bufio.NewScanner(io.LimitReader(res.Body, 16<<20)); lines.Scan(); {
			if m := stuckMetric.FindStringSubmatch(lines.Text()); m != nil {
				v, _ := strconv.ParseFloat(m[1], 64)
				if v != 0 && f.stuck == 0 {
					f.t.Logf("stuck: %s", lines.Text())
				}
				found, sum = found+1, sum+v
			}
		}
		_ = res.Body.Close()
		if found == 0 {
			f.t.Fatal("there is no metric of what is stuck")
		}
		f.stuck = max(f.stuck, sum)
	}
}

// waits is how long callers waited, at most: for the answer, and for an agent.
type waits struct{ answer, agent time.Duration }

func (w *waits) add(v *visit) {
	w.answer = max(w.answer, v.answered.Sub(v.sent))
	w.agent = max(w.agent, v.ring.rang.Sub(v.sent))
}

// judge reads the books and returns the row of the table.
func (f *redisFailover) judge(calls int) string {
	var open []queue.CallBack
	f.gateways[0].get("/callbacks?closed=false", &open)
	var before, after waits
	unserved, odd := 0, time.Time{}
	f.crowd.look(func() {
		f.pair()
		for _, v := range f.crowd.visits {
			if why := f.unserved(v); why != "" {
				unserved++
				f.t.Logf("%s, %v after the outage: %s", v.number, v.sent.Sub(f.broke).Round(time.Millisecond), why)
				continue
			}
			if v.ring.rang.Before(f.broke) {
				before.add(v)
			} else {
				after.add(v)
			}
		}
		for _, v := range f.crowd.visits { // as before, with 100 ms for what a machine does besides
			if v.ring != nil && v.sent.After(odd) && (v.answered.Sub(v.sent) > before.answer+100*time.Millisecond ||
				v.ring.rang.Sub(v.sent) > before.agent+100*time.Millisecond) && v.ring.rang.After(f.broke) {
				odd = v.ring.rang
			}
		}
	})
	normal := "at once"
	if !odd.IsZero() {
		normal = odd.Sub(f.broke).Round(10 * time.Millisecond).String()
	}
	lost := max(0, unserved-len(open))
	if lost > 0 || f.stuck > 0 {
		f.t.Errorf("%d of %d calls were lost, %v agents or callers stuck", lost, calls, f.stuck)
	}
	f.crowd.noFaults() // no agent was rung in a call, and no caller joined with two
	for _, g := range f.gateways {
		g.stop()
	}
	ms := func(d time.Duration) string { return d.Round(time.Millisecond).String() }
	return fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%v\t%v\t%s", f.name, calls, ms(before.answer), ms(after.answer),
		ms(before.agent), ms(after.agent), lost, len(open), len(f.crowd.faults), f.stuck, f.paused, normal)
}

// pair finds the agent of each caller whose talk was over before the crowd had heard both voices, which it goes
// by: the last whose phone was answered with the caller's number shown, masked, while the caller was on the line. The
// last four digits of the crowd's numbers are all different.
func (f *redisFailover) pair() {
	for _, v := range f.crowd.visits {
		if v.ring != nil {
			continue
		}
		shown := "<sip:" + (call.Number{E164: "+86" + v.number}).Masked() + "@"
		for _, r := range f.crowd.rings { // the last wins
			if r.visit == nil && !r.answered.IsZero() && r.by != "" && r.answered.Before(v.ended) &&
				strings.Contains(r.party.invite.Get("From"), shown) {
				v.ring = r
			}
		}
		if v.ring != nil {
			v.ring.visit = v
		}
	}
}

// unserved says what went wrong with a call, if anything did: callers here hang up after their talk alone.
func (f *redisFailover) unserved(v *visit) string {
	switch {
	case v.answered.IsZero():
		return "the INVITE got " + map[bool]string{true: "no answer", false: v.by}[v.by == ""]
	case v.ring == nil && v.ended.IsZero():
		return "answered, and waits for ever"
	case v.ring == nil:
		return "answered, and ended by the " + v.by + " before an agent came"
	case v.by == "gateway" && v.ring.by == "gateway":
		return fmt.Sprintf("the talk was cut after %v of %v", v.ended.Sub(v.ring.answered).Round(time.Millisecond), v.ring.talk.Round(time.Millisecond))
	}
	return ""
}
