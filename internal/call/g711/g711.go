// Package g711 is ITU-T G.711: A-law and µ-law, by tables.
package g711

import "math/bits"

// The codes of silence: the smallest positive value of each law.
const (
	SilenceA = 0xD5
	SilenceU = 0xFF
)

var (
	// ALawToLinear and ULawToLinear decode a sample to 16-bit linear sound.
	ALawToLinear = table[[256]int16](256, func(t *[256]int16, i int) { t[i] = decodeALaw(byte(i)) })
	ULawToLinear = table[[256]int16](256, func(t *[256]int16, i int) { t[i] = decodeULaw(byte(i)) })

	// A-law has 13 significant bits and µ-law 14: the encoders look up the upper bits of a sample.
	linearALaw = table[[1 << 13]byte](1<<13, func(t *[1 << 13]byte, i int) { t[i] = encodeALaw(i - 1<<12) })
	linearULaw = table[[1 << 14]byte](1<<14, func(t *[1 << 14]byte, i int) { t[i] = encodeULaw(i - 1<<13) })

	// ALawToULaw and ULawToALaw turn a sample of one law into the nearest of the other.
	ALawToULaw = table[[256]byte](256, func(t *[256]byte, i int) { t[i] = EncodeULaw(ALawToLinear[i]) })
	ULawToALaw = table[[256]byte](256, func(t *[256]byte, i int) { t[i] = EncodeALaw(ULawToLinear[i]) })
)

func table[T any](n int, set func(t *T, i int)) (t T) {
	for i := range n {
		set(&t, i)
	}
	return t
}

// EncodeALaw and EncodeULaw encode a sample of 16-bit linear sound.
func EncodeALaw(s int16) byte { return linearALaw[int(s>>3)+1<<12] }
func EncodeULaw(s int16) byte { return linearULaw[int(s>>2)+1<<13] }

// decodeALaw is G.711 table 1a; its even bits are inverted on the wire, and a set sign bit is positive.
func decodeALaw(b byte) int16 {
	b ^= 0x55
	v := int16(b&0x0F)<<4 + 8
	if seg := b >> 4 & 7; seg > 0 {
		v = (v + 0x100) << (seg - 1)
	}
	if b&0x80 == 0 {
		return -v
	}
	return v
}

func encodeALaw(v int) byte { // v has 13 bits
	mask := byte(SilenceA)
	if v < 0 {
		mask, v = SilenceA^0x80, -v-1
	}
	seg := max(bits.Len(uint(v))-5, 0)
	return byte(seg<<4|v>>max(seg, 1)&0x0F) ^ mask
}

// decodeULaw is G.711 table 2a.
func decodeULaw(b byte) int16 {
	b = ^b
	v := (int16(b&0x0F)<<3 + 0x84) << (b >> 4 & 7)
	if b&0x80 != 0 {
		return 0x84 - v
	}
	return v - 0x84
}

func encodeULaw(v int) byte { // v has 14 bits
	mask := byte(SilenceU)
	if v < 0 {
		mask, v = SilenceU^0x80, -v
	}
	v = min(v, 8158) + 33
	seg := bits.Len(uint(v)) - 6
	return byte(seg<<4|v>>(seg+1)&0x0F) ^ mask
}
