package dialog

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/hotline12345/gateway/sip/siptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const sdpOffer = "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n"
const sdpAnswer = "v=0\r\no=- 2 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 5000 RTP/AVP 8\r\n"

var gateway = netip.MustParseAddrPort("10.0.0.1:5060")

// bench is a layer on a network in memory, inside a bubble of its own time.
type bench struct {
	t    *testing.T
	net  *siptest.Network
	l    *Layer
	ctx  context.Context
	quit func()
}

// run runs f in a bubble with a layer. A channel on which time must pass is made inside f.
func run(t *testing.T, deps Deps, f func(b *bench)) {
	t.Helper()
	runWith(t, Defaults(), deps, f)
}

func runWith(t *testing.T, cfg Config, deps Deps, f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, net: siptest.NewNetwork(1)}
		b.start(cfg, deps)
		defer func() { b.quit() }() // when f fails too, or the bubble would wait for ever
		f(b)
	})
}

func (b *bench) start(cfg Config, deps Deps) {
	b.t.Helper()
	if deps.Log == nil {
		deps.Log = slog.New(slog.NewTextHandler(b.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if deps.OnInvite == nil {
		deps.OnInvite = func(c *Call) { c.Answer(c.Context(), []byte(sdpAnswer)) }
	}
	l, err := New(cfg, deps)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	conn := b.net.Listen(gateway)
	go func() { served <- l.ServeUDP(ctx, conn) }()
	<-l.Ready()
	b.l, b.ctx = l, ctx
	b.quit = func() {
		cancel()
		if err := <-served; err != nil {
			b.t.Errorf("Serve: %v", err)
		}
	}
}

// phone is a phone on the network.
func (b *bench) phone(name, addr string) *siptest.Phone {
	conn := b.net.Listen(netip.MustParseAddrPort(addr))
	b.t.Cleanup(func() { conn.Close() })
	return siptest.NewPhone(b.t, conn, name, gateway)
}

func (b *bench) count(event string) float64 {
	return testutil.ToFloat64(b.l.m.events.WithLabelValues(event))
}

// to is a call to a phone.
func to(p *siptest.Phone) Invite {
	addr := p.Addr()
	return Invite{
		RequestURI: sip.Uri{Scheme: "sip", User: "1001", Host: addr.Addr().String(), Port: int(addr.Port())},
		From:       sip.FromHeader{Address: sip.Uri{Scheme: "sip", User: "12345", Host: "10.0.0.1"}},
		Body:       []byte(sdpOffer),
	}
}

// dialled is the result of an Invite that runs beside the test.
type dialled struct {
	c   *Call
	err error
}

func (b *bench) dial(ctx context.Context, inv Invite) chan dialled {
	out := make(chan dialled, 1)
	go func() {
		c, err := b.l.Invite(ctx, inv)
		out <- dialled{c, err}
	}()
	return out
}

// near fails the test when at is not d after start, give or take a millisecond.
func near(t *testing.T, what string, start, at time.Time, d time.Duration) {
	t.Helper()
	if off := at.Sub(start) - d; off < -time.Millisecond || off > time.Millisecond {
		t.Errorf("%s after %v, want %v", what, at.Sub(start), d)
	}
}
