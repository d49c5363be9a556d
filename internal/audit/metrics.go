package audit

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	entries, refused, failed prometheus.Counter
	sync                     prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	results := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hotline_audit_entries_total",
		Help: "Entries given to the audit log, by result: written, refused (too long, a number in clear) or failed (the disk).",
	}, []string{"result"})
	m := &metrics{
		entries: results.WithLabelValues("written"),
		refused: results.WithLabelValues("refused"),
		failed:  results.WithLabelValues("failed"),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "hotline_audit_sync_seconds",
			Help:    "Time to write and fsync a batch of audit entries.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
	}
	if reg != nil {
		reg.MustRegister(results, m.sync)
	}
	return m
}
