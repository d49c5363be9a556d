package calltest

import (
	"math"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/g711"
)

// Tone is an A-law sine of a frequency and length, at a tenth of full scale.
func Tone(hz float64, length time.Duration) []byte {
	out := make([]byte, int(length.Seconds()*call.Rate))
	for i := range out {
		out[i] = toneAt(hz, i)
	}
	return out
}

func toneAt(hz float64, i int) byte {
	return g711.EncodeALaw(int16(3276 * math.Sin(2*math.Pi*hz*float64(i)/call.Rate)))
}

// Clip is a tone as a prompt.
func Clip(id string, hz float64, length time.Duration) *call.Clip {
	a := Tone(hz, length)
	u := make([]byte, len(a))
	for i, b := range a {
		u[i] = g711.ALawToULaw[b]
	}
	return &call.Clip{ID: id, PCMA: a, PCMU: u}
}

// Share is how much of the power of A-law audio lies at a frequency: 1 for a pure tone, near 0 for
// another tone or for silence (Goertzel's algorithm over the whole).
func Share(alaw []byte, hz float64) float64 {
	var total, s1, s2 float64
	coeff := 2 * math.Cos(2*math.Pi*hz/call.Rate)
	for _, b := range alaw {
		x := float64(g711.ALawToLinear[b])
		total += x * x
		s1, s2 = x+coeff*s1-s2, s1
	}
	if total < float64(len(alaw))*400 { // silence: nothing louder than 20 of 32768
		return 0
	}
	power := s1*s1 + s2*s2 - coeff*s1*s2
	return min(1, 2*power/(total*float64(len(alaw))))
}
