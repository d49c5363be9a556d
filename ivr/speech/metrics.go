package speech

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	streams prometheus.Gauge
	refused prometheus.Counter
	sent    prometheus.Counter
	lost    prometheus.Counter
	replies prometheus.Histogram
	results *prometheus.CounterVec
	errors  *prometheus.CounterVec
}

// faults are the labels of what goes wrong.
var faults = map[error]string{errAway: "away", errGone: "closed", errSlow: "slow", errGarbled: "garbled", errFlood: "flood"}

// panicked is the label of a panic of ours.
const panicked = "panic"

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_speech_streams", Help: "Callers that are heard by the recogniser."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_speech_refused_total", Help: "Callers that are not heard, because as many are as is allowed."}),
		sent:    prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_speech_sent_seconds_total", Help: "Speech that was sent to the recogniser."}),
		lost:    prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_speech_lost_seconds_total", Help: "Speech that waited too long for the recogniser and was dropped."}),
		replies: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "hotline_speech_reply_seconds", Help: "From a piece of speech to its answer.",
			Buckets: []float64{.01, .025, .05, .1, .2, .5, 1, 2, 5}}),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_speech_results_total", Help: "Texts that were heard."}, []string{"kind"}),
		errors:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_speech_errors_total", Help: "Connections to the recogniser that failed, by how; and panics, each of which leaves one caller unheard."}, []string{"kind"}),
	}
	m.results.WithLabelValues("partial")
	m.results.WithLabelValues("final")
	for _, kind := range faults {
		m.errors.WithLabelValues(kind)
	}
	m.errors.WithLabelValues(panicked)
	if reg != nil {
		reg.MustRegister(m.streams, m.refused, m.sent, m.lost, m.replies, m.results, m.errors)
	}
	return m
}

func (m *metrics) failed(err error) {
	for fault, kind := range faults {
		if errors.Is(err, fault) {
			m.errors.WithLabelValues(kind).Inc()
		}
	}
}
