package console

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

// Snapshot is the line at a moment. Two equal ones show the same, so it holds no running times:
// pages count from the moments in it.
type Snapshot struct {
	Calls  []session.View `json:"calls"` // the oldest first, without facts
	Queues []QueueState   `json:"queues"`
	Agents []Agent        `json:"agents"`
	Trunks []Trunk        `json:"trunks"`
	// CallBacks are the callers who are owed a call back, the oldest place first.
	CallBacks []queue.CallBack `json:"callbacks"`
	// Nodes are the gateways by name. Those that live have no Seen, which would change with each heartbeat.
	Nodes    []Node        `json:"nodes"`
	Warnings []ops.Warning `json:"warnings"`
}

// The warnings that the console itself raises when a part does not answer.
var (
	warnQueues = ops.Warning{Code: "queues-unknown", Title: "The queues do not answer",
		Mend: "Look at the store's state; callers are still admitted and queue on each node."}
	warnAgents = ops.Warning{Code: "agents-unknown", Title: "The agents' states are not known",
		Mend: "Look at the store's state; calls that are up go on."}
	warnTrunks = ops.Warning{Code: "trunks-unknown", Title: "The trunks' states are not known",
		Mend: "Look at the log of this node."}
	warnCallBacks = ops.Warning{Code: "callbacks-unknown", Title: "The call backs are not known",
		Mend: "Look at the store's state; no call back is lost."}
	warnNodes = ops.Warning{Code: "nodes-unknown", Title: "The other gateways are not known",
		Mend: "Look at the store's state; each gateway goes on by itself."}
)

// snapshotTimeout bounds one picture: an away store must not freeze what is known without it.
const snapshotTimeout = 2 * time.Second

func (c *Console) snapshot(ctx context.Context) Snapshot {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	var s Snapshot
	s.Calls = c.calls()
	var err error
	if s.Queues, err = c.deps.Queues.Queues(ctx); err != nil {
		s.Warnings = append(s.Warnings, warnQueues)
	}
	if s.Agents, err = c.deps.Agents.List(ctx); err != nil {
		s.Warnings = append(s.Warnings, warnAgents)
	}
	if s.Trunks, err = c.deps.Trunks.Trunks(ctx); err != nil {
		s.Warnings = append(s.Warnings, warnTrunks)
	}
	c.addCallBacks(ctx, &s)
	c.addNodes(ctx, &s)
	if c.deps.Health != nil {
		s.Warnings = append(s.Warnings, c.deps.Health.Warnings(ctx)...)
	}
	return s
}

// addNodes adds the gateways. That one is absent is for Health to warn of.
func (c *Console) addNodes(ctx context.Context, s *Snapshot) {
	if c.deps.Nodes == nil {
		return
	}
	nodes, err := c.deps.Nodes.List(ctx)
	if err != nil {
		s.Warnings = append(s.Warnings, warnNodes)
		return
	}
	s.Nodes = slices.Clone(nodes)
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Alive {
			n.Seen = time.Time{}
		}
	}
}

// Several says whether it must be told of a call or a trunk which gateway has it.
func (s Snapshot) Several() bool { return len(s.Nodes) > 1 }

// calls is the live calls, the oldest first. Facts are personal data, which no list shows.
func (c *Console) calls() []session.View {
	calls := slices.Clone(c.deps.Calls.Views())
	for i := range calls {
		calls[i].Facts = session.Facts{}
	}
	slices.SortFunc(calls, func(a, b session.View) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.CallID, b.CallID))
	})
	return calls
}

// callOf is the live call that is with an agent.
func (c *Console) callOf(person string) (session.View, bool) {
	for _, v := range c.deps.Calls.Views() {
		if v.Agent == person {
			return v, true
		}
	}
	return session.View{}, false
}

// agentOf is how an agent stands; offline when nothing is known of them.
func (s Snapshot) agentOf(person string) Agent {
	for _, a := range s.Agents {
		if a.ID == person {
			return a
		}
	}
	return Agent{ID: person, State: queue.LoggedOut}
}

// QueueName is a queue's name for people.
func (s Snapshot) QueueName(lang, name string) string {
	for _, q := range s.Queues {
		switch {
		case q.Name != name:
		case lang == "zh" && q.Display.ZH != "":
			return q.Display.ZH
		case lang == "en" && q.Display.EN != "":
			return q.Display.EN
		}
	}
	return name
}

// NameOf is an agent's name, or who they are when that is all that is known.
func (s Snapshot) NameOf(person string) string { return cmp.Or(s.agentOf(person).Name, person) }

// Tiles are the four numbers that a supervisor looks at first, and the two of the service level.
type Tiles struct {
	Waiting, Talking, Ready, InCalls int
	Oldest                           time.Time // zero if nobody waits
	Offered, Answered, InTime        int
}

// Tiles sums the queues. Agents serve several queues, so they are counted by the agents.
func (s Snapshot) Tiles() Tiles {
	t := Tiles{InCalls: len(s.Calls)}
	for _, q := range s.Queues {
		t.Waiting += q.Waiting
		t.Offered += q.Offered
		t.Answered += q.Answered
		t.InTime += q.InTime
		if !q.Oldest.IsZero() && (t.Oldest.IsZero() || q.Oldest.Before(t.Oldest)) {
			t.Oldest = q.Oldest
		}
	}
	for _, a := range s.Agents {
		switch a.State {
		case queue.Idle:
			t.Ready++
		case queue.Talk:
			t.Talking++
		default: // at work, but neither free nor in a talk
		}
	}
	return t
}

// InTimeShare and AnsweredShare are in percent of the callers offered today; -1 when there were none.
func (t Tiles) InTimeShare() int   { return share(t.InTime, t.Offered) }
func (t Tiles) AnsweredShare() int { return share(t.Answered, t.Offered) }

func share(part, whole int) int {
	if whole == 0 {
		return -1
	}
	return part * 100 / whole
}
