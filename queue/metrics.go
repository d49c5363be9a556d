package queue

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/session"
)

// The closed labels.
var (
	exitReasons = []string{"answered", "abandon", "short_abandon", "timeout", "overflow", "emergency", "drained",
		"node_lost", "full"}
	callBackResults = []string{"answered", "noanswer", "busy", "failed", "agent_missed"}
	// reapedKinds are what a sweep ends; "odd" is what the check for stuck states mends.
	reapedKinds  = []string{"offer", "wrapup", "node", "call", "agent", "callback", "odd"}
	stuckAgents  = []string{"idle", "offered", "talk", "wrapup", "gone"}
	stuckCallers = []string{"waiting", "offered", "talk", "callback", "gone"}
	offerResults = []string{"accept", "noanswer", "reject", "unreachable", "cancel", "engaged", "fenced"}
)

// metrics of the queues. Counters are of this node's calls. The gauges of waiting callers and agents are
// of the whole line, and each node shows the same: take max by (queue), never the sum.
type metrics struct {
	waiting, oldest, ewt *prometheus.GaugeVec
	agents               *prometheus.GaugeVec
	stuck, stuckCallers  *prometheus.GaugeVec
	pending, owedFor     *prometheus.GaugeVec
	local                prometheus.Gauge

	attempts            *prometheus.CounterVec
	reaped              *prometheus.CounterVec
	unnumbered, dropped prometheus.Counter

	offered *prometheus.CounterVec
	exits   *prometheus.CounterVec
	offers  *prometheus.CounterVec
	wait    *prometheus.HistogramVec
	talk    *prometheus.HistogramVec
	acw     *prometheus.HistogramVec
	guessed *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, cfg Config) *metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "hotline_" + name, Help: help}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hotline_" + name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		waiting: gauge("queue_waiting", "Callers who wait; the same on every node.", "queue"),
		oldest:  gauge("queue_oldest_seconds", "The longest wait so far; the same on every node.", "queue"),
		ewt:     gauge("queue_ewt_seconds", "The estimated wait of a new caller, 0 when there is none; the same on every node.", "queue"),
		agents:  gauge("agents", "Agents who are logged in; the same on every node.", "queue", "state"),
		stuck:   gauge("agent_stuck", "Agents in a state that nothing will end, any is a fault; the same on every node.", "state"),
		stuckCallers: gauge("caller_stuck", "Callers and call backs in a state that nothing will end, any is a fault; the same on every node.",
			"state"),
		pending:  gauge("callback_pending", "Callers who are owed a call back; the same on every node.", "queue"),
		owedFor:  gauge("callback_oldest_seconds", "How long the first of them has been owed it; the same on every node.", "queue"),
		attempts: counter("callback_attempts_total", "Attempts to call back by this node.", "queue", "result"),
		reaped: counter("leases_reaped_total", "What this node's sweep ended because nobody did: offers and wrap-ups whose time was over, "+
			"silent nodes with their calls and agents, call backs whose call vanished; odd is what did not fit together and was mended.", "kind"),
		unnumbered: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_callback_unnumbered_total",
			Help: "Callers who left without an agent and whom nobody can call back, since they gave no number."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_callback_dropped_total",
			Help: "Call backs dropped because too many were open."}),
		local: prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_queue_local",
			Help: "1 while this node queues on its own, without Redis."}),
		offered: counter("queue_offered_total", "Calls that entered a queue at this node.", "queue"),
		exits:   counter("queue_exit_total", "Calls that left a queue at this node.", "queue", "reason"),
		offers:  counter("agent_offers_total", "Offers to agents for this node's calls.", "queue", "result"),
		wait: histogram("queue_wait_seconds", "The wait until an agent answered or the caller left.",
			[]float64{1, 5, 10, 15, 20, 30, 60, 120, 300, 600}, "queue", "outcome"),
		talk: histogram("queue_talk_seconds", "The length of a talk with an agent.",
			[]float64{15, 30, 60, 120, 180, 300, 600, 1200, 3600}, "queue"),
		acw: histogram("queue_acw_seconds", "The length of the wrap-up of this node's agents.",
			[]float64{5, 15, 30, 60, 120, 300, 600, 1800}, "queue"),
		guessed: histogram("queue_ewt_error_seconds", "How far the first estimate of an answered caller's wait was from the wait.",
			[]float64{5, 15, 30, 60, 120, 300, 600, 1800}, "queue"),
	}
	m.local.Set(1) // until Redis has been told
	for _, q := range cfg.Queues {
		m.zero(q.Name)
	}
	for _, state := range stuckAgents {
		m.stuck.WithLabelValues(state)
	}
	for _, state := range stuckCallers {
		m.stuckCallers.WithLabelValues(state)
	}
	for _, kind := range reapedKinds {
		m.reaped.WithLabelValues(kind)
	}
	if reg != nil {
		reg.MustRegister(m.waiting, m.oldest, m.ewt, m.agents, m.stuck, m.stuckCallers, m.pending, m.owedFor, m.attempts,
			m.reaped, m.unnumbered, m.dropped, m.acw, m.guessed, m.local, m.offered, m.exits, m.offers, m.wait, m.talk)
	}
	return m
}

func (m *metrics) zero(queue string) {
	for _, vec := range []*prometheus.GaugeVec{m.waiting, m.oldest, m.ewt, m.pending, m.owedFor} {
		vec.WithLabelValues(queue)
	}
	m.offered.WithLabelValues(queue)
	for _, vec := range []*prometheus.HistogramVec{m.talk, m.acw, m.guessed} {
		vec.WithLabelValues(queue)
	}
	for _, result := range callBackResults {
		m.attempts.WithLabelValues(queue, result)
	}
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
	if e.task != "" { // a call back is no caller of the queue; its attempts are counted where they end
		return
	}
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
		if e.name == Abandon && !e.numbered {
			m.unnumbered.Inc()
		}
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
		for name := range q.queues {
			q.metrics.agents.WithLabelValues(name, string(state)).Set(float64(view.count(name, state)))
		}
	}
	for _, v := range view.queues {
		q.metrics.waiting.WithLabelValues(v.Name).Set(float64(v.Waiting))
		q.metrics.oldest.WithLabelValues(v.Name).Set(v.Oldest.Seconds())
		q.metrics.ewt.WithLabelValues(v.Name).Set(v.Estimate.Seconds())
	}
	q.measureLedger(ctx)
}

// measureLedger sets the gauges of the call backs.
func (q *Queue) measureLedger(ctx context.Context) {
	for name := range q.queues {
		var n int64
		var first []redis.Z
		now := time.Now()
		err := q.act(ctx, func(ctx context.Context) (err error) {
			if n, err = q.scripts.client.ZCard(ctx, prefix+":cb:"+name).Result(); err != nil {
				return err
			}
			first, err = q.scripts.client.ZRangeWithScores(ctx, prefix+":cb:"+name, 0, 0).Result()
			return err
		}, away)
		if err != nil {
			return // the gauges keep their values
		}
		q.metrics.pending.WithLabelValues(name).Set(float64(n))
		q.metrics.owedFor.WithLabelValues(name).Set(0)
		if len(first) > 0 {
			q.metrics.owedFor.WithLabelValues(name).Set(max(0, now.Sub(moment(int64(first[0].Score))).Seconds()))
		}
	}
}
