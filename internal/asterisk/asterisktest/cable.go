package asterisktest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Cable is a way to ARI, which a test can cut.
type Cable struct {
	Addr string // host:port of its near end

	to    string
	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
	busy  sync.WaitGroup
}

// NewCable lays a cable to an address, host:port.
func NewCable(t *testing.T, to string) *Cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cable{Addr: l.Addr().String(), to: to, conns: map[net.Conn]bool{}}
	c.busy.Go(func() { c.accept(l) })
	t.Cleanup(func() {
		_ = l.Close()
		c.Cut(true)
		c.busy.Wait()
	})
	return c
}

func (c *Cable) accept(l net.Listener) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", c.to)
		c.mu.Lock()
		if err != nil || c.cut {
			c.mu.Unlock()
			_ = near.Close()
			if err == nil {
				_ = far.Close()
			}
			continue
		}
		c.conns[near], c.conns[far] = true, true
		c.mu.Unlock()
		for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
			c.busy.Go(func() {
				_, _ = io.Copy(pair[0], pair[1]) // ends when either side is closed
				_ = pair[0].Close()
				_ = pair[1].Close()
			})
		}
	}
}

// Cut cuts the cable, or mends it.
func (c *Cable) Cut(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	if !cut {
		return
	}
	for conn := range c.conns {
		_ = conn.Close()
	}
	clear(c.conns)
}

// FreePort is a TCP port of 127.0.0.1 that nobody has at the moment.
func FreePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}
