package speech

import (
	"encoding/json"
	"strings"
	"unicode"
)

// vosk is the protocol of vosk-server's websocket (asr_server.py): one answer a message of sound.
type vosk struct {
	hz   int
	last string // the partial text, which the server repeats with every answer
}

func (v *vosk) rate() int { return v.hz }

func (v *vosk) hello() []byte {
	var m struct {
		Config struct {
			SampleRate      int  `json:"sample_rate"`
			Words           bool `json:"words"`
			MaxAlternatives int  `json:"max_alternatives"`
		} `json:"config"`
	}
	m.Config.SampleRate = v.hz
	b, _ := json.Marshal(m) // of plain fields: it cannot fail
	return b
}

// bye must be this text to the letter: the server compares strings.
func (v *vosk) bye() []byte { return []byte(`{"eof" : 1}`) }

func (v *vosk) read(answer []byte) (Result, bool, error) {
	var m struct {
		Partial *string `json:"partial"`
		Text    *string `json:"text"`
	}
	if err := json.Unmarshal(answer, &m); err != nil || m.Partial == nil && m.Text == nil {
		return Result{}, false, errGarbled
	}
	if m.Text != nil {
		v.last = ""
		text := sentence(*m.Text)
		return Result{Text: text, Final: true}, text != "", nil
	}
	text := sentence(*m.Partial)
	fresh := text != v.last
	v.last = text
	return Result{Text: text}, fresh, nil
}

// sentence takes out the blanks that a recogniser puts between Chinese words, and keeps the end of what is too long.
func sentence(words string) string {
	var b strings.Builder
	var before rune
	for _, w := range strings.Fields(words) {
		for i, r := range w {
			if i == 0 && before != 0 && !unicode.Is(unicode.Han, before) && !unicode.Is(unicode.Han, r) {
				b.WriteByte(' ')
			}
			b.WriteRune(r)
			before = r
		}
	}
	if runes := []rune(b.String()); len(runes) > MaxRunes {
		return string(runes[len(runes)-MaxRunes:])
	}
	return b.String()
}
