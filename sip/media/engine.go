package media

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/prometheus/client_golang/prometheus"
)

// ErrNoPorts means that every pair of ports is taken: the answer to the caller is 503.
var ErrNoPorts = errors.New("media: no free pair of RTP ports")

// ErrClosed means that the session was closed. It is also [call.ErrLegGone].
var ErrClosed = fmt.Errorf("media: the session is closed: %w", call.ErrLegGone)

// portTries bounds how many ports are tried when other programs hold some of the range.
const portTries = 32

// maxWatchers is how many goroutines read the sockets, where there are so many processors: each serves a
// thousand legs and more.
const maxWatchers = 8

// Deps are what an engine works with. Each may be left out.
type Deps struct {
	Log        *slog.Logger
	Registerer prometheus.Registerer
	Listen     Listen // nil: UDP sockets of the system
}

// Engine owns the RTP ports and the timer wheels of a gateway.
type Engine struct {
	cfg      Config
	log      *slog.Logger
	listen   Listen
	metrics  *metrics
	ports    *portPool // nil: the kernel chooses
	wheels   []*wheel
	watchers []watcher
	work     sync.WaitGroup // taps, callbacks

	mu       sync.Mutex
	next     int // the wheel that the next stream goes to
	sessions map[*Session]struct{}
	closed   bool
}

// New makes an engine. Its streams move only while [Engine.Run] runs, which must be called.
func New(cfg Config, deps Deps) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	e := &Engine{
		cfg:      cfg,
		log:      deps.Log,
		listen:   deps.Listen,
		metrics:  newMetrics(deps.Registerer),
		sessions: make(map[*Session]struct{}),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	most := wheelCapacity
	if cfg.PortMin != 0 {
		e.ports = newPortPool(cfg.PortMin, cfg.PortMax)
		most = e.ports.size()
		e.metrics.portsFree.Set(float64(most))
	}
	for range (most + wheelCapacity - 1) / wheelCapacity {
		e.wheels = append(e.wheels, newWheel(e.log, e.metrics))
	}
	return e, e.ownSockets()
}

// ownSockets reads and writes the system's sockets itself, unless others are given: many packets by one system
// call where the system lets it.
func (e *Engine) ownSockets() error {
	if e.listen != nil {
		return nil
	}
	e.listen = listenUDP
	if e.cfg.IOUring {
		err := e.gather()
		if err == nil {
			e.metrics.ioUring.Set(1)
			return nil
		}
		e.log.Info("each RTP packet takes a system call: the system gives no io_uring (a container's seccomp profile, or kernel.io_uring_disabled)", "err", err)
	}
	return e.watchBy(newPoller)
}

// gather reads by io_uring, and gives each wheel an outbox.
func (e *Engine) gather() error {
	for _, w := range e.wheels {
		out, err := newOutbox(e.metrics)
		if err != nil {
			e.scatter()
			return err
		}
		w.out = out
	}
	if err := e.watchBy(newRingWatcher); err != nil {
		e.scatter()
		return err
	}
	return nil
}

// scatter takes back what gather has done.
func (e *Engine) scatter() {
	for _, w := range e.wheels {
		w.out.close()
		w.out = nil
	}
}

func (e *Engine) watchBy(kind func(*Engine) (watcher, error)) error {
	for range min(runtime.GOMAXPROCS(0), maxWatchers) {
		w, err := kind(e)
		if err != nil {
			for _, w := range e.watchers {
				w.close()
			}
			e.watchers = nil
			return err
		}
		e.watchers = append(e.watchers, w)
	}
	return nil
}

// Scarce tells whether the ports that are left are for emergencies alone.
func (e *Engine) Scarce() bool {
	return e.ports != nil && e.ports.kept > 0 && e.ports.scarce(time.Now())
}

// AdvertiseIP is the address that session descriptions show.
func (e *Engine) AdvertiseIP() netip.Addr { return e.cfg.advertise() }

// Run drives the streams until ctx ends, closes every session that is left and waits for all that
// the engine started.
func (e *Engine) Run(ctx context.Context) error {
	var wheels sync.WaitGroup
	for _, w := range e.wheels {
		wheels.Go(func() { w.run(ctx) })
	}
	for _, w := range e.watchers {
		wheels.Go(func() { w.run(ctx) })
	}
	<-ctx.Done()
	wheels.Wait()
	e.mu.Lock()
	e.closed = true
	left := make([]*Session, 0, len(e.sessions))
	for s := range e.sessions {
		left = append(left, s)
	}
	e.mu.Unlock()
	for _, s := range left {
		s.Close()
	}
	e.work.Wait()
	for _, w := range e.watchers {
		w.close()
	}
	return nil
}

// SessionOptions describe a new session.
type SessionOptions struct {
	ID string // the call's identity, for the log
	// RelayDTMF sends the keys of the other party of a relay on to this leg as telephone-events.
	// Without it, and in a mix, they are told to [Session.OnDigit] alone.
	RelayDTMF bool
	// Emergency takes of the pairs of ports that are kept: for a service, or a caller on a kept place.
	Emergency bool
}

// NewSession opens the ports of a leg and begins to read. It sends nothing before
// [Session.Remote]. The error is [ErrNoPorts] when the range is used up.
func (e *Engine) NewSession(opts SessionOptions) (*Session, error) {
	rtp, rtcp, port, err := e.open(opts.Emergency)
	if err != nil {
		e.metrics.noPorts.Inc()
		return nil, fmt.Errorf("%w: %w", ErrNoPorts, err)
	}
	s := newSession(e, opts, rtp, rtcp)
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		_ = s.rtp.Close()
		_ = s.rtcp.Close()
		e.release(port, false)
		return nil, ErrClosed
	}
	e.sessions[s] = struct{}{}
	s.wheel = e.pickWheel()
	s.listen()
	e.mu.Unlock()
	e.metrics.sessions.Inc()
	s.wheel.add(s)
	return s, nil
}

// open opens a pair of ports, stepping over those that other programs hold.
func (e *Engine) open(emergency bool) (rtp, rtcp socket, port int, err error) {
	err = errors.New("the pool is empty")
	for range portTries {
		if e.ports != nil {
			p, ok := e.ports.take(time.Now(), emergency)
			if !ok {
				break
			}
			port = p
		}
		rtp, rtcp, err = e.openPair(port)
		if err == nil {
			e.countPorts()
			return rtp, rtcp, port, nil
		}
		e.release(port, true)
	}
	return nil, nil, 0, err
}

// release gives a port back to the pool.
func (e *Engine) release(port int, used bool) {
	if e.ports != nil {
		e.ports.release(port, used, time.Now())
		e.countPorts()
	}
}

func (e *Engine) countPorts() {
	if e.ports != nil {
		e.metrics.portsFree.Set(float64(e.ports.size()))
	}
}

// pickWheel deals streams to the wheels in turn. e.mu is held.
func (e *Engine) pickWheel() *wheel {
	w := e.wheels[e.next%len(e.wheels)]
	e.next++
	return w
}

// forget drops a closed session.
func (e *Engine) forget(s *Session) {
	e.mu.Lock()
	delete(e.sessions, s)
	e.mu.Unlock()
	e.metrics.sessions.Dec()
}

// caught reports a panic on the way of the packets; it is deferred.
func (e *Engine) caught(id, where string) {
	if r := recover(); r != nil {
		e.metrics.panics.Inc()
		e.log.Error("media panicked", "call", id, "in", where, "panic", r, "stack", string(debug.Stack()))
	}
}
