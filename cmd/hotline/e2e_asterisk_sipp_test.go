package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/asterisk/asterisktest"
	"github.com/hotline12345/gateway/queue"
)

// sippStays is the end of SIPp's scenario in which the other side hangs up.
const sippStays = `  <recv request="BYE"/>
  <send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
</scenario>
`

// TestAsteriskSIPp lets SIPp call an Asterisk: each of its calls, with sound and a key from a capture, comes to an
// agent whose phone is an endpoint of that Asterisk, and is recorded.
func TestAsteriskSIPp(t *testing.T) {
	need(t, "sipp")
	const callerHz, agentHz = 700, 1100
	ast := asterisktest.Start(t, "node1", "127.0.0.1:9")
	wire := netip.MustParseAddrPort(ast.SIP)
	dir := t.TempDir()
	password, pcap, scenario := filepath.Join(dir, "password"), filepath.Join(dir, "caller.pcap"), filepath.Join(dir, "caller.xml")
	writeSpeech(t, pcap, callerHz, 30*time.Second, '9')
	call, _, _ := strings.Cut(fmt.Sprintf(sippCaller, "1380013800[call_number]", pcap, 0), "  <pause")
	for path, text := range map[string]string{password: ast.Secret, scenario: call + sippStays} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cases := newCaseIntake(t)
	g := startGateway(t, append(cases.sets, "backend=asterisk", "asterisk.url="+ast.URL, "asterisk.password_file="+password,
		"asterisk.sounds_dir="+filepath.Join(ast.Dir, "sounds"), "emergency.drill_trunk=carrier",
		"asterisk.trunks=[{name: carrier, endpoint: carrier, trusted: true, carrier: true, caller: '12345'}]")...)
	var agents []*phone
	for _, id := range []string{"1001", "1002", "1003"} {
		p := newPhone(t, id, wire).answering(agentHz)
		p.register(ast.Secret)
		g.login(id)
		agents = append(agents, p)
	}
	for _, p := range agents {
		g.awaitAgent(p.user, queue.Idle)
	}
	log, calls := newLog(t, "sipp.log"), strconv.Itoa(len(agents))
	cmd := exec.Command("sipp", ast.SIP, "-sf", scenario, "-s", "12345", "-m", calls, "-l", calls, "-r", calls, "-i", "127.0.0.1", "-mi", "127.0.0.1",
		"-p", strconv.Itoa(freePort(t)), "-mp", strconv.Itoa(freePort(t)&^1), "-nostdin", "-timeout", "60s", "-timeout_error")
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.Env = log, log, dir, append(os.Environ(), "TERM=dumb")
	callers := launch(t, cmd)
	for _, p := range agents {
		talk := receive(t, p.user+"'s phone rings", p.incoming)
		for range 4 { // half a second each
			talk.hears(callerHz)
		}
		talk.hangup()
	}
	if err := callers.await(t, 30*time.Second); err != nil {
		t.Fatalf("SIPp failed: %v\n%s", err, log.tail())
	}
	served := map[string]bool{}
	for _, cdr := range g.cdrs(len(agents)) {
		served[cdr.Agent] = true
		if cdr.Evidence != "recorded" || cdr.EndReason != "agent" || !strings.HasPrefix(cdr.Masked, "138****800") {
			t.Errorf("the record is %+v", cdr)
		}
		left, right := cases.recorded().open(t, g)
		heard(t, "left", left, callerHz, agentHz)
		heard(t, "right", right, agentHz, callerHz)
	}
	if len(served) != len(agents) {
		t.Errorf("the calls came to the agents %v", served)
	}
	g.stop()
}
