package emergency

import (
	"slices"
	"strings"
	"unicode"
)

// longest is how much of a transcript is looked at, in characters: its end, since danger is now.
const longest = 240

// text is an utterance as the detector compares it: folded, without punctuation and fillers, spoken
// numbers of services as digits.
type text struct {
	runes  []rune
	breaks []bool // by index in runes: a clause ended before it
}

// read replaces t by the words of s.
func (t *text) read(s string) {
	h := han()
	t.runes, t.breaks = t.runes[:0], t.breaks[:0]
	broken := true
	for _, r := range tail(s) {
		r = h.simple(r)
		switch {
		case r == '\'' || r == '’':
			continue // can't is cant, with and without a careful recogniser
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			t.add(r, broken)
			broken = false
		case unicode.IsSpace(r) && !broken && latin(t.runes[len(t.runes)-1]):
			t.add(' ', false)
		case unicode.IsPunct(r):
			broken = true
		}
	}
	if n := len(t.runes); n > 0 && t.runes[n-1] == ' ' {
		t.runes, t.breaks = t.runes[:n-1], t.breaks[:n-1]
	}
	t.unstutter()
	t.drop()
	t.dial()
}

// tail is the end of s that is looked at, found without reading what comes before.
func tail(s string) string {
	if len(s) <= longest {
		return s
	}
	n := 0
	for i := len(s) - 1; i > 0; i-- {
		if s[i]&0xC0 != 0x80 {
			if n++; n == longest {
				return s[i:]
			}
		}
	}
	return s
}

func (t *text) add(r rune, broken bool) {
	if n := len(t.runes); n > 0 && t.runes[n-1] == ' ' {
		if r == ' ' {
			return
		}
		if !latin(r) { // no space between a word and a character
			t.runes, t.breaks = t.runes[:n-1], t.breaks[:n-1]
		}
	} else if n > 0 && broken && latin(r) && latin(t.runes[n-1]) {
		t.runes, t.breaks = append(t.runes, ' '), append(t.breaks, false)
	}
	t.runes, t.breaks = append(t.runes, r), append(t.breaks, broken)
}

func latin(r rune) bool { return r < 0x250 && r != ' ' }

// unstutter leaves one of three and more of the same character in a row; numbers stay.
func (t *text) unstutter() {
	n := 0
	for i := 0; i < len(t.runes); {
		end := i + 1
		for end < len(t.runes) && t.runes[end] == t.runes[i] {
			end++
		}
		keep := end
		if end-i >= 3 && !latin(t.runes[i]) && digits[t.runes[i]] == 0 {
			keep = i + 1
		}
		n += copy(t.runes[n:], t.runes[i:keep])
		copy(t.breaks[n-(keep-i):], t.breaks[i:keep])
		i = end
	}
	t.runes, t.breaks = t.runes[:n], t.breaks[:n]
}

// fillers carry nothing wherever they stand; 额 is one as a clause alone (额头, 金额).
var fillers = [][]rune{[]rune("那个"), []rune("就是说"), []rune("怎么说呢"), []rune("嗯"), []rune("呃"), []rune("唔"), []rune("诶"), []rune("欸"), []rune("哎")}

// drop takes the fillers out; the end of a clause within them stays.
func (t *text) drop() {
	n, broken := 0, false
	for i := 0; i < len(t.runes); {
		if w := t.filler(i); w > 0 {
			broken = broken || slices.Contains(t.breaks[i:i+w], true)
			i += w
			continue
		}
		t.runes[n], t.breaks[n] = t.runes[i], t.breaks[i] || broken
		broken = false
		n, i = n+1, i+1
	}
	t.runes, t.breaks = t.runes[:n], t.breaks[:n]
}

func (t *text) filler(i int) int {
	if t.runes[i] == '额' && t.breaks[i] && i+1 < len(t.runes) && t.breaks[i+1] {
		return 1
	}
	for _, f := range fillers {
		if t.runes[i] == f[0] && len(t.runes)-i >= len(f) && slices.Equal(t.runes[i:i+len(f)], f) {
			return len(f)
		}
	}
	return 0
}

// digits are the ways to say one, and to mishear it.
var digits = func() map[rune]rune {
	m := map[rune]rune{}
	for digit, said := range map[rune]string{'0': "零灵洞〇○0", '1': "一幺妖腰要夭1", '2': "二两2", '9': "九9",
		'x': "三四五六七八345678"} { // part of a number, but of no service's
		for _, r := range said {
			m[r] = digit
		}
	}
	return m
}()

// dial writes a service's number as digits where exactly three are said: not in 五一一零, nor in 110023.
// 要 may stand before, since it is a word too (我要一一零).
func (t *text) dial() {
	for i := 0; i < len(t.runes); i++ {
		end := i
		for end < len(t.runes) && digits[t.runes[end]] != 0 && (end == i || !t.breaks[end]) {
			end++
		}
		start := i
		i = max(i, end)
		if end-start == 4 && t.runes[start] == '要' {
			start++
		}
		if end-start != 3 {
			continue
		}
		said := [3]rune{digits[t.runes[start]], digits[t.runes[start+1]], digits[t.runes[start+2]]}
		switch said {
		case [3]rune{'1', '1', '0'}, [3]rune{'1', '1', '9'}, [3]rune{'1', '2', '0'}, [3]rune{'1', '2', '2'}:
			copy(t.runes[start:end], said[:])
		}
	}
}

func (t *text) String() string {
	var b strings.Builder
	for i, r := range t.runes {
		if t.breaks[i] && i > 0 {
			b.WriteByte('|')
		}
		b.WriteRune(r)
	}
	return b.String()
}
