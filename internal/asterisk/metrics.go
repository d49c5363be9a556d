package asterisk

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests  *prometheus.HistogramVec
	events    *prometheus.CounterVec
	connected prometheus.Gauge
	legs      prometheus.Gauge
	refused   *prometheus.CounterVec
	dropped   *prometheus.CounterVec
	panics    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hotline_ari_request_seconds",
			Help:    "Time of a request to Asterisk, by method and whether Asterisk answered.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .5, 2}}, []string{"method", "result"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_ari_events_total",
			Help: "Events of Asterisk: handled, or unknown and passed over."}, []string{"result"}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_ari_connected", Help: "1 while the event connection to Asterisk stands."}),
		legs:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_ari_legs", Help: "Legs of this node on Asterisk."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_ari_refused_total",
			Help: "What was refused, by why: calls from Asterisk, and recordings of calls for which it has no ports left."}, []string{"why"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_ari_dropped_total",
			Help: "What a full buffer dropped: keys, events of a leg, frames of a tap."}, []string{"what"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_ari_panics_total", Help: "Panics of a call's handler that ended that call."}),
	}
	for _, method := range []string{"GET", "POST", "DELETE"} {
		m.requests.WithLabelValues(method, "answered")
		m.requests.WithLabelValues(method, "failed")
	}
	for _, result := range []string{"handled", "unknown"} {
		m.events.WithLabelValues(result)
	}
	for _, why := range []string{"full", "draining", "endpoint", "ports"} {
		m.refused.WithLabelValues(why)
	}
	for _, what := range []string{"digit", "event", "frame"} {
		m.dropped.WithLabelValues(what)
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.events, m.connected, m.legs, m.refused, m.dropped, m.panics)
	}
	return m
}

func (m *metrics) request(method string, took time.Duration, answered bool) {
	result := "failed"
	if answered {
		result = "answered"
	}
	m.requests.WithLabelValues(method, result).Observe(took.Seconds())
}
