// Package emergency knows the keys of danger, and hears danger in words (Art. 9(1)).
//
// Key 0 means danger everywhere but inside a run of digits, where it is a digit; there *0 does. After
// it the caller chooses a service with 1 to 4, or goes back with 9; see [ByKey]. Whoever reads a
// caller's keys asks a [KeyWatch] of that caller at every key, in every answered state:
//
//	if watch.Press(d.Key, d.At, collecting) {
//		// ends the stage
//	}
//
// A [Detector] judges what a recogniser heard; a [Listener] follows a transcript as it grows. Each utterance
// is folded (narrow, simplified, without fillers, spoken numbers as digits), then read in four ways:
//
//   - phrases (data/phrases.tsv) as written and by their sound, in one pass of an automaton;
//   - rules (data/rules.tsv), RE2, each woken by a word that it needs;
//   - suppressors among both: negation, the past, what is over, ifs, questions to the administration, hearsay,
//     figures of speech, longer words. Urgency overrides those that are only a manner of speaking;
//   - concepts (data/concepts.tsv), words of like meaning, for the classifier.
//
// What phrases and rules say is the floor. A linear classifier (data/model.bin) weighs it together with n-grams
// of characters and of syllables and with the concepts, and gives each service a calibrated probability. A
// service that the caller asks for, and an operator's own words, are never passed over.
//
// The model is made by `go generate` from testdata/authors/author-*.tsv, and measured on test-*.tsv there, by
// authors that it never saw. Who changes the data files makes it anew.
//
// The package is pure: it plays nothing, waits for nothing and keeps no clock.
package emergency

import (
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

// The keys that have one meaning on the whole line.
const (
	Key  byte = '0' // danger
	Back byte = '9' // out of the choice of a service, and to a person in a flow
)

// StarWindow is how soon 0 must follow * to mean danger inside a run of digits.
const StarWindow = 3 * time.Second

// ByKey is the service that a key chooses: 1 police, 2 fire, 3 medical, 4 road. Another key is none.
func ByKey(key byte) (session.Service, bool) {
	services := session.Services()
	if i := int(key) - '1'; i >= 0 && i < len(services) {
		return services[i], true
	}
	return "", false
}

// KeyWatch looks for danger in one caller's keys. The zero value is ready. It is not safe for use by
// several goroutines at once.
type KeyWatch struct {
	star time.Time // when * was pressed inside a run of digits; zero if the last key was another
}

// Press tells whether a key means danger. collecting says that a run of digits is being taken; the
// keys are then digits all the same, and a * that no 0 follows stays one of them.
func (w *KeyWatch) Press(key byte, at time.Time, collecting bool) bool {
	star := w.star
	w.star = time.Time{}
	switch {
	case !collecting:
		return key == Key
	case key == '*':
		w.star = at
		return false
	default:
		return key == Key && !star.IsZero() && at.Sub(star) <= StarWindow
	}
}
