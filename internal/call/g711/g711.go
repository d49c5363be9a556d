// Package g711 is ITU-T G.711: A-law and µ-law, and the tables between them and linear PCM.
package g711

import "math/bits"

// The codes of silence.
const (
	SilenceA = 0xD5
	SilenceU = 0xFF
)

// ALawToLinear and ULawToLinear decode one sample to 16-bit PCM.
var ALawToLinear, ULawToLinear = decoders()

// ALawToULaw and ULawToALaw change the law of one sample without loss that a decode and an encode
// would not have.
var ALawToULaw, ULawToALaw = translators()

func decoders() (a, u [256]int16) {
	for i := range 256 {
		a[i], u[i] = decodeALaw(byte(i)), decodeULaw(byte(i))
	}
	return a, u
}

func translators() (au, ua [256]byte) {
	for i := range 256 {
		au[i] = EncodeULaw(ALawToLinear[i])
		ua[i] = EncodeALaw(ULawToLinear[i])
	}
	return au, ua
}

func decodeALaw(b byte) int16 {
	b ^= 0x55
	exp, man := int(b>>4&7), int(b&0xF)
	v := man<<4 + 8
	if exp > 0 {
		v = (v + 0x100) << (exp - 1)
	}
	if b&0x80 == 0 {
		return int16(-v)
	}
	return int16(v)
}

func decodeULaw(b byte) int16 {
	b = ^b
	exp, man := int(b>>4&7), int(b&0xF)
	v := (man<<3+0x84)<<exp - 0x84
	if b&0x80 != 0 {
		return int16(-v)
	}
	return int16(v)
}

// EncodeALaw encodes one sample of 16-bit PCM.
func EncodeALaw(s int16) byte {
	v, sign := int(s), byte(0x80)
	if v < 0 {
		v, sign = -v-1, 0
	}
	v >>= 4
	exp := max(0, bits.Len(uint(v))-4)
	if exp > 0 {
		v >>= exp - 1
		return (sign | byte(exp)<<4 | byte(v&0xF)) ^ 0x55
	}
	return (sign | byte(v&0x1F)) ^ 0x55
}

// EncodeULaw encodes one sample of 16-bit PCM.
func EncodeULaw(s int16) byte {
	v, sign := int(s), byte(0)
	if v < 0 {
		v, sign = -v, 0x80
	}
	v = min(v, 32635) + 0x84
	exp := bits.Len(uint(v)) - 8
	return ^(sign | byte(exp)<<4 | byte(v>>(exp+3)&0xF))
}
