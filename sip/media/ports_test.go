package media

import (
	"errors"
	"testing"
	"time"
)

// A tenth of the ports is for emergencies alone, at once when need be.
func TestKeptPorts(t *testing.T) {
	for n, want := range map[int]int{0: 0, 7: 0, 8: 4, 40: 4, 41: 5, 1000: 100} {
		if got := keptPorts(n); got != want {
			t.Errorf("of %d pairs %d are kept, want %d", n, got, want)
		}
	}
	now := time.Now()
	p := newPortPool(20000, 20019) // ten pairs, four kept
	for range 6 {
		if _, ok := p.take(now, false); !ok {
			t.Fatal("an ordinary call finds no port")
		}
	}
	if !p.scarce(now) {
		t.Error("the pool does not tell that only kept ports are left")
	}
	if _, ok := p.take(now, false); ok {
		t.Error("an ordinary call took a kept port")
	}
	for range 4 {
		port, ok := p.take(now, true)
		if !ok {
			t.Fatal("an emergency finds no port")
		}
		p.release(port, true, now) // hot from now on
		if _, ok := p.take(now, true); !ok {
			t.Fatal("an emergency waits for a port to cool down")
		}
	}
	if _, ok := p.take(now, true); ok {
		t.Error("an empty pool gave a port")
	}
}

// A session takes of the kept ports when it is an emergency's.
func TestKeptPortsOfSessions(t *testing.T) {
	cfg := Defaults()
	cfg.PortMin, cfg.PortMax = 20000, 20019
	bubble(t, cfg, func(t *testing.T, e *Engine, _ *memNet) {
		for range 6 {
			session(t, e, SessionOptions{})
		}
		if !e.Scarce() {
			t.Error("the engine does not tell that only kept ports are left")
		}
		if _, err := e.NewSession(SessionOptions{}); !errors.Is(err, ErrNoPorts) {
			t.Errorf("an ordinary call: %v, want ErrNoPorts", err)
		}
		for range 4 {
			session(t, e, SessionOptions{Emergency: true})
		}
		if _, err := e.NewSession(SessionOptions{Emergency: true}); !errors.Is(err, ErrNoPorts) {
			t.Errorf("with every port taken: %v, want ErrNoPorts", err)
		}
	})
}
