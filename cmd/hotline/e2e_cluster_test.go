package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/hotline12345/gateway/queue"
)

// cluster is three gateways on one Redis, with agents at each, and a crowd that calls them in turn.
type cluster struct {
	t      *testing.T
	c      *crowd
	redis  *redisServer
	nodes  []*gateway
	agents int // a node
	calls  int // a run
	every  time.Duration
	number int // callers so far
	stuck  map[string]float64
	late   time.Duration // the longest that a gateway took to tell its metrics: what this machine is late by
	table  strings.Builder
}

// clock is how a failure tells a time.
const clock = "15:04:05.000"

// The gateways' metrics of what lasts longer than it can (any value above 0 is a fault).
var stuckMetrics = []string{"hotline_agent_stuck", "hotline_caller_stuck", "hotline_call_stuck"}

// TestCluster serves a crowd that is larger than its agents: no caller lost, no agent with two calls, and
// in the order of arrival over all gateways; then again with one frozen, and with one killed. The ordinary run, a sample,
// has the last two.
func TestCluster(t *testing.T) {
	cl := newCluster(t, soak(20, 5), soak(600, 75), time.Second/time.Duration(soak(20, 5)))
	fmt.Fprintln(&cl.table, "RUN\tCALLS\tSERVED\tIN THE LEDGER\tENDED BY THE CALLER\tLOST\tREDIALLED\tWAIT P50\tP95\tMAX\tOUT OF ORDER BY\tTWO CALLS\tSTUCK")
	for _, run := range []struct {
		name string
		do   func()
	}{{"undisturbed", cl.steady}, {"frozen", cl.frozen}, {"killed", cl.killed}} {
		if run.name == "undisturbed" && !inFull() {
			continue
		}
		t.Run(run.name, func(t *testing.T) {
			cl.in(t)
			run.do()
		})
	}
	cl.in(t)
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, cl.table.String())
	_ = w.Flush()
	t.Logf("%d gateways, %d agents, a call every %v\n%s", len(cl.nodes), len(cl.nodes)*cl.agents, cl.every, b.String())
	cl.handedOverOnce()
	for _, g := range cl.nodes {
		g.stop()
	}
}

// in makes a run's test the one that fails. The gateways remain the whole test's.
func (cl *cluster) in(t *testing.T) { cl.t, cl.c.t, cl.late = t, t, 0 }

// order is how far the order of service may be off: what a busy machine holds up by twice, once in each of
// two gateways, may be added to the second.
func (cl *cluster) order() time.Duration { return time.Second + 2*cl.late }

func newCluster(t *testing.T, agents, calls int, every time.Duration) *cluster {
	t.Helper()
	cl := &cluster{t: t, redis: startRedis(t), agents: agents, calls: calls, every: every, stuck: map[string]float64{}}
	secret := filepath.Join(t.TempDir(), "cluster.secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("c1u5ter!", 8)), 0o600); err != nil {
		t.Fatal(err)
	}
	flows := toQueue(t)
	for n := range 3 {
		g := newGateway(t, "session.node=node"+strconv.Itoa(n+1), "store.addrs=["+cl.redis.addr()+"]", "ivr.flows="+flows, "ivr.default=queue",
			"nodes.secret_file="+secret,
			fmt.Sprintf("nodes.listen=127.0.0.1:%d", freePort(t)),
			fmt.Sprintf("sip.nodes.listen=127.0.0.1:%d", freePort(t)), // which it has again after the kill, as a city's has
			"sip.max_calls=2000", fmt.Sprintf("sip.media.port_min=%d", 10000+3000*n), fmt.Sprintf("sip.media.port_max=%d", 12999+3000*n),
			"sip.trunks=[{name: loopback, sources: [127.0.0.0/8], identity: pai, max_calls: 2000}]",
			"queue.queues=[{name: default, display: {zh: 综合, en: General}, max_waiting: 2000, ring: 20s, wrapup: 500ms}]",
			fmt.Sprintf("intake.targets=[{name: directory, kind: directory, dir: %q}]", t.TempDir()))
		people(t, g, 2001+100*n, agents)
		g.start()
		cl.nodes = append(cl.nodes, g)
	}
	for _, g := range cl.nodes {
		until(t, 30*time.Second, "the gateways know one another", func() bool { return g.peers() == len(cl.nodes)-1 })
	}
	cl.c = newCrowd(t)
	least := 2500 * time.Millisecond
	if raced { // the crowd takes seconds to know who talks with whom
		least *= 2
	}
	talk := func() time.Duration { return least + rand.N(time.Second) }
	for n, g := range cl.nodes {
		for i := range agents {
			extension := strconv.Itoa(2001 + 100*n + i)
			if status := cl.c.desk(extension, g, talk).register(600); status != http.StatusOK {
				t.Fatalf("REGISTER of %s: %d", extension, status)
			}
			g.login(extension)
		}
	}
	return cl
}

