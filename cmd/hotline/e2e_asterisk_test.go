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
	"github.com/hotline12345/gateway/internal/asterisk/instance"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
	"github.com/hotline12345/gateway/sip/siptest"
)

// The tones of those who talk through an Asterisk.
const (
	astCallerHz = 700
	astAgentHz  = 1100
)

// viaAsterisk is a gateway that serves the callers and the agents of an Asterisk.
type viaAsterisk struct {
	t      *testing.T
	ast    *asterisktest.Server
	g      *gateway
	wire   netip.AddrPort
	agents []*phone
	rung   chan *line // agents' phones, answered at once
	cases  string     // the directory of case intake
}

// astSets are the settings of a gateway that reaches an Asterisk by an address of ARI.
func astSets(t *testing.T, ast *asterisktest.Server, ari string) []string {
	t.Helper()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(ast.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"backend=asterisk", "asterisk.url=" + ari, "asterisk.password_file=" + password, "asterisk.lost_after=5s",
		fmt.Sprintf("asterisk.rtp_ports=%d", instance.RTPPorts),
		"asterisk.sounds_dir=" + filepath.Join(ast.Dir, "sounds"), "emergency.drill_trunk=carrier",
		"asterisk.trunks=[{name: carrier, endpoint: carrier, trusted: true, carrier: true, caller: '12345'}]"}
}

// astPhones makes endpoints for agents' phones, 2001 and up.
func astPhones(t *testing.T, ast *asterisktest.Server, n int) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(ast.Dir, "etc", "pjsip.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		_, err = fmt.Fprintf(f, "\n[%[1]d](phone)\nauth = %[1]d\naors = %[1]d\n[%[1]d](phone-auth)\nusername = %[1]d\n[%[1]d](phone-aor)\n", 2001+i)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ast.Command("module reload res_pjsip.so"); err != nil {
		t.Fatal(err)
	}
}

func newViaAsterisk(t *testing.T, agents int) *viaAsterisk {
	t.Helper()
	v := &viaAsterisk{t: t, ast: asterisktest.Start(t, "node1", "127.0.0.1:9"), rung: make(chan *line, agents), cases: t.TempDir()}
	v.wire = netip.MustParseAddrPort(v.ast.SIP)
	astPhones(t, v.ast, agents)
	v.g = newGateway(t, append(astSets(t, v.ast, v.ast.URL),
		fmt.Sprintf("intake.targets=[{name: directory, kind: directory, dir: %q}]", v.cases))...)
	people(t, v.g, 2001, agents)
	v.g.start()
	v.connected()
	for i := range agents {
		p := newPhone(t, strconv.Itoa(2001+i), v.wire).answering(astAgentHz)
		p.incoming = v.rung
		v.agents = append(v.agents, p)
	}
	v.register()
	for _, p := range v.agents {
		v.g.login(p.user)
		v.g.awaitAgent(p.user, queue.Idle)
	}
	return v
}

// connected waits until the gateway hears the Asterisk: before that the dialplan takes its callers elsewhere.
func (v *viaAsterisk) connected() {
	v.t.Helper()
	until(v.t, 20*time.Second, "the gateway is connected", func() bool { return metric(v.t, v.g, "hotline_ari_connected") == "1" })
}

func (v *viaAsterisk) register() {
	v.t.Helper()
	for _, p := range v.agents {
		p.register(v.ast.Secret)
	}
}

// caller is one who lives through the death of the gateway, and perhaps through that of the Asterisk.
type astCaller struct {
	number string
	was    session.Stage
	l      *line
	agent  *line // who talks with them

	away, sound time.Duration // how long the gateway was away, and what was heard of that
	back        time.Duration // from the start of the next gateway
	on          session.View  // how the next gateway has the call
}

// masked is the caller's number as the books show it.
func (c *astCaller) masked() string { return c.number[:3] + "****" + c.number[7:] }

