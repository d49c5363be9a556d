package ivr

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxSource bounds a flow's file, in bytes.
const maxSource = 256 << 10

// layout is the mend for what is no YAML at all.
const layout = "look at this line and the one above: indents, brackets, quotes, and a space after each colon"

// reader takes a flow from its file and gathers what is wrong.
type reader struct {
	file     string
	lines    []string
	problems []Problem
}

func (r *reader) report(at position, message, mend string) { r.add(at, false, message, mend) }

func (r *reader) add(at position, warning bool, message, mend string) {
	p := Problem{File: r.file, Line: at.line, Column: at.column, Warning: warning, Message: message, Mend: mend}
	if at.line >= 1 && at.line <= len(r.lines) {
		p.excerpt = strings.TrimRight(r.lines[at.line-1], "\r")
	}
	r.problems = append(r.problems, p)
}

// root is the file's outermost section, or nil when there is none to speak of.
func (r *reader) root(src []byte) *section {
	start := position{1, 1}
	if len(src) > maxSource {
		r.report(start, fmt.Sprintf("the file has %d bytes", len(src)), fmt.Sprintf("a flow is at most %d bytes; split it", maxSource))
		return nil
	}
	file, err := parse(src)
	if syntax, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		if syntax.Token != nil {
			start = position{syntax.Token.Position.Line, syntax.Token.Position.Column}
		}
		r.report(start, "not YAML: "+syntax.Message, layout)
		return nil
	}
	if err != nil {
		r.report(start, "not YAML: "+err.Error(), layout)
		return nil
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		r.report(start, "not one document", "write one flow a file: start, person and nodes")
		return nil
	}
	return r.section("the flow", file.Docs[0].Body)
}

// parse lets keys written twice pass: they are told below, with a mend.
func parse(src []byte) (file *ast.File, err error) {
	defer tame(&err)
	return parser.ParseBytes(src, 0, parser.AllowDuplicateMapKey())
}

// tame makes an error of a panic of the YAML library: what an operator wrote must not end a process,
// nor a call.
func tame(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the YAML library gave up: %v", p)
	}
}

func place(n ast.Node) position {
	if m, ok := n.(*ast.MappingValueNode); ok {
		n = m.Key // a mapping's own token is its colon
	}
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		n = m.Values[0].Key
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{t.Position.Line, t.Position.Column}
}

// section is a mapping that is read key by key; what nobody asked for is an unknown key.
type section struct {
	*reader
	name   string // as told in a problem: `node "welcome"`
	at     position
	keys   []string // in the file's order
	fields map[string]field
	asked  []string
}

type field struct {
	value ast.Node
	at    position // of the key
}

// section reads a mapping, or reports that n is none and returns nil.
func (r *reader) section(name string, n ast.Node) *section {
	m, ok := n.(ast.MapNode)
	if !ok {
		r.report(place(n), name+" is no mapping", "write lines of `key: value`")
		return nil
	}
	s := &section{reader: r, name: name, at: place(n), fields: map[string]field{}}
	for it := m.MapRange(); it.Next(); {
		scalar, ok := it.Key().(ast.ScalarNode)
		if !ok || it.Key().IsMergeKey() {
			r.report(place(it.Key()), "a key of another kind than a word", "write it out: flows know no anchors or merge keys")
			continue
		}
		key, at := scalar.GetToken().Value, place(it.Key())
		if first, twice := s.fields[key]; twice {
			r.report(at, fmt.Sprintf("the key %q of %s is on line %d already", key, name, first.at.line), "keep one of the two")
			continue
		}
		s.keys = append(s.keys, key)
		s.fields[key] = field{it.Value(), at}
	}
	return s
}

// where is a key's place, or the section's own when the key is not there.
func (s *section) where(key string) position {
	if f, ok := s.fields[key]; ok {
		return f.at
	}
	return s.at
}

// value is where a key's value stands.
func (s *section) value(key string) position {
	if f, ok := s.fields[key]; ok && f.value != nil {
		if p := place(f.value); p.line > 0 {
			return p
		}
	}
	return s.where(key)
}

func (s *section) has(key string) bool {
	s.asked = append(s.asked, key)
	_, ok := s.fields[key]
	return ok
}

// rest reports the keys that nobody asked for.
func (s *section) rest() {
	slices.Sort(s.asked)
	known := slices.Compact(s.asked)
	for _, key := range s.keys {
		if !slices.Contains(known, key) {
			s.report(s.fields[key].at, fmt.Sprintf("%s has no key %q", s.name, key), choose(key, known))
		}
	}
}

// scalar is a value's text; ok is false, and a problem is told, when it is a list or a mapping.
func (r *reader) scalar(n ast.Node, what string) (string, bool) {
	switch v := n.(type) {
	case *ast.LiteralNode:
		return strings.TrimSpace(v.Value.Value), true
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return v.GetToken().Value, true
	}
	r.report(place(n), what+" is no plain value", "write one word after the colon; flows know no anchors or tags")
	return "", false
}

// text is a key's word, or fallback when the key is not there.
func (s *section) text(key, fallback string) string {
	if !s.has(key) {
		return fallback
	}
	if v, ok := s.scalar(s.fields[key].value, key); ok {
		return v
	}
	return fallback
}

// must is a key's word; that it is missing is a problem, told with the mend.
func (s *section) must(key, mend string) string {
	if !s.has(key) {
		s.report(s.at, fmt.Sprintf("%s has no %s", s.name, key), mend)
		return ""
	}
	return s.text(key, "")
}

// list is a key's words: one, or a list of them.
func (s *section) list(key string, fallback ...string) []string {
	if !s.has(key) {
		return fallback
	}
	sequence, ok := s.fields[key].value.(*ast.SequenceNode)
	if !ok {
		return []string{s.text(key, "")}
	}
	var words []string
	for _, n := range sequence.Values {
		if v, ok := s.scalar(n, "an item of "+key); ok {
			words = append(words, v)
		}
	}
	return words
}

// item is where the i-th word of a list stands.
func (s *section) item(key string, i int) position {
	if sequence, ok := s.fields[key].value.(*ast.SequenceNode); ok && i < len(sequence.Values) {
		return place(sequence.Values[i])
	}
	return s.value(key)
}

// span is a key's duration within bounds.
func (s *section) span(key string, fallback, least, most time.Duration) time.Duration {
	if !s.has(key) {
		return fallback
	}
	text := s.text(key, "")
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		s.report(s.value(key), fmt.Sprintf("%q is no duration from %s to %s", text, least, most), "write it as "+fallback.String())
		return fallback
	}
	return d
}

// number is a key's number within bounds.
func (s *section) number(key string, fallback, least, most int) int {
	if !s.has(key) {
		return fallback
	}
	text := s.text(key, "")
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		s.report(s.value(key), fmt.Sprintf("%q is no number from %d to %d", text, least, most), "write it as "+strconv.Itoa(fallback))
		return fallback
	}
	return n
}

// sub is a key's section, or nil.
func (s *section) sub(key, name string) *section {
	if !s.has(key) {
		return nil
	}
	return s.section(name, s.fields[key].value)
}
