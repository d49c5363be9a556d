package media

import (
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/g711"
)

// law is a codec in the form that the path of the packets compares and indexes by.
type law uint8

const (
	aLaw law = iota
	uLaw
)

func lawOf(c call.Codec) law {
	if c == call.PCMU {
		return uLaw
	}
	return aLaw
}

// silence is the byte of digital silence: the smallest positive value of each law.
func (l law) silence() byte {
	if l == uLaw {
		return g711.SilenceU
	}
	return g711.SilenceA
}

// payload is the clip's bytes in this law.
func (l law) payload(c *call.Clip) []byte {
	if l == uLaw {
		return c.PCMU
	}
	return c.PCMA
}

// transcode is the table from one law to another, nil when they are the same.
func transcode(from, to law) *[256]byte {
	switch from {
	case to:
		return nil
	case aLaw:
		return &g711.ALawToULaw
	default:
		return &g711.ULawToALaw
	}
}

// linear is the table that decodes this law.
func (l law) linear() *[256]int16 {
	if l == uLaw {
		return &g711.ULawToLinear
	}
	return &g711.ALawToLinear
}

// encode writes samples to dst in this law, saturated to 16 bits.
func (l law) encode(dst []byte, samples []int32) {
	for i, v := range samples {
		s := int16(min(max(v, -1<<15), 1<<15-1))
		if l == uLaw {
			dst[i] = g711.EncodeULaw(s)
		} else {
			dst[i] = g711.EncodeALaw(s)
		}
	}
}
