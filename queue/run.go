package queue

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/store"
)

// The rhythm of a node.
const (
	beatEvery   = time.Second
	gaugesEvery = 5 // beats
	retryEvery  = 250 * time.Millisecond
	readBlock   = 200 * time.Millisecond // a blocking read ends no sooner, so neither does Run
	sweepMost   = 100
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
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, message := range streams[0].Messages {
		q.lastID = message.ID
		f := make(fields, len(message.Values))
		for name, value := range message.Values {
			f[name], _ = value.(string)
		}
		if f["ev"] == agentEvent {
			q.put(f.agent(f["agent"]))
		} else {
			q.apply(f.event())
		}
	}
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
		known, err := q.scripts.run(ctx, q.scripts.beat, seed(), q.deps.Node, millis(q.cfg.DeadAfter), sweepMost,
			millis(q.cfg.RedialWindow)).Int()
		reaped = err == nil && known == 0
		return err
	}, func() error { q.sweepLocal(); return nil })
	if err != nil {
		q.deps.Log.Error("queue: the sweep failed", "err", err)
	}
	if reaped {
		q.detach(errReaped) // the reader tells of all anew
	}
}

var errReaped = errors.New("queue: this node was silent and taken for dead")
