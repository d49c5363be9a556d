package recording

import (
	"bytes"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// Times in this file are samples of the recording's clock, 8,000 a second.
const (
	silence = 0xD5 // A-law for zero

	segmentSamples = 1500 * call.Rate / 1000 // the longest segment: 1.5 s
	reorderSamples = 200 * call.Rate / 1000  // how long a late packet finds its place
	driftSamples   = 200 * call.Rate / 1000  // how far RTP time may leave arrival
	jumpSamples    = call.Rate               // a drift that is a jump, not a drift
	bufferSamples  = 20 * call.Rate          // what one track may hold in memory

	// driftPackets is how many packets running must be off before the track is anchored anew. A
	// burst after a stall of the network is off for a moment, and its RTP time is right.
	driftPackets = 10
)

func samples(d time.Duration) int64 { return int64(d) * call.Rate / int64(time.Second) }

func duration(samples int64) time.Duration {
	return time.Duration(samples) * time.Second / call.Rate
}

// segment is a run of audio on its way to the file: A-law, the two channels by turns.
type segment struct {
	start int64
	audio []byte
}

func (s segment) end() int64 { return s.start + int64(len(s.audio)/2) }

// stereo gathers the two tracks until they are cut into segments.
type stereo struct {
	base   int64 // the first sample that is not cut yet
	tracks [2][]byte
}

func (s *stereo) end() int64 {
	return s.base + int64(max(len(s.tracks[0]), len(s.tracks[1])))
}

// fate is what became of a packet.
type fate int

const (
	kept    fate = iota
	late         // its place, or the start of it, was written already
	dropped      // no room
)

// put lays a payload at its place. What lies there already is replaced: a duplicate is the same, and
// a late packet fills its hole.
func (s *stereo) put(track call.Track, pos int64, payload []byte) fate {
	if s.end() == s.base && pos > s.base+segmentSamples {
		s.base = pos - reorderSamples // nothing was heard for long: silence needs no segments
	}
	was := kept
	if pos < s.base {
		was = late
		payload = payload[min(int64(len(payload)), s.base-pos):]
		pos = s.base
	}
	from, to := int(pos-s.base), int(pos-s.base)+len(payload)
	if to > bufferSamples {
		return dropped
	}
	t := s.tracks[track]
	if to > len(t) && len(payload) > 0 {
		t = fill(t, to)
	}
	copy(t[min(from, len(t)):], payload)
	s.tracks[track] = t
	return was
}

// ready tells up to where the audio can be cut at a time: whole segments once late packets have had
// their chance, and the rest when nothing came for the length of a segment.
func (s *stereo) ready(now int64) int64 {
	end := s.end()
	switch settled := min(end, now-reorderSamples); {
	case settled-s.base >= segmentSamples:
		return s.base + segmentSamples
	case end > s.base && now-end >= segmentSamples:
		return min(end, s.base+segmentSamples)
	default:
		return s.base
	}
}

// cut takes the audio up to a sample out.
func (s *stereo) cut(to int64) segment {
	n := int(to - s.base)
	seg := segment{start: s.base, audio: bytes.Repeat([]byte{silence}, 2*n)}
	for ch, t := range s.tracks {
		for i, b := range t[:min(n, len(t))] {
			seg.audio[2*i+ch] = b
		}
		s.tracks[ch] = t[:copy(t, t[min(n, len(t)):])]
	}
	s.base = to
	return seg
}

// fill lengthens a track with silence.
func fill(t []byte, n int) []byte {
	old := len(t)
	if cap(t) < n {
		t = append(make([]byte, 0, max(n, 2*cap(t), segmentSamples+2*reorderSamples)), t...)
	}
	t = t[:n]
	for i := range t[old:] {
		t[old+i] = silence
	}
	return t
}

// anchor ties a track's RTP clock to the recording's.
type anchor struct {
	set     bool
	rtp     uint32
	pos     int64 // where the sample of rtp stands
	next    int64 // the end of what was placed
	strikes int
}

// place tells where a packet stands, and whether the track had drifted and was anchored anew.
func (a *anchor) place(rtp uint32, n int, arrival int64) (pos int64, anew bool) {
	if !a.set {
		pos = max(arrival, a.next) // after a Gap: never onto what was heard before it
	} else {
		pos = a.pos + int64(int32(rtp-a.rtp)) // RFC 3550 section 5.1: the timestamp wraps
		anew = a.drifted(pos - arrival)
		if anew {
			pos = arrival
		}
	}
	if !a.set || anew || pos > a.pos {
		a.rtp, a.pos = rtp, pos
	}
	a.set = true
	a.next = max(a.next, pos+int64(n))
	return pos, anew
}

func (a *anchor) drifted(by int64) bool {
	if by < 0 {
		by = -by
	}
	if by <= driftSamples {
		a.strikes = 0
		return false
	}
	a.strikes++
	if a.strikes < driftPackets && by <= jumpSamples {
		return false
	}
	a.strikes = 0
	return true
}
