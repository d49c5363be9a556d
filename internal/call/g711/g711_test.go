package g711

import "testing"

// Every code must survive a decode and an encode, but for µ-law's negative zero.
func TestRoundTrip(t *testing.T) {
	for i := range 256 {
		if got := EncodeALaw(ALawToLinear[i]); got != byte(i) {
			t.Errorf("A-law %#02x came back as %#02x (%d)", i, got, ALawToLinear[i])
		}
		if got := EncodeULaw(ULawToLinear[i]); got != byte(i) && i != 0x7F {
			t.Errorf("µ-law %#02x came back as %#02x (%d)", i, got, ULawToLinear[i])
		}
	}
}

// The values of ITU-T G.711 tables 1a and 2a, scaled to 16 bits.
func TestKnownValues(t *testing.T) {
	for code, want := range map[byte]int16{SilenceA: 8, 0x55: -8, 0xAA: 32256, 0x2A: -32256} {
		if got := ALawToLinear[code]; got != want {
			t.Errorf("A-law %#02x is %d, want %d", code, got, want)
		}
	}
	for code, want := range map[byte]int16{SilenceU: 0, 0x80: 32124, 0x00: -32124} {
		if got := ULawToLinear[code]; got != want {
			t.Errorf("µ-law %#02x is %d, want %d", code, got, want)
		}
	}
}

// A quantised sample is within half a step of its segment.
func TestEncodeIsNearest(t *testing.T) {
	for v := -32768; v <= 32767; v += 7 {
		s := int16(v)
		for name, got := range map[string]int16{"A": ALawToLinear[EncodeALaw(s)], "µ": ULawToLinear[EncodeULaw(s)]} {
			if diff := abs(int(got) - v); diff > 16+abs(v)/16 {
				t.Fatalf("%s-law: %d came back as %d", name, v, got)
			}
		}
	}
}

func abs(v int) int {
	if v < 0 {
		return -v
	}
	return v
}

// Samples at the ends and in the middle, as the recommendation encodes them.
func TestEncodesKnownSamples(t *testing.T) {
	for s, want := range map[int16]byte{0: 0xd5, -1: 0x55, 32767: 0xaa, -32768: 0x2a, 1000: 0xfa} {
		if got := EncodeALaw(s); got != want {
			t.Errorf("A-law of %d is %#x; want %#x", s, got, want)
		}
	}
	for s, want := range map[int16]byte{0: 0xff, 32767: 0x80, -32768: 0x00, 1000: 0xce} {
		if got := EncodeULaw(s); got != want {
			t.Errorf("µ-law of %d is %#x; want %#x", s, got, want)
		}
	}
}
