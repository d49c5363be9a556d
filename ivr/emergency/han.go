package emergency

import (
	_ "embed"
	"strings"
	"sync"
)

//go:generate go run ./gen/han
//go:embed data/han.txt
var hanText string

// syllable is a reading without its tone, or what recognisers and callers cannot tell from it; 0 is none.
type syllable uint16

// hanTable has a place for every character of the basic plane, so that looking one up costs no search.
type hanTable struct {
	fold   [1 << 16]uint16 // as it is compared; 0 is as it is
	spoken [1 << 16]syllable
	fuzzy  []syllable // by syllable: the first of those that sound alike
}

var han = sync.OnceValue(func() *hanTable {
	t := &hanTable{fuzzy: []syllable{0}}
	alike := map[string]syllable{}
	for line := range strings.Lines(hanText) {
		name, chars, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		switch {
		case strings.HasPrefix(name, "#"):
		case name == "=":
			pairs := []rune(chars)
			for i := 0; i+1 < len(pairs); i += 2 {
				t.fold[pairs[i]] = uint16(pairs[i+1])
			}
		default:
			s := syllable(len(t.fuzzy))
			key := blur(name)
			if alike[key] == 0 {
				alike[key] = s
			}
			t.fuzzy = append(t.fuzzy, alike[key])
			for _, r := range chars {
				t.spoken[r] = s
			}
		}
	}
	return t
})

// blurred are the sounds that Chinese speakers of the south merge, and recognisers after them.
var blurred = strings.NewReplacer("zh", "z", "ch", "c", "sh", "s", "ang", "an", "eng", "en", "ing", "in")

// blur gives syllables that are hard to tell apart one name: flat and curled tongue, n and l, f and h
// before u, front and back nasals.
func blur(name string) string {
	name = blurred.Replace(name)
	switch {
	case name[0] == 'n' || name[0] == 'r':
		return "l" + name[1:]
	case name == "hui":
		return "fei"
	case name == "hun":
		return "fen"
	case name != "hu" && strings.HasPrefix(name, "hu"):
		return "f" + name[2:]
	case name == "hu":
		return "fu"
	}
	return name
}

// simple is a character as it is compared: narrow, simplified, in lower case.
func (t *hanTable) simple(r rune) rune {
	if r > 0xFFFF {
		return r
	}
	if to := t.fold[r]; to != 0 {
		r = rune(to)
	}
	if 'A' <= r && r <= 'Z' {
		r += 'a' - 'A'
	}
	return r
}

// sound is a character's toneless reading as a symbol of an automaton; a character without one stands
// for itself, above all syllables.
func (t *hanTable) sound(r rune) rune {
	if r <= 0xFFFF && t.spoken[r] != 0 {
		return rune(t.spoken[r])
	}
	return r + 1<<16
}

// hazy is sound, with syllables that are hard to tell apart as one.
func (t *hanTable) hazy(r rune) rune {
	if r <= 0xFFFF && t.spoken[r] != 0 {
		return rune(t.fuzzy[t.spoken[r]])
	}
	return r + 1<<16
}
