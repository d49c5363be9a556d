package abuse

import (
	"slices"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// matter is what is known of one caller. All that it holds has happened; what a call's event tells of the
// call's later course is heeded when its time has come.
type matter struct {
	stage     Stage
	calls     []Event
	reminders []Event
	marks     []Event
	requests  []Event // within scope
	proposal  *Event
	measures  []*measure
	beats     map[string]time.Time // by call: when its lease was last prolonged
	open      map[string]bool      // cases
	access    bool
	protected bool
}

func newMatter() *matter {
	return &matter{stage: StageNormal, beats: make(map[string]time.Time), open: make(map[string]bool)}
}

// measure is a suspension.
type measure struct {
	decision    string // its number; "" in a case that names none
	clause      string
	level       int
	from, until time.Time
	appealed    time.Time // zero if it was not
	upheld      bool
	annulled    time.Time // zero if it was not
}

// end is when the measure no longer runs.
func (m *measure) end(p Policy) time.Time {
	end := earlier(m.annulled, m.until)
	if !m.appealed.IsZero() && !m.upheld {
		end = earlier(end, m.appealed.Add(p.Appeal.Lapse))
	}
	return end
}

func (m *measure) running(p Policy, at time.Time) bool {
	return !at.Before(m.from) && at.Before(m.end(p))
}

// running is the measure that runs longest of those that run and began by a time.
func (f *matter) running(p Policy, at, begun time.Time) *measure {
	var longest *measure
	for _, m := range f.measures {
		if m.running(p, at) && !m.from.After(begun) && (longest == nil || m.end(p).After(longest.end(p))) {
			longest = m
		}
	}
	return longest
}

// latest is the measure that was decided on last, or nil.
func (f *matter) latest() *measure {
	if len(f.measures) == 0 {
		return nil
	}
	return f.measures[len(f.measures)-1]
}

// appealable is the latest measure that no appeal has annulled, or nil; of a decision's number, if one is named.
func (f *matter) appealable(decision string) *measure {
	for _, m := range slices.Backward(f.measures) {
		if m.annulled.IsZero() && (decision == "" || decision == m.decision) {
			return m
		}
	}
	return nil
}

// confirmed counts the decisions in the look-back that ends at at. One whose appeal was left undecided is
// none that was annulled.
func (f *matter) confirmed(p Policy, at time.Time) int {
	n := 0
	for _, m := range f.measures {
		if m.annulled.IsZero() && m.from.After(at.Add(-p.Measure.LookBack)) {
			n++
		}
	}
	return n
}

// level is the rung that a measure would stand on.
func (f *matter) level(p Policy, at time.Time) int {
	return min(f.confirmed(p, at)+1, len(p.Measure.Terms))
}

// term is how long a measure of a level runs.
func (p Policy) term(level int) time.Duration {
	return min(p.Measure.Terms[level-1], p.Measure.Longest)
}

// suspend begins a measure.
func (f *matter) suspend(p Policy, m *measure) {
	m.until = earlier(m.until, m.from.Add(p.Measure.Longest))
	f.measures = append(f.measures, m)
	f.proposal = nil
}

// appealDecide decides on the measure that it names; without a name on the latest whose appeal waits, else on
// the latest. An appeal that comes to nothing late does not bring back a measure that has lapsed.
func (f *matter) appealDecide(p Policy, e Event) {
	m := f.appealable(e.Decision)
	for _, w := range slices.Backward(f.measures) {
		if e.Decision == "" && !w.appealed.IsZero() && !w.upheld && w.annulled.IsZero() {
			m = w
			break
		}
	}
	switch {
	case m == nil:
	case e.Result == overturned:
		m.annulled = e.At
		if f.running(p, e.At, e.At) == nil {
			f.step(actOverturn)
		}
	case !m.appealed.IsZero() && e.At.Before(m.appealed.Add(p.Appeal.Lapse)):
		m.upheld = true
	}
}

// call is a call of the caller's.
func (f *matter) call(id string) (Event, bool) {
	if i := slices.IndexFunc(f.calls, func(c Event) bool { return c.ID == id }); i >= 0 {
		return f.calls[i], true
	}
	return Event{}, false
}

// marked tells whether an agent has marked a call as one of the kinds by a time.
func (f *matter) marked(id string, by time.Time, kinds ...string) bool {
	return slices.ContainsFunc(f.marks, func(m Event) bool {
		return m.Call == id && !m.At.After(by) && slices.Contains(kinds, m.What)
	})
}

// outcome is what a call is known to be by a time: at its end the outcome that it was given, before that
// what an agent has marked. Criticism alone, or a request within scope, makes it a request.
func (f *matter) outcome(c Event, by time.Time) session.Outcome {
	noRequest, abuse := f.marked(c.ID, by, markNoRequest), f.marked(c.ID, by, markAbuse)
	asked := slices.ContainsFunc(f.requests, func(r Event) bool { return r.Call == c.ID && !r.At.After(by) })
	switch {
	case asked, f.marked(c.ID, by, markCriticism) && !noRequest && !abuse:
		return session.OutcomeRegistered
	case !c.Ended.IsZero() && !c.Ended.After(by):
		return outcomeOf(c.Outcome)
	case abuse:
		return session.OutcomeAbuse
	case noRequest:
		return session.OutcomeNoRequest
	}
	return session.OutcomeNone
}

// counted lists the calls that count by a time.
func (l *Ledger) counted(f *matter, by time.Time) (in []Counted) {
	for _, c := range f.calls {
		if answered := answered(c, by); answered && counts(l.policy, c.Identity, answered, f.outcome(c, by), l.declared(c.Topic, c.At)) {
			in = append(in, Counted{c.At, c.Answered, c.Ended})
		}
	}
	return in
}

// answered tells whether a call has reached an agent by a time.
func answered(c Event, by time.Time) bool {
	return c.Agent != "" && !c.Answered.IsZero() && !c.Answered.After(by)
}

// lines counts the calls that hold a place at a time: up, and with a heartbeat that is not over.
func (f *matter) lines(p Policy, at time.Time) int {
	n := 0
	for id, beat := range f.beats {
		c, _ := f.call(id)
		if at.Before(beat.Add(p.Concurrency.Lease)) && (c.Ended.IsZero() || at.Before(c.Ended)) {
			n++
		}
	}
	return n
}

// exempt tells whether the caller is on the protected list.
func (f *matter) exempt(p Policy) bool { return f.protected || f.access && p.Protected.AccessNeed }

// asksOpen tells whether a case of the caller's is open. Any state but "closed" is.
func (f *matter) asksOpen() bool {
	for _, open := range f.open {
		if open {
			return true
		}
	}
	return false
}

// grace is the reasonable time that this caller is given.
func (f *matter) grace(p Policy) time.Duration {
	if f.access {
		return p.Grace.AccessNeed
	}
	return p.Grace.Time
}

// facts are what an INVITE of the caller is decided on.
func (l *Ledger) facts(f *matter, q Query) Facts {
	facts := Facts{
		At: q.At, OwnNumber: ownHandle(q.Caller), Identity: q.Identity, Danger: q.danger(),
		Progress: q.Intent == "progress" && f.asksOpen(),
		Exempt:   f.exempt(l.policy) || l.declared(q.Topic, q.At),
		Copy:     l.down,
	}
	if facts.Identity == call.Verified && q.Caller == "" {
		facts.Identity = call.Anonymous
	}
	begun := q.At
	if l.down { // Redis is asked for neither a place nor counters
		begun, facts.CopyAge = l.snapshot, q.At.Sub(l.snapshot)
	} else {
		facts.Counted = l.counted(f, q.At)
		facts.Place = Taken
		if f.lines(l.policy, q.At) >= l.policy.Concurrency.Calls {
			facts.Place = Refused
		}
	}
	if m := f.running(l.policy, q.At, begun); m != nil {
		facts.From = m.from
		facts.Measure = &session.Measure{Clause: m.clause, Level: m.level, Until: m.end(l.policy)}
	}
	return facts
}
