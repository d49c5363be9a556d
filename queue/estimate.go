package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// load is what a queue's wait estimate is made of.
type load struct {
	agents    int           // serving the queue
	handled   int64         // talks, with the wrap-up after them
	handle    time.Duration // in all of them
	abandons  int64
	waited    time.Duration // by all, answered or not
	headWaits time.Duration // the foremost caller, so far
}

// The least experience that an estimate is made of. With fewer agents every estimator is poor.
const (
	leastAgents   = 8
	leastHandled  = 20
	leastAbandons = 50
)

// estimate is how long the caller at a position will wait; 0 when there is nothing worth telling. It is
// the sum over the callers ahead of 1/(sμ+iθ): s agents serving at rate μ, and i callers behind the first
// of whom each gives up at rate θ. Until θ is learnt it is what the foremost caller has waited.
func (l load) estimate(position int) time.Duration {
	if l.agents < leastAgents || l.handled < leastHandled || l.handle <= 0 || l.waited <= 0 {
		return 0
	}
	if l.abandons < leastAbandons {
		return l.headWaits
	}
	service := float64(l.agents) * float64(l.handled) / l.handle.Seconds()
	patience := float64(l.abandons) / l.waited.Seconds()
	seconds := 0.0
	for i := range position {
		seconds += 1 / (service + float64(i)*patience)
	}
	return time.Duration(seconds * float64(time.Second))
}

// waitBands are the waits that are told, in minutes: a wait is told as the end of its band.
var waitBands = []int{1, 2, 5, 10, 15, 20, 30, 45, 60}

func bandWait(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	for _, minutes := range waitBands {
		if band := time.Duration(minutes) * time.Minute; d <= band {
			return band
		}
	}
	return time.Hour
}

// bandPosition is the band of a position: 1 to 5 each alone, then 10, 20, 50 and each further hundred.
func bandPosition(p int) int {
	switch {
	case p <= 5:
		return p
	case p <= 10:
		return 10
	case p <= 20:
		return 20
	case p <= 50:
		return 50
	default:
		return (p + 99) / 100 * 100
	}
}

// inform tells the callers of queues that moved of their place: when it entered another band, and only ever
// downwards.
func (q *Queue) inform(ctx context.Context) {
	for queue, places := range q.moved() {
		l, err := q.order(ctx, queue, places)
		if err != nil {
			q.deps.Log.Debug("queue: no order to tell", "queue", queue, "err", err)
		}
		q.mu.Lock()
		q.stale[queue] = q.stale[queue] || err != nil // then the next beat tells
		for id, place := range places {
			if t := q.tickets[id]; t != nil && place > 0 && t.state == EntryWaiting {
				wait := l.estimate(place)
				if wait > 0 && t.guessed.IsZero() {
					t.guess, t.guessed = wait, time.Now()
				}
				t.move(place, bandWait(wait))
			}
		}
		q.mu.Unlock()
	}
}

// move notes a place; it is told when its band is a better one. q.mu is held.
func (t *ticket) move(place int, wait time.Duration) {
	nearer := t.told.Position == 0 || bandPosition(place) < bandPosition(t.told.Position)
	sooner := wait > 0 && (t.told.Wait == 0 || wait < t.told.Wait)
	if t.told.Position == 0 || place < t.told.Position {
		t.told.Position = place
	}
	if sooner {
		t.told.Wait = wait
	}
	if nearer || sooner {
		t.tell()
	}
}

// moved is the queues whose order changed, with this node's waiting callers in each, their places unknown.
func (q *Queue) moved() map[string]map[string]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make(map[string]map[string]int)
	for id, t := range q.tickets {
		if t.state != EntryWaiting || !q.stale[t.queue] {
			continue
		}
		if out[t.queue] == nil {
			out[t.queue] = make(map[string]int)
		}
		out[t.queue][id] = 0
	}
	clear(q.stale)
	return out
}

// order fills in the places of a queue's callers. While Redis is away it counts this node's alone.
func (q *Queue) order(ctx context.Context, queue string, places map[string]int) (l load, err error) {
	var line []string
	err = q.act(ctx, func(ctx context.Context) error {
		l, line, err = q.load(ctx, queue)
		return err
	}, func() error {
		for _, t := range q.line() {
			if t.queue == queue {
				line = append(line, t.entry.CallID)
			}
		}
		return nil
	})
	for i, id := range line {
		if _, ours := places[id]; ours {
			places[id] = i + 1
		}
	}
	return l, err
}

// load asks for a queue's order and what its estimate is made of.
func (q *Queue) load(ctx context.Context, queue string) (load, []string, error) {
	reply, err := q.scripts.run(ctx, q.scripts.line, "", queue).Slice()
	if err != nil {
		return load{}, nil, err
	}
	order, ok1 := reply[0].([]any)
	agents, ok2 := reply[1].(int64)
	learnt, ok3 := reply[2].([]any)
	head, ok4 := reply[3].(int64)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return load{}, nil, redis.Nil
	}
	line := make([]string, len(order))
	for i, id := range order {
		line[i] = fmt.Sprint(id)
	}
	n := make([]int64, 4)
	for i := range n {
		n[i], _ = learnt[i].(int64)
	}
	ms := time.Millisecond
	return load{agents: int(agents), handled: n[0], handle: time.Duration(n[1]) * ms, abandons: n[2],
		waited: time.Duration(n[3]) * ms, headWaits: time.Duration(head) * ms}, line, nil
}
