package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/ivr/speech/speechtest"
)

// TestSpokenDanger has callers say that there is a fire, over SIP and RTP, to a gateway with a recogniser: nobody is free, and
// the service is called; the caller says no, and waits on; an agent hears it too, and is told.
func TestSpokenDanger(t *testing.T) {
	t.Parallel()
	flows := t.TempDir()
	flow := "start: person\nperson: person\nnodes:\n  person: {type: queue, queue: default}\n"
	if err := os.WriteFile(filepath.Join(flows, "queue.yaml"), []byte(flow), 0o600); err != nil {
		t.Fatal(err)
	}
	services := newPhone(t, "services", netip.AddrPort{}).answering(1700)
	vosk := speechtest.NewVosk(t, speechtest.Hears(8, "我 家 厨房 着火 了"))
	g := startGateway(t, "ivr.flows="+flows, "ivr.default=queue", "speech.vosk.url="+vosk.URL, "emergency.cancel=3s", "emergency.agent_within=1s",
		fmt.Sprintf("sip.trunks=[{name: loopback, sources: [127.0.0.0/8], identity: from, address: '%s', max_calls: 200, caller: '057112345'}]", services.addr()))

	speaks := func(number string) *line {
		l := newPhone(t, number, g.carriers).dial("12345")
		l.connected()
		return l.speak(440)
	}
	over := func() {
		until(t, 20*time.Second, "the call is over", func() bool { return len(g.calls()) == 0 })
	}

	first := speaks("13900000001")
	said := time.Now()
	service := receive(t, "the fire service rings", services.incoming)
	t.Logf("the service rang %v after the caller began to speak, 3 s to cancel and 1 s for an agent among them", time.Since(said).Round(100*time.Millisecond))
	first.hears(1700)
	v := g.awaitStage(session.StageService)
	if v.Emergency != session.Fire || v.Heard.Service != session.Fire || v.Heard.Words == "" {
		t.Errorf("the call is %+v", v)
	}
	service.hangup()
	over()

	vosk.Does(speechtest.Hears(8, "我 家 着火 了", "不用 了", "不用 了", "不用 了"))
	second := speaks("13900000002")
	g.awaitStage(session.StageEmergency)
	if v := g.awaitStage(session.StageQueue); v.Emergency != "" || v.Alert {
		t.Errorf("after the caller said no the call is %+v", v)
	}
	second.hangup()
	over()

	vosk.Does(speechtest.Hears(8, "你 好", "我 家 着火 了"))
	agent := newPhone(t, "1001", g.phones).answering(1100)
	agent.register(g.people["1001"].secret)
	g.login("1001")
	third := newPhone(t, "13900000003", g.carriers).dial("12345")
	third.connected()
	receive(t, "the agent's phone rings", agent.incoming)
	third.hears(1100)
	g.awaitStage(session.StageTalk)
	third.speak(440)
	until(t, 20*time.Second, "the agent is told", func() bool {
		calls := g.calls()
		return len(calls) == 1 && calls[0].Stage == session.StageTalk && calls[0].Alert && calls[0].Heard.Service == session.Fire && calls[0].Emergency == ""
	})
	third.hangup()
	rows := g.cdrs(3)
	served := 0
	for _, r := range rows {
		if r.CDR.Emergency == "119" {
			served++
		}
	}
	if served != 1 {
		t.Errorf("%d of the calls were the fire service's, want the first alone", served)
	}
	g.stop()
}
