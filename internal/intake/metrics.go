package intake

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	deliveries *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	refused    *prometheus.CounterVec
	audio      *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, targets []*target) *metrics {
	m := &metrics{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_intake_deliveries_total",
			Help: "Tries to deliver an event, by result; stale needs none, dead is the last failure."}, []string{"target", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hotline_intake_seconds",
			Help: "Time from an event's submission to its receipt.", Buckets: []float64{.05, .25, 1, 5, 30, 120, 600, 3600, 21600, 86400}}, []string{"target"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_intake_refused_total",
			Help: "Events that could not be spooled."}, []string{"reason"}),
		audio: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_intake_audio_total",
			Help: "Requests for sealed audio by result."}, []string{"result"}),
	}
	for _, t := range targets {
		for _, r := range []string{"delivered", "timeout", "refused", "mismatch", "error", "stale", "dead"} {
			m.deliveries.WithLabelValues(t.cfg.Name, r)
		}
		m.seconds.WithLabelValues(t.cfg.Name)
	}
	for _, r := range []string{"invalid", "full", "disk"} {
		m.refused.WithLabelValues(r)
	}
	for _, r := range []string{"served", "denied", "expired", "missing"} {
		m.audio.WithLabelValues(r)
	}
	if reg != nil {
		reg.MustRegister(m.deliveries, m.seconds, m.refused, m.audio, spoolCollector(targets))
	}
	return m
}

// spoolCollector tells the state of the spool as it is when asked.
type spoolCollector []*target

var (
	spoolDesc  = prometheus.NewDesc("hotline_intake_spool", "Events that wait to be delivered.", []string{"target"}, nil)
	deadDesc   = prometheus.NewDesc("hotline_intake_dead", "Events that were given up; each needs someone.", []string{"target"}, nil)
	oldestDesc = prometheus.NewDesc("hotline_intake_oldest_seconds", "Age of the oldest event that waits.", []string{"target"}, nil)
)

func (c spoolCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- spoolDesc
	ch <- deadDesc
	ch <- oldestDesc
}

func (c spoolCollector) Collect(ch chan<- prometheus.Metric) {
	for _, t := range c {
		waiting, dead, oldest := t.state(time.Now())
		ch <- prometheus.MustNewConstMetric(spoolDesc, prometheus.GaugeValue, float64(waiting), t.cfg.Name)
		ch <- prometheus.MustNewConstMetric(deadDesc, prometheus.GaugeValue, float64(dead), t.cfg.Name)
		ch <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, oldest.Seconds(), t.cfg.Name)
	}
}
