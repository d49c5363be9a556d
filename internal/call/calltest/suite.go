// Package calltest holds every backend to one behaviour, and has a backend without a wire.
//
// A backend's test calls [Run] with a harness that can play its far side: callers and phones.
package calltest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// Harness is a backend with people on its far side.
type Harness interface {
	Switch() call.Switch
	// Call places a call into the backend: info has Caller and Called.
	Call(info call.Info) Peer
	// Phone is a phone at an extension, or at "trunk/number".
	Phone(at string) Peer
}

// Peer is a person at the far side of a leg, as a script. Its methods may block until the wire did
// what was asked.
type Peer interface {
	Answered() <-chan struct{}
	Refused() <-chan int
	Ended() <-chan struct{}
	Press(keys string)
	Speak(hz float64)
	Listen(d time.Duration) []byte // A-law
	Hang()
	Does(kind call.EventKind) // hold and resume

	Rung() Ring
	Ring()
	PickUp()
	Refuse(status int)
	Cancelled()
}

var (
	caller = call.Number{E164: "+8613800138000", Raw: "13800138000"}
	info   = call.Info{Caller: caller, Called: "12345"}
)

// bench is a backend that serves one handler in a test.
type bench struct {
	Harness
	t      *testing.T
	unable bool // the backend does not offer what the case is about
}

// Restarter is a harness whose backend's legs outlive the gateway's process.
type Restarter interface {
	Harness
	// Restart ends the gateway as a kill does, and returns the next one on the same wire: it takes up the
	// legs for which load has a checkpoint.
	Restart(load func(legID string) (*call.Checkpoint, bool)) Harness
}

// Shown is what a run of the suite showed of a backend, by case. It is whole when the test has ended.
type Shown struct {
	mu sync.Mutex
	by map[string]bool
}

// Run is the suite. The func run runs one case, in a synctest bubble if the backend allows; it calls body
// with a maker of the harness.
func Run(t *testing.T, run func(t *testing.T, body func(t *testing.T, harness func(t *testing.T) Harness))) *Shown {
	shown := &Shown{by: map[string]bool{}}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			able := true
			t.Cleanup(func() {
				shown.mu.Lock()
				defer shown.mu.Unlock()
				shown.by[c.name] = able && !t.Failed()
			})
			run(t, func(t *testing.T, harness func(t *testing.T) Harness) {
				b := &bench{Harness: harness(t), t: t}
				c.body(b)
				able = !b.unable
			})
		})
	}
	return shown
}

// cases are the suite, in the order in which they are shown to people.
var cases = []struct {
	name string
	body func(b *bench)
}{
	{"answer and remote hang-up", remoteHangup},
	{"local hang-up", localHangup},
	{"reject", reject},
	{"a returning handler hangs up", handlerReturns},
	{"a panic ends its call alone", panics},
	{"digits in order", digits},
	{"a prompt is heard to its end", prompt},
	{"a prompt replaces another", replace},
	{"a prompt ends with its context", promptCancelled},
	{"a tap hears both sides", tapped},
	{"a bridge carries both ways", bridged},
	{"three in a bridge", three},
	{"a listener is not heard", listener},
	{"a whisper reaches staff alone", whisper},
	{"hold and return", hold},
	{"hold by the party is told", held},
	{"dial answered", dialAnswered},
	{"dial refused", dialRefused},
	{"dial given up", dialCancelled},
	{"a prompt in a bridge is heard by one alone", promptInBridge},
	{"a leg that is played to moves to a bridge", movedWhilePlaying},
	{"a call goes on after the gateway's restart", restarted},
}

// serve runs h for every call until the test's end.
func (b *bench) serve(h func(leg call.Leg)) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- b.Switch().Serve(ctx, func(_ context.Context, leg call.Leg, _ *call.Checkpoint) { h(leg) })
	}()
	b.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.t.Errorf("Serve ended with %v", err)
		}
	})
}

