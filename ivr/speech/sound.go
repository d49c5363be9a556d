package speech

import (
	"encoding/binary"
	"math"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/g711"
)

// taps is half the length of the filter that finds the samples between two.
const taps = 8

// between are the weights of the nearest samples: a sinc under a Hann window.
var between = func() (w [taps]float64) {
	var sum float64
	for i := range w {
		x := float64(i) + 0.5
		w[i] = math.Sin(math.Pi*x) / (math.Pi * x) * (0.5 + 0.5*math.Cos(math.Pi*x/taps))
		sum += 2 * w[i]
	}
	for i := range w {
		w[i] /= sum
	}
	return w
}()

// pcm turns A-law of 8 kHz into signed 16-bit little-endian sound of a server's rate.
type pcm struct {
	double bool              // to 16 kHz
	past   [2 * taps]float64 // the last samples, the newest last
}

func newPCM(rate int) *pcm { return &pcm{double: rate == 2*call.Rate} }

// append adds the sound to dst. At 16 kHz it lags by half the filter, 1 ms.
func (p *pcm) append(dst, alaw []byte) []byte {
	for _, b := range alaw {
		s := g711.ALawToLinear[b]
		if !p.double {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(s))
			continue
		}
		copy(p.past[:], p.past[1:])
		p.past[2*taps-1] = float64(s)
		var mid float64
		for i, w := range between {
			mid += w * (p.past[taps-1-i] + p.past[taps+i])
		}
		dst = binary.LittleEndian.AppendUint16(dst, sample(p.past[taps-1]))
		dst = binary.LittleEndian.AppendUint16(dst, sample(mid))
	}
	return dst
}

func sample(v float64) uint16 {
	return uint16(int16(math.Round(max(min(v, math.MaxInt16), math.MinInt16))))
}
