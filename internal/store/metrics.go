package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// plain are the commands that have a label of their own; every other one is "other".
var plain = map[string]bool{
	"ping": true, "time": true, "script": true, "get": true, "set": true, "del": true,
	"hget": true, "hgetall": true, "hset": true, "xadd": true, "xread": true, "xrange": true,
}

const otherOp = "other"

type metrics struct {
	seconds *prometheus.HistogramVec
	errors  *prometheus.CounterVec
	up      prometheus.Gauge
	open    prometheus.Gauge

	mu    sync.RWMutex
	named map[string]string // a script's hash, its operation
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hotline_state_op_seconds", Help: "Time of an operation on Redis, refusals by the breaker not counted.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .02, .05, .1, .25, 1},
		}, []string{"op"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_state_errors_total", Help: "Operations on Redis that failed or were refused by the breaker.",
		}, []string{"op"}),
		up: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hotline_store_up", Help: "1 while Redis answers.",
		}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hotline_store_breaker_open", Help: "1 while the breaker refuses operations at once.",
		}),
		named: make(map[string]string),
	}
	m.zero(otherOp)
	for op := range plain {
		m.zero(op)
	}
	if reg != nil {
		reg.MustRegister(m.seconds, m.errors, m.up, m.open)
	}
	return m
}

func (m *metrics) zero(op string) {
	m.seconds.WithLabelValues(op)
	m.errors.WithLabelValues(op)
}

// name labels a script's calls.
func (m *metrics) name(hash, op string) {
	m.zero(op)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.named[hash] = op
}

// op is the label of a command.
func (m *metrics) op(cmd redis.Cmder) string {
	name := cmd.Name()
	switch {
	case plain[name]:
		return name
	case name != "evalsha" && name != "eval":
		return otherOp
	}
	hash, ok := cmd.Args()[1].(string)
	if name == "eval" && ok { // the fall-back after NOSCRIPT sends the text
		hash = redis.NewScript(hash).Hash()
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if op, ok := m.named[hash]; ok {
		return op
	}
	return otherOp
}

func (m *metrics) observe(op string, took time.Duration, err error) {
	m.seconds.WithLabelValues(op).Observe(took.Seconds())
	if err != nil && !errors.Is(err, redis.Nil) && !errors.Is(err, context.Canceled) {
		m.errors.WithLabelValues(op).Inc()
	}
}

func (m *metrics) refuse(op string) { m.errors.WithLabelValues(op).Inc() }

func (m *metrics) setUp(up bool) { m.up.Set(number(up)) }

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
