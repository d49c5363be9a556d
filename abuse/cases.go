package abuse

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hotline12345/gateway/internal/call"
)

// Scenario is a worked case: what happened, and what is asked.
type Scenario struct {
	ID     string
	Events []Event
	Query  Query
}

// Bounds of a file of cases.
const (
	maxCaseLine   = 4 << 20
	maxCaseEvents = 10_000
)

// columns are those that a file of cases must have; it may have others.
var columns = []string{"id", "given_events_json", "query_json"}

// ReadScenarios reads worked cases: UTF-8 text, a case a line, columns set apart by tabs and named by the
// first line that is no comment; a line that begins with # is one. It yields each case or what is wrong
// with its line, which begins with "<name>:<line>: " and says what to write. It goes on behind a wrong
// line, so that one run shows all that is wrong; without its columns, or behind a line of more than
// 4 MiB, it ends.
func ReadScenarios(r io.Reader, name string) func(yield func(Scenario, error) bool) {
	return func(yield func(Scenario, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxCaseLine)
		var heading []string
		n := 0
		for lines.Scan() {
			n++
			text := strings.TrimSuffix(lines.Text(), "\r")
			if n == 1 {
				text = strings.TrimPrefix(text, "\ufeff")
			}
			if text == "" || strings.HasPrefix(text, "#") {
				continue
			}
			fields := strings.Split(text, "\t")
			if heading == nil {
				heading = fields
				if err := checkHeading(heading); err != nil {
					yield(Scenario{}, fmt.Errorf("%s:%d: %w", name, n, err))
					return
				}
				continue
			}
			s, err := readScenario(heading, fields)
			if err != nil {
				err = fmt.Errorf("%s:%d: %w", name, n, err)
			}
			if !yield(s, err) {
				return
			}
		}
		switch err := lines.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			yield(Scenario{}, fmt.Errorf("%s:%d: the line is longer than %d bytes; write a case with fewer events", name, n+1, maxCaseLine))
		case err != nil:
			yield(Scenario{}, fmt.Errorf("%s:%d: %w", name, n+1, err))
		case heading == nil:
			yield(Scenario{}, fmt.Errorf("%s:%d: there are no cases; write a line that names the columns %s, then a case a line", name, n+1, strings.Join(columns, ", ")))
		}
	}
}

func checkHeading(heading []string) error {
	for _, c := range columns {
		if !slices.Contains(heading, c) {
			return fmt.Errorf("there is no column %q; name the columns in the first line, set apart by tabs: %s", c, strings.Join(columns, ", "))
		}
	}
	return nil
}

func readScenario(heading, fields []string) (Scenario, error) {
	if len(fields) != len(heading) {
		return Scenario{}, fmt.Errorf("there are %d fields where %d columns are named; write one for each, set apart by tabs", len(fields), len(heading))
	}
	column := func(name string) string { return fields[slices.Index(heading, name)] }
	s := Scenario{ID: column("id")}
	if s.ID == "" {
		return s, errors.New("id: it is empty; write a name of the case")
	}
	if err := json.Unmarshal([]byte(column("given_events_json")), &s.Events); err != nil {
		return s, fmt.Errorf(`given_events_json: %w; write a list such as [{"t":"2026-03-02T09:00:00+08:00","e":"load","waiting":1,"occ":0.9}]`, err)
	}
	if len(s.Events) > maxCaseEvents {
		return s, fmt.Errorf("given_events_json: there are %d events; write at most %d", len(s.Events), maxCaseEvents)
	}
	for i, e := range s.Events {
		if err := e.Validate(); err != nil {
			return s, fmt.Errorf("given_events_json[%d].%w", i, err)
		}
	}
	if err := json.Unmarshal([]byte(column("query_json")), &s.Query); err != nil {
		return s, fmt.Errorf(`query_json: %w; write an object such as {"t":"2026-03-02T09:00:00+08:00","q":"invite","n":"caller-A","idc":"verified"}`, err)
	}
	if err := s.Query.Validate(); err != nil {
		return s, fmt.Errorf("query_json.%w", err)
	}
	return s, nil
}

// eventNeeds are the fields that an event must have, by its kind.
var eventNeeds = map[EventKind][]string{
	EventCall:         {"n", "id", "idc"},
	EventLoad:         {},
	EventRemind:       {"n", "call", "clause in kind"},
	EventMark:         {"n", "call", "kind"},
	EventRequest:      {"n", "scope"},
	EventPropose:      {"n", "clause", "by"},
	EventApprove:      {"n", "by", "role"},
	EventDecision:     {"n", "level", "until"},
	EventAppeal:       {"n"},
	EventAppealDecide: {"n", "result"},
	EventSurge:        {"topic", "to"},
	EventReferPropose: {"n", "by", "role"},
	EventRefer:        {"n", "by", "role"},
	EventAccessNeed:   {"n"},
	EventProtect:      {"n"},
	EventCase:         {"n", "state"},
	EventLease:        {"id"},
	EventRelease:      {"id"},
	EventRedis:        {"up or down in state"},
	EventSnapshot:     {},
}

