package ivr

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/session"
)

// Why a menu or a collection was asked again.
const (
	wrongKey = "invalid"
	noKey    = "silent"
)

// How a walk went wrong.
const (
	faultStuck  = "stuck"  // no new node for too long; a person answered
	faultSteps  = "steps"  // too many steps; a person answered
	faultNode   = "node"   // a checkpoint named a node that is gone; a person answered
	faultEvents = "events" // a file of announcements could not be read; it was skipped
)

type metrics struct {
	nodes, exits, errors, faults *prometheus.CounterVec
	seconds                      prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help, label string, values ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range values {
			v.WithLabelValues(value)
		}
		return v
	}
	exits := []session.ExitKind{session.ExitQueue, session.ExitTransfer, session.ExitHangup, session.ExitMessage, session.ExitEmergency}
	var kinds []string
	for _, k := range exits {
		kinds = append(kinds, string(k))
	}
	m := &metrics{
		nodes:  counter("hotline_ivr_nodes_total", "Nodes of flows that calls came to, by type.", "type", kindNames()...),
		exits:  counter("hotline_ivr_exits_total", "Calls that a flow led out, by where; broken: the call ended in the flow.", "exit", append(kinds, "broken")...),
		errors: counter("hotline_ivr_retries_total", "Menus and collections that had to ask again, or gave up, by reason.", "reason", wrongKey, noKey),
		faults: counter("hotline_ivr_faults_total", "What went wrong in flows, by kind.", "kind", faultStuck, faultSteps, faultNode, faultEvents),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "hotline_ivr_seconds",
			Help:    "How long calls stayed in a flow.",
			Buckets: []float64{1, 5, 10, 15, 20, 30, 60, 120, 300, 600},
		}),
	}
	if reg != nil {
		reg.MustRegister(m.nodes, m.exits, m.errors, m.faults, m.seconds)
	}
	return m
}
