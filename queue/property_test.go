package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// world drives several nodes with random events and looks after each at the state in Redis.
type world struct {
	*bed
	rnd     *rand.Rand
	nodes   []*node
	tickets map[string]*placed
	agents  []string
	calls   int
	backs   []*payback
}

// payback is a call back that goes on.
type payback struct {
	session.CallBackTask
	node *node
	call string
	talk bool
}

type placed struct {
	session.Ticket
	node  *node
	offer *session.Offer
	talk  bool
	score float64
}

// Random events at three nodes, with call backs, nodes that freeze, and absences of Redis: an agent has at most one call, no waiter is lost, and a
// caller keeps the place.
func TestRandomEvents(t *testing.T) {
	for i := range rounds() {
		t.Run(strconv.Itoa(i+1), randomEvents)
	}
}

// rounds is how often the random events are driven.
func rounds() int {
	if soak() {
		return 20
	}
	return 1
}

func randomEvents(t *testing.T) {
	t.Helper()
	each(t, func(t *testing.T, b *bed) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		w := &world{bed: b, rnd: rand.New(rand.NewPCG(seed, 1)), tickets: make(map[string]*placed)}
		b.cfg.AutoPauseAfter = 2
		names := []string{"n1"}
		if b.server != nil { // the embedded Redis has one node
			names = []string{"n1", "n2", "n3"}
		}
		for _, name := range names {
			n := b.node(name)
			n.mu.Lock()
			n.grace = 0
			n.mu.Unlock()
			w.nodes = append(w.nodes, n)
			for i := range 3 {
				id := fmt.Sprintf("%sa%d", name, i)
				w.agents = append(w.agents, id)
				n.login(id, "general", "road")
			}
		}
		for range 200 {
			w.step()
			w.check()
		}
		for range 6 {
			w.silence()
			for range 20 {
				w.step()
				w.check()
			}
		}
		for _, n := range slices.Concat(w.nodes, w.nodes, w.nodes) {
			n.away()
			for range 60 {
				w.step()
			}
			n.back()
			w.check()
			for range 40 {
				w.step()
				w.check()
			}
		}
		w.drain()
	})
}

func (w *world) step() {
	w.collect()
	switch w.rnd.IntN(12) {
	case 0, 1, 2:
		w.enter()
	case 3, 4, 5:
		w.answer()
	case 6, 7:
		w.finish()
	case 8:
		w.agentAct()
	case 9:
		w.leave()
	case 10:
		w.callBack()
	case 11:
		w.payBack()
	}
}

// callBack lets an agent call a number of the ledger back.
func (w *world) callBack() {
	n, ctx := w.nodes[w.rnd.IntN(len(w.nodes))], context.Background()
	list, err := n.CallBacks(ctx, false)
	w.nodes[0].must(err)
	if len(list) == 0 {
		return
	}
	w.calls++
	id := fmt.Sprintf("b%04d", w.calls)
	taken, err := n.TakeCallBack(ctx, list[w.rnd.IntN(len(list))].ID, w.agents[w.rnd.IntN(len(w.agents))], id)
	if err != nil {
		return // the agent is busy, the task taken, Redis away
	}
	if w.at(taken.Offer.Token, id) {
		w.backs = append(w.backs, &payback{CallBackTask: taken, node: n, call: id})
	}
}

// at tells whether Redis has the call under the token.
func (w *world) at(token, id string) bool {
	return w.store.Blocking().HGet(context.Background(), prefix+":c:"+id, "token").Val() == token
}

// payBack goes on with a call back: the agent answers or not, then the caller.
func (w *world) payBack() {
	if len(w.backs) == 0 {
		return
	}
	i := w.rnd.IntN(len(w.backs))
	p, ctx := w.backs[i], context.Background()
	if !p.talk && w.rnd.IntN(3) > 0 {
		if p.talk = p.Ticket.Accept(ctx, p.Offer) == nil; p.talk {
			return
		}
	}
	w.backs = slices.Delete(w.backs, i, i+1)
	if !p.talk {
		_ = p.Ticket.Decline(ctx, p.Offer, session.DeclineNoAnswer) // fenced when its offer ended meanwhile
		w.nodes[0].must(p.node.EndCallBack(ctx, p.ID, p.call, session.CallBackAgentMissed))
		return
	}
	result := []session.CallBackResult{session.CallBackAnswered, session.CallBackNoAnswer, session.CallBackBusy}[w.rnd.IntN(3)]
	w.nodes[0].must(p.node.EndCallBack(ctx, p.ID, p.call, result))
	w.nodes[0].must(p.Ticket.Complete(ctx, p.Offer, call.EndCaller))
}

