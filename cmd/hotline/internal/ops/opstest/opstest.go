// Package opstest holds metrics to their rules in tests.
package opstest

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

// forbidden are labels whose values have no end, or are a person's (convention: a number, a call, an
// agent or an address is never a label).
var forbidden = []string{"call", "call_id", "callid", "number", "caller", "called", "agent", "person", "extension", "ip", "address", "source"}

var own = regexp.MustCompile(`^(hotline|go|process|promhttp)_`)

// Lint reports every metric that breaks Prometheus' naming rules or the project's.
func Lint(t testing.TB, g prometheus.Gatherer) {
	t.Helper()
	for _, fault := range Faults(t, g) {
		t.Error(fault)
	}
}

// Faults is what Lint reports.
func Faults(t testing.TB, g prometheus.Gatherer) []string {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ours := slices.DeleteFunc(slices.Clone(families), func(f *dto.MetricFamily) bool {
		return !strings.HasPrefix(f.GetName(), "hotline_")
	})
	problems, err := promlint.NewWithMetricFamilies(ours).Lint()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range problems {
		out = append(out, p.Metric+": "+p.Text)
	}
	for _, f := range families {
		if !own.MatchString(f.GetName()) {
			out = append(out, f.GetName()+": the prefix is not ours")
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if slices.Contains(forbidden, l.GetName()) {
					out = append(out, f.GetName()+": label "+l.GetName()+" has no end")
				}
			}
		}
	}
	return out
}
