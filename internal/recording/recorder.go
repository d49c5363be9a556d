package recording

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/internal/session"
)

// The named answers of a recorder.
var (
	ErrTooMany        = errors.New("recording: as many recordings are open as max_open allows")
	ErrClosed         = errors.New("recording: the recorder has stopped")
	ErrNotFound       = errors.New("recording: no such recording")
	ErrKeyDestroyed   = errors.New("recording: the recording's key was destroyed")
	ErrHeld           = errors.New("recording: a legal hold forbids deletion")
	ErrUnsettled      = errors.New("recording: not yet settled with case intake")
	ErrUnfinished     = errors.New("recording: not finished")
	ErrNoListeningKey = errors.New("recording: no listening key is configured; set recording.listening_key_file to play recordings here")
)

const (
	cutEvery   = 50 * time.Millisecond
	syncEvery  = time.Second
	spaceEvery = 10 * time.Second
	sweepEvery = time.Hour
	queueLen   = 4096 // jobs a writer may have waiting
	syncers    = 8    // syncs at once; the file system joins them in one commit
)

// Deps is what a recorder needs.
type Deps struct {
	Log *slog.Logger
	Reg prometheus.Registerer // nil registers nothing
	// Space tells the free and the total bytes of the disk that holds dir; nil asks the system.
	Space func(dir string) (free, total uint64, err error)
}

// Recorder keeps calls. It implements [session.Recorder].
type Recorder struct {
	cfg    Config
	log    *slog.Logger
	met    *metrics
	space  func(dir string) (free, total uint64, err error)
	to     []age.Recipient
	listen []age.Identity

	queues  []chan func()
	free    atomic.Uint64 // math.Float64bits of the free share of the disk
	alarmed atomic.Bool
	stopped chan struct{} // closed when the writers are gone

	dayMu sync.Mutex
	day   string // the last day whose directory was made durable

	mu     sync.Mutex
	open   map[string]*recording
	calls  map[string][]string // the unsettled recordings of a call
	next   int                 // the queue of the next recording
	closed bool
}

var _ session.Recorder = (*Recorder)(nil)

// New makes a recorder. It reads the keys, makes the directories and asks for the disk's space.
func New(cfg Config, d Deps) (*Recorder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Recorder{
		cfg:     cfg,
		log:     d.Log,
		met:     newMetrics(d.Reg),
		space:   d.Space,
		stopped: make(chan struct{}),
		open:    make(map[string]*recording),
		calls:   make(map[string][]string),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.space == nil {
		r.space = statfs
	}
	if err := r.loadKeys(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, markers), 0o700); err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	for range cfg.Writers {
		r.queues = append(r.queues, make(chan func(), queueLen))
	}
	r.measureSpace()
	return r, nil
}

func (r *Recorder) loadKeys() error {
	for _, s := range r.cfg.Recipients {
		to, err := parseRecipient(s)
		if err != nil {
			return fmt.Errorf("recording: recipient %q: %w", s, err)
		}
		r.to = append(r.to, to)
	}
	if r.cfg.ListeningKeyFile == "" {
		return nil
	}
	ids, err := LoadIdentities(r.cfg.ListeningKeyFile)
	if err != nil {
		return err
	}
	for _, id := range ids {
		switch id := id.(type) {
		case *age.X25519Identity:
			r.to = append(r.to, id.Recipient())
		case *age.HybridIdentity:
			r.to = append(r.to, id.Recipient())
		}
	}
	r.listen = ids
	return nil
}

// Start opens a recording. It returns [session.ErrNoSpace] below the stop mark of the disk,
// [ErrTooMany] at max_open, [ErrClosed] after Run has ended, and ctx's cause when the disk did not
// answer in time; the call goes on without it then.
func (r *Recorder) Start(ctx context.Context, f session.RecordingFacts) (session.Recording, error) {
	rec, err := r.start(ctx, f)
	switch {
	case err == nil:
		return rec, nil
	case errors.Is(err, session.ErrNoSpace):
		r.met.recordings.WithLabelValues("no_space").Inc()
	case errors.Is(err, ErrTooMany):
		r.met.recordings.WithLabelValues("too_many").Inc()
	default:
		r.met.recordings.WithLabelValues("failed").Inc()
	}
	return nil, err
}

func (r *Recorder) start(ctx context.Context, f session.RecordingFacts) (*recording, error) {
	if r.freeShare() < r.cfg.Watermarks.Stop {
		return nil, session.ErrNoSpace
	}
	rec, err := r.admit(f)
	if err != nil {
		return nil, err
	}
	made := make(chan error, 1)
	if err := r.enqueue(ctx, rec.queue, func() { made <- rec.create() }); err != nil {
		r.forget(rec)
		return nil, err
	}
	select {
	case err = <-made:
	case <-ctx.Done():
		err = context.Cause(ctx)
		if !rec.state.CompareAndSwap(creating, abandoned) {
			err = <-made // it was made in this very moment
		}
	case <-r.stopped:
		err = ErrClosed
	}
	if err != nil {
		r.forget(rec)
		return nil, err
	}
	r.unsettled(f.CallID, rec.ID())
	return rec, nil
}