// place serves one call and hands its answered leg over; the call lasts until the test's end or its
// own.
func (b *bench) place() (call.Leg, Peer) {
	b.t.Helper()
	legs := make(chan call.Leg, 1)
	over := make(chan struct{})
	b.serve(func(leg call.Leg) {
		b.must(leg.Answer(leg.Context()))
		legs <- leg
		select {
		case <-leg.Context().Done():
		case <-over:
		}
	})
	b.t.Cleanup(sync.OnceFunc(func() { close(over) }))
	p := b.Call(info)
	<-p.Answered()
	return <-legs, p
}

// join dials a phone that picks up.
func (b *bench) join(at string) (call.Leg, Peer) {
	b.t.Helper()
	p := b.Phone(at)
	go func() {
		p.Rung()
		p.PickUp()
	}()
	leg, err := b.Switch().Dial(context.Background(), call.Endpoint{Kind: call.ToExtension, Name: at}, call.DialOptions{Caller: caller, Token: "t"})
	b.must(err)
	b.t.Cleanup(func() { b.must(leg.Hangup(context.Background(), call.CauseNormal)) })
	return leg, p
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Error(err)
	}
}

func (b *bench) hears(p Peer, hz float64, want bool, what string) {
	b.t.Helper()
	share := 0.0
	for range 3 { // a busy machine may be late with what is to be heard
		audio := p.Listen(600 * time.Millisecond)
		audio = audio[min(len(audio), 2*call.Rate/10):] // the first frames may be of what was before
		share = 0                                       // of nothing, from a backend that sends no silence
		if len(audio) > 0 {
			share = Share(audio, hz)
		}
		if !want || share >= 0.25 {
			break
		}
	}
	if want && share < 0.25 || !want && share > 0.05 {
		b.t.Errorf("%s: share of %g Hz is %.2f, heard should be %t", what, hz, share, want)
	}
}

func ended(leg call.Leg) *call.Ended {
	<-leg.Context().Done()
	e, _ := errors.AsType[*call.Ended](context.Cause(leg.Context()))
	return e
}

func remoteHangup(b *bench) {
	leg, p := b.place()
	if got := leg.Info(); got.Caller.E164 != caller.E164 || got.Called != "12345" || got.Direction != call.Incoming || got.ID == "" {
		b.t.Errorf("info is %+v", got)
	}
	b.must(leg.Answer(leg.Context())) // a second answer does nothing
	if err := leg.Reject(leg.Context(), call.CauseBusy); !errors.Is(err, call.ErrAnswered) {
		b.t.Errorf("a late Reject gave %v", err)
	}
	p.Hang()
	if e := ended(leg); e == nil || !e.Remote || e.Reason != "" {
		b.t.Errorf("the leg ended with %+v", e)
	}
	if err := leg.Play(context.Background(), Clip("x", 500, time.Second)); !errors.Is(err, call.ErrLegGone) {
		b.t.Errorf("Play on an ended leg gave %v", err)
	}
}

func localHangup(b *bench) {
	leg, p := b.place()
	b.must(leg.Hangup(context.Background(), call.CauseNormal))
	b.must(leg.Hangup(context.Background(), call.CauseNormal))
	<-p.Ended()
	if e := ended(leg); e == nil || e.Remote {
		b.t.Errorf("the leg ended with %+v", e)
	}
}

func reject(b *bench) {
	b.serve(func(leg call.Leg) { b.must(leg.Reject(leg.Context(), call.CauseForbidden)) })
	if got := <-b.Call(info).Refused(); got != 403 {
		b.t.Errorf("refused with %d", got)
	}
}

func handlerReturns(b *bench) {
	b.serve(func(leg call.Leg) { b.must(leg.Answer(leg.Context())) })
	<-b.Call(info).Ended()
}

