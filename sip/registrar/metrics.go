package registrar

import "github.com/prometheus/client_golang/prometheus"

// result is how a request to the registrar came out: a closed set.
type result string

const (
	registered  result = "registered"
	refreshed   result = "refreshed"
	removed     result = "removed"
	queried     result = "queried"
	challenged  result = "challenged"
	stale       result = "stale"
	replayed    result = "replayed"
	denied      result = "denied"
	locked      result = "locked"
	bad         result = "bad"
	brief       result = "brief"
	full        result = "full"
	unavailable result = "unavailable"
	admitted    result = "admitted" // a request other than REGISTER
)

type metrics struct {
	requests *prometheus.CounterVec
	bindings prometheus.Gauge
	evicted  prometheus.Counter
	expired  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_registrar_requests_total",
			Help: "Requests of phones by how they came out."}, []string{"result"}),
		bindings: prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_registrar_bindings",
			Help: "Phones that are registered at this node."}),
		evicted: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_registrar_evicted_total",
			Help: "Phones that a newer phone of their extension took the place of."}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_registrar_expired_total",
			Help: "Phones that did not register again in time."}),
	}
	for _, r := range []result{registered, refreshed, removed, queried, challenged, stale, replayed, denied,
		locked, bad, brief, full, unavailable, admitted} {
		m.requests.WithLabelValues(string(r))
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.bindings, m.evicted, m.expired)
	}
	return m
}

func (m *metrics) count(r result) { m.requests.WithLabelValues(string(r)).Inc() }
