package emergency

import (
	"slices"
	"unicode/utf8"
)

// hit is a phrase or a rule found in a text.
type hit struct {
	id         string // the phrase, or the rule's id
	service    string
	tier       tier
	start, end int
	off        string // the kind of what suppresses it
	sound      bool   // by its sound alone
	rule       bool
	own        bool
}

// sense is a concept found in a text.
type sense struct{ concept, start, end int }

// scan is one reading of an utterance. It is used again for the next, so that a reading costs few
// allocations.
type scan struct {
	text
	sounds []rune
	hits   []hit
	senses []sense
	awake  []bool // by rule
	floor  floor
}

// reach is how many characters before a phrase a negation may begin.
const reach = 6

// scan reads an utterance.
func (l *lexicon) scan(s *scan, utterance string) {
	s.read(utterance)
	s.hits, s.senses = s.hits[:0], s.senses[:0]
	s.awake = slices.Grow(s.awake[:0], len(l.rules))[:len(l.rules)]
	clear(s.awake)
	l.exact.find(s.runes, func(id, end int) {
		m := l.exactMean[id]
		start := end - m.size
		switch {
		case m.what == anAnchor:
			s.awake[m.index] = true
		case !s.whole(start, end):
		case m.what == aWord:
			s.word(l, m.index, end, false)
		case m.what == aConcept:
			s.senses = append(s.senses, sense{m.index, start, end})
		}
	})
	l.listen(s)
	l.wake(s)
	s.suppress()
	s.settle()
}

// whole tells whether a span of Latin letters ends where words end: fire is not in firewall.
func (s *scan) whole(start, end int) bool {
	cut := func(i int) bool {
		return i > 0 && i < len(s.runes) && latin(s.runes[i-1]) && latin(s.runes[i]) && s.runes[i] > '9' && s.runes[i-1] > '9'
	}
	return !cut(start) && !cut(end)
}

func (s *scan) word(l *lexicon, id, end int, sound bool) {
	w := &l.words[id]
	s.hits = append(s.hits, hit{id: w.phrase, service: w.service, tier: w.tier, start: end - len(l.spelled[id]), end: end, sound: sound, own: w.own})
}

// listen finds phrases by their sound.
func (l *lexicon) listen(s *scan) {
	h := han()
	heard := func(id, end int) {
		if spelled := l.spelled[id]; misheard(spelled, s.runes[end-len(spelled):end]) {
			s.word(l, id, end, true)
		}
	}
	s.sounds = s.sounds[:0]
	for _, r := range s.runes {
		s.sounds = append(s.sounds, h.sound(r))
	}
	l.same.find(s.sounds, heard)
	for i, r := range s.runes {
		s.sounds[i] = h.hazy(r)
	}
	l.near.find(s.sounds, heard)
}

// misheard tells whether a text that sounds like a phrase is not the phrase and yet has a character of it:
// words that only sound alike are mostly other words.
func misheard(phrase, heard []rune) bool {
	same := 0
	for i := range phrase {
		if phrase[i] == heard[i] {
			same++
		}
	}
	return same > 0 && same < len(phrase)
}

// wake tries the rules that can match.
func (l *lexicon) wake(s *scan) {
	var line string
	for i, awake := range s.awake {
		if !awake {
			continue
		}
		if line == "" {
			line = string(s.runes)
		}
		r := &l.rules[i]
		if at := r.re.FindStringIndex(line); at != nil {
			start := utf8.RuneCountInString(line[:at[0]])
			s.hits = append(s.hits, hit{id: r.id, service: r.service, tier: r.tier, start: start, end: start + utf8.RuneCountInString(line[at[0]:at[1]]), rule: true, own: r.own})
		}
	}
}