func panics(b *bench) {
	first := true
	b.serve(func(leg call.Leg) {
		b.must(leg.Answer(leg.Context()))
		if first {
			first = false
			panic("a fault in a call")
		}
	})
	<-b.Call(info).Ended()
	p := b.Call(info)
	<-p.Answered()
	<-p.Ended()
}

func digits(b *bench) {
	leg, p := b.place()
	want := "1234*0#A"
	p.Press(want)
	var got []byte
	for len(got) < len(want) {
		got = append(got, (<-leg.Digits()).Key)
	}
	if string(got) != want {
		b.t.Errorf("pressed %s, told %s", want, got)
	}
}

func prompt(b *bench) {
	leg, p := b.place()
	done := make(chan error, 1)
	go func() { done <- leg.Play(leg.Context(), Clip("a", 500, time.Second)) }()
	b.hears(p, 500, true, "the prompt")
	b.must(<-done)
}

func replace(b *bench) {
	leg, p := b.place()
	done := make(chan error, 1)
	go func() { done <- leg.Loop(leg.Context(), Clip("a", 500, time.Second)) }()
	b.hears(p, 500, true, "the first")
	go func() { done <- leg.Loop(leg.Context(), Clip("b", 900, time.Second)) }()
	if err := <-done; !errors.Is(err, call.ErrReplaced) {
		b.t.Errorf("the first ended with %v", err)
	}
	b.hears(p, 900, true, "the second")
	p.Hang()
	if err := <-done; !errors.Is(err, call.ErrLegGone) {
		b.t.Errorf("the second ended with %v", err)
	}
}

func promptCancelled(b *bench) {
	leg, p := b.place()
	why := errors.New("enough")
	ctx, stop := context.WithCancelCause(leg.Context())
	done := make(chan error, 1)
	go func() { done <- leg.Loop(ctx, Clip("a", 500, time.Second)) }()
	b.hears(p, 500, true, "the prompt")
	stop(why)
	if err := <-done; !errors.Is(err, why) {
		b.t.Errorf("it ended with %v", err)
	}
	b.hears(p, 500, false, "after its end")
}

// ear is a sink that keeps what it hears.
type ear struct {
	mu     sync.Mutex
	tracks [2][]byte
	closed chan struct{}
}

func newEar() *ear { return &ear{closed: make(chan struct{})} }

func (e *ear) Write(t call.Track, _ uint32, payload []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tracks[t] = append(e.tracks[t], payload...)
}
func (e *ear) Gap(call.Track) {}
func (e *ear) Close()         { close(e.closed) }

func tapped(b *bench) {
	leg, p := b.place()
	e := newEar()
	detach, err := leg.Tap(e)
	b.must(err)
	p.Speak(700)
	b.must(leg.Play(leg.Context(), Clip("a", 500, time.Second)))
	detach()
	<-e.closed
	e.mu.Lock()
	defer e.mu.Unlock()
	if in := Share(e.tracks[call.TrackIn], 700); in < 0.8 {
		b.t.Errorf("the party's own side has %.2f of its tone in %d bytes", in, len(e.tracks[call.TrackIn]))
	}
	if out := Share(e.tracks[call.TrackOut], 500); out < 0.8 {
		b.t.Errorf("what the party heard has %.2f of the prompt in %d bytes", out, len(e.tracks[call.TrackOut]))
	}
}

func held(b *bench) {
	leg, p := b.place()
	for _, kind := range []call.EventKind{call.HoldEvent, call.ResumeEvent} {
		p.Does(kind)
		if e := <-leg.Events(); e.Kind != kind {
			b.t.Errorf("told %s for %s", e.Kind, kind)
		}
	}
}