// SealFacts encrypts personal data of an unrecorded call to the agency's recipients; [OpenFacts]
// reads it without a wrapped key.
func (r *Recorder) SealFacts(facts []byte) ([]byte, error) {
	b, err := seal(facts, r.to...)
	if err != nil {
		return nil, fmt.Errorf("recording: seal facts: %w", err)
	}
	return b, nil
}

// admit makes a recording and a place for it.
func (r *Recorder) admit(f session.RecordingFacts) (*recording, error) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("recording: make a key: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	if len(r.open) >= r.cfg.MaxOpen {
		return nil, ErrTooMany
	}
	rec := newRecording(r, ulid.Make(), key, f)
	rec.queue = r.queues[r.next%len(r.queues)]
	r.next++
	r.open[rec.ID()] = rec
	r.met.open.Set(float64(len(r.open)))
	return rec, nil
}

func (r *Recorder) forget(rec *recording) {
	r.mu.Lock()
	delete(r.open, rec.ID())
	r.met.open.Set(float64(len(r.open)))
	r.mu.Unlock()
}

func (r *Recorder) isOpen(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[id] != nil
}

func (r *Recorder) opened() []*recording {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*recording, 0, len(r.open))
	for _, rec := range r.open {
		if rec.state.Load() == created {
			all = append(all, rec)
		}
	}
	return all
}

// enqueue gives a job to a writer and waits for room.
func (r *Recorder) enqueue(ctx context.Context, q chan func(), job func()) error {
	select {
	case q <- job:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.stopped:
		return ErrClosed
	}
}

// Run seals, writes, syncs and deletes until ctx ends. It then writes and syncs what it holds;
// recordings that were not finished are finished by Recover at the next start.
func (r *Recorder) Run(ctx context.Context) error {
	var writers errgroup.Group
	quit := make(chan struct{})
	for _, q := range r.queues {
		writers.Go(func() error { r.write(q, quit); return nil })
	}
	var timers errgroup.Group
	timers.Go(func() error { every(ctx, cutEvery, r.cut); return nil })
	timers.Go(func() error { every(ctx, syncEvery, r.sync); return nil })
	timers.Go(func() error { every(ctx, spaceEvery, r.measureSpace); return nil })
	timers.Go(func() error { r.sweepForever(ctx); return nil })
	_ = timers.Wait() // they return nothing but nil

	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	close(quit)
	_ = writers.Wait()
	close(r.stopped)
	for _, rec := range r.opened() {
		rec.abandonToRecovery()
	}
	return nil
}

// write runs jobs in order until quit, and then those that wait.
func (r *Recorder) write(q chan func(), quit <-chan struct{}) {
	for {
		select {
		case job := <-q:
			r.do(job)
			continue
		case <-quit:
		}
		for {
			select {
			case job := <-q:
				r.do(job)
			default:
				return
			}
		}
	}
}

// do runs a job. A fault in one recording must not end the others.
func (r *Recorder) do(job func()) {
	defer func() {
		if p := recover(); p != nil {
			r.met.recordings.WithLabelValues("failed").Inc()
			r.log.Error("a recording's writer panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	job()
}

func every(ctx context.Context, d time.Duration, f func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			f()
		case <-ctx.Done():
			return
		}
	}
}

// cut hands what is ready of every recording to the writers.
func (r *Recorder) cut() {
	for _, rec := range r.opened() {
		rec.cutReady()
	}
}

// sync makes everything written so far survive a power loss.
func (r *Recorder) sync() {
	began := time.Now()
	var g errgroup.Group
	g.SetLimit(syncers)
	n := 0
	for _, rec := range r.opened() {
		if rec.dirty.CompareAndSwap(true, false) {
			n++
			g.Go(func() error { rec.sync(); return nil })
		}
	}
	_ = g.Wait()
	if n > 0 {
		r.met.sync.Observe(time.Since(began).Seconds())
	}
}

func (r *Recorder) freeShare() float64 { return math.Float64frombits(r.free.Load()) }

// Optional tells whether the disk has room for data that no rule asks for.
func (r *Recorder) Optional() bool { return r.freeShare() >= r.cfg.Watermarks.Optional }

// measureSpace asks for the disk's space. A disk that does not tell is taken to have room: a write
// that fails says so itself.
func (r *Recorder) measureSpace() {
	share := 1.0
	free, total, err := r.space(r.cfg.Dir)
	if err == nil && total > 0 {
		share = float64(free) / float64(total)
	}
	r.free.Store(math.Float64bits(share))
	r.met.free.Set(share)
	low := share < r.cfg.Watermarks.Alarm
	if was := r.alarmed.Swap(low); low && !was {
		r.log.Warn("the recordings' disk runs full", "free_ratio", share,
			"stops_below", r.cfg.Watermarks.Stop)
	}
}
