package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// misread tells what YAML could not be taken: its place, what is wrong, the mend, and an excerpt.
func misread(err error, src []byte, from string) error {
	if m := badTime.FindStringSubmatch(err.Error()); m != nil { // the one fault that YAML gives no place
		before, _, _ := strings.Cut(string(src), m[1])
		line := strings.Count(before, "\n") + 1
		return fmt.Errorf("%s:%d:%d: %q is no time; write one such as 30s, 5m or 24h", from, line, len(before)-strings.LastIndex(before, "\n"), m[1])
	}
	at, ok := errors.AsType[yaml.Error](err)
	if !ok || at.GetToken() == nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	said := at.GetMessage() + "; look at this line and the one above: indents, brackets, quotes, and a space after each colon"
	if unknown, ok := errors.AsType[*yaml.UnknownFieldError](err); ok {
		said = fmt.Sprintf("there is no key %q here; %s`hotline config effective` shows every key", unknown.Token.Value, meant(unknown.Token.Value))
	}
	if wrong, ok := errors.AsType[*yaml.TypeError](err); ok {
		said = fmt.Sprintf("%q does not fit here; write %s", wrong.Token.Value, fitting(wrong.DstType))
	}
	if strings.Contains(at.GetMessage(), "already defined") {
		said = at.GetMessage() + "; write it once"
	}
	pos := at.GetToken().Position
	_, excerpt, _ := strings.Cut(yaml.FormatErrorWithToken("", at.GetToken(), false, true), "\n")
	return fmt.Errorf("%s:%d:%d: %s\n%s", from, pos.Line, pos.Column, said, strings.TrimRight(excerpt, "\n"))
}

var badTime = regexp.MustCompile(`time: (?:invalid|missing unit in|unknown unit .* in) duration "(.*)"`)

// fitting names what a setting of a type takes.
func fitting(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a time, e.g. 30s"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "a whole number"
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		return "a number"
	case t.Kind() == reflect.Slice:
		return "a list, e.g. [a, b]"
	case t.Kind() == reflect.String:
		return "a text in quotes"
	default:
		return "the keys that belong here, one a line, indented"
	}
}

var anyKey = regexp.MustCompile(`(?m)^[ -]*([a-z0-9_]+):`)

// meant is the known key that a wrong one is nearest to, as the start of a sentence; "" when none is near.
func meant(wrong string) string {
	all, err := yaml.Marshal(Defaults("data"))
	if err != nil {
		return ""
	}
	best, least := "", 3
	for _, m := range anyKey.FindAllStringSubmatch(string(all), -1) {
		if d := distance(wrong, m[1]); d < least {
			best, least = m[1], d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %s? ", best)
}

// distance is how many letters must be added, removed or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
