package prompt

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"
)

// wave makes a WAV file.
func wave(tag, channels uint16, rate uint32, bits uint16, data []byte) []byte {
	b := []byte("RIFF\x00\x00\x00\x00WAVELIST\x03\x00\x00\x00abc\x00fmt \x10\x00\x00\x00") // an odd chunk first
	b = binary.LittleEndian.AppendUint16(b, tag)
	b = binary.LittleEndian.AppendUint16(b, channels)
	b = binary.LittleEndian.AppendUint32(b, rate)
	b = binary.LittleEndian.AppendUint32(b, rate*uint32(channels)*uint32(bits)/8)
	b = binary.LittleEndian.AppendUint16(b, channels*bits/8)
	b = binary.LittleEndian.AppendUint16(b, bits)
	b = append(b, "data"...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// tone is 16-bit PCM of a sine; its level is in dB below full scale, on the mean.
func tone(hz, seconds, level float64) []byte {
	var b []byte
	peak := 32768 * math.Sqrt2 * math.Pow(10, -level/20)
	for i := range int(8000 * seconds) {
		b = binary.LittleEndian.AppendUint16(b, uint16(int16(peak*math.Sin(2*math.Pi*hz*float64(i)/8000))))
	}
	return b
}

// power is how much of a clip lies at a frequency, of 1 (Goertzel).
func power(alaw []byte, hz float64) float64 {
	var s1, s2, total float64
	k := 2 * math.Cos(2*math.Pi*hz/8000)
	for _, v := range linear(alaw) {
		s := float64(v) + k*s1 - s2
		s1, s2 = s, s1
		total += float64(v) * float64(v)
	}
	return (s1*s1 + s2*s2 - k*s1*s2) * 2 / (total * float64(len(alaw)))
}

func TestParseWAV(t *testing.T) {
	pcm := tone(1000, 1, 20)
	want, err := ParseWAV(wave(wavePCM, 1, 8000, 16, pcm))
	if err != nil || len(want) != 8000 || power(want, 1000) < 0.98 {
		t.Fatalf("PCM: %d bytes, %.2f at 1 kHz, %v", len(want), power(want, 1000), err)
	}
	same, err := ParseWAV(wave(waveALaw, 1, 8000, 8, want))
	if err != nil || !slices.Equal(same, want) {
		t.Errorf("A-law is changed: %v", err)
	}
	near, err := ParseWAV(wave(waveMuLaw, 1, 8000, 8, muLaw(want)))
	if err != nil || len(near) != 8000 || power(near, 1000) < 0.97 {
		t.Errorf("µ-law: %d bytes, %.2f at 1 kHz, %v", len(near), power(near, 1000), err)
	}
	unknown := wave(wavePCM, 1, 8000, 16, pcm)
	binary.LittleEndian.PutUint32(unknown[len(unknown)-len(pcm)-4:], math.MaxUint32) // written to a pipe
	if got, err := ParseWAV(unknown); err != nil || !slices.Equal(got, want) {
		t.Errorf("a length that was not known: %d bytes, %v", len(got), err)
	}
	for name, tt := range map[string]struct {
		src  []byte
		want string
	}{
		"no WAV":       {[]byte("ID3"), "not a WAV"},
		"stereo":       {wave(wavePCM, 2, 8000, 16, pcm), "2 channels; make it mono"},
		"16 kHz":       {wave(wavePCM, 1, 16000, 16, pcm), "16000 samples a second; make it 8000"},
		"24 bits":      {wave(wavePCM, 1, 8000, 24, pcm), "WAV format 1 of 24 bits; make it 16-bit PCM"},
		"MP3 inside":   {wave(0x55, 1, 8000, 16, pcm), "WAV format 85"},
		"no data":      {wave(wavePCM, 1, 8000, 16, nil)[:48], "has no data"},
		"short format": {[]byte("RIFF\x00\x00\x00\x00WAVEfmt \x02\x00\x00\x00\x01\x00"), "cut short"},
		"cut chunk":    {[]byte("RIFF\x00\x00\x00\x00WAVEfmt \xff\x00\x00\x00\x01\x00"), "cut short"},
		"data first":   {[]byte("RIFF\x00\x00\x00\x00WAVEdata\x02\x00\x00\x00\x01\x00"), "before its format"},
	} {
		if _, err := ParseWAV(tt.src); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %s", name, err, tt.want)
		}
	}
}

func FuzzParseWAV(f *testing.F) {
	f.Add(wave(wavePCM, 1, 8000, 16, tone(1000, 0.01, 20)))
	f.Add(wave(waveALaw, 1, 8000, 8, []byte{1, 2, 3}))
	f.Add(wave(waveMuLaw, 1, 8000, 8, []byte{1, 2, 3}))
	f.Add([]byte("RIFF\x00\x00\x00\x00WAVEfmt \xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, src []byte) {
		if alaw, err := ParseWAV(src); err == nil && len(alaw) > len(src) {
			t.Errorf("%d samples of %d bytes", len(alaw), len(src))
		}
	})
}

func TestCheck(t *testing.T) {
	clip := func(level float64) []byte {
		alaw, err := ParseWAV(wave(wavePCM, 1, 8000, 16, tone(500, 1, level)))
		if err != nil {
			t.Fatal(err)
		}
		return alaw
	}
	long := make([]byte, 8000*121)
	for name, tt := range map[string]struct {
		alaw []byte
		want string
	}{
		"silence":  {ALaw(make([]int16, 8000)), "nothing but silence"},
		"empty":    {nil, "nothing but silence"},
		"faint":    {clip(43), "too faint (43 dB"},
		"loud":     {clip(4), "too loud (4 dB"},
		"too long": {long, "2m1s long; make it at most 2m0s"},
	} {
		if err := check(tt.alaw); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %s", name, err, tt.want)
		}
	}
	if err := check(clip(20)); err != nil {
		t.Error(err)
	}
}
