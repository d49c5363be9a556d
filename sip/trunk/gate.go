package trunk

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// maxSources bounds the sources whose rate is remembered; twice as many are held at most.
const maxSources = 4096

// RateConfig bounds what one source may send.
type RateConfig struct {
	// Messages is the SIP messages a second of one source, 1 to 100000.
	Messages int `yaml:"messages" json:"messages"`
	// Burst is how many may come at once, Messages and up.
	Burst int `yaml:"burst" json:"burst"`
}

// Validate checks the rate.
func (c RateConfig) Validate() error {
	if c.Messages < 1 || c.Messages > 100000 {
		return fmt.Errorf("messages: %d is out of range; write 1 to 100000", c.Messages)
	}
	if c.Burst < c.Messages {
		return fmt.Errorf("burst: %d is less than messages; write %d or more", c.Burst, c.Messages)
	}
	return nil
}

// Gate stands before a listener's parser: it lets known sources in, each at its rate, and drops the
// rest without a word.
type Gate struct {
	known   func(netip.Addr) bool
	rate    RateConfig
	unknown prometheus.Counter
	over    prometheus.Counter

	mu        sync.Mutex
	cur, prev map[netip.Addr]*rate.Limiter // two generations: a full one ages as a whole
}

// NewGate makes a gate. known tells the sources that may send; unknown and over count what is dropped.
func NewGate(known func(netip.Addr) bool, cfg RateConfig, unknown, over prometheus.Counter) *Gate {
	return &Gate{known: known, rate: cfg, unknown: unknown, over: over, cur: map[netip.Addr]*rate.Limiter{}}
}

// Drop tells whether a datagram, or a piece of a stream, is dropped.
func (g *Gate) Drop(_ []byte, from net.Addr, transport string) bool {
	a, ok := addr(from)
	switch {
	case !ok || !g.known(a):
		g.unknown.Inc()
		return true
	case !strings.EqualFold(transport, "udp"):
		return false // a stream loses its framing when bytes are dropped; Listener slows it down
	case !g.limiter(a).Allow():
		g.over.Inc()
		return true
	}
	return false
}

// limiter is the token bucket of a source.
func (g *Gate) limiter(a netip.Addr) *rate.Limiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l, ok := g.cur[a]; ok {
		return l
	}
	l, ok := g.prev[a]
	if !ok {
		l = rate.NewLimiter(rate.Limit(g.rate.Messages), g.rate.Burst)
	}
	if len(g.cur) >= maxSources {
		g.prev, g.cur = g.cur, make(map[netip.Addr]*rate.Limiter, maxSources)
	}
	g.cur[a] = l
	return l
}

// Listener wraps a stream listener: connections of unknown sources are closed at once, and a source
// over its rate is read more slowly.
func (g *Gate) Listener(l net.Listener) net.Listener { return &listener{Listener: l, gate: g} }

type listener struct {
	net.Listener
	gate *Gate
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if a, ok := addr(c.RemoteAddr()); ok && l.gate.known(a) {
			return &conn{Conn: c, limiter: l.gate.limiter(a), over: l.gate.over}, nil
		}
		l.gate.unknown.Inc()
		_ = c.Close()
	}
}

// conn is one connection; each read costs a token, as each datagram does.
type conn struct {
	net.Conn
	limiter *rate.Limiter
	over    prometheus.Counter
}

// pause is how long a read waits before it asks for a token again. It takes none in advance: a source
// with many connections would run into debts that its datagrams pay for long after.
const pause = 20 * time.Millisecond

func (c *conn) Read(b []byte) (int, error) {
	for slow := false; !c.limiter.Allow(); slow = true {
		if !slow {
			c.over.Inc()
		}
		time.Sleep(pause)
	}
	return c.Conn.Read(b)
}

func addr(a net.Addr) (netip.Addr, bool) {
	switch v := a.(type) {
	case *net.UDPAddr:
		ip, ok := netip.AddrFromSlice(v.IP)
		return ip.Unmap(), ok
	case *net.TCPAddr:
		ip, ok := netip.AddrFromSlice(v.IP)
		return ip.Unmap(), ok
	case nil:
		return netip.Addr{}, false
	}
	ap, err := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap(), err == nil
}
