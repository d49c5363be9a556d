package queue

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
)

var _ session.CallBacks = (*Queue)(nil)

// CallBack is a caller who is owed a call back: one task a number, from the first missed call to an answer.
type CallBack struct {
	ID         string    `json:"id"` // a pseudonym of the number
	Queue      string    `json:"queue"`
	Language   string    `json:"language"`
	Caller     string    `json:"caller"`  // masked
	CallID     string    `json:"call_id"` // the last missed call
	Why        string    `json:"why"`     // the last miss: abandon, drained, node_lost, full
	Since      time.Time `json:"since"`   // the old place, of the earliest missed call
	Missed     int       `json:"missed"`
	Attempts   int       `json:"attempts"`
	LastMissed time.Time `json:"last_missed"`
	LastTry    time.Time `json:"last_try,omitzero"`
	NextTry    time.Time `json:"next_try,omitzero"`     // not before, as advice: Config.CallBack.Between after the last
	LastResult string    `json:"last_result,omitempty"` // a session.CallBackResult
	State      string    `json:"state"`                 // open, taken, closed
	By         string    `json:"by,omitempty"`          // the agent who has or had it
	Ending     string    `json:"ending,omitempty"`      // answered, unreached, dismissed (by a person), dropped (too many)
	ClosedBy   string    `json:"closed_by,omitempty"`   // the agent who answered, or the person who dismissed it
	Note       string    `json:"note,omitempty"`        // the reason that person gave
	Closed     time.Time `json:"closed,omitzero"`
}

// callBack reads a task's fields.
func (q *Queue) callBack(f fields) CallBack {
	c := CallBack{ID: f["id"], Queue: f["queue"], Language: f["lang"], Caller: f["caller"], CallID: f["call"], Why: f["why"],
		Since: moment(f.number("score")), Missed: int(f.number("missed")), Attempts: int(f.number("attempts")),
		LastMissed: moment(f.number("last")), LastTry: moment(f.number("try")), LastResult: f["result"], State: f["state"],
		By: f["by"], Ending: f["ending"], ClosedBy: f["closed_by"], Note: f["note"], Closed: moment(f.number("closed"))}
	if !c.LastTry.IsZero() && c.State != string(TaskClosed) {
		c.NextTry = c.LastTry.Add(q.cfg.CallBack.Between)
	}
	return c
}

// settlement is how a call back came out.
type settlement struct {
	task, call string
	result     session.CallBackResult
}

// errLedgerAway answers what cannot be done without Redis: another node may have the same task in hand.
var errLedgerAway = fmt.Errorf("queue: the call-back ledger cannot be changed now: %w", store.ErrAway)

// errSealed is a number that this node cannot open.
var errSealed = errors.New("queue: the number is sealed and cannot be opened here")

func away() error { return errLedgerAway }

// TakeCallBack implements [session.CallBacks]. The agent may be idle, paused or in wrap-up, which ends by it.
func (q *Queue) TakeCallBack(ctx context.Context, task, agent, callID string) (taken session.CallBackTask, err error) {
	err = q.act(ctx, func(ctx context.Context) error {
		taken, err = q.takeStore(ctx, task, agent, callID)
		return err
	}, away)
	if err != nil {
		return session.CallBackTask{}, fmt.Errorf("queue: take a call back: %w", err)
	}
	return taken, nil
}

// refusals are the answers of take.lua.
var refusals = map[string]error{"none": session.ErrNoTask, "taken": session.ErrTaskTaken, "busy": session.ErrAgentBusy}

func (q *Queue) takeStore(ctx context.Context, task, agent, callID string) (taken session.CallBackTask, err error) {
	hash, err := q.scripts.client.HGetAll(ctx, prefix+":t:"+task).Result()
	if err != nil {
		return taken, err
	}
	if len(hash) == 0 {
		return taken, session.ErrNoTask
	}
	f := fields(hash)
	number, err := q.reveal(f["sealed"])
	if err != nil {
		return taken, err
	}
	qc, ok := q.queues[f["queue"]]
	if !ok { // it was taken out of the configuration since
		qc = q.cfg.Queues[0]
	}
	entry := session.QueueEntry{CallID: callID, Queue: qc.Name, Language: f["lang"], Caller: number, Arrived: moment(f.number("score")),
		Reason: "callback"}
	t := q.newTicket(entry, qc)
	t.task = task
	r := t.record(time.Now())
	r.Agent, r.OverMS = agent, 0
	reply, err := q.scripts.run(ctx, q.scripts.take, seed(), encode(r)).StringSlice()
	if err != nil {
		return taken, err
	}
	if len(reply) == 1 {
		return taken, cmp.Or(refusals[reply[0]], session.ErrNoTask)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if old := q.tickets[callID]; old != nil {
		t = old
	}
	q.tickets[callID] = t
	q.adopt(t, []string{string(EntryOffered), reply[0], reply[1], agent, reply[2], reply[3], reply[4]})
	select {
	case <-t.updates: // the offer, which is in the answer
	default: // asked for again
	}
	return session.CallBackTask{ID: task, Entry: entry, Number: number, Ticket: t, Offer: t.offer}, nil
}

// reveal opens a number of the ledger.
func (q *Queue) reveal(sealed string) (call.Number, error) {
	if q.deps.Open == nil {
		return call.Number{}, fmt.Errorf("%w: there is no key", errSealed)
	}
	b, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return call.Number{}, fmt.Errorf("%w: %w", errSealed, err)
	}
	number, err := q.deps.Open(b)
	if err != nil {
		return call.Number{}, fmt.Errorf("%w: %w", errSealed, err)
	}
	return number, nil
}

