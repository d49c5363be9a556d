package sip

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/trunk"
)

// unreachable is the result of a way to a phone that did not lead to it.
const unreachable = "unreachable"

// Labels of what comes from no trunk.
const (
	phonesLabel = "phones"
	nodesLabel  = "nodes"
	otherLabel  = "other"
)

type metrics struct {
	calls, limit, kept prometheus.Gauge
	nodes              *nodeMetrics
	reserved           prometheus.Counter
	refused            *prometheus.CounterVec
	dropped            *prometheus.CounterVec
	responses          *prometheus.CounterVec
	digitsDropped      prometheus.Counter
	eventsDropped      prometheus.Counter
	panics             prometheus.Counter
	stale              prometheus.Counter
	engaged            prometheus.Counter
	jitter, loss       *prometheus.HistogramVec
	oneWay             *prometheus.CounterVec
}

// refusals is why a call was refused before it was a leg: a closed set.
var refusals = []string{"trunk_full", "all_full", "number", "draining", "media", "login", "token", "no_phone"}

var (
	methods = []string{"INVITE", "BYE", "CANCEL", "OPTIONS", "REGISTER", otherLabel}
	classes = []string{"1xx", "2xx", "3xx", "4xx", "5xx", "6xx"}
	sides   = []string{"received", "sent"}
)

func newMetrics(reg prometheus.Registerer, trunks []string) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_sip_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_sip_" + name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets ...float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hotline_rtp_" + name, Help: help, Buckets: buckets},
			[]string{"trunk", "side"})
	}
	m := &metrics{
		calls:         gauge("calls", "Incoming calls that have not ended."),
		limit:         gauge("calls_limit", "Cap on the incoming calls of the gateway."),
		kept:          gauge("calls_kept", "Part of the cap that is kept for emergencies."),
		nodes:         newNodeMetrics(reg),
		reserved:      counter("calls_reserve_total", "Calls that were answered for the emergency exit alone."),
		refused:       counters("sip_calls_refused_total", "Calls refused before they were handled.", "why"),
		dropped:       counters("sip_gate_dropped_total", "Messages dropped before they were parsed.", "place", "why"),
		responses:     counters("sip_responses_total", "SIP responses, sent and received.", "trunk", "method", "class"),
		digitsDropped: counter("digits_dropped_total", "Keys that nobody read in time."),
		eventsDropped: counter("events_dropped_total", "Holds and transfers that nobody read in time."),
		panics:        counter("handler_panics_total", "Panics that ended one call each."),
		stale:         counter("stale_dialogs_total", "Dialogs of a killed process that were ended by BYE."),
		engaged:       counter("engaged_total", "Calls that were to ring a phone alone, and were refused because it was in a call."),
		jitter:        histogram("jitter_seconds", "Interarrival jitter at a leg's end.", .001, .005, .01, .02, .03, .05, .1),
		loss:          histogram("loss_ratio", "Lost RTP packets of a leg.", .001, .005, .01, .02, .05, .1, .5),
		oneWay:        counters("rtp_one_way_total", "Answered legs that heard nothing of their party.", "trunk"),
	}
	for _, w := range refusals {
		m.refused.WithLabelValues(w)
	}
	for _, p := range []place{atCarriers, atPhones, atNodes} {
		m.dropped.WithLabelValues(string(p), "unknown_source")
		m.dropped.WithLabelValues(string(p), "rate")
	}
	for _, t := range append([]string{phonesLabel, nodesLabel, otherLabel}, trunks...) {
		for _, method := range methods {
			for _, class := range classes {
				m.responses.WithLabelValues(t, method, class)
			}
		}
		for _, s := range sides {
			m.jitter.WithLabelValues(t, s)
			m.loss.WithLabelValues(t, s)
		}
		m.oneWay.WithLabelValues(t)
	}
	if reg != nil {
		reg.MustRegister(m.calls, m.limit, m.kept, m.reserved, m.refused, m.dropped, m.responses, m.digitsDropped,
			m.eventsDropped, m.panics, m.stale, m.engaged, m.jitter, m.loss, m.oneWay)
	}
	return m
}

// nodeMetrics are the counters of the node trunk.
type nodeMetrics struct {
	relays  prometheus.Gauge
	relayed *prometheus.CounterVec
	dials   *prometheus.CounterVec
	lost    prometheus.Counter
}

func newNodeMetrics(reg prometheus.Registerer) *nodeMetrics {
	results := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_sip_" + name, Help: help}, []string{"result"})
	}
	m := &nodeMetrics{
		relays: prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_sip_relays",
			Help: "Calls of other gateways that ring or talk at a phone of this one."}),
		relayed: results("relays_total", "Calls of other gateways for a phone of this one."),
		dials:   results("node_dials_total", "Calls to a phone by the gateway that it is registered at."),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_sip_node_legs_lost_total",
			Help: "Legs that were ended because their gateway had died."}),
	}
	for _, r := range trunk.Results() {
		m.relayed.WithLabelValues(string(r))
		m.dials.WithLabelValues(string(r))
	}
	m.dials.WithLabelValues(unreachable)
	if reg != nil {
		reg.MustRegister(m.relays, m.relayed, m.dials, m.lost)
	}
	return m
}

// leg notes the media of a leg that has ended.
func (m *metrics) leg(label string, s call.MediaStats) {
	if s.Sent == 0 && s.Received == 0 {
		return
	}
	if s.Received == 0 {
		m.oneWay.WithLabelValues(label).Inc()
	}
	if all := s.Received + s.Lost; all > 0 {
		m.jitter.WithLabelValues(label, "received").Observe(s.Jitter.Seconds())
		m.loss.WithLabelValues(label, "received").Observe(float64(s.Lost) / float64(all))
	}
	if s.RoundTrip > 0 { // a receiver report came
		m.jitter.WithLabelValues(label, "sent").Observe(s.RemoteJitter.Seconds())
		m.loss.WithLabelValues(label, "sent").Observe(float64(s.RemoteLost) / float64(max(s.Sent, 1)))
	}
}
