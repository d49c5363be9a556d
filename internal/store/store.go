package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// ErrAway is returned at once, without a try, while the breaker is open.
var ErrAway = errors.New("store: redis is away")

// The monitor's rhythm: a stalled Redis is known within a second, and so is its return.
const (
	checkEvery   = 250 * time.Millisecond
	checkTimeout = 300 * time.Millisecond
	// embeddedTimeout is the least time that the embedded server is given.
	embeddedTimeout = 250 * time.Millisecond
	probeEvery      = 100 * time.Millisecond // while the breaker is open
)

// quiet keeps go-redis from writing to stderr on its own: each of its errors comes back to who asked,
// and the watch logs the connection's state once a change.
var quiet = sync.OnceFunc(func() { redis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// Store is the connection to Redis.
type Store struct {
	log      *slog.Logger
	metrics  *metrics
	addrs    []string
	embedded *embedded // nil with a Redis of its own
	fast     redis.UniversalClient
	slow     redis.UniversalClient

	breaker *breaker

	healthy    atomic.Bool
	generation atomic.Pointer[string]

	mu      sync.Mutex
	scripts []*redis.Script
	subs    map[chan bool]struct{}
}

// New makes the clients; it connects to nothing yet. Run starts the watch over the connection.
// reg may be nil.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Embedded() { // a late answer of this process is a busy processor, never a lost server
		cfg.Timeout = max(cfg.Timeout, embeddedTimeout)
		cfg.SlowTimeout = max(cfg.SlowTimeout, embeddedTimeout)
	}
	opts, err := options(cfg)
	if err != nil {
		return nil, err
	}
	quiet()
	s := &Store{log: log, addrs: cfg.Addrs, metrics: newMetrics(reg), subs: make(map[chan bool]struct{})}
	s.generation.Store(new(string))
	if cfg.Embedded() {
		if s.embedded, err = newEmbedded(); err != nil {
			return nil, err
		}
		opts.Addrs, opts.Dialer = []string{"embedded:0"}, s.embedded.dial
	}
	s.fast, s.slow = newClient(cfg.Mode, *opts, cfg.Timeout), newClient(cfg.Mode, *opts, cfg.SlowTimeout)
	s.breaker = newBreaker(s.metrics)
	s.fast.AddHook(&guard{metrics: s.metrics, timeout: cfg.Timeout, breaker: s.breaker})
	s.slow.AddHook(&guard{metrics: s.metrics, timeout: cfg.SlowTimeout})
	return s, nil
}

// Client is for what a call waits for: short time-outs, no retry, a breaker.
func (s *Store) Client() redis.UniversalClient { return s.fast }

// Blocking is for blocking reads and slow jobs: long time-outs, no retry, no breaker.
func (s *Store) Blocking() redis.UniversalClient { return s.slow }

// Embedded tells whether the server runs in this process.
func (s *Store) Embedded() bool { return s.embedded != nil }

// Healthy tells whether Redis answered when it was last asked, at most a second ago. It is false
// before Run has asked for the first time.
func (s *Store) Healthy() bool { return s.healthy.Load() }

// Changes tells of each change of Healthy and Generation: the newest Healthy wins, and its present value is
// the first.
// cancel ends it; the channel is never closed.
func (s *Store) Changes() (changes <-chan bool, cancel func()) {
	ch := make(chan bool, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	ch <- s.healthy.Load()
	s.subs[ch] = struct{}{}
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subs, ch)
	}
}

// Now is the clock of Redis, the only one that a score or a lease may be made of.
func (s *Store) Now(ctx context.Context) (time.Time, error) { return s.fast.Time(ctx).Result() }

// Script makes a script known under the name of its operation, which labels its metrics: one word
// of a closed set. It is loaded at each connect; should the server have lost it since,
// [redis.Script.Run] sends its text.
func (s *Store) Script(op, src string) *redis.Script {
	script := redis.NewScript(src)
	s.metrics.name(script.Hash(), op)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts = append(s.scripts, script)
	return script
}

// Generation names what Redis serves: another name is another server, or the same one started anew, which may
// have lost what was written last or all. Whoever told Redis of a state compares it with the one that it was
// told under. It is "" before Redis was first asked and where it cannot be known: in the embedded server, which
// lives as long as the process, and when the user may not INFO.
func (s *Store) Generation() string { return *s.generation.Load() }

// Run watches over the connection until ctx ends: it loads the scripts at each connect, keeps
// Healthy and Generation true to the facts, and closes the clients at its end.
func (s *Store) Run(ctx context.Context) error {
	if s.Embedded() {
		s.log.Info("store: embedded redis in this process; it keeps nothing over a restart")
	} else {
		s.log.Info("store: external redis", "addrs", s.addrs)
	}
	var probing sync.WaitGroup
	probing.Go(func() { s.probe(ctx) })
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		s.check(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			probing.Wait()
			return s.close()
		}
	}
}

// probe asks Redis as soon as the breaker opens, and until it answers.
func (s *Store) probe(ctx context.Context) {
	for {
		select {
		case <-s.breaker.tripped:
		case <-ctx.Done():
			return
		}
		for {
			if _, err := s.ask(pass(ctx), s.fast); !Away(err) {
				break
			}
			select {
			case <-time.After(probeEvery):
			case <-ctx.Done():
				return
			}
		}
		s.breaker.close()
	}
}

// check asks Redis, twice before it believes that it is away.
func (s *Store) check(ctx context.Context) {
	generation, err := s.ask(ctx, s.slow)
	if err != nil && ctx.Err() == nil {
		generation, err = s.ask(ctx, s.slow)
	}
	if err == nil && (!s.Healthy() || generation != s.Generation()) {
		err = s.load(ctx)
	}
	if ctx.Err() == nil {
		s.set(generation, err)
	}
}

// load loads every script, on each primary of a cluster.
func (s *Store) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	s.mu.Lock()
	scripts := append([]*redis.Script(nil), s.scripts...)
	s.mu.Unlock()
	for _, script := range scripts {
		if err := script.Load(ctx, s.slow).Err(); err != nil {
			return fmt.Errorf("load a script: %w", err)
		}
	}
	return nil
}

// set notes what a check found and tells of a change.
func (s *Store) set(generation string, err error) {
	up := err == nil
	was, before := s.healthy.Swap(up), s.Generation()
	if up {
		s.generation.Store(&generation)
	}
	if was == up && (!up || generation == before) {
		return
	}
	s.metrics.setUp(up)
	switch {
	case !up:
		s.log.Error("store: redis is away; calls go on without it", "err", err)
	case before != "" && generation != before:
		s.log.Warn("store: redis is here, and another than before; it may have lost what was written last")
	default:
		s.log.Info("store: redis is here")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.subs {
		select { // the newest wins
		case <-ch:
		default:
		}
		ch <- up // there is room: only this function sends, under the lock
	}
}

func (s *Store) close() error {
	err := errors.Join(s.fast.Close(), s.slow.Close())
	if s.embedded != nil {
		s.embedded.close()
	}
	return err
}
