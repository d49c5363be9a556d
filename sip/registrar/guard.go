package registrar

import (
	"net/netip"
	"sync"
	"time"
)

// maxGuarded bounds the sources and extensions whose failures are remembered; twice as many are held.
const maxGuarded = 8192

// guard counts wrong passwords, by source and extension and by source alone: a source may be a whole
// office behind one address, so the second limit is ten times the first.
type guard struct {
	max    int
	memory time.Duration

	mu        sync.Mutex
	cur, prev map[guarded]*failures
}

type guarded struct {
	source    netip.Addr
	extension string // "" for the source alone
}

type failures struct {
	n    int
	last time.Time
}

func newGuard(limit int, memory time.Duration) *guard {
	return &guard{max: limit, memory: memory, cur: map[guarded]*failures{}}
}

// locked tells whether a source may not try an extension now.
func (g *guard) locked(source netip.Addr, extension string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count(guarded{source, extension}, now) >= g.max || g.count(guarded{source, ""}, now) >= 10*g.max
}

// failed notes a wrong password, and tells whether it was the one that locks.
func (g *guard) failed(source netip.Addr, extension string, now time.Time) (locks bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.add(guarded{source, extension}, now) == g.max || g.add(guarded{source, ""}, now) == 10*g.max
}

// passed forgets the failures of a source for an extension.
func (g *guard) passed(source netip.Addr, extension string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.cur, guarded{source, extension})
	delete(g.prev, guarded{source, extension})
}

func (g *guard) find(k guarded) *failures {
	if f := g.cur[k]; f != nil {
		return f
	}
	return g.prev[k]
}

func (g *guard) count(k guarded, now time.Time) int {
	f := g.find(k)
	if f == nil || now.Sub(f.last) > g.memory {
		return 0
	}
	return f.n
}

func (g *guard) add(k guarded, now time.Time) int {
	f := g.find(k)
	if f == nil || now.Sub(f.last) > g.memory {
		f = &failures{}
	}
	f.n, f.last = f.n+1, now
	if _, ok := g.cur[k]; !ok && len(g.cur) >= maxGuarded {
		g.prev, g.cur = g.cur, map[guarded]*failures{}
	}
	g.cur[k] = f
	return f.n
}
