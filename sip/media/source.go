package media

import (
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// RFC 3550 appendix A.1.
const (
	maxDropout  = 3000
	maxMisorder = 100
)

// totals are what sources before the present one added up to.
type totals struct{ received, lost uint64 }

// source is the statistics of one SSRC (RFC 3550 appendix A).
type source struct {
	begun    bool
	ssrc     uint32
	base     uint32 // the first extended sequence number
	top      uint32 // the highest, cycles included
	received uint64
	jitter   float64 // in samples, appendix A.8
	arrival  time.Time
	ts       uint32

	expectedBefore, receivedBefore uint64 // at the last report
}

func newSource(h header, jitter float64) source {
	return source{begun: true, ssrc: h.ssrc, base: uint32(h.seq), top: uint32(h.seq), jitter: jitter}
}

// takes tells whether the packet continues this source.
func (s *source) takes(h header) bool {
	d := int(seqDistance(h.seq, uint16(s.top)))
	return s.begun && h.ssrc == s.ssrc && d <= maxDropout && d >= -maxMisorder
}

func (s *source) update(h header, audio bool, now time.Time) {
	s.received++
	if d := seqDistance(h.seq, uint16(s.top)); d > 0 {
		s.top += uint32(d)
	}
	if !audio { // the timestamp of an event stands still
		return
	}
	if !s.arrival.IsZero() {
		moved := now.Sub(s.arrival).Seconds()*call.Rate - float64(distance(h.ts, s.ts))
		s.jitter += (max(moved, -moved) - s.jitter) / 16
	}
	s.arrival, s.ts = now, h.ts
}

func (s *source) expected() uint64 {
	if !s.begun {
		return 0
	}
	return uint64(s.top-s.base) + 1
}

func (s *source) lost() uint64 {
	if e := s.expected(); e > s.received {
		return e - s.received
	}
	return 0
}

func (s *source) jitterTime() time.Duration {
	return time.Duration(s.jitter * float64(time.Second) / call.Rate)
}

// fraction is the share lost since the last report, in 1/256 (RFC 3550 appendix A.3).
func (s *source) fraction() uint8 {
	e, r := s.expected()-s.expectedBefore, s.received-s.receivedBefore
	s.expectedBefore, s.receivedBefore = s.expected(), s.received
	if e == 0 || r >= e {
		return 0
	}
	return uint8((e - r) * 256 / e)
}
