package queue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// AgentView is an agent as a console shows one.
type AgentView struct {
	ID         string         `json:"id"`
	Extension  string         `json:"extension"`
	Node       string         `json:"node"`
	Queues     map[string]int `json:"queues"` // level by queue
	State      AgentState     `json:"state"`
	Since      time.Time      `json:"since"`
	Reason     string         `json:"reason,omitempty"`     // of a pause
	CallID     string         `json:"call_id,omitempty"`    // offered or in talk
	Wish       string         `json:"wish,omitempty"`       // waits for the call's end: "logout" or "pause:reason"
	WrapupEnds time.Time      `json:"wrapup_ends,omitzero"` // in wrap-up
	Misses     int            `json:"misses"`               // in a row
	Stuck      bool           `json:"stuck,omitempty"`      // nothing will end this state: a fault
}

// QueueView is a queue as a console shows one.
type QueueView struct {
	Name     string        `json:"name"`
	Display  Display       `json:"display"`
	Waiting  int           `json:"waiting"`
	Oldest   time.Duration `json:"oldest"`   // of those shown
	Estimate time.Duration `json:"estimate"` // of a new caller; 0 when there is none
	Entries  []EntryView   `json:"entries"`  // the first 200
}

// EntryView is a waiting caller.
type EntryView struct {
	CallID   string    `json:"call_id"`
	Caller   string    `json:"caller"` // masked
	Position int       `json:"position"`
	Since    time.Time `json:"since"`
	Language string    `json:"language"`
	Reason   string    `json:"reason"`
	Node     string    `json:"node"`
}

const shownEntries = 200

type view struct {
	agents []AgentView
	queues []QueueView
}

// Agents is every agent who is logged in, by name. While Redis is away it is this node's alone.
func (q *Queue) Agents(ctx context.Context) ([]AgentView, error) {
	v, err := q.view(ctx, 1)
	return v.agents, err
}

// Queues is every queue, in the order of the configuration. While Redis is away it is this node's callers.
func (q *Queue) Queues(ctx context.Context) ([]QueueView, error) {
	v, err := q.view(ctx, shownEntries)
	return v.queues, err
}

// view is everything at one moment, with at most so many callers a queue; the oldest wait looks at
// no fewer than one.
func (q *Queue) view(ctx context.Context, entries int) (v view, err error) {
	err = q.act(ctx, func(ctx context.Context) error {
		v, err = q.viewStore(ctx, max(entries, 1))
		return err
	}, func() error { v = q.viewLocal(entries); return nil })
	if err != nil {
		return view{}, fmt.Errorf("queue: look at the queues: %w", err)
	}
	slices.SortFunc(v.agents, func(a, b AgentView) int { return cmp.Compare(a.ID, b.ID) })
	return v, nil
}

func (q *Queue) viewStore(ctx context.Context, entries int) (v view, err error) {
	args := []any{"", entries}
	for _, qc := range q.cfg.Queues {
		args = append(args, qc.Name)
	}
	reply, err := q.scripts.run(ctx, q.scripts.snapshot, args...).Slice()
	if err != nil {
		return v, err
	}
	agents, _ := reply[1].([]any)
	for _, a := range agents {
		f := flat(a)
		v.agents = append(v.agents, f.agent(f["id"]).view())
	}
	queues, _ := reply[2].([]any)
	for i, qc := range q.cfg.Queues {
		row, _ := queues[i].([]any)
		l, _, err := q.load(ctx, qc.Name)
		if err != nil {
			return v, err
		}
		v.queues = append(v.queues, queueView(qc, row, l))
	}
	return v, nil
}

// queueView reads {waiting, oldest ms, calls}.
func queueView(qc QueueConfig, row []any, l load) QueueView {
	waiting, _ := row[0].(int64)
	oldest, _ := row[1].(int64)
	calls, _ := row[2].([]any)
	v := QueueView{Name: qc.Name, Display: qc.Display, Waiting: int(waiting), Oldest: time.Duration(oldest) * time.Millisecond,
		Estimate: l.estimate(int(waiting) + 1)}
	for i, c := range calls {
		f := flat(c)
		v.Entries = append(v.Entries, EntryView{CallID: f["id"], Caller: f["caller"], Position: i + 1,
			Since: moment(f.number("t0")), Language: f["lang"], Reason: f["why"], Node: f["node"]})
	}
	return v
}

// viewLocal is what this node has; q.mu is held.
func (q *Queue) viewLocal(entries int) (v view) {
	for _, a := range q.agents {
		if a.State != LoggedOut {
			v.agents = append(v.agents, a.view())
		}
	}
	line := q.line()
	for _, qc := range q.cfg.Queues {
		qv := QueueView{Name: qc.Name, Display: qc.Display}
		for _, t := range line {
			if t.queue != qc.Name {
				continue
			}
			qv.Waiting++
			qv.Oldest = max(qv.Oldest, time.Since(t.arrived))
			if len(qv.Entries) < entries {
				qv.Entries = append(qv.Entries, EntryView{CallID: t.entry.CallID, Caller: t.entry.Caller.Masked(),
					Position: qv.Waiting, Since: t.arrived, Language: t.entry.Language, Reason: t.entry.Reason, Node: q.deps.Node})
			}
		}
		v.queues = append(v.queues, qv)
	}
	return v
}

func (a agent) view() AgentView {
	v := AgentView{ID: a.ID, Extension: a.Extension, Node: a.Node, Queues: a.Queues, State: a.State, Since: moment(a.Since),
		Reason: a.Reason, CallID: a.Call, Wish: a.Next, Misses: a.Misses, Stuck: a.stuck}
	if a.State == Wrapup {
		v.WrapupEnds = moment(a.Deadline)
	}
	return v
}

func (v view) count(queue string, state AgentState) (n int) {
	for _, a := range v.agents {
		if a.State == state && a.Queues[queue] > 0 {
			n++
		}
	}
	return n
}
