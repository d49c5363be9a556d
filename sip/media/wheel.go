package media

import (
	"context"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

const (
	tickEvery     = 20 * time.Millisecond
	wheelSlots    = 10
	slotEvery     = tickEvery / wheelSlots
	wheelCapacity = 2000 // streams a wheel: one goroutine paces them with room to spare
	// catchUpMost is how late a wheel still makes good what it owes. A phone's jitter buffer holds that
	// much, and plays it whole; beyond it the parties have heard the hole already.
	catchUpMost = 200 * time.Millisecond
)

// ticker is driven by a wheel every 20 ms. The time it is told is the one it was due at, so that
// successive ones are whole ticks apart whatever the scheduler does. What it sends it may put into out, which
// may be nil.
type ticker interface {
	tick(due time.Time, out *outbox)
}

// wheel drives tickers from one goroutine. It spreads them over ten slots 2 ms apart, so that a
// thousand streams do not all send in the same instant.
type wheel struct {
	log     *slog.Logger
	metrics *metrics
	wake    chan struct{}
	out     *outbox // nil: every packet is sent at once

	mu    sync.Mutex
	slots [wheelSlots][]ticker
}

func newWheel(log *slog.Logger, m *metrics) *wheel {
	return &wheel{log: log, metrics: m, wake: make(chan struct{}, 1)}
}

// add puts t into the emptiest slot.
func (w *wheel) add(t ticker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	best := 0
	for i := range w.slots {
		if len(w.slots[i]) < len(w.slots[best]) {
			best = i
		}
	}
	w.slots[best] = append(w.slots[best], t)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// remove takes t out. A tick that is running may still end after it.
func (w *wheel) remove(t ticker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.slots {
		w.slots[i] = slices.DeleteFunc(w.slots[i], func(x ticker) bool { return x == t })
	}
}

// run turns the wheel until ctx ends. Deadlines are absolute, so lateness does not add up: after a short
// stall the turns that are due follow at once, after a long one whole turns are skipped.
func (w *wheel) run(ctx context.Context) {
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer w.out.close()
	var due []ticker
	for turn := 0; ; turn++ {
		next, busy := w.nextBusy(turn)
		if !busy {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			}
			turn = int(time.Since(start) / slotEvery)
			continue
		}
		turn = next
		if late := time.Since(start) - time.Duration(turn)*slotEvery; late > catchUpMost {
			n := int(late / tickEvery)
			turn += n * wheelSlots
			w.metrics.skipped.Add(float64(n))
		}
		at := start.Add(time.Duration(turn) * slotEvery)
		timer.Reset(time.Until(at))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		w.mu.Lock()
		due = append(due[:0], w.slots[turn%wheelSlots]...)
		w.mu.Unlock()
		for _, t := range due {
			w.drive(t, at)
		}
		w.out.flush()
		clear(due) // a closed session must not be kept alive by the scratch list
	}
}

// nextBusy is the first turn from turn on whose slot has tickers.
func (w *wheel) nextBusy(turn int) (int, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range wheelSlots {
		if len(w.slots[(turn+i)%wheelSlots]) > 0 {
			return turn + i, true
		}
	}
	return 0, false
}

// drive ticks t, and takes it off the wheel when it panics: one leg's fault must not silence all.
func (w *wheel) drive(t ticker, at time.Time) {
	defer func() {
		if r := recover(); r != nil {
			w.metrics.panics.Inc()
			w.log.Error("a media tick panicked", "panic", r, "stack", string(debug.Stack()))
			w.remove(t)
		}
	}()
	t.tick(at, w.out)
}
