package abuse

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// city is nodes that live, freeze and die, and what is known to be true of the calls of two numbers.
type city struct {
	*rand.Rand
	town   *town
	open   func() *store.Store
	nodes  []*citizen
	born   int
	calls  int
	number [2]string
	up     [2][]*ringing
	ghosts [2]int // places in Redis that no call has: of a node that died unnoticed, or given back in vain
}

type citizen struct {
	*node
	fault  *storetest.Fault
	faulty bool
	frozen bool
}

type ringing struct {
	at    *citizen
	lease session.Lease
}

func (c *city) join() {
	c.born++
	s := c.open()
	f := &storetest.Fault{}
	s.Client().AddHook(f)
	n := c.town.join(fmt.Sprint("n", c.born), c.town.t.TempDir(), s)
	n.policy.Concurrency.Lease = 5 * time.Second
	c.nodes = append(c.nodes, &citizen{node: n, fault: f})
}

// able is a node that is not frozen, or nil.
func (c *city) able() *citizen {
	able := slices.DeleteFunc(slices.Clone(c.nodes), func(n *citizen) bool { return n.frozen })
	if len(able) == 0 {
		return nil
	}
	return able[c.IntN(len(able))]
}

func (c *city) ring(n *citizen, which int) {
	c.calls++
	v := n.Screen(c.town.t.Context(), session.ScreenRequest{CallID: fmt.Sprint("c", c.calls), Identity: call.Verified,
		Caller: call.Number{E164: c.number[which]}, At: c.town.clock.now()})
	if v.Lease != nil {
		c.up[which] = append(c.up[which], &ringing{n, v.Lease})
	} else if len(c.up[which])+c.ghosts[which] < n.policy.Concurrency.Calls {
		c.town.t.Fatalf("refused while %d calls are up and %d places are without one", len(c.up[which]), c.ghosts[which])
	}
}

func (c *city) hangUp(which int) {
	if len(c.up[which]) == 0 {
		return
	}
	i := c.IntN(len(c.up[which]))
	r := c.up[which][i]
	if r.at.frozen {
		return
	}
	if r.at.faulty {
		c.ghosts[which]++
	}
	r.lease.Release()
	c.up[which] = slices.Delete(c.up[which], i, i+1)
}

// kill ends a node, and another is started in its place.
func (c *city) kill() {
	i := c.IntN(len(c.nodes))
	n := c.nodes[i]
	c.nodes = slices.Delete(c.nodes, i, i+1)
	c.town.die(n.node)
	for which := range c.up {
		c.up[which] = slices.DeleteFunc(c.up[which], func(r *ringing) bool {
			if r.at == n {
				c.ghosts[which]++
			}
			return r.at == n
		})
	}
	c.join()
}

func (c *city) freeze(n *citizen, frozen bool) {
	if n.frozen == frozen {
		return
	}
	n.frozen = frozen
	if frozen {
		c.town.die(n.node)
	} else {
		c.town.live(n.node)
	}
}

func (c *city) beat() {
	c.town.clock.turn(5 * time.Second)
	for _, n := range c.nodes {
		if n.frozen {
			continue
		}
		if !n.faulty { // an emptied Redis may have given the nodes that came since another key
			n.sync()
		}
		n.beatDue(c.town.t.Context())
	}
}

func (c *city) breakDown(n *citizen, faulty bool) {
	n.faulty = faulty
	if faulty {
		n.fault.Fail(errFault)
	} else {
		heal(c.town.t, n.store, n.fault)
	}
}

func (c *city) happen() {
	switch n, which := c.able(), c.IntN(2); c.IntN(14) {
	case 0:
		c.kill()
	case 1, 2:
		any := c.nodes[c.IntN(len(c.nodes))]
		c.freeze(any, !any.frozen)
	case 3:
		c.beat()
	case 4:
		if n != nil {
			c.breakDown(n, !n.faulty)
		}
	case 5:
		for _, n := range c.nodes {
			look(1, n.node)
		}
	case 6:
		if c.IntN(2) == 0 {
			flush(c.town.t, &node{Admission: c.steady()})
			c.ghosts = [2]int{}
		}
	case 7, 8, 9:
		c.hangUp(which)
	default:
		if n != nil {
			c.ring(n, which)
		}
	}
}

// steady is an Admission whose Redis is not in trouble.
func (c *city) steady() *Admission {
	for _, n := range c.nodes {
		if !n.faulty {
			return n.Admission
		}
	}
	c.breakDown(c.nodes[0], false)
	return c.nodes[0].Admission
}

// TestLeasesWhateverHappens: of calls, deaths, frosts, faults and an emptied Redis in any order no first call is
// refused, the calls that are up are known in the end, and no place stays taken for ever.
func TestLeasesWhateverHappens(t *testing.T) {
	w, r := newTown(t), storetest.Start(t)
	spare := storetest.Open(t, r.Addr)
	for seed := range uint64(15) {
		c := &city{Rand: rand.New(rand.NewPCG(seed, 7)), town: w, open: func() *store.Store { return storetest.Open(t, r.Addr) },
			number: [2]string{fmt.Sprintf("+86138%08d", 2*seed), fmt.Sprintf("+86138%08d", 2*seed+1)}}
		w.living = nil
		for range 3 {
			c.join()
		}
		for range 120 {
			c.happen()
		}
		for _, n := range c.nodes {
			c.freeze(n, false)
			c.breakDown(n, false)
		}
		c.beat()
		for which, number := range c.number {
			key := keyLeases(c.nodes[0].keys.counters(number)[0])
			places, err := spare.Client().ZCard(t.Context(), key).Result()
			if up := len(c.up[which]); err != nil || int(places) < up || int(places) > up+c.ghosts[which] {
				t.Errorf("seed %d: %d places, %v; %d calls are up, and %d places are without one", seed, places, err, up, c.ghosts[which])
			}
			if len(c.up[which]) >= 2 {
				before := len(c.up[which])
				if c.ring(c.nodes[0], which); len(c.up[which]) != before {
					t.Errorf("seed %d: a call was let in beside %d others", seed, before)
				}
			}
			for len(c.up[which]) > 0 {
				c.hangUp(which)
			}
		}
	}
	await(t, func() bool {
		left, err := spare.Client().Keys(t.Context(), "hotline:abuse:*").Result()
		return err == nil && len(left) == 0
	})
}
