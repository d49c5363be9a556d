package media

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/g711"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	anyone   = func(netip.Addr) bool { return true }
)

// testConfig lets the kernel, or the network in memory, choose the ports.
func testConfig() Config {
	cfg := Defaults()
	cfg.PortMin, cfg.PortMax = 0, 0
	return cfg
}

// run starts an engine that ends with the test.
func run(t testing.TB, cfg Config, deps Deps) *Engine {
	t.Helper()
	if deps.Registerer == nil {
		deps.Registerer = prometheus.NewPedanticRegistry()
	}
	e, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = e.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return e
}

func session(t testing.TB, e *Engine, opts SessionOptions) *Session {
	t.Helper()
	s, err := e.NewSession(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// phone is a peer of a session: it sends what the test says and keeps what it hears.
type phone struct {
	t    testing.TB
	conn net.PacketConn
	addr netip.AddrPort
	to   net.Addr
	h    header // of the next packet

	mu    sync.Mutex
	heard []packet
	more  chan struct{}
}

type packet struct {
	header
	body []byte
	at   time.Time
}

// listenAny opens a socket of the system on any port.
func listenAny(t testing.TB) net.PacketConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newPhone(t testing.TB, conn net.PacketConn) *phone {
	p := &phone{t: t, conn: conn, addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), more: make(chan struct{}, 1)}
	p.h = header{pt: 8, seq: 65500, ts: 1<<32 - 4000, ssrc: uint32(p.addr.Port())}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, maxPacket)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			h, ok := parseHeader(buf[:n])
			if !ok || isRTCP(buf[:n]) {
				continue
			}
			body := append([]byte(nil), buf[h.payload:h.payload+h.size]...)
			p.mu.Lock()
			p.heard = append(p.heard, packet{h, body, time.Now()})
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	return p
}

// join tells s of the phone and the phone of s.
func (p *phone) join(s *Session, change ...func(*Params)) *phone {
	p.t.Helper()
	p.to = net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, uint16(s.LocalPort())))
	par := Params{Addr: p.addr, Codec: call.PCMA, PayloadType: 8, DTMFType: 101, RecvDTMFType: 101, Send: true, Recv: true, Allowed: anyone}
	for _, f := range change {
		f(&par)
	}
	if err := s.Remote(par); err != nil {
		p.t.Fatal(err)
	}
	return p
}

func pcmu(p *Params) { p.Codec, p.PayloadType = call.PCMU, 0 }

// say sends one packet and moves on.
func (p *phone) say(body []byte) {
	p.put(p.h, body)
	p.h.seq++
	p.h.ts += uint32(len(body))
}

// put sends a packet as given.
func (p *phone) put(h header, body []byte) {
	p.t.Helper()
	raw := make([]byte, headerBytes, headerBytes+len(body))
	h.put(raw)
	if _, err := p.conn.WriteTo(append(raw, body...), p.to); err != nil && !errors.Is(err, net.ErrClosed) {
		p.t.Error(err)
	}
}

// key sends one packet of a telephone-event; dur is in samples.
func (p *phone) key(code byte, ts uint32, dur uint16, end, marker bool) {
	body := []byte{code, 10, 0, 0}
	if end {
		body[1] |= 0x80
	}
	binary.BigEndian.PutUint16(body[2:], dur)
	p.put(header{pt: 101, seq: p.h.seq, ts: ts, ssrc: p.h.ssrc, marker: marker}, body)
	p.h.seq++
}

// take returns what was heard so far and forgets it.
func (p *phone) take() []packet {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.heard
	p.heard = nil
	return got
}

// await waits until what was heard since the last take satisfies ok.
func (p *phone) await(what string, ok func([]packet) bool) []packet {
	p.t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		p.mu.Lock()
		got := append([]packet(nil), p.heard...)
		p.mu.Unlock()
		if ok(got) {
			return got
		}
		select {
		case <-p.more:
		case <-timeout:
			p.t.Fatalf("no %s among %d packets", what, len(got))
		}
	}
}

