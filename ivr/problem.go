package ivr

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is what is wrong with a flow, where, and what to write instead.
type Problem struct {
	File         string
	Line, Column int // from 1; the column counts characters
	Warning      bool
	Message      string
	Mend         string

	excerpt string // the line itself
}

// Error is the problem on its first line, then the excerpt with a caret, then the mend.
func (p Problem) Error() string {
	var b strings.Builder
	kind := ""
	if p.Warning {
		kind = "warning: "
	}
	fmt.Fprintf(&b, "%s:%d:%d: %s%s", p.File, p.Line, p.Column, kind, p.Message)
	if p.excerpt != "" {
		gutter := fmt.Sprintf("%5d | ", p.Line)
		fmt.Fprintf(&b, "\n%s%s\n%s| %s^", gutter, p.excerpt, strings.Repeat(" ", len(gutter)-2), p.indent())
	}
	if p.Mend != "" {
		fmt.Fprintf(&b, "\n      %s", p.Mend)
	}
	return b.String()
}

// indent brings the caret under its column: a wide character takes two places on a terminal.
func (p Problem) indent() string {
	var b strings.Builder
	for i, r := range []rune(p.excerpt) {
		switch {
		case i >= p.Column-1:
			return b.String()
		case r == '\t':
			b.WriteByte('\t')
		case utf8.RuneLen(r) > 2:
			b.WriteString("  ")
		default:
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// Faults are the problems that are no mere warnings.
func Faults(problems []Problem) []Problem {
	return slices.DeleteFunc(slices.Clone(problems), func(p Problem) bool { return p.Warning })
}

// position is a place in the file.
type position struct{ line, column int }

func byPlace(a, b Problem) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
}

// meant is the name of the list that a misspelt one is nearest to, or "".
func meant(word string, names []string) string {
	best, nearest := "", 1+len(word)/3
	for _, n := range names {
		if d := distance(word, n); d <= nearest && n != word {
			best, nearest = n, d-1
		}
	}
	return best
}

// distance is Levenshtein's.
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

// choose is the mend for a name that is none of the list.
func choose(word string, names []string) string {
	if m := meant(word, names); m != "" {
		return fmt.Sprintf("did you mean %q?", m)
	}
	if len(names) == 0 || len(names) > 20 {
		return ""
	}
	return "write one of: " + strings.Join(names, ", ")
}
