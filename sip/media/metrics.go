package media

import "github.com/prometheus/client_golang/prometheus"

// dropReason is why an arriving packet went no further: a closed set.
type dropReason string

const (
	dropSource    dropReason = "source"    // not from the peer that the leg is locked to
	dropMalformed dropReason = "malformed" // no RTP, or no RTCP, of version 2
	dropPayload   dropReason = "payload"   // a payload type that was not negotiated
	dropHold      dropReason = "hold"      // the party is on hold
	dropLate      dropReason = "late"      // a duplicate, or too late to be heard
)

// ringBound is a bound of io_uring that was met: a closed set. Nothing is lost by either.
type ringBound string

const (
	boundBuffers ringBound = "buffers" // no buffer was free: the packets waited in their socket
	boundOutbox  ringBound = "outbox"  // no room with the others of the turn: the packet went by a call of its own
)

type metrics struct {
	portsFree   prometheus.Gauge
	noPorts     prometheus.Counter
	sessions    prometheus.Gauge
	dropped     map[dropReason]prometheus.Counter
	sinkDropped prometheus.Counter
	tapsRefused prometheus.Counter
	timeouts    prometheus.Counter
	latches     prometheus.Counter
	skipped     prometheus.Counter
	sendErrors  prometheus.Counter
	panics      prometheus.Counter
	ioUring     prometheus.Gauge
	ringFull    map[ringBound]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_rtp_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_rtp_" + name, Help: help})
	}
	drops := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hotline_rtp_dropped_packets_total", Help: "Arriving packets that went no further, by reason.",
	}, []string{"reason"})
	full := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hotline_rtp_io_uring_full_total", Help: "Times that packets could not be gathered, by what was full; they went their way all the same.",
	}, []string{"bound"})
	m := &metrics{
		portsFree:   gauge("port_pool_free", "Pairs of RTP ports that are free, those cooling down included."),
		noPorts:     counter("port_pool_exhausted_total", "Legs refused because no pair of ports was free."),
		sessions:    gauge("sessions", "RTP sessions that are open."),
		dropped:     make(map[dropReason]prometheus.Counter),
		ringFull:    make(map[ringBound]prometheus.Counter),
		sinkDropped: counter("sink_dropped_frames_total", "Frames that a full tap ring dropped."),
		tapsRefused: counter("taps_refused_total", "Taps refused because the leg had as many as it may have."),
		timeouts:    counter("media_timeouts_total", "Legs that sent nothing for the set time."),
		latches:     counter("latches_total", "Legs whose media moved from the described to an observed address."),
		skipped:     counter("wheel_skipped_ticks_total", "Turns of a timer wheel skipped after a stall."),
		sendErrors:  counter("send_errors_total", "Packets that the socket refused."),
		ioUring:     gauge("io_uring", "1 when packets are read and sent many by one system call, 0 when each takes one."),
		panics:      counter("panics_total", "Faults that were caught on the way of the packets."),
	}
	for _, r := range []dropReason{dropSource, dropMalformed, dropPayload, dropHold, dropLate} {
		m.dropped[r] = drops.WithLabelValues(string(r))
	}
	for _, b := range []ringBound{boundBuffers, boundOutbox} {
		m.ringFull[b] = full.WithLabelValues(string(b))
	}
	if reg != nil {
		reg.MustRegister(m.portsFree, m.noPorts, m.sessions, drops, m.sinkDropped, m.tapsRefused, m.timeouts, m.latches,
			m.skipped, m.sendErrors, m.panics, m.ioUring, full)
	}
	return m
}
