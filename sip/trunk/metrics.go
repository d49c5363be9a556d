package trunk

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/call"
)

// Result is how an INVITE on a trunk came out: a closed set, shared by metric and console.
type Result string

// The results of an INVITE.
const (
	Answered  Result = "answered"
	Busy      Result = "busy"
	NoAnswer  Result = "noanswer"
	Rejected  Result = "rejected"
	Failed    Result = "failed"
	Cancelled Result = "cancelled"
)

// Results lists every result.
func Results() []Result {
	return []Result{Answered, Busy, NoAnswer, Rejected, Failed, Cancelled}
}

// ResultOf is the result that a final status means.
func ResultOf(status int) Result {
	switch {
	case status >= 200 && status < 300:
		return Answered
	case status == 486 || status == 600:
		return Busy
	case status == 408 || status == 480:
		return NoAnswer
	case status == 487:
		return Cancelled
	case status >= 400 && status < 500 || status >= 600:
		return Rejected
	}
	return Failed
}

type metrics struct {
	up, rtt, limit *prometheus.GaugeVec
	channels       *prometheus.GaugeVec
	invites        *prometheus.CounterVec
	pdd, setup     *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, trunks []string) *metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "hotline_trunk_" + name, Help: help}, labels)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hotline_trunk_" + name, Help: help,
			Buckets: []float64{.05, .1, .25, .5, 1, 2, 4, 6, 12, 30}}, []string{"trunk"})
	}
	m := &metrics{
		up:       gauge("up", "Whether the trunk answers OPTIONS; absent for a trunk that is never asked.", "trunk"),
		rtt:      gauge("options_rtt_seconds", "Round trip of the last OPTIONS.", "trunk"),
		channels: gauge("channels", "Calls on the trunk.", "trunk", "direction"),
		limit:    gauge("channels_limit", "Cap on the calls of the trunk, both directions together.", "trunk"),
		invites: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_trunk_invites_total",
			Help: "INVITEs by how they came out."}, []string{"trunk", "direction", "result"}),
		pdd:   histogram("post_dial_delay_seconds", "From the outgoing INVITE to the first ringing."),
		setup: histogram("setup_seconds", "From the outgoing INVITE to its answer."),
	}
	for _, t := range trunks {
		for _, d := range []call.Direction{call.Incoming, call.Outgoing} {
			m.channels.WithLabelValues(t, string(d))
			for _, r := range Results() {
				m.invites.WithLabelValues(t, string(d), string(r))
			}
		}
		m.pdd.WithLabelValues(t)
		m.setup.WithLabelValues(t)
	}
	if reg != nil {
		reg.MustRegister(m.up, m.rtt, m.channels, m.limit, m.invites, m.pdd, m.setup)
	}
	return m
}

// Count notes how an INVITE came out.
func (t *Trunk) Count(d call.Direction, r Result) {
	t.metrics.invites.WithLabelValues(t.Name, string(d), string(r)).Inc()
}

// ObserveRinging notes the post-dial delay of an outgoing call.
func (t *Trunk) ObserveRinging(d time.Duration) {
	t.metrics.pdd.WithLabelValues(t.Name).Observe(d.Seconds())
}

// ObserveAnswer notes the set-up time of an outgoing call.
func (t *Trunk) ObserveAnswer(d time.Duration) {
	t.metrics.setup.WithLabelValues(t.Name).Observe(d.Seconds())
}
