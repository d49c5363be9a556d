package main

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store/storetest"
	"github.com/hotline12345/gateway/queue"
)

// owing is a gateway whose trunk leads to one telephone of the city, which every call back rings.
type owing struct {
	*gateway
	city  *phone
	agent *phone
}

func newOwing(t *testing.T, sets ...string) *owing {
	t.Helper()
	o := owingOf(t, sets...)
	o.start()
	o.seat()
	return o
}

// owingOf is such a gateway before its start.
func owingOf(t *testing.T, sets ...string) *owing {
	t.Helper()
	city := newPhone(t, "city", netip.AddrPort{})
	g := newGateway(t, append([]string{"session.call_back.trunk=loopback", "sip.own_numbers=['12345']",
		fmt.Sprintf("sip.trunks=[{name: loopback, sources: [127.0.0.0/8], identity: from, address: '%s', max_calls: 20, caller: '057112345'}]", city.addr())},
		sets...)...)
	return &owing{gateway: g, city: city}
}

// seat puts a telephone before the agent.
func (o *owing) seat() {
	o.t.Helper()
	o.agent = newPhone(o.t, "1001", o.phones).answering(1100)
	o.agent.register(o.people["1001"].secret)
}

// waits brings a caller into the queue.
func (o *owing) waits(number string) (l *line, v session.View) {
	o.t.Helper()
	l = newPhone(o.t, number, o.carriers).dial("12345")
	l.connected()
	l.press("9")
	until(o.t, 20*time.Second, number+" waits", func() bool {
		for _, c := range o.calls() {
			if c.Position > 0 && strings.HasSuffix(c.Caller, number[7:]) {
				v = c
				return true
			}
		}
		return false
	})
	return l, v
}

// tasks are the callers who are owed a call, or are not any more, once there are so many.
func (o *owing) tasks(closed bool, n int) (tasks []queue.CallBack) {
	o.t.Helper()
	until(o.t, 20*time.Second, fmt.Sprintf("%d callers are in the ledger, closed %t", n, closed), func() bool {
		tasks = nil
		o.get(fmt.Sprintf("/callbacks?closed=%t", closed), &tasks)
		return len(tasks) == n
	})
	return tasks
}

