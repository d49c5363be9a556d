package abuse

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/session"
)

// phases in the order of a call.
var phases = []session.Phase{session.PhaseIVR, session.PhaseQueue, session.PhaseTalk}

const talk = 2 // the index of PhaseTalk

// lease is a call's place among its number's calls. Run beats all of a node's leases in batches.
type lease struct {
	admission *Admission
	call      string
	number    string // whose place it is; "" for a call that needs none
	banners   chan session.Banner

	mu       sync.Mutex
	key      string // the pseudonym that it was taken under; "" before it was
	phase    int    // index in phases
	since    time.Time
	spent    [3]time.Duration // by phase, up to since
	beaten   time.Time        // the last heartbeat that arrived
	released bool
	banner   session.Banner // the last that rose
	counted  []Counted      // as last read
}

var _ session.Lease = (*lease)(nil)

// member is a call among its number's calls in Redis: a dead node's can be told from the others.
func (a *Admission) member(call string) string { return call + "@" + a.audit.Node() }

// newLease makes the lease of a call that is let in, or finds the one that it has: screened again, a call
// has one lease. shared is false for a call without a place in Redis: its seconds are metered all the same.
func (a *Admission) newLease(r session.ScreenRequest, f Facts, shared bool, banner session.Banner) (l *lease, fresh bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l, ok := a.leases[r.CallID]; ok {
		return l, false
	}
	now := a.now()
	l = &lease{
		admission: a, call: r.CallID, banners: make(chan session.Banner, 1),
		since: now, beaten: now, banner: banner, counted: f.Counted,
	}
	if shared {
		l.number = r.Caller.E164
		a.metrics.leases.Inc()
	}
	if f.Place == Taken {
		l.key = a.keys.counters(l.number)[0]
	} else {
		l.beaten = time.Time{} // Redis is told of it as soon as it is back
	}
	a.leases[r.CallID] = l
	return l, true
}

// Phase implements [session.Lease].
func (l *lease) Phase(p session.Phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spend()
	if i := slices.Index(phases, p); i >= 0 {
		l.phase = i
	}
}

// Banners implements [session.Lease].
func (l *lease) Banners() <-chan session.Banner { return l.banners }

// Release implements [session.Lease]. With Redis away the place frees itself when the lease ends.
func (l *lease) Release() {
	l.mu.Lock()
	defer l.mu.Unlock() // waits for a heartbeat on its way, which would take the place again
	if l.released {
		return
	}
	l.spend()
	l.released = true
	a := l.admission
	a.mu.Lock()
	delete(a.leases, l.call)
	a.mu.Unlock()
	if l.number != "" {
		a.metrics.leases.Dec()
	}
	if l.key == "" {
		return
	}
	_, err := a.store.Client().Pipelined(context.Background(), func(p redis.Pipeliner) error {
		l.give(context.Background(), p)
		return nil
	})
	if err != nil {
		a.log.Warn("a lease was not given back; it ends by itself", "call", l.call, "err", err)
	}
}

// give gives the place back that the lease has in Redis. Another's place is never touched.
func (l *lease) give(ctx context.Context, p redis.Pipeliner) {
	member := l.admission.member(l.call)
	p.ZRem(ctx, keyLeases(l.key), member)
	p.HDel(ctx, keyLive(l.key), member)
}

// spend books the time since the last booking to the phase. l.mu is held.
func (l *lease) spend() {
	now := l.admission.now()
	if d := now.Sub(l.since); d > 0 && !l.released {
		l.spent[l.phase] += d
		l.admission.metrics.occupy(phases[l.phase], d)
	}
	l.since = now
}

// rise tells of a banner that was not up before. l.mu is held.
func (l *lease) rise(all time.Duration) {
	if l.phase != talk {
		return // nobody sees it yet, and what occupies the line is talk
	}
	a := l.admission
	b := Watch(a.policy, a.now(), l.counted, l.spent[talk], max(all, l.spent[talk]))
	if b == session.NoBanner || b == l.banner {
		return
	}
	l.banner = b
	select { // the newest wins
	case <-l.banners:
	default:
	}
	l.banners <- b // there is room: this is the only sender, under the lock
}

// beatBatch bounds a pipeline of heartbeats, so that it fits into the store's time-out.
const beatBatch = 64

