package emergency

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	_ "embed"
)

//go:embed data/phrases.tsv
var phrasesText string

//go:embed data/rules.tsv
var rulesText string

//go:embed data/concepts.tsv
var conceptsText string

// Lexicon is all that the package looks for, as its files have it. A model is true to one lexicon.
func Lexicon() []byte { return []byte(hanText + phrasesText + rulesText + conceptsText) }

// shortestSound is the least number of syllables that is looked for by its sound: two are in too many words.
const shortestSound = 3

// lexicon is all that is looked for in a text. It does not change once built.
type lexicon struct {
	words    []Word
	spelled  [][]rune // of words, as read
	rules    []rule
	concepts []string

	exact      *automaton
	exactMean  []meaning  // by id in exact
	same, near *automaton // by sound; ids are those of words
}

// maxConcepts is how many concepts there may be.
const maxConcepts = 128

// meaning is what an entry of the exact automaton stands for.
type meaning struct {
	what  what
	index int
	size  int // in characters
}

type what byte

const (
	aWord what = iota
	anAnchor
	aConcept
)

// newLexicon builds the package's own lexicon with an operator's words added.
func newLexicon(own []Word) (*lexicon, error) {
	words, err := ReadWords(strings.NewReader(phrasesText), "phrases.tsv")
	if err != nil {
		return nil, err
	}
	l := &lexicon{exact: newAutomaton(), same: newAutomaton(), near: newAutomaton()}
	rules, err := parseRules(rulesText)
	if err != nil {
		return nil, err
	}
	l.rules = rules
	for _, w := range own {
		w.own = true
		words = append(words, w)
	}
	for _, w := range words {
		l.addWord(w)
	}
	for i, r := range l.rules {
		for _, a := range r.anchors {
			l.look([]rune(a), meaning{anAnchor, i, 0})
		}
	}
	if err := l.addConcepts(conceptsText); err != nil {
		return nil, err
	}
	l.exact.build()
	l.same.build()
	l.near.build()
	return l, nil
}

func (l *lexicon) look(word []rune, m meaning) {
	m.size = len(word)
	l.exact.add(word, len(l.exactMean))
	l.exactMean = append(l.exactMean, m)
}

func (l *lexicon) addWord(w Word) {
	if strings.Contains(w.phrase, "~") {
		l.rules = append(l.rules, w.gap())
		return
	}
	var t text
	t.read(w.phrase)
	id := len(l.words)
	l.words, l.spelled = append(l.words, w), append(l.spelled, t.runes)
	l.look(t.runes, meaning{aWord, id, 0})
	if w.match == written || len(t.runes) < shortestSound {
		return
	}
	h := han()
	sounds := make([]rune, len(t.runes))
	for i, r := range t.runes {
		if sounds[i] = h.sound(r); w.match == alike {
			sounds[i] = h.hazy(r)
		}
	}
	if w.match == alike {
		l.near.add(sounds, id)
	} else {
		l.same.add(sounds, id)
	}
}

// addConcepts reads a line for each concept: its name, then its words; _ is a space in one.
func (l *lexicon) addConcepts(tsv string) error {
	var errs []error
	for line := range strings.Lines(tsv) {
		name, words, ok := strings.Cut(strings.TrimSpace(line), "\t")
		switch {
		case line == "\n" || strings.HasPrefix(line, "#"):
		case !ok:
			errs = append(errs, errors.New("concepts.tsv: "+name+" has no words"))
		default:
			id := slices.Index(l.concepts, name)
			if id < 0 {
				if id = len(l.concepts); id == maxConcepts {
					return fmt.Errorf("concepts.tsv: more than %d concepts", maxConcepts)
				}
				l.concepts = append(l.concepts, name)
			}
			for w := range strings.FieldsSeq(words) {
				var t text
				t.read(strings.ReplaceAll(w, "_", " "))
				l.look(t.runes, meaning{aConcept, id, 0})
			}
		}
	}
	return errors.Join(errs...)
}
