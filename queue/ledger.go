package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/journal"
)

// Ledger is a node's durable copy of the call backs (package internal/journal), of which a Redis that lost them is
// filled again.
type Ledger interface {
	SaveCallBack(ctx context.Context, r journal.CallBackRecord) error
	CallBackRecords(ctx context.Context) ([]journal.CallBackRecord, error)
}

// reconcileStep is how many tasks are compared at a time.
const reconcileStep = 500

// saveTask copies a task.
func (q *Queue) saveTask(ctx context.Context, f fields) {
	if q.deps.Ledger == nil || f["id"] == "" {
		return
	}
	state := TaskState(f["state"])
	err := q.deps.Ledger.SaveCallBack(ctx, journal.CallBackRecord{ID: f["id"], Updated: moment(f.number("v")),
		Open: state == TaskOpen || state == TaskTaken, Body: []byte(encode(f))})
	if err != nil && ctx.Err() == nil {
		q.deps.Log.Error("queue: a call back is not in this node's copy", "err", err)
	}
}

// copies is this node's copy, by task.
func (q *Queue) copies(ctx context.Context) (map[string]fields, error) {
	out := make(map[string]fields)
	if q.deps.Ledger == nil {
		return out, nil
	}
	records, err := q.deps.Ledger.CallBackRecords(ctx)
	if err != nil {
		return nil, fmt.Errorf("read this node's copy: %w", err)
	}
	for _, r := range records {
		var f fields
		if err := json.Unmarshal(r.Body, &f); err != nil {
			q.deps.Log.Error("queue: a copied call back cannot be read", "err", err)
			continue
		}
		if closed := f.number("closed"); f["state"] == string(TaskClosed) && time.Since(moment(closed)) > q.cfg.CallBack.Keep {
			continue
		}
		out[f["id"]] = f
	}
	return out, nil
}

// reconcile compares this node's copy of the ledger with Redis: each gets what the other has later. An empty Redis
// is filled by it.
func (q *Queue) reconcile(ctx context.Context) error {
	if q.deps.Ledger == nil {
		return nil
	}
	copies, err := q.copies(ctx)
	if err != nil {
		return err
	}
	ids := make(map[string]bool)
	for id := range copies {
		ids[id] = true
	}
	for _, set := range []string{":cb", ":cbx"} {
		there, err := q.scripts.client.ZRange(ctx, prefix+set, 0, -1).Result()
		if err != nil {
			return err
		}
		for _, id := range there {
			ids[id] = true
		}
	}
	for some := range slices.Chunk(slices.Sorted(maps.Keys(ids)), reconcileStep) {
		if err := q.reconcileSome(ctx, some, copies); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) reconcileSome(ctx context.Context, ids []string, copies map[string]fields) error {
	versions := make([]*redis.StringCmd, len(ids))
	_, err := q.scripts.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			versions[i] = p.HGet(ctx, prefix+":t:"+id, "v")
		}
		return nil
	})
	if err != nil && err != redis.Nil {
		return err
	}
	var later []string
	for i, id := range ids {
		there, _ := strconv.ParseInt(versions[i].Val(), 10, 64) // 0: not there
		here := copies[id].number("v")
		switch {
		case here > there:
			taken, err := q.scripts.run(ctx, q.scripts.syncTask, "", encode(copies[id]), millis(q.cfg.CallBack.Keep)).Int64()
			if err != nil {
				return err
			}
			if taken == 0 && copies[id]["state"] != string(TaskNone) { // over long ago
				q.saveTask(ctx, fields{"id": id, "state": string(TaskNone), "v": copies[id]["v"]})
			}
		case there > here:
			later = append(later, id)
		}
	}
	if len(later) == 0 {
		return nil
	}
	tasks, err := q.loadTasks(ctx, later)
	for i, f := range tasks {
		if len(f) > 0 {
			f["id"] = later[i]
			q.saveTask(ctx, f)
		}
	}
	return err
}

// syncOwed tells Redis of the misses and results that came while it was away. q.mu is held.
func (q *Queue) syncOwed(ctx context.Context) error {
	for ; len(q.owed) > 0; q.owed = q.owed[1:] {
		if err := q.oweStore(ctx, q.owed[0]); err != nil {
			return err
		}
	}
	for ; len(q.results) > 0; q.results = q.results[1:] {
		if err := q.settleStore(ctx, q.results[0]); err != nil {
			return err
		}
	}
	return nil
}

// clip cuts s to n bytes and leaves it valid UTF-8.
func clip(s string, n int) string { return strings.ToValidUTF8(s[:min(len(s), n)], "") }
