package queue

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/session"
)

// The mirror is what a node knows of its own calls and agents. It changes by events alone: those of the
// stream, and while Redis is away those that the node makes itself. Of two events the one with the higher
// version is the later; an older one changes nothing. What another node's sweep did because it took this
// node for dead changes nothing either: the node still has its calls, and tells of them at its next beat.

// apply takes an event of a call. q.mu is held.
func (q *Queue) apply(e event) {
	q.stale[e.queue] = true
	defer q.notify()
	if e.node != q.deps.Node || e.reason == reasonNodeLost {
		return
	}
	q.metrics.count(e, q.cfg.ShortAbandon)
	t := q.tickets[e.call]
	if t == nil || e.version <= t.version {
		return
	}
	t.version, t.score, t.queue = e.version, e.score, e.queue
	if e.state != EntryGone { // drop sets that
		t.state = e.state
	}
	switch e.name {
	case OfferMade:
		t.hold(session.Offer{Agent: e.agent, Extension: e.ext, Token: e.token, Node: e.phoneNode})
	case Connect:
		t.connected()
	case RingNoAnswer, RingCanceled:
		t.dropped, t.offer, t.agent = e.token, session.Offer{}, ""
	}
	if e.state == EntryGone {
		t.ended = e.name
		q.drop(t)
	}
}

// acted runs a script that is an act of this node's, and takes over what it did to agents before the stream tells of it.
func (q *Queue) acted(ctx context.Context, script *redis.Script, args ...any) (answer string, err error) {
	reply, err := q.scripts.run(ctx, script, args...).Slice()
	if err != nil {
		return "", err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, told := range reply[1:] {
		f := flat(told)
		q.put(f.agent(f["agent"]))
	}
	return fmt.Sprint(reply[0]), nil
}

// passed takes an agent's state as the stream tells it. Who logged out is forgotten then, and no sooner: older news of
// the stream would bring the agent back. q.mu is held.
func (q *Queue) passed(a agent) {
	q.put(a)
	if a.State == LoggedOut && q.agents[a.ID].Version == a.Version {
		delete(q.agents, a.ID)
	}
}

// put takes the news of an agent. q.mu is held.
func (q *Queue) put(a agent) {
	defer q.notify()
	old, known := q.agents[a.ID]
	if known && a.Node == q.deps.Node && q.swept(old, a) {
		return
	}
	if known && a.Version <= old.Version && a.Node == old.Node {
		return
	}
	if a.Node == q.deps.Node {
		q.agents[a.ID] = a
	} else {
		delete(q.agents, a.ID)
	}
	if old.State == Wrapup && a.State != Wrapup && a.Node == q.deps.Node && q.queues[old.Last].Name != "" {
		q.metrics.acw.WithLabelValues(old.Last).Observe(float64(a.Since-old.Since) / 1000)
	}
}

// swept tells whether an agent's news is what a sweep made of a node that it took for dead: a pause for that
// reason, or freedom from a call that this node still has.
func (q *Queue) swept(old, news agent) bool {
	t := q.tickets[old.Call]
	holds := t != nil && t.state != EntryGone && old.Token != "" && t.offer.Token == old.Token
	return news.Reason == reasonNodeLost || news.Next == "pause:"+reasonNodeLost || holds && news.Token != old.Token
}
