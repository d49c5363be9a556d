package media

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// coolDown keeps a released port from its next call while packets of the last may still arrive.
const coolDown = 2 * time.Second

// portPool hands out even ports: the one free for longest first, so that a port rests as long as
// the pool allows. It starts shuffled, which makes the next port hard to guess.
type portPool struct {
	kept int // pairs for emergencies alone
	mu   sync.Mutex
	free []freePort // oldest first
}

type freePort struct {
	port  int
	ready time.Time
}

func newPortPool(low, high int) *portPool {
	p := new(portPool)
	for port := low + low&1; port+1 <= high; port += 2 {
		p.free = append(p.free, freePort{port: port})
	}
	p.kept = keptPorts(len(p.free))
	rand.Shuffle(len(p.free), func(i, j int) { p.free[i], p.free[j] = p.free[j], p.free[i] })
	return p
}

// keptPorts is how many pairs of n are kept for emergencies: a tenth, and four at least. Fewer than
// eight pairs are no range for service, and none is kept of them.
func keptPorts(n int) int {
	if n < 8 {
		return 0
	}
	return max(4, (n+9)/10)
}

// take returns the port that has been free for longest and is cool. What is kept goes to emergencies
// alone, cool or not: a stray packet does less harm than no call.
func (p *portPool) take(now time.Time, emergency bool) (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !emergency && len(p.free) <= p.kept {
		return 0, false
	}
	if emergency {
		now = now.Add(coolDown)
	}
	for i, f := range p.free {
		if !f.ready.After(now) {
			p.free = append(p.free[:i], p.free[i+1:]...)
			return f.port, true
		}
	}
	return 0, false
}

// release returns a port; used says that packets came to it, so that it must cool down.
func (p *portPool) release(port int, used bool, now time.Time) {
	f := freePort{port: port}
	if used {
		f.ready = now.Add(coolDown)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, f)
}

// scarce tells whether an ordinary call finds no pair: only kept ones are left, or those that cool down.
func (p *portPool) scarce(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	cool := func(f freePort) bool { return !f.ready.After(now) }
	return len(p.free) <= p.kept || !slices.ContainsFunc(p.free, cool)
}

func (p *portPool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.free)
}
