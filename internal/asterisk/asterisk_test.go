package asterisk

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/hotline12345/gateway/internal/asterisk/asterisktest"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
	"github.com/hotline12345/gateway/sip/media"
	"github.com/hotline12345/gateway/sip/siptest/softphone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is a switch on a real Asterisk, with telephones on its far side: a [calltest.Harness].
type wire struct {
	t      *testing.T
	ast    *asterisktest.Server
	sw     *Switch
	engine *media.Engine
	world  context.Context
	busy   *sync.WaitGroup
	// handler has one value while a handler is set.
	handler chan call.Handler
}

// holdHz is the tone of the hold prompt.
const holdHz = 1700

// plan reads the numbers of the tests: a mobile number of eleven digits.
func plan(raw string) call.Number {
	n := call.Number{Raw: raw}
	if len(raw) == 11 && raw[0] == '1' {
		n.E164 = "+86" + raw
	}
	return n
}

func newWire(t *testing.T, ast *asterisktest.Server) *wire {
	t.Helper()
	return newWireOn(t, ast, func(*Switch) {})
}

// newWireOn is a wire whose switch is prepared before it serves.
func newWireOn(t *testing.T, ast *asterisktest.Server, prepare func(*Switch)) *wire {
	t.Helper()
	w := newWorld(t, ast)
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(ast.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Defaults()
	cfg.URL, cfg.Username, cfg.PasswordFile = ast.URL, ast.User, secret
	cfg.SoundsDir = filepath.Join(ast.Dir, "sounds")
	cfg.Trunks = []Trunk{{Name: "carrier", Endpoint: "carrier", Trusted: true, Carrier: true, Caller: "12345"}}
	sw, err := New(cfg, Deps{Log: slog.New(slog.NewTextHandler(testLog{t}, nil)), Registerer: prometheus.NewPedanticRegistry(), Node: "n1", Parse: plan,
		Own:  func(n call.Number) bool { return n.Raw == "12345" },
		Hold: func() []*call.Clip { return []*call.Clip{calltest.Clip("hold", holdHz, 2*time.Second)} }})
	if err != nil {
		t.Fatal(err)
	}
	w.sw = sw
	prepare(sw)
	serving, end := context.WithCancel(w.world)
	served := make(chan error, 1)
	go func() { served <- sw.Serve(serving, w.handle) }()
	t.Cleanup(func() {
		end()
		sw.EndAll(call.CauseNormal) // of a test that failed
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	<-sw.first
	return w
}

// newWorld is telephones on an Asterisk without a gateway.
func newWorld(t *testing.T, ast *asterisktest.Server) *wire {
	t.Helper()
	sounds := media.Defaults()
	sounds.PortMin, sounds.PortMax = 0, 0
	engine, err := media.New(sounds, media.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	world, stop := context.WithCancel(context.Background())
	w := &wire{t: t, ast: ast, engine: engine, world: world, busy: &sync.WaitGroup{}, handler: make(chan call.Handler, 1)}
	w.busy.Go(func() { _ = engine.Run(world) })
	t.Cleanup(func() { stop(); w.busy.Wait() })
	return w
}

// handle runs the handler that is set, once there is one.
func (w *wire) handle(ctx context.Context, leg call.Leg, from *call.Checkpoint) {
	select {
	case h := <-w.handler:
		w.handler <- h
		h(ctx, leg, from)
	case <-leg.Context().Done():
	}
}

// served is the backend for a case of the suite: the wire serves all the time, and the case's handler while
// its Serve runs.
type served struct {
	*Switch
	w *wire
}

func (s served) Serve(ctx context.Context, h call.Handler) error {
	s.w.handler <- h
	<-ctx.Done()
	return nil
}

// testLog puts a log into the test's own.
type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

// Switch implements [calltest.Harness].
func (w *wire) Switch() call.Switch { return served{w.sw, w} }

// Call implements [calltest.Harness].
func (w *wire) Call(info call.Info) calltest.Peer {
	p := w.person(info.Caller.Raw, "")
	w.busy.Go(func() { p.dial(info.Called) })
	return p
}

// Phone implements [calltest.Harness].
func (w *wire) Phone(at string) calltest.Peer {
	p := w.person(at, w.ast.Secret)
	ctx, cancel := context.WithTimeout(w.world, 10*time.Second)
	defer cancel()
	if err := p.phone.Register(ctx, time.Minute); err != nil {
		w.t.Error(err)
	}
	return p
}

// person is somebody at a telephone.
type person struct {
	w     *wire
	phone *softphone.Phone

	answered  chan struct{}
	refused   chan int
	ended     chan struct{}
	calls     chan *softphone.Call
	cancelled chan struct{}

	mu   sync.Mutex
	call *softphone.Call
	tone context.CancelFunc
}

func (w *wire) person(user, secret string) *person {
	p := &person{w: w, answered: make(chan struct{}), refused: make(chan int, 1), ended: make(chan struct{}, 8),
		calls: make(chan *softphone.Call, 8), cancelled: make(chan struct{}, 8)}
	phone, err := softphone.New(softphone.Config{Listen: "127.0.0.1:0", Peer: netip.MustParseAddrPort(w.ast.SIP), User: user, Secret: secret,
		Log: slog.New(slog.DiscardHandler), OnCall: p.rung}, w.engine)
	if err != nil {
		w.t.Fatal(err)
	}
	p.phone = phone
	w.busy.Go(func() { _ = phone.Run(w.world) })
	<-phone.Ready()
	return p
}

func (p *person) dial(number string) {
	c, err := p.phone.Dial(p.w.world, softphone.Dial{To: number})
	if err != nil {
		p.refused <- statusOf(err)
		return
	}
	p.live(c)
	close(p.answered)
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*call.DialError](err); ok {
		return e.Status
	}
	return 0
}

// live is a call that was answered.
func (p *person) live(c *softphone.Call) {
	p.mu.Lock()
	p.call = c
	p.mu.Unlock()
	context.AfterFunc(c.Context(), func() { p.ended <- struct{}{} })
}

func (p *person) rung(c *softphone.Call) {
	p.mu.Lock()
	p.call = c
	p.mu.Unlock()
	p.calls <- c
	<-c.Context().Done()
}

func (p *person) current() *softphone.Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.call
}

func (p *person) must(err error) {
	if err != nil && p.w.world.Err() == nil {
		p.w.t.Error(err)
	}
}

func (p *person) Answered() <-chan struct{} { return p.answered }
func (p *person) Refused() <-chan int       { return p.refused }
func (p *person) Ended() <-chan struct{}    { return p.ended }
func (p *person) Press(keys string)         { p.must(p.current().Press(p.w.world, keys)) }
func (p *person) Hang()                     { p.must(p.current().Hangup()) }
func (p *person) Ring()                     { p.must(p.current().Ring()) }
func (p *person) Refuse(status int)         { p.must(p.current().Reject(status)) }
func (p *person) Cancelled()                { <-p.current().Context().Done() }

func (p *person) Speak(hz float64) {
	ctx, stop := context.WithCancel(p.w.world)
	p.mu.Lock()
	if p.tone != nil {
		p.tone()
	}
	p.tone = stop
	p.mu.Unlock()
	if hz == 0 {
		return
	}
	c := p.current()
	p.w.busy.Go(func() { _ = c.Tone(ctx, int(hz)) }) // ends with the call
}

func (p *person) Listen(d time.Duration) []byte {
	c := p.current()
	c.Forget()
	<-time.After(d) // as long as is listened
	return c.Heard()
}

func (p *person) Does(kind call.EventKind) {
	p.must(p.current().Hold(p.w.world, kind == call.HoldEvent))
}

func (p *person) Rung() calltest.Ring {
	c := <-p.calls
	return calltest.Ring{At: time.Now(), Options: call.DialOptions{Token: c.Token}}
}

func (p *person) PickUp() {
	c := p.current()
	if err := c.Answer(p.w.world); c.Context().Err() == nil { // who hangs up at once may do so before the ACK
		p.must(err)
	}
	context.AfterFunc(c.Context(), func() { p.ended <- struct{}{} })
}

func TestConformance(t *testing.T) {
	ast := asterisktest.Start(t, "n1", "127.0.0.1:9")
	shown := calltest.Run(t, func(t *testing.T, body func(*testing.T, func(*testing.T) calltest.Harness)) {
		body(t, func(t *testing.T) calltest.Harness {
			w, cable := over(t, ast)
			return mortal{w, cable, ast}
		})
	})
	calltest.Column(t, "../../docs/backends.md", "asterisk", shown, *update)
}

var update = flag.Bool("update", false, "write docs/backends.md anew")

// mortal is a wire that can die as a killed gateway does: nothing of it reaches Asterisk any more.
type mortal struct {
	*wire
	cable *asterisktest.Cable
	ast   *asterisktest.Server // by the way that is not cut
}

// Restart implements [calltest.Restarter].
func (m mortal) Restart(load func(string) (*call.Checkpoint, bool)) calltest.Harness {
	m.cable.Cut(true)
	return newWireOn(m.t, m.ast, func(s *Switch) {
		if err := s.Adopt(m.t.Context(), load); err != nil {
			m.t.Fatal(err)
		}
	})
}
