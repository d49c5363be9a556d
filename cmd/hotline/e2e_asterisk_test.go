package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/hotline12345/gateway/internal/asterisk/asterisktest"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

// TestAsterisk serves callers and agents of an Asterisk: a talk is joined there and recorded here. Killed with a
// caller waiting, the gateway finds the caller again, who has heard music all along, and an agent talks to them.
func TestAsterisk(t *testing.T) {
	const callerHz, agentHz = 700, 1100
	ast := asterisktest.Start(t, "node1", "127.0.0.1:9")
	wire := netip.MustParseAddrPort(ast.SIP)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(ast.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, "backend=asterisk", "asterisk.url="+ast.URL, "asterisk.password_file="+password,
		"asterisk.sounds_dir="+filepath.Join(ast.Dir, "sounds"), "emergency.drill_trunk=carrier",
		"asterisk.trunks=[{name: carrier, endpoint: carrier, trusted: true, carrier: true, caller: '12345'}]")
	agent := newPhone(t, "1001", wire).answering(agentHz)
	agent.register(ast.Secret)
	g.login("1001")
	g.awaitAgent("1001", queue.Idle)

	caller := newPhone(t, "13800138000", wire).dial("12345").speak(callerHz)
	caller.connected()
	caller.press("9")
	talking := receive(t, "the agent's phone rings", agent.incoming)
	caller.hears(agentHz)
	talking.hears(callerHz)
	g.awaitStage(session.StageTalk)
	caller.hangup()
	receive(t, "the agent's phone gets BYE", talking.ended)
	if cdr := g.cdrs(1)[0]; cdr.Evidence != "recorded" || cdr.Agent != "1001" || cdr.EndReason != "caller" || cdr.Masked != "138****8000" {
		t.Errorf("the record is %+v", cdr)
	}

	g.awaitAgent("1001", queue.Idle)
	g.run("agent", "pause", "1001", "--reason", "lunch")
	waiting := newPhone(t, "13900139000", wire).dial("12345").speak(callerHz)
	waiting.connected()
	waiting.press("9")
	g.awaitStage(session.StageQueue)
	g.kill()
	g.set("http.listen=" + g.console)
	g.start()
	g.awaitStage(session.StageQueue)
	g.awaitAgent("1001", queue.Paused)
	g.run("agent", "ready", "1001")
	again := receive(t, "the agent's phone rings for who was taken up", agent.incoming)
	waiting.hears(agentHz)
	again.hears(callerHz)
	waiting.hangup()
	receive(t, "the agent's phone gets BYE", again.ended)
	g.awaitAgent("1001", queue.Idle)
	g.stop()
}
