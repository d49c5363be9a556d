package emergency

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// rule is a pattern of danger or a suppressor.
type rule struct {
	id      string
	service string
	tier    tier
	own     bool
	re      *regexp.Regexp
	anchors []string // no match without one of them
}

// parseRules reads data/rules.tsv: id, service or kind, tier, RE2, note. An id of letters only names a
// part, which {name} in a later pattern stands for.
func parseRules(tsv string) ([]rule, error) {
	var rules []rule
	var errs []error
	parts := []string{}
	n := 0
	for line := range strings.Lines(tsv) {
		n++
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) < 4 {
			errs = append(errs, fmt.Errorf("rules.tsv:%d: %d columns; write id, service, tier, pattern and note", n, len(f)))
			continue
		}
		pattern := strings.NewReplacer(parts...).Replace(f[3])
		if f[1] == "-" {
			parts = append(parts, "{"+f[0]+"}", "(?:"+pattern+")")
			continue
		}
		r, err := newRule(f[0], f[1], f[2], pattern)
		if err != nil {
			errs = append(errs, fmt.Errorf("rules.tsv:%d: %w", n, err))
			continue
		}
		rules = append(rules, r)
	}
	return rules, errors.Join(errs...)
}

func newRule(id, service, level, pattern string) (rule, error) {
	if len(level) != 1 || level[0] > '3' || level[0] < '0' {
		return rule{}, fmt.Errorf("tier %q; write 0 to 3", level)
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return rule{}, err
	}
	r := rule{id: id, service: service, tier: tier(level[0] - '0'), re: regexp.MustCompile(pattern), anchors: anchors(parsed.Simplify())}
	if len(r.anchors) == 0 {
		return rule{}, fmt.Errorf("pattern %s can match without any one word of it; give it a word that it must have", id)
	}
	return r, nil
}

// maxAnchors is how many words may wake a rule.
const maxAnchors = 400

// anchors are words of which every match of the pattern holds one, or none if there is no such set. They
// let one pass over the text wake the few patterns that can match, since a pattern costs a thousand times
// what a word costs.
func anchors(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpLiteral:
		return []string{string(re.Rune)}
	case syntax.OpCharClass:
		return class(re.Rune)
	case syntax.OpCapture, syntax.OpPlus:
		return anchors(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return anchors(re.Sub[0])
		}
	case syntax.OpConcat:
		var best []string
		for _, s := range re.Sub {
			if a := anchors(s); better(a, best) {
				best = a
			}
		}
		return best
	case syntax.OpAlternate:
		var all []string
		for _, s := range re.Sub {
			a := anchors(s)
			if len(a) == 0 {
				return nil
			}
			all = append(all, a...)
		}
		if len(all) <= maxAnchors {
			return all
		}
	}
	return nil
}

func class(pairs []rune) (words []string) {
	for i := 0; i < len(pairs); i += 2 {
		for r := pairs[i]; r <= pairs[i+1]; r++ {
			if len(words) == maxAnchors {
				return nil
			}
			words = append(words, string(r))
		}
	}
	return words
}

// better tells whether a wakes a rule less often than b: its shortest word is longer, or it has fewer.
func better(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(b) == 0
	}
	if la, lb := shortest(a), shortest(b); la != lb {
		return la > lb
	}
	return len(a) < len(b)
}

func shortest(words []string) int {
	n := utf8.RuneCountInString(words[0])
	for _, w := range words {
		n = min(n, utf8.RuneCountInString(w))
	}
	return n
}

// gap makes the rule of a phrase with ~ in it.
func (w Word) gap() rule {
	var parts []string
	for p := range strings.SplitSeq(w.phrase, "~") {
		var t text
		t.read(p)
		parts = append(parts, regexp.QuoteMeta(string(t.runes)))
	}
	pattern := strings.Join(parts, ".{0,6}")
	longest := parts[0]
	for _, p := range parts {
		if len(p) > len(longest) {
			longest = p
		}
	}
	return rule{id: w.phrase, service: w.service, tier: w.tier, own: w.own, re: regexp.MustCompile(pattern), anchors: []string{longest}}
}
