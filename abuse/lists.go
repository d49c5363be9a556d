package abuse

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
)

// List is why a number is treated apart.
type List string

// The lists. Who is on one of the first two gets a case conference instead of a measure, and none touches them;
// a number of the others is many people's, and is never barred.
const (
	ListProtected  List = "protected"   // elderly, disabled
	ListAccessNeed List = "access_need" // more time after a reminder; whether it protects too is the policy's
	ListShared     List = "shared"      // a PBX, a hospital, a school
	ListPayphone   List = "payphone"
)

// Listings lists every list.
func Listings() []List {
	return []List{ListProtected, ListAccessNeed, ListShared, ListPayphone}
}

// MaxListed bounds the lines of a file of lists.
const MaxListed = 20_000

// actLists is the entry of an import.
const actLists = "lists.imported"

// listHeading is the first line of a file of lists.
var listHeading = []string{"list", "number", "note"}

// Lists are the numbers that are treated apart, read from a CSV file: a heading, then a line each. The end of a
// shared number or a payphone's may be a *, for any digits (an office's extensions). It is read-only once made.
type Lists struct {
	notes  map[List]map[string]string // by E.164, or what one begins with and a *
	begins map[List][]string          // what numbers begin with
}

func newLists() *Lists {
	l := &Lists{notes: make(map[List]map[string]string), begins: make(map[List][]string)}
	for _, name := range Listings() {
		l.notes[name] = make(map[string]string)
	}
	return l
}

// ReadLists reads a file of lists. parse makes a number of what is written; nil takes E.164 alone. Every line
// that is wrong is named, and no number shown in clear.
func ReadLists(r io.Reader, parse func(string) call.Number) (*Lists, error) {
	if parse == nil {
		parse = parseE164
	}
	in := csv.NewReader(r)
	in.FieldsPerRecord = len(listHeading)
	l := newLists()
	var errs []error
	for n := 0; ; n++ {
		fields, err := in.Read()
		if errors.Is(err, io.EOF) && n > 0 {
			return l, errors.Join(errs...)
		}
		if errors.Is(err, io.EOF) || err == nil && n == 0 && !isHeading(fields) {
			return nil, fmt.Errorf("abuse: lists: line 1: there is no heading; write %s", strings.Join(listHeading, ","))
		}
		if err == nil && n > 0 {
			err = l.add(List(fields[0]), fields[1], fields[2], parse)
		}
		if err != nil {
			line, _ := in.FieldPos(0)
			errs = append(errs, fmt.Errorf("abuse: lists: line %d: %w", line, err))
		}
		if n > MaxListed {
			return nil, fmt.Errorf("abuse: lists: there are more than %d lines; leave out who need not be on a list", MaxListed)
		}
		if _, malformed := errors.AsType[*csv.ParseError](err); malformed {
			return nil, errors.Join(errs...) // what follows cannot be told apart
		}
	}
}

func isHeading(fields []string) bool {
	fields[0] = strings.TrimPrefix(fields[0], "\ufeff")
	return slices.Equal(fields, listHeading)
}

var e164 = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

func parseE164(s string) call.Number {
	if !e164.MatchString(s) {
		return call.Number{Raw: s}
	}
	return call.Number{E164: s, Raw: s}
}

func (l *Lists) add(list List, number, note string, parse func(string) call.Number) error {
	if l.notes[list] == nil {
		return fmt.Errorf("there is no list of this name; write one of %v", Listings())
	}
	number, note = strings.TrimSpace(number), strings.TrimSpace(note)
	if begin, many := strings.CutSuffix(number, "*"); many {
		if list != ListShared && list != ListPayphone {
			return errors.New("a person's number is whole; write it without a *")
		}
		if !e164.MatchString(begin) {
			return errors.New("the begin of a number of many is written as +86571888*, with 7 digits or more: a shorter one is a whole area's")
		}
		if _, known := l.notes[list][number]; !known {
			l.begins[list] = append(l.begins[list], begin)
		}
		l.notes[list][number] = note
		return nil
	}
	n := parse(number)
	if n.E164 == "" {
		return errors.New("this is no telephone number; write it as +8657112345678 or 0571-12345678")
	}
	l.notes[list][n.E164] = note
	return nil
}

