package queue

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
)

var _ session.Queue = (*Queue)(nil)

// localAfter is how long Redis is away before the node makes offers of its own: a shorter absence only
// delays an offer, and no agent is promised twice.
const localAfter = time.Second

// A failover loses what Redis was told last: a node tells anew how its latest calls ended.
const (
	recentFor  = 30 * time.Second
	recentMost = 5000
	endedMost  = 100000 // while Redis is away: a day of a great city
)

// Deps is what a Queue needs of the rest.
type Deps struct {
	Node  string // this node's name, unique and kept over restarts
	Store *store.Store
	// Owns tells whether the phone of an extension is registered at this node. It must not block.
	Owns func(extension string) bool
	// Levels tells an agent's queues, for a talk that outlived the last process; nil when none does.
	Levels func(ctx context.Context, agent string) (map[string]int, error)
	// Pseudonym is a keyed hash of a number, under which a caller's place is kept for a redial.
	Pseudonym func(call.Number) string
	// Seal and Open keep a number in the ledger, which lies in Redis; nil keeps no ledger.
	Seal       func(call.Number) []byte
	Open       func([]byte) (call.Number, error)
	Ledger     Ledger // this node's durable copy of the ledger; nil keeps none
	Log        *slog.Logger
	Registerer prometheus.Registerer // nil registers nothing
}

// Queue is agents and waiting callers, as one node sees them.
type Queue struct {
	cfg     Config
	queues  map[string]QueueConfig
	deps    Deps
	scripts *scripts
	metrics *metrics

	// gate holds operations back while the node tells Redis what it has.
	gate sync.RWMutex

	mu         sync.Mutex
	online     bool // Redis has this node's state
	since      time.Time
	grace      time.Duration // localAfter, but in tests
	skew       time.Duration // Redis' clock - ours
	generation string        // of the Redis that was told; see [store.Store.Generation]
	tickets    map[string]*ticket
	ended      []*ticket        // while Redis was away
	recent     []*ticket        // ended with Redis' knowledge, which a failover may lose
	owed       []owed           // calls to be noted in the ledger when Redis returns
	results    []settlement     // of call backs, likewise
	agents     map[string]agent // those of this node
	stale      map[string]bool  // queues whose order changed since their callers were told
	watch      map[chan struct{}]struct{}
	lastID     string // of the stream, read so far; the reader's alone
}

// New makes a queue. It serves from its first moment, on its own until Run has told Redis of it.
func New(cfg Config, deps Deps) (*Queue, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if !agentName.MatchString(deps.Node) || deps.Store == nil || deps.Owns == nil || deps.Log == nil {
		return nil, fmt.Errorf("queue: the node %q, the store, Owns and the log must be given; a node's name has letters, digits, '.', '-' and '_'", deps.Node)
	}
	if deps.Store.Embedded() { // a late answer of this process is a busy processor, never a lost server
		cfg.StoreTimeout = max(cfg.StoreTimeout, time.Second)
	}
	scripts, err := newScripts(deps.Store)
	if err != nil {
		return nil, err
	}
	q := &Queue{cfg: cfg, deps: deps, scripts: scripts, queues: make(map[string]QueueConfig), since: time.Now(), grace: localAfter,
		tickets: make(map[string]*ticket), agents: make(map[string]agent), stale: make(map[string]bool),
		watch: make(map[chan struct{}]struct{})}
	for _, qc := range cfg.Queues {
		q.queues[qc.Name] = qc
	}
	q.metrics = newMetrics(deps.Registerer, cfg)
	return q, nil
}

// Run keeps the node's part of the queues going until ctx ends: it reads the stream, beats, sweeps, and
// tells callers of their place.
func (q *Queue) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { q.read(ctx); return nil })
	g.Go(func() error { q.tick(ctx); return nil })
	return g.Wait()
}