// results of an appeal; all but the first leave the measure as it is.
var results = []string{overturned, "upheld", "confirmed", "rejected", "dismissed"}

var identities = []call.Identity{call.Verified, call.Shared, call.Anonymous, call.Spoof}

// hint is what to write into a field, by what is needed of it.
var hint = map[string]string{
	"n":                   "the caller's handle, e.g. caller-A",
	"id":                  "the call's id, e.g. c0",
	"call":                "the id of the call it was in, e.g. c0",
	"idc":                 "one of verified, shared, anonymous, spoof",
	"clause in kind":      "29-1 or 29-2 as kind",
	"kind":                "one of no_request, abuse, criticism",
	"scope":               "in or out",
	"clause":              "29-1 or 29-2",
	"by":                  "who acts, e.g. sup1",
	"role":                "the role of who approves, e.g. supervisor",
	"level":               "1, 2 or 3",
	"until":               "the end of the measure, e.g. 2026-03-03T09:00:00+08:00",
	"result":              "overturned or upheld",
	"topic":               "the topic that was declared, e.g. water-0302",
	"to":                  "the end of the declared event, e.g. 2026-03-02T15:00:00+08:00",
	"state":               "open or closed",
	"up or down in state": "up or down",
}

// has tells whether an event has what is needed of a field.
func (e Event) has(need string) bool {
	clause := func(c string) bool { return c == Clause1 || c == Clause2 }
	return map[string]bool{
		"n": e.Caller != "", "id": e.ID != "", "call": e.Call != "", "idc": slices.Contains(identities, e.Identity),
		"clause in kind": clause(e.What), "kind": slices.Contains([]string{markNoRequest, markAbuse, markCriticism}, e.What),
		"scope": e.Scope == "in" || e.Scope == "out", "clause": clause(e.Clause), "by": e.By != "", "role": e.Role != "",
		"level": e.Level >= 1 && e.Level <= 3, "until": !e.Until.IsZero(),
		"result": slices.Contains(results, e.Result), "topic": e.Topic != "", "to": !e.To.IsZero(),
		"state": e.State != "", "up or down in state": e.State == "up" || e.State == "down",
	}[need]
}

// Validate names the first field that is missing or wrong, and what to write.
func (e Event) Validate() error {
	if e.At.IsZero() {
		return errors.New("t: it is missing; write when it happened, e.g. 2026-03-02T09:00:00+08:00")
	}
	needs, known := eventNeeds[e.Kind]
	if !known {
		return fmt.Errorf("e: there is no event %q; write one of those that the list of events names, e.g. call", e.Kind)
	}
	for _, need := range needs {
		if !e.has(need) {
			return fmt.Errorf("%s: the event %s needs it; write %s", strings.Fields(need)[len(strings.Fields(need))-1], e.Kind, hint[need])
		}
	}
	if e.Kind == EventLoad && (e.Waiting < 0 || e.Occupancy < 0 || e.Occupancy > 1) {
		return errors.New("occ: a load is waiting callers and a share of busy agents; write e.g. waiting 4 and occ 0.97")
	}
	if e.Kind == EventCall && (!e.Answered.IsZero() && e.Answered.Before(e.At) || !e.Ended.IsZero() && e.Ended.Before(e.At)) {
		return errors.New("t: the call was answered or ended before it began; write ans and end at t or later")
	}
	return nil
}

// Validate names the first field that is missing or wrong, and what to write.
func (q Query) Validate() error {
	switch {
	case q.At.IsZero():
		return errors.New("t: it is missing; write when it is asked, e.g. 2026-03-02T09:00:00+08:00")
	case q.Caller == "":
		return errors.New("n: it is missing; write the caller's handle, e.g. caller-A")
	case q.Kind == QueryInvite && !slices.Contains(identities, q.Identity):
		return fmt.Errorf("idc: %q is none; write %s", q.Identity, hint["idc"])
	case q.Kind == QueryApprove && (q.By == "" || q.Role == ""):
		return errors.New("by: an approval needs by and role; write who approves and as what, e.g. sup1 and supervisor")
	case q.Kind != QueryInvite && q.Kind != QueryApprove && q.Kind != QueryReferral:
		return fmt.Errorf("q: there is no query %q; write invite, approve or referral", q.Kind)
	}
	return nil
}
