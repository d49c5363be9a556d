package intake

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// sender brings one event to a target. It returns nil only for a receipt.
type sender interface {
	send(ctx context.Context, e Event) error
}

// failure is why there is no receipt, by a word of the metric.
type failure struct {
	result string
	after  time.Duration // what the target asked for, or 0
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// item is a spooled event as the target remembers it; the event itself stays on the disk.
type item struct {
	key      string
	revision int
	since    time.Time
	next     time.Time
}

// line is the events of one request, the lowest revision first. It is in the heap while nothing of it
// is being sent.
type line struct {
	request string
	items   []*item
	busy    bool
	index   int // in the heap
}

// lines is a heap: the line that may be tried first is on top.
type lines []*line

func (h lines) Len() int           { return len(h) }
func (h lines) Less(i, j int) bool { return h[i].items[0].next.Before(h[j].items[0].next) }
func (h lines) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *lines) Push(x any)        { l := x.(*line); l.index = len(*h); *h = append(*h, l) }
func (h *lines) Pop() any {
	old := *h
	l := old[len(old)-1]
	*h = old[:len(old)-1]
	return l
}

// target delivers to one place.
type target struct {
	cfg   Target
	all   Config
	files spool
	send  sender
	log   *slog.Logger
	met   *metrics
	wake  chan struct{} // of room for one

	adding sync.Mutex // one Submit or Retry at a time; held over the disk, which mu never is
	mu     sync.Mutex
	byReq  map[string]*line
	ready  lines
	count  int
	buried int
}

func newTarget(all Config, cfg Target, s sender, log *slog.Logger) (*target, error) {
	files, err := openSpool(all.Dir, cfg.Name)
	if err != nil {
		return nil, err
	}
	t := &target{cfg: cfg, all: all, files: files, send: s, log: log.With("target", cfg.Name),
		wake: make(chan struct{}, 1), byReq: map[string]*line{}}
	entries, broken, err := list(files.waiting)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		t.add(e)
	}
	for _, name := range broken {
		t.log.Error("a file of the spool does not read; it is set aside", "file", name, "err", os.Rename(name, name+".broken"))
	}
	dead, _, err := list(files.dead)
	t.buried = len(dead)
	return t, err
}

// submit spools an event, unless the target has it or will get it already.
func (t *target) submit(e Event) error {
	have, err := t.files.received(e.RequestID)
	if err != nil {
		return err
	}
	if have >= e.Revision {
		t.met.deliveries.WithLabelValues(t.cfg.Name, "stale").Inc()
		return nil
	}
	t.adding.Lock()
	defer t.adding.Unlock()
	if have, full := t.has(e); have {
		return nil
	} else if full {
		return fmt.Errorf("%w: %d events wait for %s", ErrFull, t.all.MaxSpool, t.cfg.Name)
	}
	now := time.Now()
	entry := entry{Since: now, Next: now, Event: e}
	if err := t.files.put(entry); err != nil {
		return err
	}
	t.add(entry)
	return nil
}

func (t *target) has(e Event) (have, full bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.byReq[e.RequestID]; l != nil {
		have = slices.ContainsFunc(l.items, func(i *item) bool { return i.revision == e.Revision })
	}
	return have, t.count >= t.all.MaxSpool
}

// retry takes a dead event up again.
func (t *target) retry(e entry) error {
	have, err := t.files.received(e.Event.RequestID)
	if err != nil {
		return err
	}
	if have >= e.Event.Revision {
		return fmt.Errorf("%w: %s has revision %d of %s", ErrSuperseded, t.cfg.Name, have, e.Event.RequestID)
	}
	t.adding.Lock()
	defer t.adding.Unlock()
	if err := t.files.revive(e.Event.key()); err != nil {
		return err
	}
	now := time.Now()
	e.Since, e.Next, e.Attempts = now, now, 0
	if err := t.files.put(e); err != nil {
		return err
	}
	t.mu.Lock()
	t.buried--
	t.mu.Unlock()
	t.add(e)
	return nil
}

func (t *target) add(e entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	it := &item{key: e.Event.key(), revision: e.Event.Revision, since: e.Since, next: e.Next}
	l := t.byReq[e.Event.RequestID]
	if l == nil {
		l = &line{request: e.Event.RequestID}
		t.byReq[l.request] = l
	}
	l.items = append(l.items, it)
	slices.SortFunc(l.items, func(a, b *item) int { return cmp.Compare(a.revision, b.revision) })
	switch {
	case l.busy:
	case len(l.items) == 1:
		heap.Push(&t.ready, l)
	default:
		heap.Fix(&t.ready, l.index)
	}
	t.nudge()
}