// dial lets one more caller call: the carrier begins with the next gateway in turn.
func (cl *cluster) dial(v *visit) *visit {
	if v.number == "" {
		cl.number++
		v.number = fmt.Sprintf("1361234%04d", cl.number)
	}
	first := rand.N(len(cl.nodes))
	if v.redial == nil {
		first = cl.number % len(cl.nodes)
	}
	v.speaks = true
	v.gateways = slices.Concat(cl.nodes[first:], cl.nodes[:first])
	return cl.c.dial(v)
}

// run places the calls at their rate. Each second it looks at the gateways; at is called before each call.
func (cl *cluster) run(at func(n int)) (visits []*visit) {
	pace := time.NewTicker(cl.every)
	defer pace.Stop()
	for n := range cl.calls {
		<-pace.C
		at(n)
		visits = append(visits, cl.dial(&visit{}))
		if n%int(time.Second/cl.every) == 0 {
			cl.watch()
		}
	}
	return visits
}

// settle waits until every call of the crowd has ended.
func (cl *cluster) settle(visits func() []*visit) {
	cl.t.Helper()
	seconds := time.NewTicker(time.Second)
	defer seconds.Stop()
	defer cl.tell(visits)
	until(cl.t, 60*time.Second, "all calls have ended", func() bool {
		select {
		case <-seconds.C:
			cl.watch()
		default:
		}
		over := true
		cl.c.look(func() {
			for _, v := range visits() {
				over = over && !v.ended.IsZero()
			}
		})
		return over
	})
	until(cl.t, 60*time.Second, "all legs have ended", func() bool {
		left := 0
		cl.c.look(func() {
			for _, p := range cl.c.parties {
				left += btoi(!p.left())
			}
		})
		return left == 0
	})
}

// tell says, when the test has failed, what the crowd and the gateways see.
func (cl *cluster) tell(visits func() []*visit) {
	if !cl.t.Failed() {
		return
	}
	cl.c.look(func() {
		for _, v := range visits() {
			if v.ended.IsZero() {
				cl.t.Logf("%s: sent %s, answered %s, %d tries, served %t", v.number, v.sent.Format(clock), v.answered.Format(clock), v.tries, v.ring != nil)
			}
		}
		for _, p := range cl.c.parties {
			if p.ring != nil {
				cl.t.Logf("the phone %s has a leg left of %s: ended %s by %q", p.ring.desk.extension, p.ring.rang.Format(clock), p.ring.ended.Format(clock), p.ring.by)
			} else {
				cl.t.Logf("the caller %s has a leg left at %s: ended %s by %q", p.visit.number, p.visit.at.carriers, p.visit.ended.Format(clock), p.visit.by)
			}
		}
		cl.t.Logf("%d legs, %d calls to phones, faults %q", len(cl.c.parties), len(cl.c.rings), cl.c.faults)
	})
	for _, g := range cl.nodes {
		var queues []queue.QueueView
		var agents []queue.AgentView
		g.get("/queues", &queues)
		g.get("/agents", &agents)
		cl.t.Logf("waiting %d, calls here %d", queues[0].Waiting, len(g.calls()))
		for _, a := range agents {
			cl.t.Logf("%s at %s: %s %s since %s", a.ID, a.Node, a.State, a.Reason, a.Since.Format(clock))
		}
	}
}

