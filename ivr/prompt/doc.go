// Package prompt is the catalogue of what the line says: prompts in Mandarin and English, numbers,
// digits and times read aloud, and the music of a waiting caller.
//
// The table configs/prompts/prompts.tsv names every prompt and its text. Its voices are made by
// `go generate` with espeak-ng and sox, kept as raw A-law and built into the program; µ-law is derived
// at load. An operator replaces any of them by its identity, without a rebuild:
//
//	<dir>/zh/welcome.wav     WAV, 8 kHz, mono: 16-bit PCM, A-law or µ-law
//	<dir>/en/welcome.al      or raw A-law
//	<dir>/common/music.wav   the same in every language: music, beep, pause
//
// The files are checked when the catalogue is made: identity, form, at most [MaxLength], and speech
// that is neither faint nor clipped. What one language lacks is said in the other, and counted.
//
// A clip's identity is its language and prompt, such as "zh/welcome".
package prompt

//go:generate go run ./gen
