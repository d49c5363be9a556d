package journal

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	errors  *prometheus.CounterVec
	dropped prometheus.Counter
	seconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_journal_errors_total",
			Help: "Acts on the journal that failed by kind, found the buffer full, or the disk slow."}, []string{"kind"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_journal_dropped_total",
			Help: "Timeline entries dropped because the buffer was full."}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "hotline_journal_batch_seconds",
			Help: "Time to write a batch.", Buckets: []float64{.001, .005, .02, .05, .1, .25, .5, 1, 5}}),
	}
	for _, k := range []string{"cdr", "entry", "checkpoint", "load", "callback", "sweep", "full", "slow"} {
		m.errors.WithLabelValues(k)
	}
	if reg != nil {
		reg.MustRegister(m.errors, m.dropped, m.seconds)
	}
	return m
}
