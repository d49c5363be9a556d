package app

import (
	"context"
	"sync"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/console"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/queue"
)

// dayEvery is how often the day's sums are made anew while somebody looks.
const dayEvery = 10 * time.Second

// queuesView is the queues as the console shows them.
type queuesView struct {
	a   *App
	mu  sync.Mutex
	at  time.Time // of day
	day map[string]journal.Tally
}

// now is how the queues stand, without the day's sums.
func (v *queuesView) now(ctx context.Context) ([]console.QueueState, error) {
	queues, err := v.a.queue.Queues(ctx)
	if err != nil {
		return nil, err
	}
	agents, err := v.a.queue.Agents(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]console.QueueState, 0, len(queues))
	for _, q := range queues {
		s := console.QueueState{Name: q.Name, Display: q.Display, Waiting: q.Waiting}
		if len(q.Entries) > 0 {
			s.Oldest = q.Entries[0].Since
		}
		for _, e := range q.Entries {
			if e.Since.Before(s.Oldest) {
				s.Oldest = e.Since
			}
		}
		for _, a := range agents {
			if _, serves := a.Queues[q.Name]; !serves {
				continue
			}
			switch a.State {
			case queue.Idle, queue.Offered:
				s.Ready++
			case queue.Talk:
				s.Talking++
			case queue.LoggedOut, queue.Wrapup, queue.Paused:
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// Queues implements console.Queues: the queues, which all gateways share, and the day's sums of all.
func (v *queuesView) Queues(ctx context.Context) ([]console.QueueState, error) {
	states, err := v.now(ctx)
	if err != nil {
		return nil, err
	}
	day, err := v.today(ctx)
	if err != nil {
		return nil, err
	}
	add := func(day map[string]journal.Tally) {
		for i := range states {
			s, t := &states[i], day[states[i].Name]
			s.Offered, s.Answered, s.InTime, s.Abandoned = s.Offered+t.Offered, s.Answered+t.Answered, s.InTime+t.InTime, s.Abandoned+t.Abandoned
		}
	}
	add(day)
	v.a.others.each(func(_ string, s peerState) { add(s.Day) })
	return states, nil
}

func (v *queuesView) today(ctx context.Context) (map[string]journal.Tally, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	if v.day != nil && now.Sub(v.at) < dayEvery {
		return v.day, nil
	}
	y, m, d := now.Date()
	day, err := v.a.journal.Day(ctx, time.Date(y, m, d, 0, 0, 0, 0, time.Local))
	if err != nil {
		return nil, err
	}
	v.day, v.at = day, now
	return day, nil
}