// watch keeps the highest value of each metric of what is stuck.
func (cl *cluster) watch() {
	for _, g := range cl.nodes {
		select {
		case <-g.proc.done:
			continue
		default:
		}
		for _, name := range stuckMetrics {
			asked := time.Now()
			if v, err := total(g, name); err == nil {
				cl.stuck[name] = max(cl.stuck[name], v)
				cl.late = max(cl.late, time.Since(asked))
			}
		}
	}
}

// total is the sum of a metric over its labels; an error is a gateway that does not answer in time, or
// has no such metric.
func total(g *gateway, name string) (sum float64, err error) {
	client := http.Client{Timeout: time.Second}
	res, err := client.Get("http://" + g.console + "/metrics")
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	err = fmt.Errorf("no metric %s", name)
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			v, e := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndex(rest, " "):]), 64)
			if sum, err = sum+v, e; e != nil {
				break
			}
		}
	}
	return sum, err
}

// steady is a run in which nothing happens.
func (cl *cluster) steady() {
	visits := cl.run(func(int) {})
	cl.settle(func() []*visit { return visits })
	if off := cl.judge("nothing happens", visits, nil); off > cl.order() {
		cl.t.Errorf("a call was connected before one that came %v earlier; allowed are %v", off, cl.order())
	}
}

// frozen stops a gateway for 3 s in the middle.
func (cl *cluster) frozen() {
	g := cl.nodes[2]
	visits := cl.run(func(n int) {
		if n != cl.calls/3 {
			return
		}
		_ = g.proc.cmd.Process.Signal(syscall.SIGSTOP)
		time.AfterFunc(3*time.Second, func() { _ = g.proc.cmd.Process.Signal(syscall.SIGCONT) })
	})
	cl.settle(func() []*visit { return visits })
	cl.judge("a gateway stands still for 3 s", visits, nil)
}

// killed kills a gateway in the middle and starts it again 6 s later. Half of those who were cut off call
// again; the others are owed a call back.
func (cl *cluster) killed() {
	cl.seat()
	g := cl.nodes[1]
	var cut, again []*visit
	var died time.Time
	var found owed
	looking, back := make(chan owed, 1), false
	restart := func() { // in this goroutine, which alone knows a gateway's process and addresses
		if !back && !died.IsZero() && time.Since(died) > 6*time.Second {
			back = true
			g.again()
		}
	}
	redial := func() { // half of those who were cut off
		if 2*len(again) < len(cut) {
			v := cut[2*len(again)]
			again = append(again, cl.dial(&visit{number: v.number, redial: v}))
		}
	}
	visits := cl.run(func(n int) {
		if n >= cl.calls/3 && died.IsZero() && cl.c.busy(g) {
			g.kill()
			died = time.Now()
			cl.c.look(func() { cut = cl.c.cutOff(g, died) })
			go func() { looking <- cl.ledgerAfter(cut, died) }()
		}
		restart()
		select {
		case found = <-looking:
		default:
		}
		if len(found.ledger) > 0 {
			redial()
		}
	})
	if died.IsZero() {
		cl.t.Fatal("nobody talked at the gateway that was to be killed")
	}
	if len(found.ledger) == 0 { // killed near the end of the run
		found = receiveIn(cl.t, 30*time.Second, "the ledger was looked at", looking)
	}
	for 2*len(again) < len(cut) {
		redial()
	}
	until(cl.t, 60*time.Second, "the gateway has started again", func() bool { restart(); return back })
	for _, d := range cl.c.deskOf(g) {
		if status := d.register(600); status != http.StatusOK {
			cl.t.Errorf("%s registers anew: %d", d.extension, status)
		}
	}
	all := func() []*visit { return slices.Concat(visits, again) }
	cl.settle(all)
	cl.judge("a gateway is killed", all(), cl.callBacks())
	cl.owed(found, cut, died)
	cl.regained(visits, again)
	cl.freed(g, cut, died)
}

