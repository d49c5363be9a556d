package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/session"
)

// syncTimeout bounds the whole account that a node gives to Redis.
const syncTimeout = 2 * time.Second

// agentRecord is an agent as sync_agent is told of one. Times are ages, since the clocks may differ.
type agentRecord struct {
	ID         string     `json:"id"`
	Ext        string     `json:"ext"`
	Node       string     `json:"node"`
	Queues     string     `json:"queues"`
	State      AgentState `json:"state"`
	IdleMS     int64      `json:"idle_ms"`
	DeadlineMS int64      `json:"deadline_ms"`
	Reason     string     `json:"reason"`
	Call       string     `json:"call"`
	Token      string     `json:"token"`
	Next       string     `json:"next"`
	Misses     int        `json:"misses"`
	Last       string     `json:"last"`
	V          int64      `json:"v"`
	Own        bool       `json:"own"` // the call is this node's as well
	Changed    bool       `json:"changed"`
}

// attach tells Redis what this node has, agents first, and takes back what Redis made of it. No other
// operation of the node runs meanwhile. It can be done again at any point.
func (q *Queue) attach(ctx context.Context) error {
	generation := q.deps.Store.Generation() // before anything is told: what changes it meanwhile is seen by the next beat
	skew, err := q.probe(ctx)
	if err != nil {
		return err
	}
	if err := q.reconcile(ctx); err != nil {
		return fmt.Errorf("compare the call backs: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	q.gate.Lock()
	defer q.gate.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock() // nothing but reads of the console waits for it
	q.skew = skew
	if q.generation != "" && generation != q.generation {
		if err := q.scripts.run(ctx, q.scripts.syncBegin, "").Err(); err != nil {
			return fmt.Errorf("begin the account: %w", err)
		}
	}
	if err := q.syncAgents(ctx); err != nil {
		return fmt.Errorf("tell of the agents: %w", err)
	}
	if err := q.syncCalls(ctx); err != nil {
		return fmt.Errorf("tell of the calls: %w", err)
	}
	if err := q.syncOwed(ctx); err != nil {
		return fmt.Errorf("tell of the call backs: %w", err)
	}
	args := []any{seed(), q.deps.Node, millis(q.cfg.RedialWindow), encode(q.callIDs())}
	for _, qc := range q.cfg.Queues {
		args = append(args, qc.Name)
		q.stale[qc.Name] = true
	}
	if err := q.scripts.run(ctx, q.scripts.syncDone, args...).Err(); err != nil {
		return fmt.Errorf("end the account: %w", err)
	}
	if err := q.loadAgents(ctx); err != nil {
		return fmt.Errorf("ask for the agents: %w", err)
	}
	q.online, q.generation = true, generation
	q.metrics.local.Set(0)
	q.notify()
	q.deps.Log.Info("queue: redis has this node's state", "calls", len(q.tickets), "agents", len(q.agents))
	return nil
}

// probe looks whether Redis answers in good time, before anything is held back for it: its clock against
// ours, and the stream.
func (q *Queue) probe(ctx context.Context) (skew time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, q.cfg.StoreTimeout)
	defer cancel()
	now, err := q.scripts.client.Time(ctx).Result()
	if err != nil {
		return 0, fmt.Errorf("ask the clock: %w", err)
	}
	return time.Until(now), q.findStream(ctx)
}

// findStream makes sure that the stream still holds the place that was read to; a Redis that lost it is
// read from its present end.
func (q *Queue) findStream(ctx context.Context) error {
	newest, err := q.scripts.client.XRevRangeN(ctx, prefix+":ev", "+", "-", 1).Result()
	if err != nil {
		return fmt.Errorf("look at the stream: %w", err)
	}
	id := "0-0"
	if len(newest) > 0 {
		id = newest[0].ID
	}
	if q.lastID == "" || streamLess(id, q.lastID) {
		q.lastID = id
	}
	return nil
}

// streamLess compares identities of a stream, "ms-number".
func streamLess(a, b string) bool {
	var am, an, bm, bn int64
	_, _ = fmt.Sscanf(a, "%d-%d", &am, &an)
	_, _ = fmt.Sscanf(b, "%d-%d", &bm, &bn)
	return am < bm || am == bm && an < bn
}

func (q *Queue) syncAgents(ctx context.Context) error {
	now := q.clock()
	for id, a := range q.agents {
		r := agentRecord{ID: id, Ext: a.Extension, Node: q.deps.Node, Queues: formatQueues(a.Queues), State: a.State,
			IdleMS: now - a.Idle, DeadlineMS: max(0, a.Deadline-now), Reason: a.Reason, Call: a.Call, Token: a.Token,
			Next: a.Next, Misses: a.Misses, Last: a.Last, V: a.Version, Own: q.tickets[a.Call] != nil, Changed: a.changed}
		reply, err := q.scripts.run(ctx, q.scripts.syncAgent, seed(), encode(r)).Slice()
		if err != nil {
			return err
		}
		if len(reply) == 0 {
			delete(q.agents, id)
			continue
		}
		q.agents[id] = flat(reply).agent(id)
	}
	return nil
}

// syncCalls tells of the calls that ended first, since one of them may have entered again.
func (q *Queue) syncCalls(ctx context.Context) error {
	for _, t := range q.recent {
		if q.tickets[t.entry.CallID] != nil {
			continue // Redis has its second entry, or is about to be told
		}
		if err := q.syncCall(ctx, t); err != nil {
			return err
		}
	}
	for len(q.ended) > 0 {
		if err := q.syncCall(ctx, q.ended[0]); err != nil {
			return err
		}
		q.ended = q.ended[1:]
	}
	for _, t := range q.tickets {
		if err := q.syncCall(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) syncCall(ctx context.Context, t *ticket) error {
	now := time.Now()
	r := t.record(now)
	r.State, r.Dropped, r.Talked, r.Name, r.Window = t.state, t.dropped, t.talked, t.ended, t.keeps(t.ended)
	if r.Token = t.offer.Token; r.Token != "" {
		r.Agent, r.Ext, r.ANode = t.agent, t.offer.Extension, t.offer.Node
	}
	if t.state == EntryGone {
		r.Left = max(0, millis(now.Sub(t.left)))
	}
	reply, err := q.scripts.run(ctx, q.scripts.syncCall, seed(), encode(r)).StringSlice()
	if err != nil {
		return err
	}
	if EntryState(reply[0]) == EntryGone {
		q.drop(t)
		return nil
	}
	q.adopt(t, reply)
	return nil
}

// adopt takes what Redis holds of a call: {state, v, score, agent, token, extension, node}.
func (q *Queue) adopt(t *ticket, reply []string) {
	f := fields{"v": reply[1], "score": reply[2]}
	t.state, t.version, t.score, t.placed = EntryState(reply[0]), f.number("v"), f.number("score"), true
	offer := session.Offer{Agent: reply[3], Token: reply[4], Extension: reply[5], Node: reply[6]}
	if t.state == EntryWaiting {
		t.offer, t.agent = session.Offer{}, ""
	}
	if t.state == EntryOffered && offer.Token != t.offer.Token {
		t.hold(offer)
	}
}

func (q *Queue) callIDs() []string {
	ids := make([]string, 0, len(q.tickets))
	for id := range q.tickets {
		ids = append(ids, id)
	}
	return ids
}

// loadAgents takes over the agents of this node that an earlier process of it left in Redis.
func (q *Queue) loadAgents(ctx context.Context) error {
	ids, err := q.scripts.client.SMembers(ctx, prefix+":an:"+q.deps.Node).Result()
	if err != nil {
		return err
	}
	hashes := make([]*redis.MapStringStringCmd, len(ids))
	_, err = q.scripts.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			hashes[i] = p.HGetAll(ctx, prefix+":a:"+id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, id := range ids {
		if f := fields(hashes[i].Val()); len(f) > 0 {
			q.agents[id] = f.agent(id)
		}
	}
	return nil
}