// silence lets a node be taken for dead, as one that froze, and come back: it has what it had.
func (w *world) silence() {
	w.t.Helper()
	n, other := w.nodes[w.rnd.IntN(len(w.nodes))], w.nodes[0]
	if n == other {
		other = w.nodes[len(w.nodes)-1]
	}
	if n == other {
		return // the embedded Redis has one node
	}
	w.due(other, "nodes", n.deps.Node)
	n.await("the node has told anew", func() bool {
		n.beat(context.Background())
		alive, err := w.store.Blocking().SCard(context.Background(), prefix+":n:"+n.deps.Node).Result()
		return err == nil && n.Online() && int(alive) == n.mine()
	})
}

// mine is how many calls the node has.
func (n *node) mine() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.tickets)
}

func (w *world) enter() {
	w.calls++
	n := w.nodes[w.rnd.IntN(len(w.nodes))]
	id := fmt.Sprintf("c%04d", w.calls)
	queue := []string{"general", "road"}[w.rnd.IntN(2)]
	ticket := n.enter(id, func(e *session.QueueEntry) {
		e.Queue, e.Front, e.Caller = queue, w.rnd.IntN(20) == 0, number(w.calls%40)
	})
	w.tickets[id] = &placed{Ticket: ticket, node: n}
}

// collect takes what the tickets tell.
func (w *world) collect() {
	for _, p := range w.tickets {
		select {
		case u := <-p.Updates():
			if u.Offer != nil {
				p.offer = u.Offer
			}
		default:
		}
	}
}

// some is a ticket for which holds is true, or nil.
func (w *world) some(holds func(*placed) bool) *placed {
	var able []string
	for id, p := range w.tickets {
		if holds(p) {
			able = append(able, id)
		}
	}
	if len(able) == 0 {
		return nil
	}
	slices.Sort(able)
	return w.tickets[able[w.rnd.IntN(len(able))]]
}

func (w *world) answer() {
	p := w.some(func(p *placed) bool { return p.offer != nil && !p.talk })
	if p == nil {
		return
	}
	ctx := context.Background()
	if w.rnd.IntN(4) == 0 {
		_ = p.Decline(ctx, *p.offer, session.DeclineNoAnswer) // fenced when the offer ended meanwhile
		p.offer = nil
		return
	}
	p.talk = p.Accept(ctx, *p.offer) == nil
	if !p.talk {
		p.offer = nil
	}
}

func (w *world) finish() {
	p := w.some(func(p *placed) bool { return p.talk })
	if p == nil {
		return
	}
	w.nodes[0].must(p.Complete(context.Background(), *p.offer, call.EndCaller))
	delete(w.tickets, p.Entry())
}

func (w *world) leave() {
	p := w.some(func(p *placed) bool { return !p.talk })
	if p == nil {
		return
	}
	w.nodes[0].must(p.Leave(context.Background(), session.LeaveAbandon))
	delete(w.tickets, p.Entry())
}

func (w *world) agentAct() {
	id := w.agents[w.rnd.IntN(len(w.agents))]
	n := w.nodes[slices.IndexFunc(w.nodes, func(n *node) bool { return strings.HasPrefix(id, n.deps.Node) })]
	ctx := context.Background()
	switch w.rnd.IntN(4) {
	case 0:
		_ = n.Pause(ctx, id, "tea") // refused when logged out
	case 1:
		_ = n.Logout(ctx, id)
	case 2:
		n.login(id, "general", "road")
	case 3:
		_ = n.Ready(ctx, id)
	}
}

