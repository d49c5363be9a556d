package abuse

import (
	"context"
	"fmt"
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
	key       string // the pseudonym that it was taken under; "" for a call that needs no place
	banners   chan session.Banner

	mu       sync.Mutex
	phase    int // index in phases
	since    time.Time
	spent    [3]time.Duration // by phase, up to since
	beaten   time.Time
	released bool
	banner   session.Banner // the last that rose
	counted  []Counted      // as last read
}

var _ session.Lease = (*lease)(nil)

// newLease makes the lease of a call that is let in. shared is false for a call without a place in Redis:
// its seconds are metered all the same.
func (a *Admission) newLease(r session.ScreenRequest, f Facts, shared bool, banner session.Banner) *lease {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l, ok := a.leases[r.CallID]; ok {
		return l // screened again: one call has one lease
	}
	now := a.now()
	l := &lease{
		admission: a, call: r.CallID, banners: make(chan session.Banner, 1),
		since: now, beaten: now, banner: banner, counted: f.Counted,
	}
	if shared {
		l.key = a.keys.counters(r.Caller.E164)[0]
	}
	a.leases[r.CallID] = l
	if shared {
		a.metrics.leases.Inc()
	}
	return l
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
	if l.key == "" {
		return
	}
	a.metrics.leases.Dec()
	_, err := a.store.Client().Pipelined(context.Background(), func(p redis.Pipeliner) error {
		p.ZRem(context.Background(), keyLeases(l.key), l.call)
		p.HDel(context.Background(), keyLive(l.key), l.call)
		return nil
	})
	if err != nil {
		a.log.Warn("a lease was not given back; it ends by itself", "call", l.call, "err", err)
	}
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
	due := a.due()
	for batch := range slices.Chunk(due, beatBatch) {
		if ctx.Err() != nil {
			return
		}
		a.beat(ctx, batch)
	}
}

func (a *Admission) due() []*lease {
	a.mu.Lock()
	all := make([]*lease, 0, len(a.leases))
	for _, l := range a.leases {
		all = append(all, l)
	}
	a.mu.Unlock()
	now := a.now()
	return slices.DeleteFunc(all, func(l *lease) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return now.Sub(l.beaten) < a.policy.Concurrency.Heartbeat
	})
}

// beat prolongs a batch of leases in one round trip. The leases stay locked meanwhile, at most for the
// store's time-out, so that none is released behind its own heartbeat.
func (a *Admission) beat(ctx context.Context, batch []*lease) {
	var sent []*lease
	for _, l := range batch {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.released {
			continue
		}
		l.spend()
		l.beaten = l.since
		if l.key == "" {
			continue
		}
		sent = append(sent, l)
	}
	if len(sent) == 0 {
		return
	}
	answers := a.sendBeats(ctx, sent)
	if redis.HasErrorPrefix(answers[0].Err(), "NOSCRIPT") { // not run: a server that was flushed has lost it
		if a.scripts.beat.Load(ctx, a.store.Client()).Err() == nil {
			answers = a.sendBeats(ctx, sent)
		}
	}
	for i, l := range sent {
		l.rise(l.read(answers[i]))
	}
}

func (a *Admission) sendBeats(ctx context.Context, leases []*lease) []*redis.Cmd {
	answers := make([]*redis.Cmd, len(leases))
	_, err := a.store.Client().Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, l := range leases {
			answers[i] = a.scripts.beat.EvalSha(ctx, p, []string{keyLeases(l.key), keyLive(l.key), keyCounted(l.key)},
				l.call, a.policy.Concurrency.Lease.Milliseconds(), l.total())
		}
		return nil
	})
	if err != nil {
		a.log.Debug("heartbeats failed", "err", err) // the store says once that Redis is away
	}
	return answers
}

// total is what the call has occupied so far, as the script takes it.
func (l *lease) total() string {
	return fmt.Sprintf("%d %d %d", l.spent[0].Milliseconds(), l.spent[1].Milliseconds(), l.spent[2].Milliseconds())
}

// read takes the facts of a heartbeat, and returns how long all calls of the number that are up have
// been talking. With Redis away the facts stay as they were, and the call knows its own time.
func (l *lease) read(cmd *redis.Cmd) (all time.Duration) {
	answer, err := cmd.Slice()
	if err != nil || len(answer) != 2 {
		return 0
	}
	counted, err1 := texts(answer[0])
	live, err2 := texts(answer[1])
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
