package speech

import (
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/g711"
)

// The bounds of speech, as mean squares of 16-bit samples.
const (
	quietest = 340  // −65 dBFS: below it the floor of the noise is not sought
	faintest = 6750 // −52 dBFS: nothing fainter is taken for speech
	above    = 8    // 9 dB over the noise
)

// How speech is framed, in samples. A server ends a sentence after some silence, so that it must hear some.
const (
	onset  = 2 * call.FrameBytes // this much in a row begins it: a click does not
	before = call.Rate * 3 / 10  // is kept from before its beginning
	after  = call.Rate           // is streamed after its end
)

// voice finds speech by its energy over the floor of the noise. The floor falls at once and rises by 1 dB a second, so
// that it outlasts a sentence and gets used to a street.
type voice struct {
	floor float64
	loud  int // samples in a row that were loud
	left  int // samples that are streamed still
	lead  []byte
}

// hear gives what of a payload is to be streamed: nothing in silence, with the beginning of speech also what came before it.
func (v *voice) hear(alaw []byte) []byte {
	if len(alaw) == 0 {
		return nil
	}
	if v.isLoud(alaw) {
		v.loud += len(alaw)
	} else {
		v.loud = 0
	}
	open := v.left > 0
	if v.loud >= onset {
		v.left = after
	} else {
		v.left -= min(v.left, len(alaw))
	}
	if open {
		return alaw
	}
	v.lead = append(v.lead, alaw...)
	if v.left > 0 {
		spoken := v.lead
		v.lead = v.lead[:0] // it is read before the next is written
		return spoken
	}
	if extra := len(v.lead) - before; extra > 0 {
		v.lead = v.lead[:copy(v.lead, v.lead[extra:])]
	}
	return nil
}

func (v *voice) isLoud(alaw []byte) bool {
	var sum float64
	for _, b := range alaw {
		s := float64(g711.ALawToLinear[b])
		sum += s * s
	}
	power := sum / float64(len(alaw))
	rise := 1 + 0.26*float64(len(alaw))/call.Rate // 1 dB a second
	v.floor = max(min(power, max(v.floor, quietest)*rise), quietest)
	return power > faintest && power > above*v.floor
}