// seat makes those ready whom a run before this one found unreachable.
func (cl *cluster) seat() {
	cl.t.Helper()
	for id, d := range cl.c.desks {
		if a := cl.nodes[0].agent(id); a.State == queue.Paused {
			cl.t.Logf("%s was paused: %s", id, a.Reason)
			d.at.post("/agents/"+id+"/ready", map[string]string{}, nil)
		}
	}
}

// busy tells whether somebody at a gateway talks with an agent, and will for a while.
func (c *crowd) busy(g *gateway) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.visits, func(v *visit) bool {
		return v.at == g && v.ended.IsZero() && v.ring != nil && v.ring.ended.IsZero() && time.Since(v.ring.answered) < v.ring.talk-500*time.Millisecond
	})
}

// cutOff is every call that a gateway had; its callers hear nothing any more. Who was not answered yet is
// taken to the next gateway by the carrier. The crowd's lock is held.
func (c *crowd) cutOff(g *gateway, at time.Time) (cut []*visit) {
	for _, v := range c.visits {
		switch {
		case v.at != g || !v.ended.IsZero():
		case v.answered.IsZero():
			v.party.drop()
		default:
			v.end("node", at)
			cut = append(cut, v)
		}
	}
	for _, r := range c.rings {
		if r.desk.at == g && r.ended.IsZero() {
			r.ended, r.by, r.desk.now = at, "node", nil
		}
	}
	return cut
}

// owed is what the ledger had when the last of those who were cut off was in it, or after 15 s.
type owed struct {
	ledger []queue.CallBack
	took   time.Duration
	late   time.Duration // the longest by which a look was late
}

const ledgerLook = 50 * time.Millisecond

// ledgerAfter looks at the ledger until all who waited or talked at a dead gateway are in it.
func (cl *cluster) ledgerAfter(cut []*visit, died time.Time) (o owed) {
	looks := time.NewTicker(ledgerLook)
	defer looks.Stop()
	last := time.Now()
	for o.took < 15*time.Second {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		var now []queue.CallBack
		if cl.nodes[0].control.get(ctx, "/callbacks", &now) == nil { // a failed look is a late one
			o.ledger = now
		}
		cancel()
		o.took, o.late = time.Since(died), max(o.late, time.Since(last)-ledgerLook)
		if !slices.ContainsFunc(cut, func(v *visit) bool { return waited(v, died) && find(o.ledger, v) == nil }) {
			break
		}
		last = time.Now()
		<-looks.C
	}
	return o
}

// waited tells whether a caller had come to the queue: one who was answered at the last moment is in the
// spool alone, and owed a call when the gateway is up again.
func waited(v *visit, died time.Time) bool { return died.Sub(v.answered) > 500*time.Millisecond }

// owed checks that each caller who was cut off came into the ledger in time, with the old place. What this
// machine was late by it may be late by, too.
func (cl *cluster) owed(o owed, cut []*visit, died time.Time) {
	cl.t.Helper()
	for _, v := range cut {
		b := find(o.ledger, v)
		switch {
		case b == nil && waited(v, died):
			cl.t.Errorf("%s was cut off by the kill and is not in the ledger %v later", v.number, o.took)
		case b == nil:
		case b.Since.Sub(v.answered).Abs() > time.Second:
			cl.t.Errorf("%s came at %v; its place in the ledger is of %v", v.number, v.answered, b.Since)
		}
	}
	cl.t.Logf("killed with %d calls; the last of them was in the ledger %v later, this machine up to %v late", len(cut), o.took.Round(time.Millisecond), o.late.Round(time.Millisecond))
	if o.took > 5*time.Second+2*max(o.late, cl.late) {
		cl.t.Errorf("the ledger took %v on a machine that was %v late", o.took, max(o.late, cl.late))
	}
}

