package asterisk

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/asterisk/asterisktest"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
)

// over runs a wire over a cable, that gives its calls up soon.
func over(t *testing.T, ast *asterisktest.Server) (*wire, *asterisktest.Cable) {
	t.Helper()
	u, err := url.Parse(ast.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := asterisktest.NewCable(t, u.Host)
	u.Host = c.Addr
	behind, inner := *ast, *ast.Server
	inner.URL = u.String()
	behind.Server = &inner
	return newWireOn(t, &behind, func(s *Switch) { s.cfg.LostAfter = 5 * time.Second }), c
}

// await polls for what happens in its own time.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// keeps is a handler that answers, plays music, and hands its leg over.
func keeps(legs chan<- call.Leg) call.Handler {
	return func(ctx context.Context, leg call.Leg, _ *call.Checkpoint) {
		if leg.Answer(ctx) != nil {
			return
		}
		legs <- leg
		_ = leg.Loop(leg.Context(), calltest.Clip("music", 500, 2*time.Second))
		<-leg.Context().Done()
	}
}

func TestEventsAreCut(t *testing.T) {
	ast := asterisktest.Start(t, "n1", "127.0.0.1:9")
	w, cable := over(t, ast)
	legs := make(chan call.Leg, 2)
	w.handler <- keeps(legs)
	stays := w.Call(call.Info{Caller: plan("13800138000"), Called: "12345"})
	<-stays.Answered()
	stayed := <-legs
	leaves := w.Call(call.Info{Caller: plan("13800138001"), Called: "12345"})
	<-leaves.Answered()
	left := <-legs

	await(t, "the caller hears the music", func() bool { return calltest.Share(stays.Listen(200*time.Millisecond), 500) > 0.8 })
	cable.Cut(true)
	await(t, "the loss is seen", func() bool { return !w.sw.up.Load() })
	leaves.Hang()
	<-leaves.Ended()
	if got := calltest.Share(stays.Listen(600*time.Millisecond), 500); got < 0.8 {
		t.Errorf("the caller hears %.2f of the music while the gateway is cut off", got)
	}
	soon, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := w.sw.Dial(soon, call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{}); err == nil {
		t.Error("a call was placed without a connection")
	}
	cable.Cut(false)
	if e := ended(left); e == nil || e.Reason != call.EndSignalling {
		t.Errorf("who hung up in between ended with %+v", e)
	}
	if err := stayed.Context().Err(); err != nil {
		t.Errorf("who stayed was ended: %v", context.Cause(stayed.Context()))
	}
	stays.Press("7")
	if d := <-stayed.Digits(); d.Key != '7' {
		t.Errorf("pressed 7, told %c", d.Key)
	}
	stays.Hang()
	if e := ended(stayed); e == nil || !e.Remote {
		t.Errorf("the other ended with %+v", e)
	}
}

func ended(leg call.Leg) *call.Ended {
	<-leg.Context().Done()
	e, _ := errors.AsType[*call.Ended](context.Cause(leg.Context()))
	return e
}

func TestAsteriskIsKilled(t *testing.T) {
	ast := asterisktest.Start(t, "n1", "127.0.0.1:9")
	w := newWire(t, ast)
	legs := make(chan call.Leg, 1)
	w.handler <- keeps(legs)
	caller := w.Call(call.Info{Caller: plan("13800138000"), Called: "12345"})
	<-caller.Answered()
	leg := <-legs
	ast.Kill()
	ast.Boot()
	if e := ended(leg); e == nil || e.Reason != call.EndSignalling {
		t.Errorf("the call of the killed Asterisk ended with %+v", e)
	}
	await(t, "the connection is back", w.sw.up.Load)
	for range 10 { // until the dialplan knows of it too, its own queue takes a caller
		again := w.Call(call.Info{Caller: plan("13800138001"), Called: "12345"})
		select {
		case leg := <-legs:
			again.Hang()
			ended(leg)
			return
		case <-time.After(5 * time.Second):
			again.Hang()
		}
	}
	t.Error("no call came after the Asterisk was back")
}

// TestATalkOutlivesTheGateway leaves a caller and an agent joined in Asterisk, as a killed gateway does: they go on
// talking, the next gateway finds them joined, and parts them when it is told to. A caller whom the killed gateway had
// told something hears the hold prompt after it.
func TestATalkOutlivesTheGateway(t *testing.T) {
	ast := asterisktest.Start(t, "n1", "127.0.0.1:9")
	dead, cable := over(t, ast)
	legs := make(chan call.Leg, 1)
	dead.handler <- func(ctx context.Context, leg call.Leg, _ *call.Checkpoint) {
		if leg.Answer(ctx) == nil {
			legs <- leg
			<-leg.Context().Done()
		}
	}
	talks, told := dead.Call(call.Info{Caller: plan("13800138000"), Called: "12345"}), dead.Call(call.Info{Caller: plan("13800138001"), Called: "12345"})
	<-talks.Answered()
	<-told.Answered()
	first, second := <-legs, <-legs
	if first.Info().Caller.Raw != "13800138000" {
		first, second = second, first
	}
	agent := dead.Phone("1001")
	go func() {
		agent.Rung()
		agent.PickUp()
	}()
	far, err := dead.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := dead.sw.Bridge(t.Context(), "talk")
	if err != nil {
		t.Fatal(err)
	}
	for _, leg := range []call.Leg{first, far} {
		if err := bridge.Add(leg, call.Member{Role: call.Talk}); err != nil {
			t.Fatal(err)
		}
	}
	if err := second.Play(t.Context(), calltest.Clip("word", 900, 200*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if got := calltest.Share(told.Listen(restSilence + time.Second)[restSilence/time.Second*call.Rate:], holdHz); got > 0.1 {
		t.Errorf("the caller hears %.2f of the hold prompt while the gateway lives", got)
	}
	cable.Cut(true)
	if got := calltest.Share(told.Listen(restSilence + time.Second)[restSilence/time.Second*call.Rate:], holdHz); got < 0.5 {
		t.Errorf("the caller hears %.2f of the hold prompt while the gateway is away", got)
	}
	agent.Speak(1100)
	if got := calltest.Share(talks.Listen(time.Second)[call.Rate/4:], 1100); got < 0.9 {
		t.Errorf("the caller hears %.2f of the agent while the gateway is away", got)
	}
	next := newWireOn(t, ast, func(s *Switch) {
		err := s.Adopt(t.Context(), func(id string) (*call.Checkpoint, bool) { return &call.Checkpoint{LegID: id}, id != far.Info().ID })
		if err != nil {
			t.Fatal(err)
		}
	})
	taken := make(chan []call.Leg, 2)
	next.handler <- func(_ context.Context, leg call.Leg, _ *call.Checkpoint) {
		if bridge, with := next.sw.Rejoin(leg); bridge != nil {
			taken <- append(with, leg)
		}
		_ = leg.Loop(leg.Context(), calltest.Clip("music", 500, 2*time.Second))
		<-leg.Context().Done()
	}
	joined := <-taken
	if len(joined) != 2 || joined[0].Info().ID != far.Info().ID || joined[0].Info().Extension != "1001" {
		t.Fatalf("joined are %v", joined)
	}
	if err := joined[0].Hangup(t.Context(), call.CauseNormal); err != nil {
		t.Error(err)
	}
	<-agent.Ended()
	talks.Hang()
	told.Hang()
	ended(joined[1])
}