// check looks at the whole state at one moment.
func (w *world) check() {
	w.t.Helper()
	ctx := context.Background()
	ids := w.ids()
	cmds, err := w.store.Blocking().TxPipelined(ctx, func(p redis.Pipeliner) error {
		for _, id := range w.agents {
			p.HGetAll(ctx, prefix+":a:"+id)
		}
		for _, id := range ids {
			p.HGetAll(ctx, prefix+":c:"+id)
			p.ZScore(ctx, prefix+":wait:general", id)
			p.ZScore(ctx, prefix+":wait:road", id)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) { // Nil: a call that does not wait
		w.t.Fatal(err)
	}
	held := make(map[string]string)
	for i, id := range w.agents {
		a := cmds[i].(*redis.MapStringStringCmd).Val()
		if s := a["state"]; s != "offered" && s != "talk" {
			if a["token"] != "" || a["call"] != "" {
				w.t.Fatalf("agent %s is %s and has a call: %v", id, s, a)
			}
			continue
		}
		if other, ok := held[a["call"]]; ok {
			w.t.Fatalf("call %s has the agents %s and %s", a["call"], other, id)
		}
		held[a["call"]] = id
	}
	for i, id := range ids {
		c := cmds[len(w.agents)+3*i].(*redis.MapStringStringCmd).Val()
		general, road := cmds[len(w.agents)+3*i+1].Err() == nil, cmds[len(w.agents)+3*i+2].Err() == nil
		w.checkCall(id, c, general || road, held[id])
	}
}

func (w *world) checkCall(id string, c map[string]string, waits bool, agent string) {
	w.t.Helper()
	p := w.tickets[id]
	switch c["state"] {
	case "waiting":
		if !waits {
			w.t.Fatalf("the waiter %s is in no queue", id)
		}
	case "offered", "talk":
		apart := c["apart"] == "1" && agent == "" // the agent took another call while the node was alone
		if waits || agent != c["agent"] && !apart {
			w.t.Fatalf("call %s is %s with %q, waiting %v, held by %q: %v; the agent is %v", id, c["state"], c["agent"], waits, agent, c,
				w.store.Blocking().HGetAll(context.Background(), prefix+":a:"+c["agent"]).Val())
		}
	default:
		if p.node.Online() {
			w.t.Fatalf("the call %s is lost", id)
		}
		return
	}
	score, err := strconv.ParseFloat(c["score"], 64)
	if err != nil || p.score != 0 && score > p.score { // an earlier one is that of a call of the same number
		w.t.Fatalf("call %s lost its place: %v, was %v", id, c["score"], p.score)
	}
	p.score = score
}

func (w *world) ids() []string {
	var ids []string
	for id := range w.tickets {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// drain lets every caller be served: with all agents ready nobody is left over.
func (w *world) drain() {
	w.t.Helper()
	for _, id := range w.agents {
		n := w.nodes[slices.IndexFunc(w.nodes, func(n *node) bool { return strings.HasPrefix(id, n.deps.Node) })]
		n.login(id, "general", "road")
		n.must(n.Ready(context.Background(), id))
	}
	for len(w.backs) > 0 {
		w.payBack()
	}
	w.nodes[0].await("all callers are served", func() bool {
		w.collect()
		for _, p := range w.tickets {
			if p.offer != nil && !p.talk {
				if p.talk = p.Accept(context.Background(), *p.offer) == nil; !p.talk {
					p.offer = nil
				}
			}
			if p.talk {
				w.nodes[0].must(p.Complete(context.Background(), *p.offer, call.EndCaller))
				delete(w.tickets, p.Entry())
			}
		}
		for _, id := range w.agents {
			_ = w.nodes[0].FinishWrapUp(context.Background(), id) // refused outside a wrap-up
		}
		return len(w.tickets) == 0
	})
	n := w.nodes[0]
	n.await("no call is left", func() bool {
		return w.store.Blocking().SCard(context.Background(), prefix+":calls").Val() == 0
	})
	n.check(context.Background())
	if stuck := n.stuck(); stuck != 0 {
		w.t.Errorf("%v are stuck", stuck)
	}
	list, err := n.CallBacks(context.Background(), false)
	n.must(err)
	for _, c := range list {
		if c.State != "open" {
			w.t.Errorf("a task that nobody pays is %+v", c)
		}
	}
}
