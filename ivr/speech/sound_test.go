package speech

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/hotline12345/gateway/internal/call"
)

// power is a tone's share of 16 kHz sound.
func power(b []byte, hz float64) float64 {
	var re, im, all float64
	n := len(b) / 2
	for i := range n {
		v := float64(int16(binary.LittleEndian.Uint16(b[2*i:])))
		re += v * math.Cos(2*math.Pi*hz*float64(i)/(2*call.Rate))
		im += v * math.Sin(2*math.Pi*hz*float64(i)/(2*call.Rate))
		all += v * v
	}
	return 2 * (re*re + im*im) / (float64(n) * all)
}

// TestDoublingKeepsTheTone looks for the mirror image that a bad interpolation leaves above 4 kHz.
func TestDoublingKeepsTheTone(t *testing.T) {
	for _, hz := range []float64{300, 1000, 2000, 3000} {
		p := newPCM(16000)
		var out []byte
		for i := range 50 {
			out = p.append(out, tone(hz, 8000, i))
		}
		if len(out) != 50*call.FrameBytes*4 {
			t.Fatalf("%d bytes", len(out))
		}
		out = out[400:] // the filter is filled
		if share, image := power(out, hz), power(out, 8000-hz); share < 0.99 || image > 0.002 {
			t.Errorf("%v Hz: %.4f of the power, and %.4f in the image", hz, share, image)
		}
	}
}

func TestVoiceGetsUsedToNoise(t *testing.T) {
	var v voice
	street := func(frames int) (heard int) {
		for i := range frames {
			if v.hear(tone(180, 1500, i)) != nil {
				heard++
			}
		}
		return heard
	}
	street(1500)
	if n := street(100); n != 0 {
		t.Errorf("%d of 100 frames of a street are speech after 30 s of it", n)
	}
	heard := 0
	for i := range 25 {
		if v.hear(tone(500, 9000, i)) != nil {
			heard++
		}
	}
	if heard < 20 {
		t.Errorf("%d of 25 frames over the street are heard", heard)
	}
}

func TestSpeechBringsItsBeginning(t *testing.T) {
	var v voice
	for i := range 50 {
		if v.hear(tone(50, 10, i)) != nil {
			t.Fatal("silence is heard")
		}
	}
	if v.hear(tone(500, 9000, 0)) != nil {
		t.Error("a click of 20 ms is speech")
	}
	if n := len(v.hear(tone(500, 9000, 1))); n < before || n > before+2*call.FrameBytes {
		t.Errorf("speech begins with %d samples", n)
	}
}

func TestTape(t *testing.T) {
	p := tape{more: make(chan struct{}, 1)}
	if lost := p.write(make([]byte, tapeLength)); lost != 0 {
		t.Errorf("lost %d", lost)
	}
	if lost := p.write([]byte{7, 8}); lost != 2 {
		t.Errorf("lost %d", lost)
	}
	b := make([]byte, tapeLength)
	if !p.read(b) || b[tapeLength-1] != 8 || p.read(b[:1]) {
		t.Error("what was read is not what was written")
	}
	p.rewind()
	if !p.read(b) || b[tapeLength-2] != 7 {
		t.Error("a rewound tape plays something else")
	}
}

func TestVoskAnswers(t *testing.T) {
	v := &vosk{hz: 8000}
	for _, c := range []struct {
		in, text string
		final    bool
		ok, bad  bool
	}{
		{in: `{"partial" : ""}`},
		{in: `{"partial" : "煤气 泄漏"}`, text: "煤气泄漏", ok: true},
		{in: `{"partial" : "煤气 泄漏"}`, text: "煤气泄漏"},
		{in: `{"result" : [{"conf":1.0,"start":0.1,"end":0.5,"word":"x"}], "text" : "there is a fire"}`, text: "there is a fire", final: true, ok: true},
		{in: `{"text" : ""}`, final: true},
		{in: `[]`, bad: true}, {in: `{}`, bad: true}, {in: ``, bad: true},
	} {
		r, ok, err := v.read([]byte(c.in))
		if r.Text != c.text || r.Final != c.final || ok != c.ok || (err != nil) != c.bad {
			t.Errorf("%s: %+v %v %v", c.in, r, ok, err)
		}
	}
	if got := []rune(sentence(strings.Repeat("火 ", 5000))); len(got) != MaxRunes {
		t.Errorf("%d runes", len(got))
	}
}

func FuzzVoskAnswer(f *testing.F) {
	f.Add([]byte(`{"partial" : "a b"}`))
	f.Add([]byte(`{"text" : "着火 了"}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		v := &vosk{hz: 8000}
		if r, ok, err := v.read(answer); err == nil && (ok && r.Text == "" || len([]rune(r.Text)) > MaxRunes) {
			t.Errorf("%q: %+v", answer, r)
		}
	})
}