// regained checks that those who called again had their old places: nobody who came later was served first.
func (cl *cluster) regained(visits, again []*visit) {
	cl.t.Helper()
	cl.c.mu.Lock()
	defer cl.c.mu.Unlock()
	if len(again) == 0 {
		cl.t.Error("nobody called again")
	}
	all := slices.Concat(visits, again)
	for _, v := range again {
		if v.answered.Sub(v.redial.ended) > 120*time.Second {
			cl.t.Errorf("%s called again after %v", v.number, v.answered.Sub(v.redial.ended))
		}
		// Offered first, they may be offered to phones of the dead gateway, which cost a second each to give up.
		if off := overtaken(v, all); v.ring == nil || off > cl.order()+2*time.Second {
			cl.t.Errorf("%s came at %s, called again at %s, and somebody who came %v later was served first", v.number, v.redial.answered.Format(clock), v.answered.Format(clock), off)
		}
	}
}

// freed checks that no phone at a gateway that lives was left in a call of the dead one: the agent's wrap-up
// of 10 s would end in a busy phone. All agents are ready at the end.
func (cl *cluster) freed(g *gateway, cut []*visit, died time.Time) {
	cl.t.Helper()
	var worst time.Duration
	left := 0
	cl.c.look(func() {
		for _, v := range cut {
			if r := v.ring; r != nil && r.desk.at != g && r.ended.After(died) {
				left, worst = left+1, max(worst, r.ended.Sub(died))
			}
		}
	})
	cl.t.Logf("%d phones at the others were in its calls; the last was free %v after the kill", left, worst.Round(time.Millisecond))
	if worst > 10*time.Second {
		cl.t.Errorf("a phone was left in a dead call for %v", worst)
	}
	cl.ready()
}

// ready checks that every agent is ready again, none paused for what the crowd's phones did not do. A machine
// that holds a gateway up for most of the second in which another is to answer makes phones unreachable.
func (cl *cluster) ready() {
	cl.t.Helper()
	var busy []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) { // another process can only be asked
		var agents []queue.AgentView
		cl.nodes[0].get("/agents", &agents)
		busy = nil
		for _, a := range agents {
			late := a.State == queue.Paused && a.Reason == "unreachable" && cl.late > 300*time.Millisecond
			if cl.c.desks[a.ID] != nil && a.State != queue.Idle && !late {
				busy = append(busy, fmt.Sprintf("%s at %s: %s %s since %s", a.ID, a.Node, a.State, a.Reason, a.Since.Format(clock)))
			}
		}
		if len(busy) == 0 {
			return
		}
	}
	cl.t.Errorf("agents are not ready again: %q", busy)
}

func (c *crowd) deskOf(g *gateway) (all []*desk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.desks {
		if d.at == g {
			all = append(all, d)
		}
	}
	return all
}

// callBacks is the ledger as a gateway that lives tells it.
func (cl *cluster) callBacks() (all []queue.CallBack) {
	cl.t.Helper()
	cl.nodes[0].get("/callbacks", &all)
	return all
}

// find is a caller's task; the last four digits tell it.
func find(ledger []queue.CallBack, v *visit) *queue.CallBack {
	for i, b := range ledger {
		if strings.HasSuffix(b.Caller, v.number[len(v.number)-4:]) {
			return &ledger[i]
		}
	}
	return nil
}

