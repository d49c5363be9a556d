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
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/sony/gobreaker/v2"
)

// ErrAway is returned at once, without a try, while the breaker is open.
var ErrAway = errors.New("store: redis is away")

// The monitor's rhythm: a stalled Redis is known within a second, and so is its return.
const (
	checkEvery   = 250 * time.Millisecond
	checkTimeout = 300 * time.Millisecond
	// embeddedTimeout is the least time that the embedded server is given.
	embeddedTimeout = 250 * time.Millisecond
	openFor         = 500 * time.Millisecond // how long the breaker refuses before it probes
	tripAfter       = 3                      // failures in a row
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

	healthy atomic.Bool

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
	if cfg.Embedded() {
		if s.embedded, err = newEmbedded(); err != nil {
			return nil, err
		}
		opts.Addrs, opts.Dialer = []string{"embedded:0"}, s.embedded.dial
	}
	slow := *opts
	slow.DialTimeout, slow.ReadTimeout, slow.WriteTimeout = cfg.SlowTimeout, cfg.SlowTimeout, cfg.SlowTimeout
	slow.PoolTimeout = cfg.SlowTimeout
	s.fast, s.slow = redis.NewUniversalClient(opts), redis.NewUniversalClient(&slow)
	breaker := gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:      openFor,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		IsSuccessful: func(err error) bool { return !Away(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			s.metrics.breaker(to)
		},
	})
	s.fast.AddHook(&guard{metrics: s.metrics, breaker: breaker})
	s.slow.AddHook(&guard{metrics: s.metrics})
	return s, nil
}

func options(cfg Config) (*redis.UniversalOptions, error) {
	password, err := secret("password_file", cfg.PasswordFile)
	if err != nil {
		return nil, err
	}
	sentinelPassword, err := secret("sentinel_password_file", cfg.SentinelPasswordFile)
	if err != nil {
		return nil, err
	}
	tlsConf, err := cfg.TLS.load()
	if err != nil {
		return nil, err
	}
	opts := &redis.UniversalOptions{
		Addrs: cfg.Addrs, DB: cfg.DB, TLSConfig: tlsConf,
		Username: cfg.Username, Password: password,
		SentinelUsername: cfg.SentinelUsername, SentinelPassword: sentinelPassword,
		IsClusterMode: cfg.Mode == Cluster,
		DialTimeout:   cfg.Timeout, ReadTimeout: cfg.Timeout, WriteTimeout: cfg.Timeout,
		PoolTimeout: cfg.Timeout, PoolSize: cfg.PoolSize,
		ContextTimeoutEnabled: true,
		MaxRetries:            -1, // a script that timed out may have run: trying again is its owner's choice
		DialerRetries:         1,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}
	if cfg.Mode == Sentinel {
		opts.MasterName = cfg.MasterName
	}
	return opts, nil
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

// Changes tells of each change of Healthy, the newest winning, and of its present value at first.
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

// Run watches over the connection until ctx ends: it loads the scripts at each connect, keeps
// Healthy true to the facts, and closes the clients at its end.
func (s *Store) Run(ctx context.Context) error {
	if s.Embedded() {
		s.log.Info("store: embedded redis in this process; it keeps nothing over a restart")
	} else {
		s.log.Info("store: external redis", "addrs", s.addrs)
	}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		s.check(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return s.close()
		}
	}
}

// check asks Redis, twice before it believes that it is away.
func (s *Store) check(ctx context.Context) {
	err := s.ask(ctx)
	if err != nil && ctx.Err() == nil {
		err = s.ask(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	s.fast.Ping(ctx) // closes the breaker again without waiting for a call; its error is the breaker's affair
	s.set(err)
}

func (s *Store) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if s.Healthy() {
		return s.slow.Ping(ctx).Err()
	}
	return s.load(ctx)
}

// load loads every script, on each primary of a cluster.
func (s *Store) load(ctx context.Context) error {
	s.mu.Lock()
	scripts := append([]*redis.Script(nil), s.scripts...)
	s.mu.Unlock()
	if err := s.slow.Ping(ctx).Err(); err != nil {
		return err
	}
	for _, script := range scripts {
		if err := script.Load(ctx, s.slow).Err(); err != nil {
			return fmt.Errorf("load a script: %w", err)
		}
	}
	return nil
}

// set notes what a check found and tells of a change.
func (s *Store) set(err error) {
	up := err == nil
	if s.healthy.Swap(up) == up {
		return
	}
	s.metrics.setUp(up)
	if up {
		s.log.Info("store: redis is here")
	} else {
		s.log.Error("store: redis is away; calls go on without it", "err", err)
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
