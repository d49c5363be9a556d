package audit

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	entries, refused, failed prometheus.Counter
	copies                   *prometheus.CounterVec
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
		copies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_audit_copies_total",
			Help: "Copies of the audit log into the second directory, by result: done or failed.",
		}, []string{"result"}),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "hotline_audit_sync_seconds",
			Help:    "Time to write and fsync a batch of audit entries.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
	}
	for _, r := range []string{"done", "failed"} {
		m.copies.WithLabelValues(r)
	}
	if reg != nil {
		reg.MustRegister(results, m.copies, m.sync)
	}
	return m
}
