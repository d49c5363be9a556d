package sip

import (
	"context"
	"flag"
	"log"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
	"github.com/hotline12345/gateway/sip/registrar"
	"github.com/hotline12345/gateway/sip/trunk"
)

const password = "correcthorse"

var quietLog = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) {
	if settings := os.Getenv(ownerEnv); settings != "" {
		if err := serveOwner(settings); err != nil {
			log.Fatal(err)
		}
		return
	}
	// A datagram that sipgo still handles while its transport closes may open a socket of its own, which
	// lives until the process ends.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/emiago/sipgo/sip.(*TransportUDP).readUDPConnection"))
}

// staff knows every extension of four digits, by one password.
type staff struct{}

func (staff) HA1(_ context.Context, extension, realm, algorithm string) (string, bool) {
	return registrar.HA1(algorithm, extension, realm, password), len(extension) == 4
}

// wire is a switch on loopback, with people on its far side: a [calltest.Harness].
type wire struct {
	t  *testing.T
	sw *Switch

	stop   context.CancelFunc
	served chan error

	mu      sync.Mutex
	people  []*person         // who leave when the switch has ended
	handler chan call.Handler // one value while a handler is set
	ladder  []string
}

// loopback is a configuration on free ports, whose only trunk is the test's own machine.
func loopback() Config {
	cfg := Defaults()
	cfg.Carriers.Listen, cfg.Phones.Listen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Media.PortMin, cfg.Media.PortMax = 0, 0
	cfg.Trunks = []trunk.Config{{Name: "carrier", Sources: []string{"127.0.0.0/8"}, Identity: trunk.ByFrom,
		Carrier: true, MaxCalls: 50, Caller: "12345"}}
	return cfg
}

// farFuture is when nothing expires in a test.
var farFuture = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

func newWire(t *testing.T, change func(*Config)) *wire {
	t.Helper()
	cfg := loopback()
	if change != nil {
		change(&cfg)
	}
	return newWireOn(t, cfg, func(*Deps) {})
}

func newWireOn(t *testing.T, cfg Config, change func(*Deps), more ...func(*Config, *Deps)) *wire {
	t.Helper()
	w := &wire{t: t, served: make(chan error, 1), handler: make(chan call.Handler, 1)}
	deps := Deps{Log: quietLog, Registerer: prometheus.NewPedanticRegistry(),
		Credentials: staff{}, Node: "n1", Trace: w.trace}
	change(&deps)
	for _, f := range more {
		f(&cfg, &deps)
	}
	sw, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	w.sw = sw
	if err := sw.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	go func() { w.served <- sw.Serve(ctx, w.handle) }()
	t.Cleanup(func() {
		stop()
		if err := <-w.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		for _, p := range w.people {
			p.leave()
		}
	})
	return w
}

func (w *wire) trace(id string, _ time.Time, sent bool, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	arrow := "< "
	if sent {
		arrow = "> "
	}
	line, _, _ := strings.Cut(text, "\r\n")
	w.ladder = append(w.ladder, id+" "+arrow+line+"\n"+text)
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

// on sets the handler of the calls from now on.
func (w *wire) on(h call.Handler) {
	select {
	case <-w.handler:
	default:
	}
	w.handler <- h
}

// Switch is the backend for a case of the suite: the wire serves all the time, and the case's handler
// while its Serve runs.
func (w *wire) Switch() call.Switch { return served{w.sw, w} }

type served struct {
	*Switch
	w *wire
}

func (s served) Serve(ctx context.Context, h call.Handler) error {
	s.w.on(h)
	<-ctx.Done()
	return nil
}

// Call implements [calltest.Harness].
func (w *wire) Call(info call.Info) calltest.Peer { return w.caller(info.Caller.Raw).dial(info.Called) }

// caller is someone who may call by the trunk.
func (w *wire) caller(number string) *person { return w.person(number, false).sit() }

// person is someone who does not sit yet.
func (w *wire) person(user string, phones bool) *person {
	p := newPerson(w.t, user, w.sw.Addr(phones))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.people = append(w.people, p)
	return p
}

// Phone implements [calltest.Harness].
func (w *wire) Phone(at string) calltest.Peer { return w.agent(at) }

// agent is someone at a registered telephone.
func (w *wire) agent(extension string) *person {
	p := w.person(extension, true)
	p.register(password)
	return p.sit()
}

var update = flag.Bool("update", false, "write docs/backends.md anew")

func TestConformance(t *testing.T) {
	shown := calltest.Run(t, func(t *testing.T, body func(*testing.T, func(*testing.T) calltest.Harness)) {
		t.Parallel()
		body(t, func(t *testing.T) calltest.Harness { return newWire(t, nil) })
	})
	calltest.Column(t, "../docs/backends.md", "sip", shown, *update)
}
