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

// try tells whether a source may try an extension now, and whether it is the last time when the password
// is wrong. A try counts as a failure until it has passed: a hundred at once are a hundred tries.
func (g *guard) try(source netip.Addr, extension string, now time.Time) (ok, last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one, all := guarded{source, extension}, guarded{source, ""}
	if g.count(one, now) >= g.max || g.count(all, now) >= 10*g.max {
		return false, false
	}
	n, sum := g.add(one, now), g.add(all, now)
	return true, n == g.max || sum == 10*g.max
}

// passed forgets the failures of a source for an extension, and that the try was one.
func (g *guard) passed(source netip.Addr, extension string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.cur, guarded{source, extension})
	delete(g.prev, guarded{source, extension})
	g.less(guarded{source, ""})
}

// spared takes a try back that was no failure, and proves nothing: its nonce was old.
func (g *guard) spared(source netip.Addr, extension string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.less(guarded{source, extension})
	g.less(guarded{source, ""})
}

func (g *guard) less(k guarded) {
	if f := g.find(k); f != nil && f.n > 0 {
		f.n--
	}
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
