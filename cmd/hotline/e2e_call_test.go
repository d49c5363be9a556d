package main

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hotline12345/gateway/sip/siptest"
)

// toneShare is the part of A-law's energy that lies at hz, but for the half second at either end. It is
// taken in windows of 50 ms, as a packet that came late shifts the tone's phase.
func toneShare(alaw []byte, hz float64) float64 {
	const window = 400
	var at, all float64
	for w := range slices.Chunk(siptest.FromALaw(alaw[4000:len(alaw)-4000]), window) {
		var energy float64
		for _, v := range w {
			energy += float64(v) * float64(v)
		}
		at += energy * siptest.Share(w, hz)
		all += energy
	}
	return at / all
}

// TestSIPpAndBaresip walks a call through the whole gateway with peers that are not ours: SIPp is the
// carrier, with RTP and a key from a capture; baresip is the agent's phone, registered with digest;
// case intake fetches the recording.
func TestSIPpAndBaresip(t *testing.T) {
	need(t, "sipp", "baresip") // not parallel: its times are measured
	const callerHz, agentHz = 700, 1100
	cases := newCaseIntake(t)
	g := startGateway(t, cases.sets...)
	agent := startBaresip(t, g, "1001", agentHz)
	g.login("1001")

	pcap := filepath.Join(t.TempDir(), "caller.pcap")
	writeSpeech(t, pcap, callerHz, 12*time.Second, '9')
	var off map[string]time.Duration
	for range 3 { // a busy machine may tell a peer's time late once, not thrice
		callerSide, agentSide, talk := walk(t, g, cases, agent, pcap)
		heard(t, "left", callerSide, callerHz, agentHz)
		heard(t, "right", agentSide, agentHz, callerHz)
		length := time.Duration(len(callerSide)) * time.Second / 8000
		t.Logf("the recording has %v; the talk was %v", length, talk)
		off = map[string]time.Duration{}
		for who, d := range talk {
			if diff := (length - d).Abs(); diff > 100*time.Millisecond {
				off[who] = diff
			}
		}
		if len(off) == 0 {
			break
		}
	}
	if len(off) > 0 {
		t.Errorf("the length of the recording is off by %v", off)
	}
	g.stop()
	select {
	case again := <-cases.events:
		t.Errorf("a second event came: %s %s", again.id, again.event.Type)
	default:
	}
}

// walk lets SIPp call, and returns both sides of the recording, and how long the talk was by each who
// saw it.
func walk(t *testing.T, g *gateway, cases *caseIntake, agent *softphone, pcap string) (left, right []byte, talk map[string]time.Duration) {
	t.Helper()
	g.awaitAgent("1001", "idle")
	caller := startSIPp(t, g, "13800138000", "12345", pcap, 8*time.Second)
	joined := agent.awaitEvent(t, "CALL_ESTABLISHED")
	gone := agent.awaitEvent(t, "CALL_CLOSED")
	if err := caller.proc.await(t, 20*time.Second); err != nil {
		t.Fatalf("SIPp failed: %v", err)
	}
	d := cases.recorded()
	left, right = d.open(t, g)
	until(t, 10*time.Second, "the call has its CDR", func() bool { return g.cdrs(1)[0].CallID == d.event.CallID })
	cdr := g.cdrs(1)[0]
	if cdr.Agent != "1001" || cdr.Evidence != "recorded" || cdr.EndReason != "caller" {
		t.Errorf("the CDR has agent %q, evidence %q, end %q", cdr.Agent, cdr.Evidence, cdr.EndReason)
	}
	var sources []string
	for _, e := range g.timeline(cdr.CallID) {
		if e.Kind == "digit" {
			sources = append(sources, e.Attrs["source"])
		}
	}
	if !slices.Equal(sources, []string{"rfc4733"}) {
		t.Errorf("the capture's one key came from %v, want once from rfc4733", sources)
	}
	return left, right, map[string]time.Duration{
		"the CDR":                      cdr.Ended.Sub(cdr.Connected),
		"the agent's phone":            gone.Sub(joined),
		"from the agent to SIPp's BYE": caller.at("sent", "BYE").Sub(joined),
	}
}

// heard checks that a side of a recording has its own tone and not the other's.
func heard(t *testing.T, side string, alaw []byte, own, other float64) {
	t.Helper()
	if share := toneShare(alaw, own); share < 0.9 {
		t.Errorf("the %s side has %.3f of its energy at %v Hz, want 0.9", side, share, own)
	}
	if share := toneShare(alaw, other); share > 0.02 {
		t.Errorf("the %s side has %.3f of its energy at the other's %v Hz", side, share, other)
	}
}
