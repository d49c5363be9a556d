package media

import "github.com/hotline12345/gateway/internal/call"

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
		return 0xFF
	}
	return 0xD5
}

// payload is the clip's bytes in this law.
func (l law) payload(c *call.Clip) []byte {
	if l == uLaw {
		return c.PCMU
	}
	return c.PCMA
}

// Tables of ITU-T G.711. A-law has 13 significant bits and µ-law 14, so the encoders are indexed by
// the upper bits of the sample.
var (
	aLawLinear = table256(decodeALaw)
	uLawLinear = table256(decodeULaw)
	linearALaw = func() (t [1 << 13]byte) {
		for i := range t {
			t[i] = encodeALaw(i - 1<<12)
		}
		return t
	}()
	linearULaw = func() (t [1 << 14]byte) {
		for i := range t {
			t[i] = encodeULaw(i - 1<<13)
		}
		return t
	}()
	aLawULaw = table256(func(b byte) byte { return LinearToULaw(aLawLinear[b]) })
	uLawALaw = table256(func(b byte) byte { return LinearToALaw(uLawLinear[b]) })
)

func table256[T any](f func(byte) T) *[256]T {
	t := new([256]T)
	for i := range t {
		t[i] = f(byte(i))
	}
	return t
}

// ALawToLinear decodes a byte of A-law to 16-bit linear sound.
func ALawToLinear(b byte) int16 { return aLawLinear[b] }

// ULawToLinear decodes a byte of µ-law to 16-bit linear sound.
func ULawToLinear(b byte) int16 { return uLawLinear[b] }

// LinearToALaw encodes a 16-bit linear sample as A-law.
func LinearToALaw(v int16) byte { return linearALaw[int(v>>3)+1<<12] }

// LinearToULaw encodes a 16-bit linear sample as µ-law.
func LinearToULaw(v int16) byte { return linearULaw[int(v>>2)+1<<13] }

// ALawToULaw turns a byte of A-law into the nearest of µ-law.
func ALawToULaw(b byte) byte { return aLawULaw[b] }

// ULawToALaw turns a byte of µ-law into the nearest of A-law.
func ULawToALaw(b byte) byte { return uLawALaw[b] }

// transcode is the table from one law to another, nil when they are the same.
func transcode(from, to law) *[256]byte {
	switch {
	case from == to:
		return nil
	case from == aLaw:
		return aLawULaw
	default:
		return uLawALaw
	}
}

// linear is the table that decodes this law.
func (l law) linear() *[256]int16 {
	if l == uLaw {
		return uLawLinear
	}
	return aLawLinear
}

// encode writes samples to dst in this law, saturated to 16 bits.
func (l law) encode(dst []byte, samples []int32) {
	for i, v := range samples {
		s := int16(min(max(v, -1<<15), 1<<15-1))
		if l == uLaw {
			dst[i] = LinearToULaw(s)
		} else {
			dst[i] = LinearToALaw(s)
		}
	}
}

// segment is the chord that v falls into: each ends at twice the one before, the first at first.
func segment(v, first int) int {
	seg := 0
	for end := first; v > end && seg < 8; end = end<<1 | 1 {
		seg++
	}
	return seg
}

func encodeALaw(v int) byte { // v has 13 bits
	mask := byte(0xD5)
	if v < 0 {
		mask, v = 0x55, -v-1
	}
	seg := segment(v, 0x1F)
	return byte(seg<<4|v>>max(seg, 1)&0x0F) ^ mask
}

func decodeALaw(b byte) int16 {
	b ^= 0x55
	v := int16(b&0x0F)<<4 + 8
	if seg := b & 0x70 >> 4; seg > 0 {
		v = (v + 0x100) << (seg - 1)
	}
	if b&0x80 == 0 {
		return -v
	}
	return v
}

func encodeULaw(v int) byte { // v has 14 bits
	mask := byte(0xFF)
	if v < 0 {
		mask, v = 0x7F, -v
	}
	v = min(v, 8158) + 33
	seg := segment(v, 0x3F)
	return byte(seg<<4|v>>(seg+1)&0x0F) ^ mask
}

func decodeULaw(b byte) int16 {
	b = ^b
	v := (int16(b&0x0F)<<3 + 0x84) << (b & 0x70 >> 4)
	if b&0x80 != 0 {
		return 0x84 - v
	}
	return v - 0x84
}