// EndCallBack implements [session.CallBacks]. After an answer the call is a talk like any other: should the agent's
// phone fail, its caller enters the queue under the same identity.
func (q *Queue) EndCallBack(ctx context.Context, task, callID string, result session.CallBackResult) error {
	s := settlement{task, callID, result}
	err := q.act(ctx, func(ctx context.Context) error { return q.settleStore(ctx, s) }, func() error {
		if len(q.results) >= q.cfg.CallBack.Max {
			return errLedgerAway
		}
		q.results = append(q.results, s)
		return nil
	})
	if err != nil {
		return fmt.Errorf("queue: end a call back: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := q.tickets[callID]; t != nil && result == session.CallBackAnswered {
		t.task = ""
	}
	return nil
}

func (q *Queue) settleStore(ctx context.Context, s settlement) error {
	noted, err := q.scripts.run(ctx, q.scripts.settle, "", s.task, s.call, string(s.result), q.cfg.CallBack.Attempts).Int64()
	if err != nil || noted == 0 {
		return err
	}
	queue, err := q.scripts.client.HGet(ctx, prefix+":t:"+s.task, "queue").Result()
	if err == nil && q.queues[queue].Name != "" {
		q.metrics.attempts.WithLabelValues(queue, string(s.result)).Inc()
	}
	return nil // it is noted, if not counted
}

// Owe implements [session.CallBacks]. A caller without a number is counted.
func (q *Queue) Owe(ctx context.Context, o session.OwedCall) error {
	redial, sealed := q.conceal(o.Caller)
	if redial == "" || sealed == "" {
		q.metrics.unnumbered.Inc()
		return nil
	}
	r := owed{record{ID: o.CallID, Queue: o.Queue, Node: q.deps.Node, Redial: redial, Sealed: sealed, Caller: o.Caller.Masked(),
		Lang: o.Language, Reason: o.Why}, o.Arrived, o.Left}
	err := q.act(ctx, func(ctx context.Context) error { return q.oweStore(ctx, r) }, func() error {
		if len(q.owed) >= q.cfg.CallBack.Max {
			q.metrics.dropped.Inc()
			return errLedgerAway
		}
		q.owed = append(q.owed, r)
		return nil
	})
	if err != nil {
		return fmt.Errorf("queue: owe a call back: %w", err)
	}
	return nil
}

// owed is a call for the ledger, with its times as this node's clock tells them.
type owed struct {
	record
	arrived, left time.Time
}

func (q *Queue) oweStore(ctx context.Context, o owed) error {
	o.Waited, o.Left = max(0, millis(time.Since(o.arrived))), max(0, millis(time.Since(o.left)))
	return q.scripts.run(ctx, q.scripts.owe, "", encode(o.record)).Err()
}

// shownCallBacks bounds a list of call backs.
const shownCallBacks = 1000

// CallBacks is the tasks: those not closed by their old place, or the closed ones, the latest first; at most
// 1,000. While Redis is away it is this node's copy.
func (q *Queue) CallBacks(ctx context.Context, closed bool) (list []CallBack, err error) {
	online := false
	err = q.act(ctx, func(ctx context.Context) error {
		online = true
		list, err = q.callBacksStore(ctx, closed)
		return err
	}, func() error { online = false; return nil })
	if err == nil && !online {
		list, err = q.callBacksCopy(ctx, closed)
	}
	if err != nil {
		return nil, fmt.Errorf("queue: list the call backs: %w", err)
	}
	return list[:min(len(list), shownCallBacks)], nil
}

func (q *Queue) callBacksStore(ctx context.Context, closed bool) (list []CallBack, err error) {
	ids, err := q.scripts.client.ZRange(ctx, prefix+":cb", 0, shownCallBacks-1).Result()
	if closed {
		ids, err = q.scripts.client.ZRevRange(ctx, prefix+":cbx", 0, shownCallBacks-1).Result()
	}
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	tasks, err := q.loadTasks(ctx, ids)
	for i, f := range tasks {
		if (f["state"] == string(TaskClosed)) == closed && len(f) > 0 { // it may have changed since the list was read
			f["id"] = ids[i]
			list = append(list, q.callBack(f))
		}
	}
	return list, err
}

// loadTasks asks for tasks; one that is gone is empty.
func (q *Queue) loadTasks(ctx context.Context, ids []string) ([]fields, error) {
	hashes := make([]*redis.MapStringStringCmd, len(ids))
	_, err := q.scripts.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			hashes[i] = p.HGetAll(ctx, prefix+":t:"+id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	tasks := make([]fields, len(ids))
	for i, h := range hashes {
		tasks[i] = fields(h.Val())
	}
	return tasks, nil
}

// callBacksCopy is what this node's own copy says.
func (q *Queue) callBacksCopy(ctx context.Context, closed bool) (list []CallBack, err error) {
	copies, err := q.copies(ctx)
	for _, f := range copies {
		state := TaskState(f["state"])
		if closed == (state == TaskClosed) && state != TaskNone {
			list = append(list, q.callBack(f))
		}
	}
	slices.SortFunc(list, func(a, b CallBack) int {
		if closed {
			return cmp.Or(b.Closed.Compare(a.Closed), cmp.Compare(a.ID, b.ID))
		}
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	return list, err
}

// CloseCallBack is a person's word that nobody needs to call back, with a reason (at most 200 bytes are kept).
func (q *Queue) CloseCallBack(ctx context.Context, id, by, why string) error {
	err := q.act(ctx, func(ctx context.Context) error {
		done, err := q.scripts.run(ctx, q.scripts.dismiss, "", id, by, clip(why, 200)).Int64()
		if err == nil && done == 0 {
			err = session.ErrNoTask
		}
		return err
	}, away)
	if err != nil {
		return fmt.Errorf("queue: close a call back: %w", err)
	}
	return nil
}
