package speech

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/trust"
	"github.com/hotline12345/gateway/ivr/premises"
)

// Recogniser is a server that hears callers. It is safe for use by several goroutines at once.
type Recogniser struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	client  *http.Client
	places  chan struct{}
	streams sync.WaitGroup
	open    atomic.Int64 // connections
	away    atomic.Bool  // the last one could not be made, or failed
	backoff time.Duration
}

// The times of a connection.
const (
	dialFor   = 2 * time.Second
	patience  = 5 * time.Second // for an answer, and for room to write
	firstWait = 250 * time.Millisecond
	longest   = 8 * time.Second
	lookEvery = 15 * time.Second
)

// maxAnswer is how long an answer may be, in bytes.
const maxAnswer = 64 << 10

// New makes a recogniser of a valid configuration that is on. It connects to nothing yet.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Recogniser, error) {
	transport := &http.Transport{DialContext: premises.Dialer(dialFor, cfg.Public).DialContext}
	if cfg.CAFile != "" {
		roots, err := trust.Roots(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("speech.ca_file: %w", err)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	r := &Recogniser{cfg: cfg, log: log, metrics: newMetrics(reg), places: make(chan struct{}, cfg.MaxStreams), backoff: firstWait}
	r.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return r, nil
}

// Run looks after the server while nobody is heard, until ctx ends; then it waits for the streams, which end with their calls.
func (r *Recogniser) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if r.open.Load() == 0 {
			r.look(ctx)
		}
		select {
		case <-ctx.Done():
			r.streams.Wait()
			return nil
		case <-tick.C:
		}
	}
}

// look connects and leaves again.
func (r *Recogniser) look(ctx context.Context) {
	if err := r.Check(ctx); ctx.Err() == nil {
		r.told(err)
	}
}

// told takes the news of the server, and logs a change.
func (r *Recogniser) told(err error) {
	if err != nil {
		r.metrics.failed(err)
	}
	away := err != nil
	if r.away.Swap(away) == away {
		return
	}
	if away {
		r.log.Warn("the recogniser fails; callers have their keys", "err", err)
	} else {
		r.log.Info("the recogniser hears again")
	}
}

// Check tells whether the server can be reached; the error says why not.
func (r *Recogniser) Check(ctx context.Context) error {
	conn, err := r.dial(ctx)
	if err == nil {
		_ = conn.CloseNow() // nothing was said on it
	}
	return err
}

// Away tells that no caller can be heard at the moment.
func (r *Recogniser) Away() bool { return r.away.Load() && r.open.Load() == 0 }

func (r *Recogniser) dial(ctx context.Context) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialFor)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, r.cfg.Vosk.URL, &websocket.DialOptions{HTTPClient: r.client})
	if err != nil {
		return nil, errors.Join(errAway, err)
	}
	conn.SetReadLimit(maxAnswer)
	return conn, nil
}

// Contain runs f, which works for one caller who is heard: its panic is counted, and leaves that caller the keys.
func (r *Recogniser) Contain(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			r.metrics.errors.WithLabelValues(panicked).Inc()
			r.log.Error("the hearing of a caller panicked", "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("speech: a panic: %v", v)
		}
	}()
	return f()
}

// Start begins to hear a caller. Close ends it. It fails with [ErrFull].
func (r *Recogniser) Start() (*Stream, error) {
	select {
	case r.places <- struct{}{}:
	default:
		r.metrics.refused.Inc()
		return nil, ErrFull
	}
	r.metrics.streams.Inc()
	ctx, cancel := context.WithCancel(context.Background())
	s := &Stream{r: r, end: cancel, results: make(chan Result, 8)}
	s.tape.more = make(chan struct{}, 1)
	r.streams.Go(func() {
		defer func() { <-r.places; r.metrics.streams.Dec() }()
		_ = r.Contain(func() error { s.run(ctx); return nil }) // which tells of it
	})
	return s, nil
}