// judge writes a run's row, fails the test for what must never be, and returns how far the order of service
// was off.
func (cl *cluster) judge(run string, visits []*visit, ledger []queue.CallBack) time.Duration {
	cl.t.Helper()
	cl.c.mu.Lock()
	defer cl.c.mu.Unlock()
	var served, owed, left, lost, redialled int
	var waits []time.Duration
	for _, v := range visits {
		redialled += btoi(v.redial != nil)
		switch {
		case v.ring != nil:
			served++
			waits = append(waits, v.ring.answered.Sub(v.answered))
		case find(ledger, v) != nil:
			owed++
		case v.by == "caller":
			left++
		case v.by == "node" && slices.ContainsFunc(visits, func(o *visit) bool { return o.redial == v && o.ring != nil }):
			owed++ // was, until the redial was served
		default:
			lost++
			cl.t.Errorf("%s: %s is lost: sent %v, answered %v, ended %v by %s", run, v.number, v.sent, v.answered, v.ended, v.by)
		}
	}
	slices.Sort(waits)
	inversion, doubles := disorder(visits), cl.c.doubles()
	var stuck []string
	for _, name := range stuckMetrics {
		v, known := cl.stuck[name]
		if !known {
			cl.t.Errorf("no gateway has the metric %s", name)
		}
		stuck = append(stuck, strconv.FormatFloat(v, 'f', -1, 64))
		if v != 0 {
			cl.t.Errorf("%s: %s was %v", run, name, v)
		}
	}
	at := func(share float64) time.Duration {
		return waits[int(share*float64(len(waits)-1))].Round(time.Millisecond)
	}
	fmt.Fprintf(&cl.table, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%v\t%v\t%v\t%v\t%d\t%s\n", run, len(visits), served, owed, left, lost, redialled,
		at(0.5), at(0.95), at(1), inversion.Round(time.Millisecond), doubles, strings.Join(stuck, ", "))
	for _, f := range cl.c.faults {
		cl.t.Errorf("%s: %s", run, f)
	}
	cl.c.faults = nil
	return inversion
}

// disorder is how much earlier a call came than one that was connected before it, at most.
func disorder(visits []*visit) (worst time.Duration) {
	for _, v := range visits {
		worst = max(worst, overtaken(v, visits))
	}
	return worst
}

// overtaken is how much later than a caller one came, at most, who was served while the caller waited.
func overtaken(v *visit, visits []*visit) (worst time.Duration) {
	if v.ring == nil {
		return 0
	}
	there := v.answered.Add(time.Second)
	for _, o := range visits {
		if o.ring != nil && o.ring.answered.Before(v.ring.answered) && o.ring.answered.After(there) {
			worst = max(worst, o.place().Sub(v.place()))
		}
	}
	return worst
}

// place is since when a caller waits, the first time that a caller called who was cut off and called again.
func (v *visit) place() time.Time {
	if v.redial != nil {
		return v.redial.place()
	}
	return v.answered
}

// doubles counts calls that came to an agent's phone before its last had ended.
func (c *crowd) doubles() (n int) {
	by := map[string][]*ring{}
	for _, r := range c.rings {
		by[r.desk.extension] = append(by[r.desk.extension], r)
	}
	for _, rings := range by {
		slices.SortFunc(rings, func(a, b *ring) int { return cmp.Compare(a.rang.UnixNano(), b.rang.UnixNano()) })
		for i, r := range rings[1:] {
			n += btoi(rings[i].ended.IsZero() || r.rang.Before(rings[i].ended))
		}
	}
	return n
}

// handedOverOnce compares what the gateways gave case intake: a revision of a request is given by one of them.
func (cl *cluster) handedOverOnce() {
	cl.t.Helper()
	by, n := map[string]*gateway{}, 0
	for _, g := range cl.nodes {
		until(cl.t, 60*time.Second, "the outbox is empty", func() bool {
			var waiting []struct{}
			g.get("/intake/waiting", &waiting)
			return len(waiting) == 0
		})
		dir := ""
		for _, s := range g.sets {
			if rest, ok := strings.CutPrefix(s, "intake.targets="); ok {
				_, rest, _ = strings.Cut(rest, `"`)
				dir, _, _ = strings.Cut(rest, `"`)
			}
		}
		events, err := filepath.Glob(filepath.Join(dir, "*.json"))
		if err != nil {
			cl.t.Fatal(err)
		}
		for _, e := range events {
			n++
			key := filepath.Base(e)
			if by[key] != nil {
				cl.t.Errorf("%s was handed over by two gateways", key)
			}
			by[key] = g
		}
	}
	cl.t.Logf("%d events were handed over, none by two gateways", n)
}
