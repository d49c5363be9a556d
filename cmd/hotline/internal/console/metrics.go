package console

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	streams prometheus.Gauge
	refused prometheus.Counter
	slow    prometheus.Counter
	logins  *prometheus.CounterVec // by result
}

// The results of a log-in: closed, and present from the start.
var loginResults = []string{"ok", "wrong", "limited", "failed"}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_console_streams",
			Help: "Live pages that are open."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_console_streams_refused_total",
			Help: "Live pages refused because as many as allowed were open."}),
		slow: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_console_streams_dropped_total",
			Help: "Live pages ended because their reader was too slow."}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_console_logins_total",
			Help: "Log-ins on the console by result."}, []string{"result"}),
	}
	for _, r := range loginResults {
		m.logins.WithLabelValues(r)
	}
	if reg != nil {
		reg.MustRegister(m.streams, m.refused, m.slow, m.logins)
	}
	return m
}
