package staff

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	accepted, refused, throttled prometheus.Counter
	exchanged                    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	logins := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hotline_staff_logins_total",
		Help: "Log-ins on pages and phones, by result: accepted, refused (wrong) or throttled (too many wrong before).",
	}, []string{"result"})
	exchanged := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hotline_staff_exchanged_total",
		Help: "Changes of people taken from other nodes, by result: applied, known (it came before, or a later one did) or refused (it makes no sense).",
	}, []string{"result"})
	for _, r := range []string{"applied", "known", "refused"} {
		exchanged.WithLabelValues(r)
	}
	if reg != nil {
		reg.MustRegister(logins, exchanged)
	}
	return &metrics{
		accepted:  logins.WithLabelValues("accepted"),
		refused:   logins.WithLabelValues("refused"),
		throttled: logins.WithLabelValues("throttled"),
		exchanged: exchanged,
	}
}

func (m *metrics) exchange(result string, n int) { m.exchanged.WithLabelValues(result).Add(float64(n)) }