// nothingStuck checks the gauges of calls that are in a stage for too long.
func (o *owing) nothingStuck() {
	o.t.Helper()
	res, err := http.Get("http://" + o.console + "/metrics")
	if err != nil {
		o.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^hotline_call_stuck\{stage="(\w+)"\} (\S+)$`).FindAllStringSubmatch(string(body), -1)
	if len(rows) != len(session.Stages()) {
		o.t.Errorf("%d stages are watched, want %d", len(rows), len(session.Stages()))
	}
	for _, row := range rows {
		if row[2] != "0" {
			o.t.Errorf("%s calls are stuck in %s", row[2], row[1])
		}
	}
}

// TestCallBack calls a caller back who hung up in the queue: not reached at first, then answered.
func TestCallBack(t *testing.T) {
	t.Parallel()
	o := newOwing(t)
	missed, v := o.waits("13800138000")
	missed.hangup()
	task := o.tasks(false, 1)[0]
	if task.Caller != "138****8000" || task.Why != "abandon" || task.CallID != v.CallID || task.Since.Sub(v.Since).Abs() > time.Second {
		t.Errorf("owed is %+v; the call was %+v", task, v)
	}
	o.login("1001")
	o.awaitAgent("1001", queue.Idle)

	o.run("callback", "call", task.ID, "--agent", "1001")
	receive(t, "the agent's phone rings", o.agent.incoming)
	busy := receive(t, "the caller's phone rings", o.city.incoming)
	shown := busy.invite.Get("From") + busy.invite.Get("P-Asserted-Identity")
	if called := busy.invite.URI(); !strings.HasPrefix(called, "sip:13800138000@") || !strings.Contains(shown, "57112345") || strings.Contains(shown, "1001") {
		t.Errorf("called %s, shown %s", called, shown)
	}
	busy.reply(486)
	o.awaitAgent("1001", queue.Idle)
	if task = o.tasks(false, 1)[0]; task.LastResult != "busy" || task.Attempts != 1 || task.State != "open" {
		t.Errorf("after a busy line: %+v", task)
	}

	o.city.answering(700)
	id := strings.TrimSpace(o.run("callback", "call", task.ID, "--agent", "1001"))
	talking := receive(t, "the agent's phone rings again", o.agent.incoming)
	caller := receive(t, "the caller's phone rings again", o.city.incoming)
	caller.hears(1100)
	talking.hears(700)
	if v := o.awaitStage(session.StageTalk); v.CallID != id || v.Reason != session.ReasonCallBack || v.Gateway != "node1" {
		t.Errorf("the talk is %+v", v)
	}
	done := o.tasks(true, 1)[0]
	if done.Ending != "answered" || done.ClosedBy != "1001" || done.Attempts != 2 {
		t.Errorf("after the answer: %+v", done)
	}
	caller.hangup()
	receive(t, "the agent's phone is let go", talking.ended)
	cdrs := o.cdrs(3)
	if c := cdrs[0]; c.CallID != id || c.Decision != "CALL_BACK" || c.EndReason != "caller" || c.Evidence != "recorded" || c.Agent != "1001" || c.Masked != "138****8000" {
		t.Errorf("CDR is %+v", c)
	}
	if c := cdrs[1]; c.Decision != "CALL_BACK" || c.EndReason != "line" || c.Cause != 17 || c.Outcome != "" || c.Evidence != "none" {
		t.Errorf("CDR of the first attempt is %+v", c)
	}
	o.nothingStuck()
	o.stop()
}

// TestKill9FillsTheLedger kills the gateway: who waited and who talked are in the ledger after its start, each
// with the old place, and can be called back.
func TestKill9FillsTheLedger(t *testing.T) {
	t.Parallel()
	for name, sets := range map[string]func(t *testing.T) []string{
		"redis":    func(t *testing.T) []string { return []string{"store.addrs=[" + storetest.Start(t).Addr + "]"} },
		"embedded": func(*testing.T) []string { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOwing(t, sets(t)...)
			o.login("1001")
			o.awaitAgent("1001", queue.Idle)
			talks := newPhone(t, "13900139000", o.carriers).dial("12345")
			talks.connected()
			talks.press("9")
			receive(t, "the agent's phone rings", o.agent.incoming)
			talking := o.awaitStage(session.StageTalk)
			_, waiting := o.waits("13800138000")
			o.kill()
			killed := time.Now()
			o.again()
			places := map[string]session.View{"139****9000": talking, "138****8000": waiting}
			for _, task := range o.tasks(false, 2) {
				v, ok := places[task.Caller]
				// A talk began a while after its place; the place is what counts.
				if !ok || task.Why != "node_lost" || task.Since.After(v.Since.Add(time.Second)) || task.Since.Before(v.Started.Add(-time.Second)) {
					t.Errorf("owed is %+v; the call was %+v", task, v)
				}
				delete(places, task.Caller)
			}
			t.Logf("the ledger had both %v after the kill", time.Since(killed).Round(time.Millisecond))
			o.awaitAgent("1001", queue.Idle)
			o.city.answering(700)
			o.run("callback", "call", o.tasks(false, 2)[0].ID, "--agent", "1001")
			again := receive(t, "the agent's phone rings again", o.agent.incoming)
			again.hears(700)
			o.tasks(false, 1)
			o.stop()
		})
	}
}

// TestKilledGatewaysLedger kills one gateway of two: the other has the callers in the ledger within five
// seconds and calls back; what the killed one finds at its next start is no second debt.
func TestKilledGatewaysLedger(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("0123456789abcdef0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	redis := storetest.Start(t).Addr
	join := func(name string) *owing {
		return owingOf(t, "session.node="+name, "store.addrs=["+redis+"]", "nodes.secret_file="+secret,
			"nodes.listen=127.0.0.1:0", "sip.nodes.listen=127.0.0.1:0")
	}
	one, two := join("n1"), join("n2")
	one.start()
	two.people = one.people
	two.start()
	_, waiting := one.waits("13800138000")
	_, second := one.waits("13900139000")

	one.kill()
	killed := time.Now()
	tasks := two.tasks(false, 2)
	took := time.Since(killed)
	t.Logf("both callers were in the ledger %v after the kill", took.Round(time.Millisecond))
	if took > 8*time.Second { // 5 s, and what a busy machine takes
		t.Errorf("the callers were in the ledger %v after the kill, want 5 s", took)
	}
	for i, v := range []session.View{waiting, second} { // the oldest place first
		if c := tasks[i]; c.Caller != v.Caller || c.Why != "node_lost" || c.Since.Sub(v.Since).Abs() > time.Second {
			t.Errorf("owed is %+v; the call was %+v", c, v)
		}
	}
	until(t, 20*time.Second, "n2 has the people", func() bool {
		return two.control.post(t.Context(), "/agents/1001/login", map[string]string{}, nil) == nil
	})
	two.seat()
	two.awaitAgent("1001", queue.Idle)
	two.city.answering(700)
	two.run("callback", "call", tasks[0].ID, "--agent", "1001")
	receive(t, "the agent's phone rings", two.agent.incoming).hears(700)
	two.tasks(true, 1)

	one.again()
	one.cdrs(2)
	left := two.tasks(false, 1)[0]
	if left.ID != tasks[1].ID || left.Missed != 1 || len(two.tasks(true, 1)) != 1 {
		t.Errorf("after the start of n1 there is owed %+v", left)
	}
	one.nothingStuck()
	two.nothingStuck()
	two.stop()
	one.stop()
}

// TestGatewayLeavesItsCallersInTheLedger ends a gateway while a caller waits and another talks: the one is told
// and let go before the deadline, the other keeps talking up to it; both are owed a call at the next start.
func TestGatewayLeavesItsCallersInTheLedger(t *testing.T) {
	t.Parallel()
	o := newOwing(t, "drain_for=20s")
	o.login("1001")
	o.awaitAgent("1001", queue.Idle)
	talks := newPhone(t, "13900139000", o.carriers).dial("12345")
	talks.connected()
	talks.press("9")
	receive(t, "the agent's phone rings", o.agent.incoming)
	o.awaitStage(session.StageTalk)
	waits, _ := o.waits("13800138000")
	_ = o.proc.cmd.Process.Signal(syscall.SIGTERM)
	let := receiveIn(t, 25*time.Second, "the caller who waits is let go", waits.ended)
	cut := receiveIn(t, 25*time.Second, "the talk is cut", talks.ended)
	if !cut.At.After(let.At.Add(time.Second)) {
		t.Errorf("the caller who waited was let go %v before the talk was cut", cut.At.Sub(let.At))
	}
	if err := o.proc.await(t, 20*time.Second); err != nil {
		t.Errorf("the gateway ended: %v", err)
	}
	o.again()
	for _, task := range o.tasks(false, 2) {
		if task.Why != "drained" {
			t.Errorf("owed is %+v", task)
		}
	}
	for _, cdr := range o.cdrs(2) {
		if cdr.EndReason != "drained" {
			t.Errorf("CDR is %+v", cdr)
		}
	}
	o.stop()
}
