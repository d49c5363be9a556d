package ops

import (
	"net/http"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes bounds the answers of /metrics that are made at once.
const maxScrapes = 4

// NewRegistry makes a registry that tells of the process, the runtime and the build.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	version, revision, goversion := build()
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_build_info", Help: "What was built, as labels; always 1.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": goversion}})
	info.Set(1)
	reg.MustRegister(info, collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(
		collectors.GoRuntimeMetricsRule{Matcher: schedLatencies})),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// build is what the tool chain wrote into the program.
func build() (version, revision, goversion string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", "unknown", "unknown"
	}
	revision = "unknown"
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return info.Main.Version, revision, info.GoVersion
}

// Version is what the program calls itself.
func Version() string {
	version, revision, _ := build()
	return version + " " + revision[:min(len(revision), 12)]
}

// Metrics serves a registry, and what other gatherers add to it.
func Metrics(reg *prometheus.Registry, more ...prometheus.Gatherer) http.Handler {
	all := append(prometheus.Gatherers{reg}, more...)
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{Registry: reg, MaxRequestsInFlight: maxScrapes})
}
