package sip

import (
	"context"
	"errors"
	"testing"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/media"
)

// ear is a sink that does not listen.
type ear struct{}

func (ear) Write(call.Track, uint32, []byte) {}
func (ear) Gap(call.Track)                   {}
func (ear) Close()                           {}

// A leg with as many taps as it may have refuses the next, and its party still speaks with a service.
func TestFullTaps(t *testing.T) {
	w, far := service(t)
	legs := make(chan call.Leg, 1)
	w.on(func(ctx context.Context, leg call.Leg, _ *call.Checkpoint) {
		if err := leg.Answer(ctx); err != nil {
			t.Error(err)
		}
		legs <- leg
		<-leg.Context().Done()
	})
	p := w.caller("13812345678").dial("12345")
	<-p.answered
	leg := <-legs
	var err error
	taps := 0
	for ; err == nil; taps++ {
		_, err = leg.Tap(ear{})
	}
	if !errors.Is(err, media.ErrTooManyTaps) || taps != 9 {
		t.Errorf("tap %d: %v, want ErrTooManyTaps for the ninth", taps, err)
	}
	go func() {
		<-far.rung
		far.PickUp()
	}()
	other, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToTrunk, Name: "police", Number: "110"}, call.DialOptions{Emergency: true})
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := w.sw.Bridge(t.Context(), "danger")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []call.Leg{leg, other} {
		if err := bridge.Add(l, call.Member{}); err != nil {
			t.Error(err)
		}
	}
	for _, l := range []call.Leg{leg, other} {
		if err := l.Hangup(t.Context(), call.CauseNormal); err != nil {
			t.Error(err)
		}
	}
}