func dialAnswered(b *bench) {
	p := b.Phone("1001")
	rung := make(chan Ring, 1)
	go func() {
		r := p.Rung()
		rung <- r
		p.Ring()
		p.PickUp()
	}()
	var steps []call.Progress
	ctx, stop := context.WithCancel(context.Background())
	leg, err := b.Switch().Dial(ctx, call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{
		Caller: caller, Masked: "138****8000", Token: "token-1", OnProgress: func(s call.Progress) { steps = append(steps, s) }})
	stop()
	b.must(err)
	if err != nil {
		return
	}
	if r := <-rung; r.Options.Token != "token-1" {
		b.t.Errorf("the phone got token %q", r.Options.Token)
	}
	if !slices.Contains(steps, call.Sent) || !slices.Contains(steps, call.Ringing) || !slices.IsSorted(index(steps)) {
		b.t.Errorf("the steps were %v", steps)
	}
	if leg.Info().Direction != call.Outgoing || leg.Info().Extension != "1001" {
		b.t.Errorf("info is %+v", leg.Info())
	}
	if leg.Context().Err() != nil {
		b.t.Error("the leg ended with the context of Dial")
	}
	p.Hang()
	if e := ended(leg); e == nil || !e.Remote {
		b.t.Errorf("the leg ended with %+v", e)
	}
}

// index gives the order in which steps must come.
func index(steps []call.Progress) []int {
	order := []call.Progress{call.Sent, call.Trying, call.Ringing, call.EarlyMedia}
	var out []int
	for _, s := range steps {
		out = append(out, slices.Index(order, s))
	}
	return out
}

func dialRefused(b *bench) {
	p := b.Phone("1001")
	go func() {
		p.Rung()
		p.Refuse(486)
	}()
	_, err := b.Switch().Dial(context.Background(), call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{Caller: caller})
	if e, ok := errors.AsType[*call.DialError](err); !ok || e.Cause != call.CauseBusy || e.Status != 486 {
		b.t.Errorf("refused with %v", err)
	}
}

func dialCancelled(b *bench) {
	p := b.Phone("1001")
	why := errors.New("the caller left")
	ctx, stop := context.WithCancelCause(context.Background())
	go func() {
		p.Rung()
		p.Ring()
		stop(why)
	}()
	if _, err := b.Switch().Dial(ctx, call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{Caller: caller}); !errors.Is(err, why) {
		b.t.Errorf("given up with %v", err)
	}
	p.Cancelled()
}

// restarted leaves a caller in the backend, as a kill of the gateway does; the next gateway takes the caller up.
func restarted(b *bench) {
	h, ok := b.Harness.(Restarter)
	if !ok {
		b.unable = true
		return
	}
	legs := make(chan call.Leg, 1)
	b.serve(func(leg call.Leg) {
		b.must(leg.Answer(leg.Context()))
		legs <- leg
		_ = leg.Loop(leg.Context(), Clip("music", 500, 2*time.Second))
	})
	p := b.Call(info)
	<-p.Answered()
	first := (<-legs).Info()
	next := &bench{t: b.t, Harness: h.Restart(func(id string) (*call.Checkpoint, bool) {
		return &call.Checkpoint{CallID: id, LegID: id, Stage: "queue"}, id == first.ID
	})}
	adopted := make(chan call.Leg, 1)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- next.Switch().Serve(ctx, func(_ context.Context, leg call.Leg, from *call.Checkpoint) {
			if from == nil || from.Stage != "queue" {
				b.t.Errorf("the call goes on from %+v", from)
			}
			adopted <- leg
			_ = leg.Loop(leg.Context(), Clip("word", 900, 2*time.Second))
		})
	}()
	leg := <-adopted
	if got := leg.Info(); got.ID != first.ID || got.Caller.E164 != first.Caller.E164 || got.Called != first.Called {
		b.t.Errorf("adopted %+v, was %+v", got, first)
	}
	b.hears(p, 900, true, "the caller of the next gateway")
	p.Press("9")
	if d := <-leg.Digits(); d.Key != '9' {
		b.t.Errorf("pressed 9, told %c", d.Key)
	}
	p.Hang()
	ended(leg)
	stop()
	b.must(<-served)
}