// decoded is the sound of packets of one law.
func decoded(got []packet, l law) (pcm []float64) {
	for _, p := range got {
		if p.pt == 101 {
			continue
		}
		for _, b := range p.body {
			pcm = append(pcm, float64(l.linear()[b]))
		}
	}
	return pcm
}

// level is the amplitude of a tone in pcm (Goertzel).
func level(pcm []float64, hz float64) float64 {
	c := 2 * math.Cos(2*math.Pi*hz/call.Rate)
	var a, b float64
	for _, v := range pcm {
		a, b = v+c*a-b, a
	}
	return math.Sqrt(a*a+b*b-c*a*b) * 2 / float64(max(len(pcm), 1))
}

// tone is n samples of a tone of amplitude 8000, from sample at.
func tone(l law, hz float64, at, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		v := int16(8000 * math.Sin(2*math.Pi*hz*float64(at+i)/call.Rate))
		if b[i] = g711.EncodeALaw(v); l == uLaw {
			b[i] = g711.EncodeULaw(v)
		}
	}
	return b
}

func clip(id string, hz float64, d time.Duration) *call.Clip {
	n := int(samples(d))
	return &call.Clip{ID: id, PCMA: tone(aLaw, hz, 0, n), PCMU: tone(uLaw, hz, 0, n)}
}

// wantLevels checks that the wanted tones are there and the others are not.
func wantLevels(t *testing.T, who string, pcm []float64, want map[float64]bool) {
	t.Helper()
	for hz, there := range want {
		if got := level(pcm, hz); there && got < 4000 || !there && got > 400 {
			t.Errorf("%s: %.0f Hz at %.0f, wanted: %v (%d samples)", who, hz, got, there, len(pcm))
		}
	}
}

// memNet is a network in memory: it works inside synctest, where time is the test's own.
type memNet struct {
	mu    sync.Mutex
	conns map[netip.AddrPort]*memConn
	port  uint16
}

func newMemNet() *memNet { return &memNet{conns: make(map[netip.AddrPort]*memConn), port: 30000} }

func (n *memNet) listen(_ context.Context, addr netip.AddrPort) (net.PacketConn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr.Port() == 0 {
		n.port += 2
		addr = netip.AddrPortFrom(addr.Addr(), n.port)
	}
	if n.conns[addr] != nil {
		return nil, errors.New("address in use")
	}
	c := &memConn{net: n, addr: addr, in: make(chan datagram, 4096), closed: make(chan struct{})}
	n.conns[addr] = c
	return c, nil
}

// phone is a phone of this network.
func (n *memNet) phone(t testing.TB) *phone {
	c, err := n.listen(t.Context(), netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	return newPhone(t, c)
}

type datagram struct {
	b    []byte
	from netip.AddrPort
}

type memConn struct {
	net    *memNet
	addr   netip.AddrPort
	in     chan datagram
	once   sync.Once
	closed chan struct{}
}

func (c *memConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-c.in:
		return copy(b, d.b), net.UDPAddrFromAddrPort(d.from), nil
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c *memConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.net.mu.Lock()
	peer := c.net.conns[to.(*net.UDPAddr).AddrPort()]
	c.net.mu.Unlock()
	if peer != nil {
		select {
		case peer.in <- datagram{append([]byte(nil), b...), c.addr}:
		default:
		}
	}
	return len(b), nil
}

func (c *memConn) Close() error {
	c.once.Do(func() {
		c.net.mu.Lock()
		delete(c.net.conns, c.addr)
		c.net.mu.Unlock()
		close(c.closed)
	})
	return nil
}

func (c *memConn) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(c.addr) }
func (c *memConn) SetDeadline(time.Time) error      { return nil }
func (c *memConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }

// contextOf is a context that the test ends.
func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return ctx, cancel
}
