package nodes

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	nodes, differ         *prometheus.GaugeVec
	requests, asks, beats *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		nodes: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "hotline_nodes",
			Help: "Gateways of the cluster as this one sees them, by state."}, []string{"state"}),
		differ: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "hotline_nodes_differ",
			Help: "Living gateways that are not as this one, by what differs."}, []string{"what"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_node_requests_total",
			Help: "Requests of other gateways, by result; refused ones did not prove where they came from."}, []string{"result"}),
		asks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_node_asks_total",
			Help: "Questions to other gateways, by result."}, []string{"result"}),
		beats: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_node_beats_total",
			Help: "Heartbeats of this gateway, by result."}, []string{"result"}),
	}
	for _, state := range []string{"alive", "draining", "absent"} {
		m.nodes.WithLabelValues(state)
	}
	for what := range compared {
		m.differ.WithLabelValues(what)
	}
	for _, result := range []string{"ok", "refused", "failed", "panic"} {
		m.requests.WithLabelValues(result)
	}
	for _, result := range []string{"ok", "failed", "silent"} {
		m.asks.WithLabelValues(result)
	}
	for _, result := range []string{"ok", "failed"} {
		m.beats.WithLabelValues(result)
	}
	if reg != nil {
		reg.MustRegister(m.nodes, m.differ, m.requests, m.asks, m.beats)
	}
	return m
}