// beatDue beats the leases whose heartbeat is due.
func (a *Admission) beatDue(ctx context.Context) {
	now := a.now()
	a.beatThose(ctx, slices.DeleteFunc(a.all(), func(l *lease) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return now.Sub(l.beaten) < a.policy.Concurrency.Heartbeat
	}))
}

// beatAll tells Redis anew of every call that is up.
func (a *Admission) beatAll(ctx context.Context) { a.beatThose(ctx, a.all()) }

func (a *Admission) all() []*lease {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.leases))
}

func (a *Admission) beatThose(ctx context.Context, leases []*lease) {
	for batch := range slices.Chunk(leases, beatBatch) {
		if ctx.Err() != nil {
			return
		}
		a.beat(ctx, batch)
	}
}

// beat prolongs a batch of leases in one round trip. The leases stay locked meanwhile, at most for the
// store's time-out, so that none is released behind its own heartbeat.
func (a *Admission) beat(ctx context.Context, batch []*lease) {
	var sent []beat
	for _, l := range batch {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.released {
			continue
		}
		l.spend()
		if l.number == "" {
			l.beaten = l.since
			continue
		}
		b := beat{lease: l}
		if names := a.keys.counters(l.number); len(names) > 0 {
			b.key = names[0]
		}
		sent = append(sent, b)
	}
	a.sendBeats(ctx, sent)
	if slices.ContainsFunc(sent, beat.unknown) { // not run: a server that was flushed has lost it
		if a.scripts.beat.Load(ctx, a.store.Client()).Err() == nil {
			a.sendBeats(ctx, sent)
		}
	}
	for _, b := range sent {
		b.lease.rise(b.read())
	}
}

// beat is a heartbeat on its way.
type beat struct {
	lease  *lease
	key    string // the pseudonym that the place belongs under now; "" before the keys are agreed
	answer *redis.Cmd
}

func (b beat) unknown() bool {
	return b.answer != nil && redis.HasErrorPrefix(b.answer.Err(), "NOSCRIPT")
}

// sendBeats sends the heartbeats. A place that was taken under another key moves: that of an epoch that
// has ended, or one that the nodes have agreed on since.
func (a *Admission) sendBeats(ctx context.Context, beats []beat) {
	_, err := a.store.Client().Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range beats {
			b := &beats[i]
			l := b.lease
			if b.key == "" {
				continue
			}
			if l.key != "" && l.key != b.key {
				l.give(ctx, p)
			}
			b.answer = a.scripts.beat.EvalSha(ctx, p, []string{keyLeases(b.key), keyLive(b.key), keyCounted(b.key)},
				a.member(l.call), a.policy.Concurrency.Lease.Milliseconds(), l.total(), a.policy.Concurrency.Calls)
		}
		return nil
	})
	if err != nil {
		a.log.Debug("heartbeats failed", "err", err) // the store says once that Redis is away
	}
}

// total is what the call has occupied so far, as the script takes it.
func (l *lease) total() string {
	return fmt.Sprintf("%d %d %d", l.spent[0].Milliseconds(), l.spent[1].Milliseconds(), l.spent[2].Milliseconds())
}

// What a heartbeat found of the place.
const (
	placeKept int64 = iota
	placeRetaken
	placeOver // taken again over the limit
)

// read takes the facts of a heartbeat, and returns how long all calls of the number that are up have
// been talking. With Redis away the facts stay as they were, and the call knows its own time.
func (b beat) read() (all time.Duration) {
	if b.answer == nil {
		return 0
	}
	answer, err := b.answer.Slice()
	if err != nil || len(answer) != 3 {
		return 0
	}
	l := b.lease
	l.key, l.beaten = b.key, l.since
	switch answer[0] {
	case placeRetaken:
		l.admission.metrics.told.WithLabelValues("yes").Inc()
	case placeOver:
		l.admission.metrics.told.WithLabelValues("no").Inc()
	}
	counted, err1 := texts(answer[1])
	live, err2 := texts(answer[2])
	if err1 != nil || err2 != nil {
		return 0
	}
	for _, c := range readCounted(counted) { // what was counted under an earlier epoch stays
		if !slices.Contains(l.counted, c) {
			l.counted = append(l.counted, c)
		}
	}
	for _, v := range live {
		if ms, ok := numbers(v); ok {
			all += time.Duration(ms[talk]) * time.Millisecond
		}
	}
	return all
}
