package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/store"
)

// The rhythm of a node.
const (
	beatEvery   = 500 * time.Millisecond
	gaugesEvery = 10 // beats
	retryEvery  = 250 * time.Millisecond
	readBlock   = 200 * time.Millisecond // a blocking read ends no sooner, so neither does Run
	sweepMost   = 200                    // of a kind in one script: some 10 ms
	sweepRounds = 50                     // that a beat goes on while more is due
	checkMost   = 500                    // members in one script
)

// read follows the stream with one blocking read; without Redis it tries to come back.
func (q *Queue) read(ctx context.Context) {
	changes, cancel := q.deps.Store.Changes()
	defer cancel()
	for ctx.Err() == nil {
		if q.Online() {
			q.readOnce(ctx)
			continue
		}
		err := q.attach(ctx)
		if err == nil {
			continue
		}
		if !store.Away(err) && ctx.Err() == nil {
			q.deps.Log.Error("queue: redis refuses this node's state", "err", err)
		}
		select {
		case <-changes:
		case <-time.After(retryEvery):
		case <-ctx.Done():
		}
	}
}

func (q *Queue) readOnce(ctx context.Context) {
	read, cancel := context.WithTimeout(ctx, readBlock+time.Second) // a server that hangs must not hold the reader
	defer cancel()
	streams, err := q.scripts.client.XRead(read, &redis.XReadArgs{
		Streams: []string{prefix + ":ev", q.lastID}, Count: 500, Block: readBlock}).Result()
	switch {
	case errors.Is(err, redis.Nil) || ctx.Err() != nil:
		return
	case err != nil:
		q.detach(err)
		return
	}
	for _, body := range q.take(streams[0].Messages) {
		var f fields
		if err := json.Unmarshal([]byte(body), &f); err != nil {
			q.deps.Log.Error("queue: the news of a call back cannot be read", "err", err)
			continue
		}
		q.saveTask(ctx, f)
	}
}

// take brings the mirror up to the stream's messages, and returns the tasks among them.
func (q *Queue) take(messages []redis.XMessage) (tasks []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, message := range messages {
		q.lastID = message.ID
		f := make(fields, len(message.Values))
		for name, value := range message.Values {
			f[name], _ = value.(string)
		}
		switch f["ev"] {
		case agentEvent:
			q.passed(f.agent(f["agent"]))
		case taskEvent:
			tasks = append(tasks, f["body"])
			q.notify()
		default:
			q.apply(f.event())
		}
	}
	return tasks
}

// tick beats, sweeps, tells callers of their place, and now and then measures.
func (q *Queue) tick(ctx context.Context) {
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	for n := 0; ; n++ {
		q.beat(ctx)
		q.inform(ctx)
		if n%gaugesEvery == 0 {
			q.measure(ctx)
			q.check(ctx)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (q *Queue) beat(ctx context.Context) {
	reaped := false
	err := q.act(ctx, func(ctx context.Context) error {
		for range sweepRounds {
			r, err := q.sweep(ctx)
			if err != nil {
				return err
			}
			reaped = reaped || !r.known
			if !r.more {
				return nil
			}
		}
		return nil
	}, func() error { q.sweepLocal(); return nil })
	if err != nil {
		q.deps.Log.Error("queue: the sweep failed", "err", err)
	}
	switch { // the reader tells of all anew
	case reaped:
		q.detach(errReaped)
	case q.otherRedis(q.deps.Store.Generation()):
		q.detach(errOther)
	}
}

// otherRedis tells whether another server has taken the place of the one that was told: by redirects and new
// connections that can happen without an error, and it may lack the last writes.
// Which one was told may be known only a moment later.
func (q *Queue) otherRedis(now string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.generation == "" {
		q.generation = now
	}
	return q.online && now != "" && now != q.generation
}

// sweepResult is what a round of the sweep says of itself.
type sweepResult struct{ known, more bool }

// sweep is one round of the beat, counted.
func (q *Queue) sweep(ctx context.Context) (sweepResult, error) {
	args := []any{seed(), q.deps.Node, millis(q.cfg.DeadAfter), sweepMost, millis(q.cfg.RedialWindow), q.cfg.CallBack.Max,
		millis(q.cfg.CallBack.Keep)}
	for _, qc := range q.cfg.Queues {
		args = append(args, qc.Name)
	}
	n, err := q.scripts.run(ctx, q.scripts.beat, args...).Int64Slice()
	if err != nil {
		return sweepResult{}, err
	}
	for i, kind := range reapedKinds[:6] {
		q.metrics.reaped.WithLabelValues(kind).Add(float64(n[2+i]))
	}
	q.metrics.unnumbered.Add(float64(n[8]))
	q.metrics.dropped.Add(float64(n[9]))
	if n[4] > 0 || n[5] > 0 {
		q.deps.Log.Warn("queue: a node fell silent", "calls", n[5], "agents", n[6])
	}
	if n[9] > 0 {
		q.deps.Log.Warn("queue: the ledger is full; the oldest call backs were dropped", "dropped", n[9])
	}
	return sweepResult{known: n[0] == 1, more: n[1] == 1}, nil
}

// check looks for agents and callers in a state that nothing will end, and lets what can be mended be mended.
func (q *Queue) check(ctx context.Context) {
	agents, calls := make(map[string]int), make(map[string]int)
	err := q.act(ctx, func(ctx context.Context) error {
		for set, stuck := range map[string]map[string]int{"agents": agents, "calls": calls, "n:" + q.deps.Node: calls,
			"an:" + q.deps.Node: agents} {
			if err := q.checkSet(ctx, set, stuck); err != nil {
				return err
			}
		}
		return nil
	}, func() error { return nil }) // alone there is nothing to compare
	if err != nil {
		q.deps.Log.Error("queue: the check for stuck states failed", "err", err)
		return
	}
	for _, state := range stuckAgents {
		q.metrics.stuck.WithLabelValues(state).Set(float64(agents[state]))
	}
	for _, state := range stuckCallers {
		q.metrics.stuckCallers.WithLabelValues(state).Set(float64(calls[state]))
	}
}

func (q *Queue) checkSet(ctx context.Context, set string, stuck map[string]int) error {
	for cursor := "0"; ; {
		reply, err := q.scripts.run(ctx, q.scripts.check, seed(), set, cursor, checkMost, millis(q.cfg.DeadAfter),
			millis(q.cfg.RedialWindow)).Slice()
		if err != nil {
			return err
		}
		mended, _ := reply[1].(int64)
		q.metrics.reaped.WithLabelValues("odd").Add(float64(mended))
		if set == "calls" {
			late, _ := reply[2].(int64)
			stuck["callback"] = int(late)
		}
		for i := 3; i+1 < len(reply); i += 2 {
			n, _ := reply[i+1].(int64)
			stuck[fmt.Sprint(reply[i])] += int(n)
		}
		if cursor = fmt.Sprint(reply[0]); cursor == "0" {
			return nil
		}
	}
}

// Why a node tells Redis anew of all it has.
var (
	errReaped = errors.New("queue: this node was silent and taken for dead")
	errForgot = errors.New("queue: redis forgot a talk of this node")
	errOther  = errors.New("queue: another server has taken Redis' place")
)
