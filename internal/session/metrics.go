package session

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/call"
)

type metrics struct {
	active           *prometheus.GaugeVec
	calls            *prometheus.CounterVec
	emergencies      *prometheus.CounterVec
	emergencySeconds prometheus.Histogram
	heard            *prometheus.CounterVec
	faults           *prometheus.CounterVec
	callBacks        *prometheus.CounterVec
}

// resultRefused is a call back that was not begun, for want of room.
const resultRefused = "refused"

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hotline_calls_active", Help: "Live calls by stage."}, []string{"phase"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_calls_total", Help: "Ended calls by outcome and end reason."}, []string{"outcome", "reason"}),
		emergencies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_emergencies_total", Help: "Calls for an emergency service, by service and who asked."}, []string{"service", "by"}),
		emergencySeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hotline_emergency_invite_seconds", Help: "From the choosing key to the INVITE to the service.",
			Buckets: []float64{.01, .025, .05, .1, .2, .3, .5, 1, 5, 15}}),
		heard: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_emergencies_heard_total", Help: "Danger that was heard in callers' words, by service and what came of it."}, []string{"service", "result"}),
		faults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_session_faults_total", Help: "Steps of a call that failed while the call went on."}, []string{"step"}),
		callBacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_call_backs_total", Help: "Attempts to call a caller back, by how they came out."}, []string{"result"}),
	}
	for _, s := range Stages() {
		m.active.WithLabelValues(string(s))
	}
	for _, o := range append(Outcomes(), OutcomeNone) {
		for _, r := range call.EndReasons() {
			m.calls.WithLabelValues(string(o), string(r))
		}
	}
	for _, s := range Services() {
		m.emergencies.WithLabelValues(string(s), "caller")
		m.emergencies.WithLabelValues(string(s), "agent")
		m.emergencies.WithLabelValues(string(s), byWords)
		for _, r := range []string{heardTransfer, heardAsked, heardCancelled, heardAlert} {
			m.heard.WithLabelValues(string(s), r)
		}
	}
	for _, step := range []string{"checkpoint", "recording", "intake", "journal", "ledger", "hearing", "panic"} {
		m.faults.WithLabelValues(step)
	}
	for _, r := range CallBackResults() {
		m.callBacks.WithLabelValues(string(r))
	}
	m.callBacks.WithLabelValues(resultRefused)
	if reg != nil {
		reg.MustRegister(m.active, m.calls, m.emergencies, m.emergencySeconds, m.heard, m.faults, m.callBacks)
	}
	return m
}

func (m *metrics) stage(s Stage, by float64) {
	if s != "" {
		m.active.WithLabelValues(string(s)).Add(by)
	}
}
