package main

import "math"

const rate = 8000

// beep is the tone before a message: 1 kHz for 400 ms at -12 dBFS, its edges rounded against clicks.
func beep() []int16 {
	const edge = rate / 100
	out := make([]int16, rate*4/10)
	for i := range out {
		gain := min(1, float64(i)/edge, float64(len(out)-1-i)/edge)
		out[i] = int16(8000 * gain * math.Sin(2*math.Pi*1000*float64(i)/rate))
	}
	return out
}

// The hold music is ours: eight bars of broken chords, two notes a second under a quiet high voice.
// The notes lie between 260 and 1,600 Hz, where a telephone carries them and their first overtones.
var (
	bars = [][4]int{ // as MIDI notes: C, Am7, F, G, Em7, Am, Dm7, G7
		{60, 64, 67, 72}, {60, 64, 67, 69}, {60, 65, 69, 72}, {62, 67, 71, 74},
		{62, 64, 67, 71}, {60, 64, 69, 72}, {60, 62, 65, 69}, {62, 65, 67, 71},
	}
	figure = []int{0, 1, 2, 3, 2, 1, 2, 1} // which note of the chord each beat plays
	melody = []int{84, 0, 81, 79, 81, 0, 84, 86, 83, 0, 84, 81, 77, 0, 79, 83}
)

// music is a loop of 32 s. A note that still sounds at the end goes on at the start: no seam is heard.
func music() []int16 {
	const beat = rate / 2
	mix := make([]float64, len(bars)*len(figure)*beat)
	for bar, chord := range bars {
		for i, n := range figure {
			pluck(mix, (bar*len(figure)+i)*beat, chord[n], 0.30, 1.1)
		}
	}
	for i, n := range melody {
		if n > 0 {
			pluck(mix, i*4*beat+beat/50, n, 0.16, 1.8)
		}
	}
	out := make([]int16, len(mix))
	for i, s := range mix {
		out[i] = int16(math.Tanh(s) * 9000) // soft against peaks, about -24 dBFS on the mean
	}
	return out
}

// pluck adds one note with three overtones; decay is the time in seconds to fall to 1/e.
func pluck(mix []float64, at, midi int, gain, decay float64) {
	f := 440 * math.Pow(2, float64(midi-69)/12)
	for i := range int(decay * 4 * rate) {
		t := float64(i) / rate
		env := gain * min(1, t/0.012) * math.Exp(-t/decay)
		var s float64
		for k, weight := range []float64{1, 0.35, 0.15} {
			if h := f * float64(k+1); h < 3400 {
				s += weight * math.Exp(-t*float64(k)*1.5) * math.Sin(2*math.Pi*h*t)
			}
		}
		mix[(at+i)%len(mix)] += env * s
	}
}
