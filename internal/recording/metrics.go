package recording

import "github.com/prometheus/client_golang/prometheus"

// overlong continues the fates of a packet: it came after max_length.
const overlong fate = dropped + 1

type metrics struct {
	recordings   *prometheus.CounterVec
	open         prometheus.Gauge
	free         prometheus.Gauge
	packets      [4]prometheus.Counter // by fate
	reanchors    prometheus.Counter
	segments     *prometheus.CounterVec
	marksDropped prometheus.Counter
	sync         prometheus.Histogram
	syncErrors   prometheus.Counter
	deleted      *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counters := func(name, help, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, v := range values {
			c.WithLabelValues(v)
		}
		return c
	}
	packets := counters("hotline_recording_packets_total", "Packets by what became of them.", "fate",
		"kept", "late", "dropped", "overlong")
	m := &metrics{
		recordings: counters("hotline_recordings_total", "Recordings by how they ended, or why there is none.", "result",
			"complete", "partial", "recovered", "no_space", "too_many", "failed"),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_recordings_open", Help: "Recordings under way."}),
		free: prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_recording_disk_free_ratio", Help: "Free share of the recordings' disk."}),
		packets: [4]prometheus.Counter{packets.WithLabelValues("kept"), packets.WithLabelValues("late"),
			packets.WithLabelValues("dropped"), packets.WithLabelValues("overlong")},
		reanchors:    prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_recording_reanchors_total", Help: "Tracks whose RTP clock had left the time of arrival."}),
		segments:     counters("hotline_recording_segments_total", "Segments by result.", "result", "written", "lost"),
		marksDropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_recording_marks_dropped_total", Help: "Marks that were not kept."}),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "hotline_recording_sync_seconds", Help: "Time of a group sync.",
			Buckets: []float64{.001, .005, .02, .05, .1, .25, .5, 1, 2.5, 5}}),
		syncErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_recording_sync_errors_total", Help: "Files that could not be synced."}),
		deleted:    counters("hotline_recordings_deleted_total", "Recordings deleted.", "why", "retention", "request"),
	}
	if reg != nil {
		reg.MustRegister(m.recordings, m.open, m.free, packets, m.reanchors, m.segments, m.marksDropped,
			m.sync, m.syncErrors, m.deleted)
	}
	return m
}