// Enter implements [session.Queue].
func (q *Queue) Enter(ctx context.Context, e session.QueueEntry) (session.Ticket, error) {
	qc, ok := q.queues[e.Queue]
	if !ok {
		return nil, fmt.Errorf("%w: %q", session.ErrNoQueue, e.Queue)
	}
	t := q.newTicket(e, qc)
	q.mu.Lock()
	if old, ok := q.tickets[e.CallID]; ok {
		q.mu.Unlock()
		return old, nil // entered already
	}
	q.tickets[e.CallID] = t
	q.mu.Unlock()
	err := q.act(ctx,
		func(ctx context.Context) error { return q.enterStore(ctx, t) },
		func() error { return q.enterLocal(t) })
	if err != nil {
		q.mu.Lock()
		q.drop(t)
		q.mu.Unlock()
		if errors.Is(err, session.ErrQueueFull) {
			q.metrics.exit(e.Queue, "full")
		}
		return nil, fmt.Errorf("enter the queue %s: %w", e.Queue, err)
	}
	return t, nil
}

func (q *Queue) enterStore(ctx context.Context, t *ticket) error {
	reply, err := q.scripts.run(ctx, q.scripts.enqueue, seed(), encode(t.record(time.Now()))).Int64Slice()
	if err != nil {
		return err
	}
	if len(reply) == 0 {
		return session.ErrQueueFull
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	t.score, t.placed = reply[0], true
	t.version = max(t.version, reply[1])
	t.told.Position = int(reply[2])
	t.tell()
	return nil
}

// act does an operation on Redis, or on the node's own while Redis is away. It is not cut short by the
// caller's hanging up: a leave has to happen then all the more.
func (q *Queue) act(ctx context.Context, remote func(context.Context) error, local func() error) error {
	q.gate.RLock()
	defer q.gate.RUnlock()
	if q.Online() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.cfg.StoreTimeout)
		defer cancel()
		err := remote(ctx)
		if !store.Away(err) || isOurs(err) {
			return err
		}
		q.detach(err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return local()
}

// isOurs tells the queue's own answers from errors of the connection.
func isOurs(err error) bool {
	return slices.ContainsFunc([]error{session.ErrFenced, session.ErrQueueFull, ErrRefused, session.ErrNoTask, session.ErrTaskTaken,
		session.ErrAgentBusy, errSealed}, func(ours error) bool { return errors.Is(err, ours) })
}

// Online tells whether Redis has this node's state; if not, the node queues on its own.
func (q *Queue) Online() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.online
}

// detach lets the node go on without Redis.
func (q *Queue) detach(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.apart(err)
}

// apart is detach; q.mu is held.
func (q *Queue) apart(err error) {
	if !q.online {
		return
	}
	q.online, q.since = false, time.Now()
	q.metrics.local.Set(1)
	q.deps.Log.Warn("queue: redis is away; this node queues on its own", "err", err)
}

// drop ends a ticket, unless its call has entered again, and notes an end of which Redis has yet to be told, or may
// have to be told again. q.mu is held.
func (q *Queue) drop(t *ticket) {
	if t.state != EntryGone {
		t.left = time.Now()
		switch {
		case t.ended == "":
		case q.online:
			q.recent = append(q.recent, t)
		case len(q.ended) < endedMost:
			q.ended = append(q.ended, t)
		default:
			q.metrics.dropped.Inc()
		}
		for len(q.recent) > recentMost || len(q.recent) > 0 && time.Since(q.recent[0].left) > recentFor {
			q.recent = q.recent[1:]
		}
	}
	t.state = EntryGone
	if q.tickets[t.entry.CallID] == t {
		delete(q.tickets, t.entry.CallID)
	}
}

// Watch tells that something changed, so that a console may look again: several changes make one notice.
// cancel ends it; the channel is never closed.
func (q *Queue) Watch() (changes <-chan struct{}, cancel func()) {
	ch := make(chan struct{}, 1)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.watch[ch] = struct{}{}
	return ch, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.watch, ch)
	}
}

// notify wakes the watchers; q.mu is held.
func (q *Queue) notify() {
	for ch := range q.watch {
		select {
		case ch <- struct{}{}:
		default: // a notice waits already
		}
	}
}

// clock is Redis' time as far as the node knows; q.mu is held.
func (q *Queue) clock() int64 { return time.Now().Add(q.skew).UnixMilli() }

// seed is 128 random bits, of which a script makes its tokens.
func seed() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
