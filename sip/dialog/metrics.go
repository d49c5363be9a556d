package dialog

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// refusals is why a message or a call was refused or dropped: a closed set.
var refusals = []string{"filter", "scanner", "malformed", "sanity", "merged", "no_dialog", "draining",
	"calls_full", "queue_full", "connections_full", "handshake", "half_message", "out_of_order"}

// events is what a dialog's own machinery did: a closed set.
var events = []string{"answered_unacked", "repeated_2xx", "cancel_glare", "forked_2xx", "offer_glare",
	"gap_skipped", "stray_response", "stale_ended", "challenged", "transaction_shed", "reader_waited",
	"cancel_overtook"}

type metrics struct {
	calls   *prometheus.GaugeVec
	refused *prometheus.CounterVec
	events  *prometheus.CounterVec
	panics  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		calls: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hotline_sip_dialogs", Help: "SIP calls that have not ended.",
		}, []string{"direction"})),
		refused: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_sip_refused_total", Help: "Messages and calls that were refused or dropped.",
		}, []string{"why"})),
		events: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hotline_sip_dialog_events_total", Help: "Races and repairs of SIP dialogs.",
		}, []string{"event"})),
		panics: register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hotline_sip_panics_total", Help: "Panics that ended one call each.",
		})),
	}
	m.calls.WithLabelValues("incoming")
	m.calls.WithLabelValues("outgoing")
	for _, w := range refusals {
		m.refused.WithLabelValues(w)
	}
	for _, e := range events {
		m.events.WithLabelValues(e)
	}
	return m
}

// register lets the layers of several listeners count into one metric.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	var already prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &already) {
		if old, ok := already.ExistingCollector.(C); ok {
			return old
		}
	}
	return c
}

func (m *metrics) refuse(why string) { m.refused.WithLabelValues(why).Inc() }
func (m *metrics) event(name string) { m.events.WithLabelValues(name).Inc() }

func (m *metrics) up(incoming bool, by float64) {
	direction := "outgoing"
	if incoming {
		direction = "incoming"
	}
	m.calls.WithLabelValues(direction).Add(by)
}
