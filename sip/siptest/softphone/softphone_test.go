package softphone

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/media"
	"github.com/hotline12345/gateway/sip/siptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair are two phones that call one another; the second one's calls come in on the channel.
func pair(t *testing.T, theirs []call.Codec) (*Phone, chan *Call) {
	t.Helper()
	cfg := media.Defaults()
	cfg.PortMin, cfg.PortMax = 0, 0
	engine, err := media.New(cfg, media.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	in := make(chan *Call, 1)
	log := slog.New(slog.DiscardHandler)
	b, err := New(Config{Listen: "127.0.0.1:0", User: "b", Codecs: theirs, Log: log, OnCall: func(c *Call) { in <- c }}, engine)
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(Config{Listen: "127.0.0.1:0", User: "a", Log: log}, engine)
	if err != nil {
		t.Fatal(err)
	}
	a.Aim(b.Addr())
	b.Aim(a.Addr())
	ctx, stop := context.WithCancel(context.Background())
	var world sync.WaitGroup
	for _, run := range []func(context.Context) error{engine.Run, a.Run, b.Run} {
		world.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { stop(); world.Wait() })
	<-a.Ready()
	<-b.Ready()
	return a, in
}

// hears waits for a tone at the end of what was heard.
func hears(t *testing.T, c *Call, hz float64) {
	t.Helper()
	const window = call.Rate / 4
	for range 100 {
		if h := c.Heard(); len(h) >= window && siptest.Share(siptest.FromALaw(h[len(h)-window:]), hz) > 0.8 {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
	t.Errorf("%v Hz was not heard", hz)
}

func TestTalk(t *testing.T) {
	for name, codecs := range map[string][]call.Codec{"A-law": {call.PCMA}, "µ-law": {call.PCMU}} {
		t.Run(name, func(t *testing.T) {
			a, in := pair(t, codecs)
			answered := make(chan *Call, 1)
			go func() {
				c := <-in
				if err := errors.Join(c.Ring(), c.Answer(t.Context())); err != nil {
					t.Error(err)
				}
				answered <- c
			}()
			out, err := a.Dial(t.Context(), Dial{To: "b", From: "13800138000"})
			if err != nil {
				t.Fatal(err)
			}
			far := <-answered
			if far.From != "13800138000" || far.To != "b" {
				t.Errorf("the call shows from %q to %q", far.From, far.To)
			}
			var sounds sync.WaitGroup
			sounds.Go(func() { _ = out.Tone(out.Context(), 440) })
			sounds.Go(func() { _ = far.Tone(far.Context(), 1000) })
			hears(t, far, 440)
			hears(t, out, 1000)
			if err := errors.Join(far.Hold(t.Context(), true), far.Hold(t.Context(), false), out.Press(t.Context(), "5")); err != nil {
				t.Error(err)
			}
			out.Forget()
			hears(t, out, 1000)
			if err := out.PressInfo(t.Context(), "5"); refused(err) != 415 { // a phone takes no keys
				t.Errorf("INFO: %v, want 415", err)
			}
			if s := far.Stats(); s.Received == 0 {
				t.Errorf("the statistics are %+v", s)
			}
			if err := out.Hangup(); err != nil {
				t.Error(err)
			}
			<-far.Context().Done()
			sounds.Wait()
		})
	}
}

func refused(err error) int {
	if d, ok := errors.AsType[*call.DialError](err); ok {
		return d.Status
	}
	return 0
}

func TestRefusals(t *testing.T) {
	a, in := pair(t, []call.Codec{call.PCMA})
	go func() {
		if err := (<-in).Reject(486); err != nil {
			t.Error(err)
		}
	}()
	if _, err := a.Dial(t.Context(), Dial{To: "b"}); refused(err) != 486 {
		t.Errorf("a busy phone: %v", err)
	}
	go func() {
		if err := (<-in).Answer(t.Context()); err == nil {
			t.Error("an offer in µ-law was answered by a phone that speaks A-law")
		}
	}()
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if _, err := a.Dial(ctx, Dial{To: "b", Codecs: []call.Codec{call.PCMU}}); err == nil {
		t.Error("the call was answered")
	}
	if err := a.Register(t.Context(), time.Hour); err == nil {
		t.Error("a phone took a REGISTER")
	}
	if _, err := New(Config{Listen: "127.0.0.1:99999"}, nil); err == nil {
		t.Error("a port above all was opened")
	}
}
