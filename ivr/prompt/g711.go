package prompt

import "math/bits"

// G.711 (ITU-T) by table: the room stands alone, and the tables are small.
var (
	aLawLinear = table(decodeALaw)                                             // A-law octet to 16-bit linear
	uLawLinear = table(decodeULaw)                                             // µ-law octet to 16-bit linear
	aToU       = table(func(b byte) byte { return encodeULaw(aLawLinear[b]) }) // A-law octet to the nearest µ-law octet
)

func table[T any](of func(byte) T) (t [256]T) {
	for i := range t {
		t[i] = of(byte(i)) // #nosec G115 -- i is at most 255
	}
	return t
}

// ALaw encodes 16-bit linear samples as A-law.
func ALaw(pcm []int16) []byte {
	out := make([]byte, len(pcm))
	for i, s := range pcm {
		out[i] = encodeALaw(s)
	}
	return out
}

// linear decodes A-law to 16-bit linear samples.
func linear(alaw []byte) []int16 {
	out := make([]int16, len(alaw))
	for i, b := range alaw {
		out[i] = aLawLinear[b]
	}
	return out
}

// muLaw turns A-law into µ-law.
func muLaw(alaw []byte) []byte {
	out := make([]byte, len(alaw))
	for i, b := range alaw {
		out[i] = aToU[b]
	}
	return out
}

// decodeALaw is G.711 table 1a, with the even bits inverted as it demands.
func decodeALaw(b byte) int16 {
	b ^= 0x55
	v := int16(b&0x0f)<<4 + 8
	if seg := b >> 4 & 7; seg > 0 {
		v = (v + 0x100) << (seg - 1)
	}
	if b&0x80 == 0 { // in A-law a set sign bit is positive
		return -v
	}
	return v
}

func encodeALaw(s int16) byte {
	v, sign := int(s)>>3, byte(0xd5)
	if v < 0 {
		v, sign = -v-1, 0x55
	}
	seg := max(bits.Len(uint(v))-5, 0) // #nosec G115 -- v is at most 4095
	mantissa := v >> 1
	if seg > 1 {
		mantissa = v >> seg
	}
	return byte(seg<<4|mantissa&0x0f) ^ sign // #nosec G115 -- seg is at most 7
}

// decodeULaw is G.711 table 2a.
func decodeULaw(b byte) int16 {
	b = ^b
	v := (int16(b&0x0f)<<3+0x84)<<(b>>4&7) - 0x84
	if b&0x80 != 0 {
		return -v
	}
	return v
}

func encodeULaw(s int16) byte {
	const bias, clip = 0x84, 32635
	v, sign := int(s), byte(0)
	if v < 0 {
		v, sign = -v, 0x80
	}
	v = min(v, clip) + bias
	seg := bits.Len(uint(v)) - 8                  // #nosec G115 -- v is positive
	return ^(sign | byte(seg<<4|v>>(seg+3)&0x0f)) // #nosec G115 -- seg is at most 7
}
