package abuse

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
)

type metrics struct {
	decisions *prometheus.CounterVec
	failOpen  *prometheus.CounterVec
	occupied  *prometheus.CounterVec
	counted   *prometheus.CounterVec
	leases    prometheus.Gauge
	told      *prometheus.CounterVec
	held      prometheus.Gauge
	wait      prometheus.Histogram
	measures  prometheus.Gauge
	age       prometheus.Gauge
	listed    *prometheus.GaugeVec
	shadow    *prometheus.CounterVec
}

// outcomesOf are the ways that each rule can rule; every other pair is impossible.
var outcomesOf = map[Rule]session.Decision{
	RuleOwnNumber: session.RejectNet, RuleDanger: AdmitEmergency, RuleProgress: AdmitProgress, RuleMeasure: session.IVROnly, RuleLease: session.QueueLease,
	RuleRepeat: session.AdmitWatch, RuleLong: session.AdmitWatch, RuleNone: session.Admit,
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_abuse_decisions_total",
			Help: "Decisions of admission, by the rule that decided and the action taken. A call that waits for a lease is decided on again and again.",
		}, []string{"rule", "action"}),
		failOpen: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_admission_failopen_total",
			Help: "Callers admitted without asking Redis, by why it could not be asked.",
		}, []string{"reason"}),
		occupied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_abuse_occupied_seconds_total",
			Help: "Seconds for which calls occupied the line, by phase.",
		}, []string{"phase"}),
		counted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_abuse_counted_total",
			Help: "Calls that count under the policy, by result: counted, or lost (Redis was away; never made up for).",
		}, []string{"result"}),
	}
	m.ofLeases()
	m.ofMeasures()
	for rule, decision := range outcomesOf {
		m.decisions.WithLabelValues(string(rule), string(decision))
	}
	for _, r := range []string{"breaker", "timeout", "connection", "answer", "keys"} {
		m.failOpen.WithLabelValues(r)
	}
	for _, p := range phases {
		m.occupied.WithLabelValues(string(p))
	}
	for _, r := range []string{"yes", "no"} {
		m.told.WithLabelValues(r)
	}
	for _, r := range []string{"counted", "lost"} {
		m.counted.WithLabelValues(r)
	}
	if reg != nil {
		reg.MustRegister(m.decisions, m.failOpen, m.occupied, m.counted, m.leases, m.told, m.held, m.wait, m.measures, m.age, m.listed, m.shadow)
	}
	return m
}

// ofLeases makes the metrics of leases.
func (m *metrics) ofLeases() {
	m.leases = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "hotline_abuse_leases",
		Help: "Calls of this node that hold a lease of their number.",
	})
	m.told = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hotline_abuse_leases_retaken_total",
		Help: "Running calls whose place Redis had lost, or never knew of, and that a heartbeat took again, by whether the number had room for it.",
	}, []string{"room"})
	m.wait = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "hotline_abuse_lease_wait_seconds",
		Help:    "Time from the INVITE to the lease.",
		Buckets: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 1, 5, 15, 30, 60, 120},
	})
}

// ofMeasures makes the metrics of measures.
func (m *metrics) ofMeasures() {
	m.measures = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "hotline_abuse_blocks_active",
		Help: "Measures that run, as last read.",
	})
	m.held = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "hotline_abuse_rebuild_held",
		Help: "Measures that wait to be put into an emptied Redis, until the chain of every living node was seen or a manager confirms.",
	})
	m.age = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "hotline_abuse_snapshot_timestamp_seconds",
		Help: "When the copy of the running measures was last read.",
	})
	m.shadow = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hotline_abuse_shadow_total",
		Help: "Decisions that the shadow policy was asked about, by whether it would have decided the same.",
	}, []string{"act", "result"})
	for _, act := range []string{shadowInvite, shadowPropose, shadowApprove} {
		for _, same := range []bool{true, false} {
			m.shadow.WithLabelValues(act, sameOr(same))
		}
	}
	m.listed = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "hotline_abuse_listed",
		Help: "Lines of the lists of protected people, access needs, shared numbers and payphones.",
	}, []string{"list"})
}

// reason names why Redis could not be asked, out of a closed set.
func reason(err error) string {
	var network net.Error
	isNet := errors.As(err, &network)
	switch {
	case errors.Is(err, errKeys):
		return "keys"
	case errors.Is(err, store.ErrAway):
		return "breaker"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, redis.ErrPoolTimeout), isNet && network.Timeout():
		return "timeout"
	case isNet, errors.Is(err, io.EOF), errors.Is(err, context.Canceled):
		return "connection"
	default:
		return "answer" // it came, and was an error or made no sense
	}
}

func (m *metrics) occupy(p session.Phase, d time.Duration) {
	m.occupied.WithLabelValues(string(p)).Add(d.Seconds())
}