func (t *target) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// due takes the next event that may be tried, or tells how long to wait.
func (t *target) due(now time.Time) (l *line, it *item, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ready) == 0 {
		return nil, nil, time.Hour
	}
	if wait := t.ready[0].items[0].next.Sub(now); wait > 0 {
		return nil, nil, wait
	}
	l = heap.Pop(&t.ready).(*line)
	l.busy = true
	return l, l.items[0], 0
}

// release puts a line back; with done, the event that was tried is gone from the spool.
func (t *target) release(l *line, it *item, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.busy = false
	if done {
		l.items = slices.DeleteFunc(l.items, func(i *item) bool { return i == it })
		t.count--
	}
	if len(l.items) > 0 {
		heap.Push(&t.ready, l)
	} else {
		delete(t.byReq, l.request)
	}
	t.nudge()
}

func (t *target) run(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(t.cfg.Parallel)
	defer func() { _ = g.Wait() }() // deliveries return nothing but nil
	for ctx.Err() == nil {
		l, it, wait := t.due(time.Now())
		if it != nil {
			g.Go(func() error { t.release(l, it, t.deliver(ctx, it)); return nil })
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-t.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// deliver tries an event once and tells whether it is gone from the spool.
func (t *target) deliver(ctx context.Context, it *item) (gone bool) {
	e, err := t.files.get(it.key)
	if errors.Is(err, os.ErrNotExist) {
		t.log.Warn("a spooled event was taken away by hand", "event", it.key)
		return true
	}
	if err != nil {
		t.put(it, time.Now().Add(t.all.BackoffMax), "error")
		t.log.Error("a spooled event does not read", "event", it.key, "err", err)
		return false
	}
	have, err := t.files.received(e.Event.RequestID)
	if err == nil && have >= it.revision { // a kill came between receipt and removal, or a newer one went first
		t.met.deliveries.WithLabelValues(t.cfg.Name, "stale").Inc()
		err = t.files.drop(it.key)
		return err == nil
	}
	if err == nil {
		err = t.try(ctx, e.Event)
	}
	if err == nil {
		err = t.files.receive(e.Event, time.Now())
	}
	if err != nil {
		return t.failed(ctx, it, e, err)
	}
	t.met.deliveries.WithLabelValues(t.cfg.Name, "delivered").Inc()
	t.met.seconds.WithLabelValues(t.cfg.Name).Observe(time.Since(e.Since).Seconds())
	t.log.Info("handed over", "event", it.key, "call", e.Event.CallID, "attempts", e.Attempts+1)
	return true
}

// try sends an event in the target's time. A panic is a failure like any other.
func (t *target) try(ctx context.Context, e Event) (err error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("intake: panic: %v\n%s", p, debug.Stack())
		}
	}()
	return t.send.send(ctx, e)
}

// failed plans the next try, or gives the event up.
func (t *target) failed(ctx context.Context, it *item, e entry, err error) (gone bool) {
	if ctx.Err() != nil {
		return false // the process leaves; the target is not at fault
	}
	f := &failure{result: "error", err: err}
	if !errors.As(err, &f) && errors.Is(err, context.DeadlineExceeded) {
		f.result = "timeout"
	}
	now := time.Now()
	e.Attempts++
	e.Error = err.Error()
	e.Next = now.Add(max(t.backoff(e.Attempts), min(f.after, t.all.BackoffMax)))
	t.put(it, e.Next, f.result)
	if err := t.files.put(e); err != nil {
		t.log.Error("the spool cannot be written", "event", it.key, "err", err)
	}
	log := t.log.With("event", it.key, "call", e.Event.CallID, "attempts", e.Attempts, "err", e.Error)
	if now.Sub(e.Since) < t.all.GiveUp {
		log.Warn("a hand-over failed and will be tried again", "next", e.Next)
		return false
	}
	if err := t.files.bury(it.key); err != nil {
		t.log.Error("the spool cannot be written", "event", it.key, "err", err)
		return false
	}
	t.mu.Lock()
	t.buried++
	t.mu.Unlock()
	t.met.deliveries.WithLabelValues(t.cfg.Name, "dead").Inc()
	log.Error("a hand-over is given up; case intake does not have it")
	return true
}

func (t *target) put(it *item, next time.Time, result string) {
	t.mu.Lock()
	it.next = next
	t.mu.Unlock()
	t.met.deliveries.WithLabelValues(t.cfg.Name, result).Inc()
}

// backoff doubles from BackoffMin to BackoffMax; half of it is chance, so that the events of an outage
// do not come back together.
func (t *target) backoff(attempts int) time.Duration {
	d := t.all.BackoffMax
	if shift := attempts - 1; shift < 30 {
		d = min(d, t.all.BackoffMin<<shift)
	}
	return d/2 + rand.N(d/2+1)
}

// state is what the metrics show.
func (t *target) state(now time.Time) (waiting, dead int, oldest time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.byReq {
		for _, i := range l.items {
			oldest = max(oldest, now.Sub(i.since))
		}
	}
	return t.count, t.buried, oldest
}
