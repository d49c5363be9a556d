package console

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"
)

// errStreams says that as many live pages are open as are allowed.
var errStreams = errors.New("console: too many live pages")

// breath is the least time between two pictures, so that a busy hour costs no more than this.
const breath = 100 * time.Millisecond

// feed takes one picture of the line for all live pages, however many look, and takes none while
// nobody does.
type feed struct {
	cfg     Config
	take    func(context.Context) Snapshot
	metrics *metrics
	joined  chan struct{}

	mu      sync.Mutex
	last    Snapshot
	fresh   bool // last was taken since somebody looks
	closed  bool
	viewers map[chan Snapshot]struct{}
}

func newFeed(cfg Config, take func(context.Context) Snapshot, m *metrics) *feed {
	return &feed{cfg: cfg, take: take, metrics: m, joined: make(chan struct{}, 1), viewers: map[chan Snapshot]struct{}{}}
}

// run takes pictures when a call changed, when somebody joined, and every Refresh.
func (f *feed) run(ctx context.Context, calls Calls) error {
	changed, stop := calls.Watch()
	defer stop()
	defer f.close()
	tick := time.NewTicker(f.cfg.Refresh)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-f.joined:
		case <-tick.C:
		}
		if !f.watched() {
			continue
		}
		f.publish(f.take(ctx))
		select {
		case <-ctx.Done():
		case <-time.After(breath):
		}
	}
}

func (f *feed) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.viewers) > 0
}

// publish gives a picture that differs from the last one to all viewers; the newest wins.
func (f *feed) publish(s Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fresh && reflect.DeepEqual(f.last, s) {
		return
	}
	f.last, f.fresh = s, true
	for v := range f.viewers {
		select {
		case <-v:
		default:
		}
		v <- s
	}
}

// join gives a channel with the newest picture, closed when the feed ends, and the way to leave it.
func (f *feed) join() (<-chan Snapshot, func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(f.viewers) >= f.cfg.Streams {
		f.metrics.refused.Inc()
		return nil, nil, errStreams
	}
	v := make(chan Snapshot, 1)
	f.viewers[v] = struct{}{}
	if f.fresh {
		v <- f.last
	}
	f.metrics.streams.Set(float64(len(f.viewers)))
	select {
	case f.joined <- struct{}{}:
	default:
	}
	return v, func() { f.leave(v) }, nil
}

func (f *feed) leave(v chan Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.viewers, v)
	f.fresh = f.fresh && len(f.viewers) > 0
	f.metrics.streams.Set(float64(len(f.viewers)))
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for v := range f.viewers {
		close(v)
	}
	clear(f.viewers)
	f.metrics.streams.Set(0)
}
