package media

import (
	"math/rand/v2"
	"sync"
	"time"
)

// coolDown keeps a released port from its next call while packets of the last may still arrive.
const coolDown = 2 * time.Second

// portPool hands out even ports: the one free for longest first, so that a port rests as long as
// the pool allows. It starts shuffled, which makes the next port hard to guess.
type portPool struct {
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
	rand.Shuffle(len(p.free), func(i, j int) { p.free[i], p.free[j] = p.free[j], p.free[i] })
	return p
}

// take returns the port that has been free for longest and is cool.
func (p *portPool) take(now time.Time) (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
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

func (p *portPool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.free)
}
