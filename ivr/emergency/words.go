package emergency

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hotline12345/gateway/internal/session"
)

// tier is how much a phrase or rule says by itself.
type tier byte

const (
	suppressor tier = iota // against danger, by its kind
	danger                 // enough alone
	weak                   // danger together with a cue
	cue                    // urgency, a victim, a place
	request                // a service asked for, a cry for help: never passed over
)

// match is how closely a phrase is looked for.
type match byte

const (
	written match = iota // as written
	spoken               // or with the same syllables, whatever their tones
	alike                // or with syllables that are hard to tell apart
)

// anyService is said of danger that tells no service: a cry for help.
const anyService = "any"

// The kinds of suppressors.
const (
	compound     = "compound"     // a longer word that holds a phrase: 消防通道
	number       = "number"       // a service's digits in another role: 110路
	negation     = "negation"     // 没有 before a phrase
	unsaid       = "clear"        // what looks like a negation: 有没有, 没人, 还没
	past         = "past"         // last week
	resolved     = "resolved"     // put out, taken to hospital
	hypothetical = "hypothetical" // if, in case, might
	business     = "business"     // a question to the administration
	fiction      = "fiction"      // hearsay, films, news
	figurative   = "figurative"   // so angry that I could jump
	chronic      = "chronic"      // every day
	misdial      = "misdial"      // the wrong button
	drill        = "drill"        // exercises and lectures
	urgent       = "urgent"       // overrides past, chronic, business and fiction
)

var kinds = []string{compound, number, negation, unsaid, past, resolved, hypothetical, business, fiction, figurative, chronic, misdial, drill, urgent}

// Word is a phrase of danger, a cue, or a suppressor.
type Word struct {
	service string // a service, any, or a suppressor's kind
	tier    tier
	match   match
	phrase  string
	own     bool // of the operator, who knows why: no classifier overrules it
}

// Most that an operator's file may hold.
const (
	maxWords  = 5000
	maxPhrase = 24
)

// ReadWords reads an operator's own words, a line each, # before a comment: service, tier, match and
// phrase, with tabs between, as data/phrases.tsv has them. It returns all errors joined, each with the
// name, the line, and what to write instead.
func ReadWords(r io.Reader, name string) ([]Word, error) {
	var words []Word
	var errs []error
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimRight(strings.TrimPrefix(lines.Text(), "\ufeff"), "\r\n ")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		w, err := parseWord(line)
		if err == nil && slices.ContainsFunc(words, func(o Word) bool { return o.phrase == w.phrase && o.service == w.service }) {
			err = fmt.Errorf("%q is there twice; delete this line", w.phrase)
		}
		if err == nil && len(words) == maxWords {
			return nil, errors.Join(append(errs, fmt.Errorf("%s:%d: more than %d words; divide them, or use a rule's ~", name, n, maxWords))...)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", name, n, err))
			continue
		}
		words = append(words, w)
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w; write lines of less than 64 kB of UTF-8", name, err))
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return words, nil
}

func parseWord(line string) (Word, error) {
	f := strings.Split(line, "\t")
	if len(f) < 4 || len(f) > 5 {
		return Word{}, fmt.Errorf("%d columns; write service, tier, match and phrase with tabs between, and a note if you like", len(f))
	}
	if len(f[1]) != 1 || f[1] < "0" || f[1] > "4" {
		return Word{}, fmt.Errorf("tier %q; write 1 for danger, 2 for danger with a cue, 3 for a cue, 4 for a service asked for, 0 for a suppressor", f[1])
	}
	if len(f[2]) != 1 || f[2] < "0" || f[2] > "2" {
		return Word{}, fmt.Errorf("match %q; write 0 for as written, 1 for the same syllables, 2 for similar ones", f[2])
	}
	w := Word{service: f[0], tier: tier(f[1][0] - '0'), match: match(f[2][0] - '0'), phrase: f[3]}
	if err := w.check(); err != nil {
		return Word{}, err
	}
	return w, nil
}

func (w Word) check() error {
	known := slices.Contains(kinds, w.service)
	if w.tier != suppressor {
		known = w.service == anyService || slices.Contains(session.Services(), session.Service(w.service))
	}
	var t text
	t.read(strings.ReplaceAll(w.phrase, "~", ""))
	switch {
	case !known && w.tier == suppressor:
		return fmt.Errorf("kind %q; write one of %s, since its tier is 0", w.service, strings.Join(kinds, ", "))
	case !known:
		return fmt.Errorf("service %q; write 110, 119, 120, 122 or any", w.service)
	case !utf8.ValidString(w.phrase):
		return errors.New("the phrase is no UTF-8; save the file as UTF-8")
	case len(t.runes) == 0, len(t.runes) == 1 && (w.tier == danger || w.tier == weak):
		return fmt.Errorf("phrase %q; write at least two characters for danger: one is in too many words", w.phrase)
	case len(t.runes) > maxPhrase:
		return fmt.Errorf("phrase %q; write at most %d characters", w.phrase, maxPhrase)
	case strings.HasPrefix(w.phrase, "~") || strings.HasSuffix(w.phrase, "~"):
		return fmt.Errorf("phrase %q; write ~ between two words only", w.phrase)
	}
	return nil
}
