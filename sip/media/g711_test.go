package media

import "testing"

func TestG711(t *testing.T) {
	// ITU-T G.711 tables 1a to 2b: the ends and the zeros of both laws.
	for b, want := range map[byte]int16{0xD5: 8, 0x55: -8, 0xAA: 32256, 0x2A: -32256, 0x80: 5504} {
		if got := ALawToLinear(b); got != want {
			t.Errorf("A-law %#x is %d, want %d", b, got, want)
		}
	}
	for b, want := range map[byte]int16{0xFF: 0, 0x7F: 0, 0x80: 32124, 0x00: -32124, 0xF0: 120} {
		if got := ULawToLinear(b); got != want {
			t.Errorf("µ-law %#x is %d, want %d", b, got, want)
		}
	}
	for i := range 256 {
		b := byte(i)
		if got := LinearToALaw(ALawToLinear(b)); got != b {
			t.Errorf("A-law %#x comes back as %#x", b, got)
		}
		if got := LinearToULaw(ULawToLinear(b)); got != b && b != 0x7F { // two zeros
			t.Errorf("µ-law %#x comes back as %#x", b, got)
		}
	}
	for v := -32768; v < 32768; v++ {
		a, u := int(ALawToLinear(LinearToALaw(int16(v)))), int(ULawToLinear(LinearToULaw(int16(v))))
		if max(a-v, v-a) > max(v, -v)/16+520*(max(v, -v)/32000)+16 || max(u-v, v-u) > max(v, -v)/16+660*(max(v, -v)/32000)+8 {
			t.Fatalf("%d comes back as A-law %d, µ-law %d", v, a, u)
		}
	}
	for i := range 256 {
		b := byte(i)
		if got, want := ULawToLinear(ALawToULaw(b)), ALawToLinear(b); max(got-want, want-got) > max(want, -want)/16+8 {
			t.Errorf("A-law %#x (%d) becomes %d in µ-law", b, want, got)
		}
	}
}
