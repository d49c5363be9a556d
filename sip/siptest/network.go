// Package siptest is what tests of the SIP rooms stand on: a network in memory with loss, delay,
// reorder and duplicates, a scripted phone that speaks raw SIP, and tones with their ear.
//
// All of it works inside a testing/synctest bubble: there are no goroutines, and every wait is on
// a channel or a timer.
package siptest

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// Link is what happens to the datagrams of one direction. The zero value is a perfect link.
type Link struct {
	Loss      float64       // the share that is lost, 0 to 1
	Duplicate float64       // the share that comes twice
	Reorder   float64       // the share that is held back for HoldBack, so that later ones pass it
	HoldBack  time.Duration // 0 is 10 ms
	Delay     time.Duration // of every datagram
	Jitter    time.Duration // at random, 0 to Jitter, on top of Delay
}

// Network joins in-memory packet connections. Datagrams that are due at the same instant arrive in
// the order in which they were sent.
type Network struct {
	mu     sync.Mutex
	rand   *rand.Rand
	conns  map[netip.AddrPort]*conn
	links  map[[2]netip.AddrPort]Link
	link   Link
	filter func(from, to netip.AddrPort, data []byte) bool
	serial uint64
	port   uint16
}

// NewNetwork makes a network whose chances follow from seed.
func NewNetwork(seed uint64) *Network {
	return &Network{
		rand:  rand.New(rand.NewPCG(seed, 12345)),
		conns: make(map[netip.AddrPort]*conn),
		links: make(map[[2]netip.AddrPort]Link),
		port:  40000,
	}
}

// SetDefault sets the link of every pair that has none of its own.
func (n *Network) SetDefault(l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link = l
}

// SetLink sets the link of one direction.
func (n *Network) SetLink(from, to netip.AddrPort, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[[2]netip.AddrPort{from, to}] = l
}

// SetDrop loses exactly the datagrams for which f is true; nil loses none. f must not use the network.
func (n *Network) SetDrop(f func(from, to netip.AddrPort, data []byte) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.filter = f
}

// Listen opens an address; port 0 takes a free one. It panics when the address is in use.
func (n *Network) Listen(addr netip.AddrPort) net.PacketConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr.Port() == 0 {
		n.port++
		addr = netip.AddrPortFrom(addr.Addr(), n.port)
	}
	if _, used := n.conns[addr]; used {
		panic("siptest: address in use: " + addr.String())
	}
	c := &conn{net: n, addr: addr, wake: make(chan struct{}, 1), closed: make(chan struct{})}
	n.conns[addr] = c
	return c
}

// send puts a datagram on its way. It never fails, as UDP does not.
func (n *Network) send(from, to netip.AddrPort, data []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	dest := n.conns[to]
	if dest == nil || n.filter != nil && n.filter(from, to, data) {
		return
	}
	link, ok := n.links[[2]netip.AddrPort{from, to}]
	if !ok {
		link = n.link
	}
	copies := 1
	if n.rand.Float64() < link.Duplicate {
		copies = 2
	}
	for range copies {
		if n.rand.Float64() < link.Loss {
			continue
		}
		dest.push(n.packet(link, from, data))
	}
}

func (n *Network) packet(link Link, from netip.AddrPort, data []byte) packet {
	n.serial++
	p := packet{due: time.Now().Add(link.Delay), serial: n.serial, from: from, data: slices.Clone(data)}
	if link.Jitter > 0 {
		p.due = p.due.Add(time.Duration(n.rand.Int64N(int64(link.Jitter))))
	}
	if n.rand.Float64() < link.Reorder {
		hold := link.HoldBack
		if hold == 0 {
			hold = 10 * time.Millisecond
		}
		p.due = p.due.Add(hold)
	}
	return p
}

type packet struct {
	due    time.Time
	serial uint64
	from   netip.AddrPort
	data   []byte
}

// conn is one address of the network. Packets wait in it, by the time when they are due.
type conn struct {
	net  *Network
	addr netip.AddrPort

	mu       sync.Mutex
	queue    []packet
	deadline time.Time
	wake     chan struct{} // the queue or the deadline changed
	closed   chan struct{}
	once     sync.Once
}

// inbox bounds what waits for a slow reader, as a socket's buffer does.
const inbox = 8192

func (c *conn) push(p packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) >= inbox {
		return
	}
	i, _ := slices.BinarySearchFunc(c.queue, p, func(a, b packet) int {
		if d := a.due.Compare(b.due); d != 0 {
			return d
		}
		return int(int64(a.serial) - int64(b.serial))
	})
	c.queue = slices.Insert(c.queue, i, p)
	c.signal()
}

func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// ReadFrom implements [net.PacketConn].
func (c *conn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p, wait, err := c.next()
		if err != nil {
			return 0, nil, &net.OpError{Op: "read", Net: "udp", Addr: c.LocalAddr(), Err: err}
		}
		if wait == 0 {
			return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.wake:
		case <-timer.C:
		case <-c.closed:
		}
		timer.Stop()
	}
}

// next takes the packet that is due, or says how long to wait for a change.
func (c *conn) next() (packet, time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
		return packet{}, 0, net.ErrClosed
	default:
	}
	now := time.Now()
	if !c.deadline.IsZero() && !now.Before(c.deadline) {
		return packet{}, 0, os.ErrDeadlineExceeded
	}
	wait := time.Hour
	if !c.deadline.IsZero() {
		wait = c.deadline.Sub(now)
	}
	if len(c.queue) == 0 {
		return packet{}, wait, nil
	}
	first := c.queue[0]
	if first.due.After(now) {
		return packet{}, min(wait, first.due.Sub(now)), nil
	}
	c.queue = c.queue[1:]
	if len(c.queue) > 0 {
		c.signal() // a second reader may wait
	}
	return first, 0, nil
}

// WriteTo implements [net.PacketConn].
func (c *conn) WriteTo(b []byte, addr net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: addr, Err: net.ErrClosed}
	default:
	}
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, errors.New("siptest: not a UDP address: " + addr.String())
	}
	ap := to.AddrPort()
	c.net.send(c.addr, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), b)
	return len(b), nil
}

// Close implements [net.PacketConn]; the address is free again.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.net.mu.Lock()
		delete(c.net.conns, c.addr)
		c.net.mu.Unlock()
		close(c.closed)
	})
	return nil
}

// LocalAddr implements [net.PacketConn].
func (c *conn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.addr) }

// SetDeadline implements [net.PacketConn]; writes never wait.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements [net.PacketConn].
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	c.signal()
	return nil
}

// SetWriteDeadline implements [net.PacketConn].
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
