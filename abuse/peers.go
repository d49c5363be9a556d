package abuse

import (
	"maps"
	"slices"
	"sync"
)

// How many looks in a row a node must not be among the living. A look is a second after the last; a node
// is among the living for some seconds after its last heartbeat.
const (
	// goneAfter is when a node's leases are taken for ended: one look may fall into the moment in which
	// an emptied Redis has not heard of the others yet.
	goneAfter = 2
	// mournedFor is until when its chain is asked for before measures are imposed anew: after an emptied
	// Redis every living node has long named itself by then.
	mournedFor = 30
	// forgottenAfter is when its leases have long ended by themselves.
	forgottenAfter = 120
)

// peers knows which of the other nodes live, and which did.
type peers struct {
	self string
	live func() []string // nil for a node that stands alone

	mu     sync.Mutex
	absent map[string]int // by node: the looks since it was among the living
}

func newPeers(self string, live func() []string) *peers {
	return &peers{self: self, live: live, absent: make(map[string]int)}
}

func (p *peers) living() []string {
	if p.live == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(p.live()), func(n string) bool { return n == p.self })
}

// look notes who is among the living.
func (p *peers) look() {
	living := p.living()
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := range p.absent {
		p.absent[n]++
	}
	for _, n := range living {
		p.absent[n] = 0
	}
	maps.DeleteFunc(p.absent, func(_ string, looks int) bool { return looks >= forgottenAfter })
}

// gone are the nodes that lived and do not any more: nobody beats their leases. One that comes back is
// not among them, even before the next look.
func (p *peers) gone() (gone []string) {
	living := p.living()
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, looks := range p.absent {
		if looks >= goneAfter && !slices.Contains(living, n) {
			gone = append(gone, n)
		}
	}
	return gone
}

// heard are the nodes whose chains count: those that live, and those that lived a moment ago.
func (p *peers) heard() []string {
	heard := p.living()
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, looks := range p.absent {
		if looks < mournedFor && !slices.Contains(heard, n) {
			heard = append(heard, n)
		}
	}
	slices.Sort(heard)
	return heard
}
