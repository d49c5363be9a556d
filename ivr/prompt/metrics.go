package prompt

import "github.com/prometheus/client_golang/prometheus"

// Where a missing prompt was found.
const (
	foundInOther = "other"
	foundNowhere = "none"
)

type metrics struct {
	missing *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{missing: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hotline_prompt_missing_total",
		Help: "Prompts that a language lacked, by where they were found: the other language, or none (left out).",
	}, []string{"language", "found"})}
	for _, language := range []string{Chinese, English} {
		m.missing.WithLabelValues(language, foundInOther)
		m.missing.WithLabelValues(language, foundNowhere)
	}
	if reg != nil {
		reg.MustRegister(m.missing)
	}
	return m
}

// label keeps the label closed whatever language was asked for.
func label(language string) string {
	if language == English {
		return English
	}
	return Chinese
}