// On tells whether a number is on a list.
func (l *Lists) On(list List, e164 string) bool {
	if _, on := l.notes[list][e164]; on {
		return e164 != ""
	}
	return slices.ContainsFunc(l.begins[list], func(begin string) bool { return strings.HasPrefix(e164, begin) })
}

// Lengths is how many lines each list has.
func (l *Lists) Lengths() map[List]int {
	lengths := make(map[List]int)
	for name, notes := range l.notes {
		lengths[name] = len(notes)
	}
	return lengths
}

// Write writes the lists as [ReadLists] reads them, in a fixed order.
func (l *Lists) Write(w io.Writer) error {
	out := csv.NewWriter(w)
	_ = out.Write(listHeading) // Error below tells of all
	for _, name := range Listings() {
		for _, number := range slices.Sorted(maps.Keys(l.notes[name])) {
			_ = out.Write([]string{string(name), number, l.notes[name][number]})
		}
	}
	out.Flush()
	return out.Error()
}

// Lists are the lists in force.
func (a *Admission) Lists() *Lists { return a.lists.Load() }

// LoadLists reads the file of lists anew. Without a file every list is empty; on an error the last good ones stay.
func (a *Admission) LoadLists() error {
	b, err := os.ReadFile(a.listsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("abuse: lists: %w", err)
	}
	l := newLists()
	if err == nil {
		if l, err = ReadLists(bytes.NewReader(b), a.parse); err != nil {
			return err
		}
	}
	a.useLists(l)
	return nil
}

func (a *Admission) useLists(l *Lists) {
	a.lists.Store(l)
	for name, n := range l.Lengths() {
		a.metrics.listed.WithLabelValues(string(name)).Set(float64(n))
	}
}

// ImportLists puts the lists of a CSV file in the place of those in force; who did it, and how many lines each has, is
// recorded first. Errors: what is wrong with the file, those of the audit log and the disk; the lists stay.
func (a *Admission) ImportLists(ctx context.Context, r io.Reader, by string) (*Lists, error) {
	l, err := ReadLists(r, a.parse)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := l.Write(&text); err != nil {
		return nil, err
	}
	detail := make(map[string]string)
	for name, n := range l.Lengths() {
		detail[string(name)] = strconv.Itoa(n)
	}
	if _, err := a.audit.Append(ctx, audit.Entry{Actor: by, Act: actLists, Detail: detail}); err != nil {
		return nil, err
	}
	if err := renameio.WriteFile(a.listsFile, text.Bytes(), 0o600); err != nil {
		return nil, fmt.Errorf("abuse: lists: %w", err)
	}
	a.useLists(l)
	return l, nil
}

// identity is what is to be believed of a number: a verified one that is many people's is shared.
func (a *Admission) identity(id call.Identity, e164 string) call.Identity {
	l := a.Lists()
	if id == call.Verified && (l.On(ListShared, e164) || l.On(ListPayphone, e164)) {
		return call.Shared
	}
	return id
}

// exempt tells whether no measure touches a number.
func (a *Admission) exempt(e164 string) bool {
	l := a.Lists()
	return l.On(ListProtected, e164) || a.policy.Protected.AccessNeed && l.On(ListAccessNeed, e164)
}

// listed puts what the lists say of a number to the events of its matter: it holds from the first on. Calls of a
// number that is many people's are nobody's conduct.
func (a *Admission) listed(e164 string, events []Event) []Event {
	if len(events) == 0 {
		return nil
	}
	var facts []Event
	for list, kind := range map[List]EventKind{ListProtected: EventProtect, ListAccessNeed: EventAccessNeed} {
		if a.Lists().On(list, e164) {
			facts = append(facts, Event{Kind: kind, At: events[0].At, Caller: events[0].Caller})
		}
	}
	for _, e := range events {
		e.Identity = a.identity(e.Identity, e164)
		facts = append(facts, e)
	}
	return facts
}
