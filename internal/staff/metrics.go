package staff

import "github.com/prometheus/client_golang/prometheus"

type metrics struct{ accepted, refused, throttled prometheus.Counter }

func newMetrics(reg prometheus.Registerer) *metrics {
	logins := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hotline_staff_logins_total",
		Help: "Log-ins on pages and phones, by result: accepted, refused (wrong) or throttled (too many wrong before).",
	}, []string{"result"})
	if reg != nil {
		reg.MustRegister(logins)
	}
	return &metrics{
		accepted:  logins.WithLabelValues("accepted"),
		refused:   logins.WithLabelValues("refused"),
		throttled: logins.WithLabelValues("throttled"),
	}
}