// call brings a caller to a stage.
func (v *viaAsterisk) call(n int, stage session.Stage) *astCaller {
	v.t.Helper()
	c := &astCaller{number: fmt.Sprintf("1380013%04d", n), was: stage}
	c.l = newPhone(v.t, c.number, v.wire).dial("12345").speak(astCallerHz)
	c.l.connected()
	if stage != session.StageFlow {
		c.l.press("9")
	}
	if stage == session.StageTalk {

		c.agent = receive(v.t, "an agent's phone rings", v.rung)
		c.l.hears(astAgentHz)
		c.agent.hears(astCallerHz)
	}
	until(v.t, 20*time.Second, c.number+" is in "+string(stage), func() bool { now, ok := v.view(c); return ok && now.Stage == stage })
	return c
}

// view is the live call of a caller.
func (v *viaAsterisk) view(c *astCaller) (session.View, bool) {
	v.t.Helper()
	all := v.g.calls()
	i := slices.IndexFunc(all, func(w session.View) bool { return w.Caller == c.masked() })
	if i < 0 {
		return session.View{}, false
	}
	return all[i], true
}

// TestAsterisk serves callers of an Asterisk in every stage, a talk recorded; kills the gateway, and starts the next
// one; then kills the Asterisk. HOTLINE_SOAK=1 does it with 20 calls.
func TestAsterisk(t *testing.T) {
	talks, waits, flows := 2, 1, 1
	if inFull() {
		talks, waits, flows = 8, 6, 6
	} else {
		t.Parallel()
	}
	v := newViaAsterisk(t, talks)
	var callers []*astCaller
	for n := range talks + waits + flows {
		stage := session.StageTalk
		switch {
		case n >= talks+waits:
			stage = session.StageFlow
		case n >= talks:
			stage = session.StageQueue
		}
		callers = append(callers, v.call(n, stage))
	}
	v.gatewayKilled(callers)
	first := callers[0] // ends as any talk; the others go with the Asterisk
	first.l.hangup()
	receive(t, "the agent's phone gets BYE", first.agent.ended)
	if talks+waits > talks { // and the agent serves who waits longest
		c := callers[talks]
		c.agent = receive(t, "the agent serves who waited", v.rung)
		c.l.hears(astAgentHz)
	}
	v.asteriskKilled(callers)
	v.table(callers)
	v.g.stop()
}

// gatewayKilled leaves the callers to the Asterisk alone, and looks at what the next gateway makes of them.
func (v *viaAsterisk) gatewayKilled(callers []*astCaller) {
	v.t.Helper()
	const away = 4 * time.Second // more than silence lasts
	v.g.kill()
	for _, c := range callers {
		c.l.forget()
	}
	gone := time.Now()
	time.Sleep(away)
	for _, c := range callers {
		c.away, c.sound = time.Since(gone), c.l.sounds()
		if c.away-c.sound > 3500*time.Millisecond {
			v.t.Errorf("%s, in %s, heard %v of sound in %v without a gateway", c.number, c.was, c.sound, c.away)
		}
	}
	v.g.set("http.listen=" + v.g.console)
	start := time.Now()
	v.g.start()
	patience := 5 * time.Second
	if raced {
		patience *= 4
	}
	until(v.t, patience+10*time.Second, "all callers are taken up", func() bool {
		left := 0
		for _, c := range callers {
			if c.back != 0 {
				continue
			}
			on, ok := v.view(c)
			if !ok || on.Stage == session.StageScreened || c.was == session.StageTalk && on.Evidence != "recorded" {
				left++
				continue
			}
			c.back, c.on = time.Since(start), on
		}
		return left == 0
	})
	for _, c := range callers {
		if c.back > patience || c.on.Stage != c.was {
			v.t.Errorf("%s was in %s, and in %s %v after the next gateway's start", c.number, c.was, c.on.Stage, c.back)
		}
		if c.was != session.StageTalk {
			continue
		}
		c.l.hears(astAgentHz)
		c.agent.hears(astCallerHz)
		if a := v.g.agent(c.agent.p.user); a.State != queue.Talk || c.on.Agent != a.ID {
			v.t.Errorf("%s talks with %s, who is %s to the queue, and %q to the call", c.number, c.agent.p.user, a.State, c.on.Agent)
		}
	}
}

