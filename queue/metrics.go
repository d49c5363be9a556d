package queue

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/session"
)

// The closed labels.
var (
	exitReasons = []string{"answered", "abandon", "short_abandon", "timeout", "overflow", "emergency", "drained",
		"node_lost", "full"}
	offerResults = []string{"accept", "noanswer", "reject", "unreachable", "cancel", "fenced"}
)

// metrics of the queues. Counters are of this node's calls. The gauges of waiting callers and agents are
// of the whole line, and each node shows the same: take max by (queue), never the sum.
type metrics struct {
	waiting, oldest, ewt *prometheus.GaugeVec
	agents               *prometheus.GaugeVec
	stuck                *prometheus.GaugeVec
	local                prometheus.Gauge

	offered *prometheus.CounterVec
	exits   *prometheus.CounterVec
	offers  *prometheus.CounterVec
	wait    *prometheus.HistogramVec
	talk    *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, cfg Config) *metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "hotline_" + name, Help: help}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_" + name, Help: help}, labels)
	}
	m := &metrics{
		waiting: gauge("queue_waiting", "Callers who wait; the same on every node.", "queue"),
		oldest:  gauge("queue_oldest_seconds", "The longest wait so far; the same on every node.", "queue"),
		ewt:     gauge("queue_ewt_seconds", "The estimated wait of a new caller, 0 when there is none; the same on every node.", "queue"),
		agents:  gauge("agents", "Agents who are logged in; the same on every node.", "queue", "state"),
		stuck:   gauge("agent_stuck", "Agents in a state that nothing will end; any is a fault.", "state"),
		local: prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_queue_local",
			Help: "1 while this node queues on its own, without Redis."}),
		offered: counter("queue_offered_total", "Calls that entered a queue at this node.", "queue"),
		exits:   counter("queue_exit_total", "Calls that left a queue at this node.", "queue", "reason"),
		offers:  counter("agent_offers_total", "Offers to agents for this node's calls.", "queue", "result"),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hotline_queue_wait_seconds",
			Help:    "The wait until an agent answered or the caller left.",
			Buckets: []float64{1, 5, 10, 15, 20, 30, 60, 120, 300, 600}}, []string{"queue", "outcome"}),
		talk: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hotline_queue_talk_seconds",
			Help:    "The length of a talk with an agent.",
			Buckets: []float64{15, 30, 60, 120, 180, 300, 600, 1200, 3600}}, []string{"queue"}),
	}
	m.local.Set(1) // until Redis has been told
	for _, q := range cfg.Queues {
		m.zero(q.Name)
	}
	for _, state := range AgentStates() {
		m.stuck.WithLabelValues(string(state))
	}
	if reg != nil {
		reg.MustRegister(m.waiting, m.oldest, m.ewt, m.agents, m.stuck, m.local, m.offered, m.exits, m.offers, m.wait, m.talk)
	}
	return m
}

func (m *metrics) zero(queue string) {
	for _, vec := range []*prometheus.GaugeVec{m.waiting, m.oldest, m.ewt} {
		vec.WithLabelValues(queue)
	}
	m.offered.WithLabelValues(queue)
	m.talk.WithLabelValues(queue)
	for _, reason := range exitReasons {
		m.exits.WithLabelValues(queue, reason)
	}
	for _, result := range offerResults {
		m.offers.WithLabelValues(queue, result)
	}
	for _, outcome := range []string{"answered", "left"} {
		m.wait.WithLabelValues(queue, outcome)
	}
	for _, state := range AgentStates() {
		m.agents.WithLabelValues(queue, string(state))
	}
}

func (m *metrics) exit(queue, reason string) { m.exits.WithLabelValues(queue, reason).Inc() }

// byNode marks an event that only tells Redis what was counted while it was away.
const byNode = "sync"

// count counts an event of one of this node's calls.
func (m *metrics) count(e event, short time.Duration) {
	if e.reason == byNode {
		return
	}
	took := float64(e.elapsed) / 1000
	switch e.name {
	case EnterQueue:
		m.offered.WithLabelValues(e.queue).Inc()
	case Connect:
		m.offers.WithLabelValues(e.queue, "accept").Inc()
		m.exit(e.queue, "answered")
		m.wait.WithLabelValues(e.queue, "answered").Observe(took)
	case RingNoAnswer, RingCanceled:
		m.offers.WithLabelValues(e.queue, e.reason).Inc()
	case Abandon, ExitWithTimeout, ExitWithKey:
		reason := e.reason
		if reason == string(session.LeaveAbandon) && e.elapsed <= millis(short) {
			reason = "short_abandon"
		}
		if e.agent != "" { // a phone was ringing
			m.offers.WithLabelValues(e.queue, "cancel").Inc()
		}
		m.exit(e.queue, reason)
		m.wait.WithLabelValues(e.queue, "left").Observe(took)
	case CompleteAgent, CompleteCaller:
		m.talk.WithLabelValues(e.queue).Observe(took)
	}
}

// measure sets the gauges.
func (q *Queue) measure(ctx context.Context) {
	view, err := q.view(ctx, 0)
	if err != nil {
		q.deps.Log.Debug("queue: nothing to measure", "err", err)
		return // the gauges keep their values; hotline_store_up tells why
	}
	for _, state := range AgentStates() {
		q.metrics.stuck.WithLabelValues(string(state)).Set(float64(view.stuck(state)))
		for name := range q.queues {
			q.metrics.agents.WithLabelValues(name, string(state)).Set(float64(view.count(name, state)))
		}
	}
	for _, v := range view.queues {
		q.metrics.waiting.WithLabelValues(v.Name).Set(float64(v.Waiting))
		q.metrics.oldest.WithLabelValues(v.Name).Set(v.Oldest.Seconds())
		q.metrics.ewt.WithLabelValues(v.Name).Set(v.Estimate.Seconds())
	}
}
