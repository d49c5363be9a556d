// Package console is the web console and the JSON API of the line.
//
// Pages are made on the server from html/template. Each action is a plain form that works without
// JavaScript; htmx only keeps what is live up to date (server-sent events) and keeps an agent's
// half-written form on the screen while they act. Nothing on a page is inline, so the content
// security policy needs no exception.
//
// What is shown of a caller is masked. The name and the contact of a call's facts are shown to the
// agent of that call alone (Art. 20).
package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is the console's part of the configuration.
type Config struct {
	// SecureCookies marks the cookies as for HTTPS only: true behind TLS, false on plain loopback.
	SecureCookies bool `yaml:"secure_cookies" json:"secure_cookies"`
	// Streams bounds the live pages open at once, 1 to 10000. One more gets 503 and goes on without.
	Streams int `yaml:"streams" json:"streams"`
	// Heartbeat is the longest silence on a live page's stream, 1s to 60s.
	Heartbeat time.Duration `yaml:"heartbeat" json:"heartbeat"`
	// Refresh is how often queues, agents and trunks are asked while somebody looks, 200ms to 10s.
	// Changes of calls are shown at once.
	Refresh time.Duration `yaml:"refresh" json:"refresh"`
}

// Defaults are the settings that need no file.
func Defaults() Config {
	return Config{Streams: 500, Heartbeat: 15 * time.Second, Refresh: time.Second}
}

// Validate says what is wrong and what to write instead.
func (c Config) Validate() error {
	var errs []error
	if c.Streams < 1 || c.Streams > 10_000 {
		errs = append(errs, fmt.Errorf("streams: %d is out of range; write 1 to 10000", c.Streams))
	}
	if c.Heartbeat < time.Second || c.Heartbeat > time.Minute {
		errs = append(errs, fmt.Errorf("heartbeat: %s is out of range; write 1s to 60s", c.Heartbeat))
	}
	if c.Refresh < 200*time.Millisecond || c.Refresh > 10*time.Second {
		errs = append(errs, fmt.Errorf("refresh: %s is out of range; write 200ms to 10s", c.Refresh))
	}
	return errors.Join(errs...)
}

// Console serves the pages and the API.
type Console struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	views   *views
	feed    *feed
	metrics *metrics
	routes  []route
	openapi []byte
	now     func() time.Time
	owed    atomic.Int64 // the call backs of the last picture, for the number in the navigation
}

// New makes a console. A nil registerer registers no metrics.
func New(cfg Config, deps Deps, log *slog.Logger, reg prometheus.Registerer) (*Console, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	v, err := newViews()
	if err != nil {
		return nil, err
	}
	c := &Console{cfg: cfg, deps: deps, log: log, views: v, metrics: newMetrics(reg), now: time.Now}
	c.feed = newFeed(cfg, c.snapshot, c.metrics)
	c.routes = c.routeTable()
	if c.openapi, err = openAPI(c.routes); err != nil {
		return nil, err
	}
	return c, nil
}

// Run feeds the live pages until ctx ends, and then ends their streams.
func (c *Console) Run(ctx context.Context) error { return c.feed.run(ctx, c.deps.Calls) }

// Handler serves everything below "/". It refuses what another site's page sends.
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range c.routes {
		mux.Handle(r.method+" "+r.path, c.gate(r))
	}
	mux.Handle("GET /static/", staticFiles())
	mux.Handle("/", http.HandlerFunc(c.notFound))
	return secured(http.NewCrossOriginProtection().Handler(mux))
}
