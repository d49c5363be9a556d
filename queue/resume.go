package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

// Resume implements [session.Queue]. It is called before Run, so that Redis is told of the talk before the calls of the
// earlier process are taken for lost. What Redis knows of the agent stays.
func (q *Queue) Resume(ctx context.Context, e session.QueueEntry, o session.Offer) (session.Ticket, error) {
	qc, ok := q.queues[e.Queue]
	if !ok || q.deps.Levels == nil {
		return nil, fmt.Errorf("%w: %q", session.ErrNoQueue, e.Queue)
	}
	levels, err := q.deps.Levels(ctx, o.Agent)
	if err != nil {
		return nil, fmt.Errorf("queue: resume a talk of %s: %w", o.Agent, err)
	}
	t := q.newTicket(e, qc)
	t.state, t.talked, t.agent, t.offer = EntryTalk, true, o.Agent, o
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tickets[e.CallID] = t
	if o.Node == q.deps.Node {
		now := time.Now().UnixMilli()
		q.agents[o.Agent] = agent{ID: o.Agent, State: Talk, Node: o.Node, Extension: o.Extension, Queues: levels,
			Call: e.CallID, Token: o.Token, Since: now, Idle: now}
	}
	return t, nil
}
