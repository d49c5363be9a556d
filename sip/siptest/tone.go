package siptest

import (
	"math"
	"time"
)

// rate is the sampling rate of the line.
const rate = 8000

// Tone is a sine of hz at half of full scale, 8 kHz linear.
func Tone(hz float64, d time.Duration) []int16 {
	pcm := make([]int16, int(d.Seconds()*rate))
	for i := range pcm {
		pcm[i] = int16(16000 * math.Sin(2*math.Pi*hz*float64(i)/rate))
	}
	return pcm
}

// Share is the part of pcm's energy that lies at hz, 0 to 1 (Goertzel). A clean tone is above 0.9.
func Share(pcm []int16, hz float64) float64 {
	var s1, s2, total float64
	k := 2 * math.Cos(2*math.Pi*hz/rate)
	for _, v := range pcm {
		x := float64(v)
		total += x * x
		s1, s2 = x+k*s1-s2, s1
	}
	if total == 0 {
		return 0
	}
	power := s1*s1 + s2*s2 - k*s1*s2
	return 2 * power / (float64(len(pcm)) * total)
}

// ALaw encodes to G.711 A-law.
func ALaw(pcm []int16) []byte {
	out := make([]byte, len(pcm))
	for i, v := range pcm {
		out[i] = alaw(v)
	}
	return out
}

// MuLaw encodes to G.711 µ-law.
func MuLaw(pcm []int16) []byte {
	out := make([]byte, len(pcm))
	for i, v := range pcm {
		out[i] = mulaw(v)
	}
	return out
}

// FromALaw decodes G.711 A-law.
func FromALaw(b []byte) []int16 {
	out := make([]int16, len(b))
	for i, v := range b {
		out[i] = unALaw(v)
	}
	return out
}

// FromMuLaw decodes G.711 µ-law.
func FromMuLaw(b []byte) []int16 {
	out := make([]int16, len(b))
	for i, v := range b {
		out[i] = unMuLaw(v)
	}
	return out
}

// The codes are written from ITU-T G.711's tables, apart from those of sip/media, so that a test hears
// with other ears than the product's.

func alaw(v int16) byte {
	sign := byte(0x80)
	x := int(v)
	if x < 0 {
		sign, x = 0, -x-1
	}
	x >>= 4 // 12 bits of magnitude
	exp := 0
	for x > 31 {
		x >>= 1
		exp++
	}
	code := byte(x) & 0x0F
	if x >= 16 {
		exp++
	}
	return (sign | byte(exp)<<4 | code) ^ 0x55
}

func unALaw(b byte) int16 {
	b ^= 0x55
	exp, x := int(b>>4)&7, int(b&0x0F)<<4+8
	if exp > 0 {
		x = (x + 0x100) << (exp - 1)
	}
	if b&0x80 == 0 {
		x = -x
	}
	return int16(x)
}

func mulaw(v int16) byte {
	sign := byte(0)
	x := int(v)
	if x < 0 {
		sign, x = 0x80, -x
	}
	x = min(x, 32635) + 132
	exp := 7
	for mask := 0x4000; exp > 0 && x&mask == 0; mask >>= 1 {
		exp--
	}
	return ^(sign | byte(exp)<<4 | byte(x>>(exp+3))&0x0F)
}

func unMuLaw(b byte) int16 {
	b = ^b
	x := (int(b&0x0F)<<3+132)<<(int(b>>4)&7) - 132
	if b&0x80 != 0 {
		x = -x
	}
	return int16(x)
}
