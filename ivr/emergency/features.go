package emergency

import (
	"math"

	"github.com/hotline12345/gateway/ivr/emergency/classify"
)

// family is where a feature comes from.
type family uint8

const (
	chars family = iota
	syllables
	skipGram
	latinWord
	concept
	conceptPair
	evidence
	evidenceOff
	kindSaid
	floorSaid
	ownLength
)

// origin lets a feature be told in words: of n-grams the span, of concepts which, of evidence the hit.
type origin struct {
	family family
	a, b   int16
}

// vector is an utterance as the classifier sees it.
type vector struct {
	features []classify.Feature
	origins  []origin
}

// Most characters in an n-gram, and between those of a pair. Four and more were tried: on authors left out
// they cost more than they brought.
const (
	longestGram = 3
	skipped     = 4
)

// The weights of the families: an n-gram says less than what was looked for.
const (
	gramMass    = 6.0
	skipShare   = 0.7 // of an n-gram's
	conceptMass = 0.6
	pairMass    = 0.35
	hitMass     = 0.6
)

func (v *vector) add(hash uint64, value float32, o origin) {
	v.features = append(v.features, classify.Feature{Bucket: classify.Bucket(hash), Value: value})
	v.origins = append(v.origins, o)
}

const (
	offset = 14695981039346656037
	prime  = 1099511628211
)

// mix is FNV-1a over whole symbols; the classifier spreads the bits.
func mix(h uint64, symbol uint64) uint64 { return (h ^ symbol) * prime }

func seed(f family) uint64 { return mix(offset, uint64(f)+1) }

func mixString(h uint64, s string) uint64 {
	for i := range len(s) {
		h = mix(h, uint64(s[i]))
	}
	return h
}

// read fills v from a scan.
func (v *vector) read(s *scan) {
	v.features, v.origins = v.features[:0], v.origins[:0]
	n := float64(len(s.runes)) + 1
	value := float32(gramMass / math.Sqrt(n*2*longestGram))
	h := han()
	s.sounds = s.sounds[:0]
	for _, r := range s.runes {
		s.sounds = append(s.sounds, h.hazy(r))
	}
	v.addGrams(s.runes, chars, 1, value)
	v.addGrams(s.sounds, syllables, 1, value)
	v.addSkips(s.runes, skipShare*value)
	v.addWords(s)
	v.addSenses(s)
	v.addHits(s)
}

// addGrams adds the n-grams of symbols, with the two ends of the text as symbols too.
func (v *vector) addGrams(symbols []rune, f family, least int, value float32) {
	const edge = 0
	at := func(i int) uint64 {
		if i < 0 || i == len(symbols) {
			return edge
		}
		return uint64(symbols[i])
	}
	for i := -1; i < len(symbols); i++ {
		h := seed(f)
		for n := 1; n <= longestGram && i+n <= len(symbols)+1; n++ {
			h = mix(h, at(i+n-1))
			if n >= least {
				v.add(h, value, origin{f, int16(max(i, 0)), int16(min(i+n, len(symbols)))})
			}
		}
	}
}

// addSkips adds the pairs of characters that stand near one another, whatever is between them: 头 and 破, with
// 被他打 in the middle.
func (v *vector) addSkips(symbols []rune, value float32) {
	for i, a := range symbols {
		for j := i + 2; j < min(i+skipped+2, len(symbols)); j++ {
			v.add(mix(mix(seed(skipGram), uint64(a)), uint64(symbols[j])), value, origin{skipGram, int16(i), int16(j + 1)})
		}
	}
}

// addWords adds the words of English, alone and by two.
func (v *vector) addWords(s *scan) {
	last, begin, h := uint64(0), 0, seed(latinWord)
	for i := 0; i <= len(s.runes); i++ {
		if i < len(s.runes) && latin(s.runes[i]) {
			h = mix(h, uint64(s.runes[i]))
			continue
		}
		if i > begin {
			v.add(h, conceptMass, origin{latinWord, int16(begin), int16(i)})
			if last != 0 {
				v.add(mix(h, last), conceptMass, origin{latinWord, int16(begin), int16(i)})
			}
			last = h
		}
		begin, h = i+1, seed(latinWord)
	}
}

// far is the distance in characters up to which two concepts belong together closely.
const far = 6

// addSenses adds the concepts, and which comes before which, near and anywhere. Each counts once.
func (v *vector) addSenses(s *scan) {
	var seen [maxConcepts]bool
	for _, c := range s.senses {
		if !seen[c.concept] {
			seen[c.concept] = true
			v.add(mix(seed(concept), uint64(c.concept)), conceptMass, origin{concept, int16(c.concept), 0})
		}
	}
	var pairs [2 * maxConcepts * maxConcepts / 64]uint64
	for i, a := range s.senses {
		for _, b := range s.senses[i+1:] {
			if a.concept == b.concept || b.start < a.end {
				continue
			}
			near := 0
			if b.start-a.end <= far {
				near = 1
			}
			for d := 0; d <= near; d++ {
				key := (a.concept*maxConcepts+b.concept)*2 + d
				if pairs[key/64]&(1<<(key%64)) != 0 {
					continue
				}
				pairs[key/64] |= 1 << (key % 64)
				v.add(mix(seed(conceptPair), uint64(key)), pairMass, origin{conceptPair, int16(a.concept), int16(b.concept)})
			}
		}
	}
}

// addHits adds the phrases and rules, whether they stand or are suppressed, and what the floor makes of them.
func (v *vector) addHits(s *scan) {
	for i, h := range s.hits {
		f := evidence
		if h.off != "" {
			f = evidenceOff
		}
		o := origin{f, int16(i), 0}
		if h.rule {
			v.add(mixString(seed(f), h.id), hitMass, o)
		}
		v.add(mix(mixString(seed(f), h.service), uint64(h.tier)), hitMass, o)
		if h.off != "" {
			v.add(mixString(mixString(seed(kindSaid), h.off), h.service), hitMass, o)
		}
	}
	v.add(mix(mixString(seed(floorSaid), s.floor.service), uint64(s.floor.action)), 1, origin{floorSaid, 0, 0})
	v.add(mix(seed(ownLength), uint64(min(len(s.runes)/6, 10))), 0.5, origin{ownLength, 0, 0})
}