// asteriskKilled ends the Asterisk with all its calls, and brings it back.
func (v *viaAsterisk) asteriskKilled(callers []*astCaller) {
	v.t.Helper()
	v.ast.Kill()
	until(v.t, 30*time.Second, "no call is left in the books", func() bool { return len(v.g.calls()) == 0 })
	for _, p := range v.agents {
		if a := v.g.agent(p.user); a.State == queue.Talk || a.State == queue.Offered {
			v.t.Errorf("agent %s is %s after the end of the Asterisk", p.user, a.State)
		}
	}
	v.ast.Boot()
	v.connected()
	v.register()
	for _, p := range v.agents {
		v.g.awaitAgent(p.user, queue.Idle)
	}
	again := v.call(len(callers), session.StageTalk)
	again.l.hangup()
	receive(v.t, "the agent's phone gets BYE", again.agent.ended)
}

// table prints what each call lived through, and checks its books: one call that ended with the gateway, one that
// went on from it.
func (v *viaAsterisk) table(callers []*astCaller) {
	v.t.Helper()
	rows := map[string][]journal.Row{}
	var all []journal.Row
	for deadline := time.Now().Add(20 * time.Second); len(all) < 2*len(callers)+1 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		all = nil
		v.g.get("/cdrs", &all)
	}
	if len(all) != 2*len(callers)+1 {
		v.t.Errorf("%d calls are in the books, want %d", len(all), 2*len(callers)+1)
	}
	for _, row := range all {
		rows[row.Masked] = append(rows[row.Masked], row)
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CALL\tWAS IN\tSOUND WHILE THE GATEWAY WAS AWAY\tBACK AFTER ITS START\tTHEN IN\tRECORDINGS\tENDS IN THE BOOKS")
	for n, c := range callers {
		slices.SortFunc(rows[c.masked()], func(a, b journal.Row) int { return a.Ended.Compare(b.Ended) })
		var ends, recordings []string
		for _, row := range rows[c.masked()] {
			ends, recordings = append(ends, row.EndReason), append(recordings, row.Evidence)
		}
		fmt.Fprintf(w, "%s\t%s\t%.1f s of %.1f s\t%.1f s\t%s\t%s\t%s\n", c.masked(), c.was, c.sound.Seconds(), c.away.Seconds(), c.back.Seconds(),
			c.on.Stage, strings.Join(recordings, ", "), strings.Join(ends, ", "))
		want := []string{"node_lost", "signalling"}
		if n == 0 {
			want[1] = "caller"
		}
		if !slices.Equal(ends, want) {
			v.t.Errorf("%s ended by %v, want %v", c.number, ends, want)
		}
		if c.was == session.StageTalk && !slices.Equal(recordings, []string{"partial", "recorded"}) {
			v.t.Errorf("the recordings of %s are %v", c.number, recordings)
		}
		for _, row := range rows[c.masked()] {
			v.handedOver(row)
		}
	}
	_ = w.Flush()
	v.t.Logf("the gateway is killed, then the Asterisk\n%s", b.String())
}

// handedOver checks that case intake has the recording of a call that has one.
func (v *viaAsterisk) handedOver(row journal.Row) {
	v.t.Helper()
	if row.Recording == "" {
		return
	}
	until(v.t, 20*time.Second, "the recording of "+row.CallID+" is handed over", func() bool {
		found, err := filepath.Glob(filepath.Join(v.cases, "*"+row.CallID+"*.json"))
		return err == nil && len(found) > 0
	})
}

// sounds is how much of what was heard is not silence.
func (l *line) sounds() (d time.Duration) {
	l.sound.Lock()
	defer l.sound.Unlock()
	for packet := range slices.Chunk(l.ears, frame) {
		if slices.ContainsFunc(siptest.FromALaw(packet), func(v int16) bool { return v > 100 || v < -100 }) {
			d += 20 * time.Millisecond
		}
	}
	return d
}
