package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/hotline12345/gateway/sip/siptest"
)

// TestSIPpAndBaresip walks a call through the whole gateway with peers that are not ours: SIPp is the
// carrier, with RTP and a key from a capture; baresip is the agent's phone, registered with digest;
// case intake fetches the recording.
func TestSIPpAndBaresip(t *testing.T) {
	need(t, "sipp", "baresip")
	t.Parallel()
	const callerHz, agentHz = 700, 1100
	cases := newCaseIntake(t)
	g := startGateway(t, cases.sets...)
	agent := startBaresip(t, g, "1001", agentHz)
	g.login("1001")
	g.awaitAgent("1001", "idle")

	pcap := filepath.Join(t.TempDir(), "caller.pcap")
	writeSpeech(t, pcap, callerHz, 12*time.Second, '9')
	caller := startSIPp(t, g, "13800138000", "12345", pcap, 8*time.Second)
	joined := agent.awaitEvent(t, "CALL_ESTABLISHED")
	left := agent.awaitEvent(t, "CALL_CLOSED")
	if err := caller.proc.await(t, 20*time.Second); err != nil {
		t.Fatalf("SIPp failed: %v", err)
	}

	cdr := g.cdrs(1)[0]
	if cdr.Agent != "1001" || cdr.Evidence != "recorded" || cdr.EndReason != "caller" {
		t.Errorf("the CDR has agent %q, evidence %q, end %q", cdr.Agent, cdr.Evidence, cdr.EndReason)
	}
	var keys, sources []string
	for _, e := range g.timeline(cdr.CallID) {
		if e.Kind == "digit" {
			keys, sources = append(keys, e.Text), append(sources, e.Attrs["source"])
		}
	}
	if len(keys) != 1 || sources[0] != "rfc4733" {
		t.Errorf("the capture's one key came as %v from %v, want one from rfc4733", keys, sources)
	}

	d := cases.recorded()
	callerSide, agentSide := d.open(t, g)
	length := time.Duration(len(callerSide)) * time.Second / 8000
	seen := map[string]time.Duration{
		"the CDR":                      cdr.Ended.Sub(cdr.Connected),
		"the agent's phone":            left.Sub(joined),
		"from the agent to SIPp's BYE": caller.at("sent", "BYE").Sub(joined),
	}
	t.Logf("the recording has %v; the talk was %v", length, seen)
	for who, talk := range seen {
		if diff := (length - talk).Abs(); diff > 100*time.Millisecond {
			t.Errorf("the recording has %v, the talk by %s %v", length, who, talk)
		}
	}
	inner := func(side []byte) []int16 { return siptest.FromALaw(side[4000 : len(side)-4000]) }
	for _, c := range []struct {
		side     string
		audio    []byte
		hz, echo float64
	}{{"left", callerSide, callerHz, agentHz}, {"right", agentSide, agentHz, callerHz}} {
		if share := siptest.Share(inner(c.audio), c.hz); share < 0.9 {
			t.Errorf("the %s side has %.3f of its energy at %v Hz, want 0.9", c.side, share, c.hz)
		}
		if share := siptest.Share(inner(c.audio), c.echo); share > 0.01 {
			t.Errorf("the %s side has %.3f of its energy at the other's %v Hz", c.side, share, c.echo)
		}
	}
	g.stop()
	select {
	case again := <-cases.events:
		t.Errorf("a second event came: %s %s", again.id, again.event.Type)
	default:
	}
}
