package abuse

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

const caller = "caller-A"

// on is a time of 2 March 2026, as "09:41:00", or with a day before it, as "03 09:41:00".
func on(text string) time.Time {
	if len(text) == len("09:41:00") {
		text = "02 " + text
	}
	t, err := time.ParseInLocation("2006-01-02 15:04:05", "2026-03-"+text, at.Location())
	if err != nil {
		panic(err)
	}
	return t
}

// tale is a case under construction.
type tale struct {
	events []Event
	query  Query
}

func (s *tale) add(events ...Event) { s.events = append(s.events, events...) }

// find is the n-th event of a kind, to be changed.
func (s *tale) find(k EventKind, n int) *Event {
	for i := range s.events {
		if s.events[i].Kind == k {
			if n == 0 {
				return &s.events[i]
			}
			n--
		}
	}
	panic(fmt.Sprint("no such event ", k))
}

func (s *tale) drop(k EventKind) {
	s.events = slices.DeleteFunc(s.events, func(e Event) bool { return e.Kind == k })
}

// eachCall changes every call.
func (s *tale) eachCall(change func(i int, c *Event)) {
	n := 0
	for i := range s.events {
		if s.events[i].Kind == EventCall {
			change(n, &s.events[i])
			n++
		}
	}
}

func aCall(id string, start time.Time, length time.Duration, out string) Event {
	return Event{Kind: EventCall, At: start, Caller: caller, ID: id, Identity: call.Verified,
		Answered: start.Add(5 * time.Second), Ended: start.Add(length), Outcome: out, Agent: "ag7"}
}

func aDecision(level int, from, until time.Time) Event {
	return Event{Kind: EventDecision, At: from, Caller: caller, Clause: Clause1, Level: level, Until: until}
}

func invite(at time.Time) Query {
	return Query{At: at, Kind: QueryInvite, Caller: caller, Identity: call.Verified}
}

// fruitless is a complete file under 29(1): six calls within the hour, others waiting, reminded at 09:41:00,
// still no request at 09:43:00, proposed by the agent, and put before a supervisor.
func fruitless() *tale {
	s := &tale{query: Query{At: on("09:48:20"), Kind: QueryApprove, Caller: caller, By: "sup1", Role: Supervisor}}
	s.add(Event{Kind: EventLoad, At: on("08:50:00"), Waiting: 4, Occupancy: 0.97})
	for i := range 6 {
		s.add(aCall(fmt.Sprint("c", i), on("09:00:00").Add(time.Duration(i)*8*time.Minute), 3*time.Minute, "no_request"))
	}
	s.find(EventCall, 5).Ended = on("09:46:40")
	s.add(
		Event{Kind: EventRemind, At: on("09:41:00"), Caller: caller, Call: "c5", Staff: "ag7", What: Clause1},
		Event{Kind: EventMark, At: on("09:43:00"), Caller: caller, Call: "c5", What: markNoRequest},
		Event{Kind: EventPropose, At: on("09:46:50"), Caller: caller, Clause: Clause1, By: "ag7"})
	return s
}

// abusive is a complete file under 29(2): insult, reminder at 09:01:10, insult in the same call, nobody waits.
func abusive() *tale {
	s := &tale{query: Query{At: on("10:00:00"), Kind: QueryApprove, Caller: caller, By: "sup1", Role: Supervisor}}
	s.add(Event{Kind: EventLoad, At: on("08:50:00")}, aCall("c0", on("09:00:00"), 5*time.Minute, "abuse"),
		Event{Kind: EventMark, At: on("09:01:00"), Caller: caller, Call: "c0", What: markAbuse},
		Event{Kind: EventRemind, At: on("09:01:10"), Caller: caller, Call: "c0", Staff: "ag7", What: Clause2},
		Event{Kind: EventMark, At: on("09:02:00"), Caller: caller, Call: "c0", What: markAbuse},
		Event{Kind: EventPropose, At: on("09:59:00"), Caller: caller, Clause: Clause2, By: "ag7"})
	return s
}

// check runs a table of changes to a tale.
func check(t *testing.T, begin func() *tale, table map[string]struct {
	change func(*tale)
	want   Answer
}) {
	t.Helper()
	p := p0(t)
	for name, c := range table {
		t.Run(name, func(t *testing.T) {
			s := begin()
			c.change(s)
			if got := Simulate(p, s.events, s.query); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

type changes = map[string]struct {
	change func(*tale)
	want   Answer
}

const granted Answer = "SUSPEND:L1:2026-03-03T09:48:20+08:00"

func TestFruitlessCalls(t *testing.T) {
	check(t, fruitless, changes{
		"as the law says": {func(*tale) {}, granted},

		"five calls":                           {func(s *tale) { s.find(EventCall, 0).Outcome = "in_scope" }, deny(ReasonNotRepeated)},
		"the first 3600 s before the last":     {func(s *tale) { s.find(EventCall, 0).At = on("08:40:00") }, deny(ReasonNotRepeated)},
		"the first 3599 s before the last":     {func(s *tale) { s.find(EventCall, 0).At = on("08:40:01") }, granted},
		"two hours between call and approval":  {func(s *tale) { s.query.At = on("11:48:20") }, "SUSPEND:L1:2026-03-03T11:48:20+08:00"},
		"ten in the day":                       {tenInTheDay(on("01 09:40:01")), granted},
		"the tenth a day before":               {tenInTheDay(on("01 09:40:00")), deny(ReasonNotRepeated)},
		"abandoned in the queue":               {func(s *tale) { s.find(EventCall, 0).Answered = time.Time{} }, deny(ReasonNotRepeated)},
		"answered by a machine":                {func(s *tale) { s.find(EventCall, 0).Agent = "" }, deny(ReasonNotRepeated)},
		"one call's number not verified":       {func(s *tale) { s.find(EventCall, 0).Identity = call.Spoof }, deny(ReasonNotRepeated)},
		"the last neither ended nor marked":    {func(s *tale) { s.find(EventCall, 4).Ended = on("10:00:00") }, deny(ReasonNotRepeated)},
		"the last not ended, but marked":       {func(s *tale) { s.find(EventCall, 5).Ended = time.Time{} }, granted},
		"one with a request within scope":      {func(s *tale) { s.add(ask("c0", on("09:01:00"))) }, deny(ReasonNotRepeated)},
		"one was criticism":                    {func(s *tale) { s.add(mark("c0", on("09:01:00"), markCriticism)) }, deny(ReasonNotRepeated)},
		"one could not be recorded":            {func(s *tale) { s.find(EventCall, 0).Evidence = "none" }, deny(ReasonNotRepeated)},
		"one before an earlier measure":        {func(s *tale) { s.add(aDecision(1, on("09:01:00"), on("09:02:00"))) }, deny(ReasonNotRepeated)},
		"the reminded one not recorded":        {func(s *tale) { s.find(EventCall, 5).Evidence = "none" }, deny(ReasonNoEvidence)},
		"on a declared event":                  {surge(on("15:00:00")), deny(ReasonNotRepeated)},
		"the event is over at the first call":  {surge(on("09:00:00")), granted},
		"the event ends behind the first call": {surge(on("09:00:01")), deny(ReasonNotRepeated)},
		"1200 s in one call":                   {long(1200), granted},
		"1199 s in one call":                   {long(1199), deny(ReasonNotRepeated)},
		"3600 s in five calls":                 {longTogether(720), granted},
		"3595 s in five calls":                 {longTogether(719), deny(ReasonNotRepeated)},

		"nobody waits at 84 %":                {load(0, 0.84), deny(ReasonNoHindrance)},
		"nobody waits at 85 %":                {load(0, 0.85), granted},
		"one waits":                           {load(1, 0), granted},
		"no load was noted":                   {func(s *tale) { s.drop(EventLoad) }, deny(ReasonNoHindrance)},
		"the load goes at the first answer":   {func(s *tale) { s.add(Event{Kind: EventLoad, At: on("09:00:05")}) }, deny(ReasonNoHindrance)},
		"the load goes a second later":        {func(s *tale) { s.add(Event{Kind: EventLoad, At: on("09:00:06")}) }, granted},
		"a load between two calls":            {spell(on("09:03:00"), on("09:08:05")), deny(ReasonNoHindrance)},
		"a load at a call's last second":      {spell(on("09:02:59"), on("09:08:05")), granted},
		"a load at a call's first second":     {spell(on("09:03:00"), on("09:08:06")), granted},
		"hindered in a call that counts not":  {uncountedHindrance, deny(ReasonNoHindrance)},
		"two loads at one time, the last off": {twoLoads, deny(ReasonNoHindrance)},

		"no reminder":                         {func(s *tale) { s.drop(EventRemind) }, deny(ReasonNoReminder)},
		"a reminder after the proposal":       {func(s *tale) { s.find(EventRemind, 0).At = on("09:47:00") }, deny(ReasonNoReminder)},
		"a reminder before the answer":        {func(s *tale) { s.find(EventRemind, 0).At = on("09:40:04") }, deny(ReasonNoReminder)},
		"a reminder after the call":           {remindedLate, deny(ReasonNoReminder)},
		"a reminder before the last measure":  {func(s *tale) { s.add(aDecision(1, on("09:41:00"), on("09:41:01"))) }, deny(ReasonNoReminder)},
		"by a machine":                        {func(s *tale) { s.find(EventRemind, 0).Staff = "" }, deny(ReasonNotStaff)},
		"a recording that the agent started":  {func(s *tale) { s.find(EventRemind, 0).Auto = true }, deny(ReasonNotStaff)},
		"for abuse":                           {func(s *tale) { s.find(EventRemind, 0).What = Clause2 }, deny(ReasonOtherClause)},
		"in a call from a shared number":      {func(s *tale) { s.find(EventCall, 5).Identity = call.Shared }, deny(ReasonIdentity)},
		"a request after it":                  {func(s *tale) { s.add(ask("c5", on("09:41:01"))) }, deny(ReasonRequest)},
		"a request after the mark":            {func(s *tale) { s.add(ask("c5", on("09:48:00"))) }, deny(ReasonRequest)},
		"a request out of scope":              {func(s *tale) { s.add(ask("c5", on("09:42:00"))); s.find(EventRequest, 0).Scope = "out" }, granted},
		"the call ends as a consultation":     {func(s *tale) { s.add(aCall("c6", on("09:47:00"), time.Minute, "consultation")) }, deny(ReasonRequest)},
		"criticism after it":                  {func(s *tale) { s.add(mark("c4", on("09:45:00"), markCriticism)) }, deny(ReasonRequest)},
		"criticism after the mark":            {func(s *tale) { s.add(mark("c5", on("09:44:00"), markCriticism)) }, deny(ReasonRequest)},
		"nobody marked":                       {func(s *tale) { s.drop(EventMark) }, deny(ReasonNotAfter)},
		"marked at the reminder":              {func(s *tale) { s.find(EventMark, 0).At = on("09:41:00") }, deny(ReasonNotAfter)},
		"marked after 119 s":                  {func(s *tale) { s.find(EventMark, 0).At = on("09:42:59") }, deny(ReasonGrace)},
		"marked in a call that nobody knows":  {func(s *tale) { s.find(EventMark, 0).Call = "c9" }, deny(ReasonNotAfter)},
		"reminded a day less a second before": {remindedEarlier(on("01 09:43:01")), granted},
		"reminded a day before":               {remindedEarlier(on("01 09:43:00")), deny(ReasonOldReminder)},
		"access need, 299 s":                  {accessNeed(on("09:45:59")), deny(ReasonGrace)},
		"access need, 300 s":                  {accessNeed(on("09:46:00")), deny(ReasonProtected)},
		"protected":                           {func(s *tale) { s.add(Event{Kind: EventProtect, At: on("09:48:00"), Caller: caller}) }, deny(ReasonProtected)},
		"a later call without a mark": {func(s *tale) {
			s.drop(EventMark)
			s.add(aCall("c6", on("09:46:45"), time.Second, "silent"))
		}, deny(ReasonNotAfter)},
	})
}

func tenInTheDay(first time.Time) func(*tale) {
	return func(s *tale) {
		s.find(EventCall, 0).At = first
		s.eachCall(func(i int, c *Event) {
			if i > 0 && i < 5 {
				c.At = on("02:00:00").Add(time.Duration(i) * time.Hour)
			}
			if i < 5 {
				c.Answered, c.Ended = c.At, c.At.Add(time.Minute)
			}
		})
		for i := range 4 {
			s.add(aCall(fmt.Sprint("d", i), on("01 12:00:00").Add(time.Duration(i)*time.Hour), time.Minute, "oos_told"))
		}
		s.find(EventLoad, 0).At = on("01 00:00:00")
	}
}

func mark(id string, at time.Time, kind string) Event {
	return Event{Kind: EventMark, At: at, Caller: caller, Call: id, What: kind}
}

func ask(id string, at time.Time) Event {
	return Event{Kind: EventRequest, At: at, Caller: caller, Call: id, Scope: "in"}
}

func surge(to time.Time) func(*tale) {
	return func(s *tale) {
		s.add(Event{Kind: EventSurge, At: on("08:40:00"), Topic: "water", To: to})
		s.find(EventCall, 0).Topic = "water"
	}
}

func long(seconds int) func(*tale) {
	return func(s *tale) {
		s.find(EventCall, 0).Outcome, s.find(EventCall, 1).Outcome = "silent", "emergency"
		c := s.find(EventCall, 0)
		c.Ended = c.Answered.Add(time.Duration(seconds) * time.Second)
	}
}

// longTogether has five counted calls far apart, each with an agent for so many seconds.
func longTogether(seconds int) func(*tale) {
	return func(s *tale) {
		s.eachCall(func(i int, c *Event) {
			c.At = on("02:00:00").Add(time.Duration(i) * time.Hour)
			if i == 5 {
				c.At = on("09:20:00")
			}
			c.Answered = c.At.Add(5 * time.Second)
			c.Ended = c.Answered.Add(time.Duration(seconds) * time.Second)
		})
		s.find(EventCall, 0).Outcome = "progress"
		s.find(EventRemind, 0).At, s.find(EventMark, 0).At = on("09:21:00"), on("09:23:00")
		s.find(EventLoad, 0).At = on("00:00:00")
	}
}

func load(waiting int, occupancy float64) func(*tale) {
	return func(s *tale) {
		l := s.find(EventLoad, 0)
		l.Waiting, l.Occupancy = waiting, occupancy
	}
}

// spell is a load that is in force between two times alone.
func spell(from, to time.Time) func(*tale) {
	return func(s *tale) {
		s.find(EventLoad, 0).At = from
		s.add(Event{Kind: EventLoad, At: to})
	}
}

func uncountedHindrance(s *tale) {
	s.add(aCall("d", on("09:04:00"), time.Minute, "in_scope"))
	spell(on("09:04:00"), on("09:05:00"))(s)
}

func twoLoads(s *tale) {
	s.add(Event{Kind: EventLoad, At: on("08:55:00")})
	s.add(Event{Kind: EventLoad, At: on("09:41:00"), Waiting: 9}, Event{Kind: EventLoad, At: on("09:41:00")})
}

func remindedLate(s *tale) {
	s.find(EventCall, 5).Ended = on("09:40:59")
}

// remindedEarlier moves the reminder into a call of its own.
func remindedEarlier(when time.Time) func(*tale) {
	return func(s *tale) {
		s.add(aCall("early", when.Add(-time.Minute), 5*time.Minute, "no_request"))
		r := s.find(EventRemind, 0)
		r.At, r.Call = when, "early"
	}
}

func accessNeed(marked time.Time) func(*tale) {
	return func(s *tale) {
		s.add(Event{Kind: EventAccessNeed, At: on("08:00:00"), Caller: caller, What: "speech"})
		s.find(EventMark, 0).At = marked
	}
}

func TestWhoDecides(t *testing.T) {
	as := func(by string, role Role) func(*tale) {
		return func(s *tale) { s.query.By, s.query.Role = by, role }
	}
	earlier := func(role Role, froms ...time.Time) func(*tale) {
		return func(s *tale) {
			for _, from := range froms {
				s.add(aDecision(1, from, from.Add(24*time.Hour)))
			}
			s.query.Role = role
		}
	}
	day := func(n int) time.Time { return on("09:48:20").AddDate(0, 0, -n) }
	check(t, fruitless, changes{
		"a manager":             {as("m1", Manager), granted},
		"an agent":              {as("ag9", "agent"), deny(ReasonRole)},
		"nobody's role":         {as("x", ""), deny(ReasonRole)},
		"the proposer":          {as("ag7", Manager), deny(ReasonConflict)},
		"who reminded":          {func(s *tale) { s.find(EventRemind, 0).Staff = "sup1" }, deny(ReasonConflict)},
		"who proposed":          {func(s *tale) { s.find(EventPropose, 0).By = "sup1" }, deny(ReasonConflict)},
		"nothing was proposed":  {func(s *tale) { s.drop(EventPropose) }, deny(ReasonNoProposal)},
		"level 2, supervisor":   {earlier(Supervisor, day(10)), deny(ReasonRole)},
		"level 2, manager":      {earlier(Manager, day(10)), "SUSPEND:L2:2026-03-05T09:48:20+08:00"},
		"level 3, manager":      {earlier(Manager, day(10), day(20)), "SUSPEND:L3:2026-03-09T09:48:20+08:00"},
		"level 3, supervisor":   {earlier(Supervisor, day(10), day(20)), deny(ReasonRole)},
		"no level 4":            {earlier(Manager, day(10), day(20), day(30)), "SUSPEND:L3:2026-03-09T09:48:20+08:00"},
		"180 days ago":          {earlier(Supervisor, day(180)), granted},
		"180 days less 1 s ago": {earlier(Manager, day(180).Add(time.Second)), "SUSPEND:L2:2026-03-05T09:48:20+08:00"},
		"a measure runs":        {earlier(Manager, day(0).Add(-time.Second)), deny(ReasonSuspended)},
		"twice": {func(s *tale) {
			s.add(Event{Kind: EventApprove, At: on("09:47:00"), Caller: caller, By: "sup1", Role: Supervisor})
		}, deny(ReasonSuspended)},
		"an agent first": {func(s *tale) {
			s.add(Event{Kind: EventApprove, At: on("09:47:00"), Caller: caller, By: "ag9", Role: "agent"})
		}, granted},
		"proposed while one ran": {func(s *tale) { s.add(aDecision(1, on("09:40:59"), on("09:47:00"))) }, deny(ReasonSuspended)},
		"a lapsed one stays on the ladder": {func(s *tale) {
			s.add(aDecision(1, day(10), day(3)), Event{Kind: EventAppeal, At: day(10).Add(time.Hour), Caller: caller})
			s.query.Role = Manager
		}, "SUSPEND:L2:2026-03-05T09:48:20+08:00"},
	})
}

func TestAbuseGoesOn(t *testing.T) {
	const granted Answer = "SUSPEND:L1:2026-03-03T10:00:00+08:00"
	later := func(seconds int) func(*tale) {
		return func(s *tale) {
			when := on("09:01:10").Add(time.Duration(seconds) * time.Second)
			s.find(EventCall, 0).Ended = on("09:01:40")
			s.find(EventMark, 1).At, s.find(EventMark, 1).Call = when, "c1"
			s.add(aCall("c1", when.Add(-10*time.Second), time.Minute, "abuse"))
		}
	}
	check(t, abusive, changes{
		"in the same call":          {func(*tale) {}, granted},
		"within 1800 s":             {later(1800), granted},
		"after 1801 s":              {later(1801), deny(ReasonStopped)},
		"after 1801 s, same call":   {func(s *tale) { s.find(EventMark, 1).At, s.find(EventCall, 0).Ended = on("09:31:11"), on("09:32:00") }, granted},
		"stopped":                   {func(s *tale) { s.find(EventMark, 1).At = on("09:01:05") }, deny(ReasonStopped)},
		"at the reminder's instant": {func(s *tale) { s.find(EventMark, 1).At = on("09:01:10") }, deny(ReasonStopped)},
		"criticism after it":        {func(s *tale) { s.find(EventMark, 1).What = markCriticism }, deny(ReasonStopped)},
		"reminded of criticism":     {func(s *tale) { s.find(EventMark, 0).What = markCriticism }, deny(ReasonNotAbuse)},
		"criticism alone": {func(s *tale) {
			s.find(EventMark, 0).What, s.find(EventMark, 1).What = markCriticism, markCriticism
		}, deny(ReasonNotAbuse)},
		"reminded at once, unmarked": {func(s *tale) { s.find(EventMark, 0).At = on("09:02:01") }, granted},
		"a reminder of 29(1)":        {func(s *tale) { s.find(EventRemind, 0).What = Clause1 }, deny(ReasonOtherClause)},
		"a machine's reminder":       {func(s *tale) { s.find(EventRemind, 0).Staff = "" }, deny(ReasonNotStaff)},
		"from a payphone":            {func(s *tale) { s.find(EventCall, 0).Identity = call.Shared }, deny(ReasonIdentity)},
		"goes on from a payphone":    {func(s *tale) { later(60)(s); s.find(EventCall, 1).Identity = call.Shared }, deny(ReasonStopped)},
		"goes on unrecorded":         {func(s *tale) { later(60)(s); s.find(EventCall, 1).Evidence = "none" }, deny(ReasonStopped)},
		"not recorded":               {func(s *tale) { s.find(EventCall, 0).Evidence = "none" }, deny(ReasonNoEvidence)},
		"a request too":              {func(s *tale) { s.add(ask("c0", on("09:01:30"))) }, granted},
		"on a declared event":        {surge(on("15:00:00")), granted},
		"protected":                  {func(s *tale) { s.add(Event{Kind: EventProtect, At: on("08:00:00"), Caller: caller}) }, deny(ReasonProtected)},
		"the next call, unmarked": {func(s *tale) {
			s.find(EventMark, 1).At = on("09:01:05")
			s.add(aCall("c1", on("09:10:00"), time.Minute, "abuse"))
		}, deny(ReasonStopped)},
		"a reminder a day old": {func(s *tale) {
			c := s.find(EventCall, 0)
			c.Ended = on("03 09:10:00")
			s.find(EventMark, 1).At, s.find(EventPropose, 0).At = on("03 09:01:10"), on("03 09:02:00")
			s.query.At = on("03 10:00:00")
		}, deny(ReasonOldReminder)},
	})
}

// measured is a caller under a measure from 09:00:00 of 2 March for a day, who rings at 10.
func measured() *tale {
	s := &tale{query: invite(on("10:00:00"))}
	s.add(aDecision(1, on("09:00:00"), on("03 09:00:00")))
	return s
}

func TestInvites(t *testing.T) {
	rings := func(at string) func(*tale) { return func(s *tale) { s.query.At = on(at) } }
	says := func(change func(*Query)) func(*tale) { return func(s *tale) { change(&s.query) } }
	away := func(copied, asked string) func(*tale) {
		return func(s *tale) {
			s.add(Event{Kind: EventSnapshot, At: on(copied)}, Event{Kind: EventRedis, At: on("09:50:10"), State: "down"})
			s.query.At = on(asked)
		}
	}
	appeal := func(asked, result, decided string) func(*tale) {
		return func(s *tale) {
			s.add(Event{Kind: EventAppeal, At: on("09:30:00"), Caller: caller})
			s.find(EventDecision, 0).Until = on("09 09:00:00")
			if result != "" {
				s.add(Event{Kind: EventAppealDecide, At: on(decided), Caller: caller, Result: result})
			}
			s.query.At = on(asked)
		}
	}
	openCase := func(states ...string) func(*tale) {
		return func(s *tale) {
			for i, state := range states {
				s.add(Event{Kind: EventCase, At: on("08:00:00"), Caller: caller, ID: fmt.Sprint(i), State: state})
			}
			s.query.Intent = "progress"
		}
	}
	check(t, measured, changes{
		"suspended":            {func(*tale) {}, "IVR_ONLY"},
		"at the first instant": {rings("09:00:00"), "IVR_ONLY"},
		"a second before":      {rings("08:59:59"), "ADMIT"},
		"in the last second":   {rings("03 08:59:59"), "IVR_ONLY"},
		"at its end":           {rings("03 09:00:00"), "ADMIT"},
		"no measure is for ever": {func(s *tale) {
			s.find(EventDecision, 0).Until = on("30 09:00:00").AddDate(1, 0, 0)
			s.query.At = on("09:00:00").AddDate(0, 0, 30)
		}, "ADMIT"},
		"a second before 30 days": {func(s *tale) {
			s.find(EventDecision, 0).Until = on("30 09:00:00").AddDate(1, 0, 0)
			s.query.At = on("08:59:59").AddDate(0, 0, 30)
		}, "IVR_ONLY"},
		"a later, shorter one":     {func(s *tale) { s.add(aDecision(1, on("09:10:00"), on("09:20:00"))) }, "IVR_ONLY"},
		"shared":                   {says(func(q *Query) { q.Identity = call.Shared }), "ADMIT"},
		"anonymous":                {says(func(q *Query) { q.Identity = call.Anonymous }), "ADMIT"},
		"spoof":                    {says(func(q *Query) { q.Identity = call.Spoof }), "ADMIT"},
		"another caller":           {says(func(q *Query) { q.Caller = "caller-B" }), "ADMIT"},
		"the hotline's own number": {says(func(q *Query) { q.Caller, q.Identity, q.Keys = "12345", call.Spoof, "0" }), "REJECT_NET"},
		"the key":                  {says(func(q *Query) { q.Keys = "0" }), "ADMIT_EMERGENCY"},
		"star zero in digits":      {says(func(q *Query) { q.Keys = "0571*0" }), "ADMIT_EMERGENCY"},
		"digits with a zero":       {says(func(q *Query) { q.Keys = "0571" }), "IVR_ONLY"},
		"the word":                 {says(func(q *Query) { q.Speech = "快来人，楼上着火了" }), "ADMIT_EMERGENCY"},
		"the English word":         {says(func(q *Query) { q.Speech = "My house is ON FIRE" }), "ADMIT_EMERGENCY"},
		"no such word":             {says(func(q *Query) { q.Speech = "我要投诉" }), "IVR_ONLY"},
		"the intent":               {says(func(q *Query) { q.Intent = "emergency" }), "ADMIT_EMERGENCY"},
		"a crisis":                 {says(func(q *Query) { q.Intent = "crisis" }), "ADMIT_EMERGENCY"},
		"a crisis, anonymous":      {says(func(q *Query) { q.Identity, q.Intent = call.Anonymous, "crisis" }), "ADMIT_EMERGENCY"},
		"an open case":             {openCase("open"), "ADMIT_PROGRESS"},
		"one of two is open":       {openCase("closed", "processing"), "ADMIT_PROGRESS"},
		"a closed case":            {openCase("closed"), "IVR_ONLY"},
		"no case":                  {openCase(), "IVR_ONLY"},
		"asks for something else":  {func(s *tale) { openCase("open")(s); s.query.Intent = "" }, "IVR_ONLY"},
		"a case, from a payphone":  {func(s *tale) { openCase("open")(s); s.query.Identity = call.Shared }, "ADMIT"},
		"protected":                {func(s *tale) { s.add(Event{Kind: EventProtect, At: on("09:30:00"), Caller: caller}) }, "ADMIT"},
		"a declared event":         {func(s *tale) { surge(on("15:00:00"))(s.withCall()); s.query.Topic = "water" }, "ADMIT"},
		"a declared event is over": {func(s *tale) { surge(on("10:00:00"))(s.withCall()); s.query.Topic = "water" }, "IVR_ONLY"},

		"redis away, copy of 300 s":      {away("09:50:00", "09:55:00"), "IVR_ONLY"},
		"redis away, copy of 301 s":      {away("09:50:00", "09:55:01"), "ADMIT"},
		"redis away, no copy":            {func(s *tale) { away("09:50:00", "09:55:00")(s); s.drop(EventSnapshot) }, "ADMIT"},
		"redis away, decided after copy": {func(s *tale) { away("09:50:00", "09:55:00")(s); s.find(EventDecision, 0).At = on("09:50:01") }, "ADMIT"},
		"redis away and back": {func(s *tale) {
			away("09:50:00", "09:56:00")(s)
			s.add(Event{Kind: EventRedis, At: on("09:55:30"), State: "up"})
		}, "IVR_ONLY"},
		"redis away, restored after copy": {func(s *tale) {
			away("09:50:00", "09:55:00")(s)
			s.add(Event{Kind: EventAppealDecide, At: on("09:50:05"), Caller: caller, Result: overturned})
		}, "ADMIT"},

		"an appeal waits":            {appeal("03 09:29:59", "", ""), "IVR_ONLY"},
		"an appeal waited a day":     {appeal("03 09:30:00", "", ""), "ADMIT"},
		"overturned at this instant": {appeal("11:00:00", overturned, "11:00:00"), "ADMIT"},
		"overturned a second later":  {appeal("11:00:00", overturned, "11:00:01"), "IVR_ONLY"},
		"upheld in time":             {appeal("04 10:00:00", "upheld", "03 09:29:59"), "IVR_ONLY"},
		"upheld too late":            {appeal("04 10:00:00", "upheld", "03 09:30:00"), "ADMIT"},
		"overturned after it was held": {func(s *tale) {
			appeal("12:00:00", "upheld", "10:00:00")(s)
			s.add(Event{Kind: EventAppealDecide, At: on("11:00:00"), Caller: caller, Result: overturned})
		}, "ADMIT"},
		"an earlier one overturned": {func(s *tale) {
			s.add(aDecision(1, on("01 08:00:00"), on("01 09:00:00")), Event{Kind: EventAppeal, At: on("01 10:00:00"), Caller: caller},
				Event{Kind: EventAppealDecide, At: on("09:30:00"), Caller: caller, Result: overturned})
		}, "IVR_ONLY"},
	})
}

// withCall gives a tale a call, so that it has a topic.
func (s *tale) withCall() *tale {
	s.add(aCall("w", on("08:45:00"), time.Minute, "consultation"))
	return s
}

func TestLeases(t *testing.T) {
	beat := func(id, at string) Event { return Event{Kind: EventLease, At: on(at), ID: id, Caller: caller} }
	two := func() *tale {
		s := &tale{query: invite(on("10:00:20"))}
		s.add(aCall("a", on("09:00:00"), 2*time.Hour, "in_scope"), aCall("b", on("10:00:06"), time.Hour, "in_scope"), beat("a", "10:00:06"))
		return s
	}
	check(t, two, changes{
		"two are up":                {func(*tale) {}, "QUEUE_LEASE"},
		"15 s after the heartbeats": {func(s *tale) { s.query.At = on("10:00:21") }, "ADMIT"},
		"a later heartbeat":         {func(s *tale) { s.query.At = on("10:00:21"); s.add(beat("a", "10:00:11"), beat("b", "10:00:11")) }, "QUEUE_LEASE"},
		"one given back":            {func(s *tale) { s.add(Event{Kind: EventRelease, At: on("10:00:10"), ID: "a"}) }, "ADMIT"},
		"one has ended":             {func(s *tale) { s.find(EventCall, 0).Ended = on("10:00:20") }, "ADMIT"},
		"one ends in a second":      {func(s *tale) { s.find(EventCall, 0).Ended = on("10:00:21") }, "QUEUE_LEASE"},
		"one call of a shared line": {func(s *tale) { s.find(EventCall, 0).Identity = call.Shared }, "ADMIT"},
		"from a shared line":        {func(s *tale) { s.query.Identity = call.Shared }, "ADMIT"},
		"danger":                    {func(s *tale) { s.query.Keys = "0" }, "ADMIT_EMERGENCY"},
		"a measure goes first":      {func(s *tale) { s.add(aDecision(1, on("10:00:00"), on("11:00:00"))) }, "IVR_ONLY"},
		"redis away":                {func(s *tale) { s.add(Event{Kind: EventRedis, At: on("10:00:10"), State: "down"}) }, "ADMIT"},
		"heartbeats alone": {func(s *tale) {
			s.drop(EventCall)
			s.add(beat("b", "10:00:06"))
		}, "QUEUE_LEASE"},
		"a heartbeat without a caller": {func(s *tale) { s.find(EventLease, 0).Caller = "" }, "QUEUE_LEASE"},
		"a lease nobody knows":         {func(s *tale) { e := s.find(EventLease, 0); e.Caller, e.ID = "", "z" }, "ADMIT"},
	})
}

func TestReferral(t *testing.T) {
	three := func() *tale {
		s := &tale{query: Query{At: on("10:00:00"), Kind: QueryReferral, Caller: caller}}
		for i := range 3 {
			from := on("09:00:00").AddDate(0, 0, -30*i)
			s.add(aDecision(1, from, from.Add(time.Hour)))
		}
		return s
	}
	check(t, three, changes{
		"three":                   {func(*tale) {}, ReferralCandidate},
		"two":                     {func(s *tale) { s.find(EventDecision, 0).Caller = "caller-B" }, NoReferral},
		"the first 180 days ago":  {func(s *tale) { s.query.At = on("09:00:00").AddDate(0, 0, 120) }, NoReferral},
		"the first a second less": {func(s *tale) { s.query.At = on("08:59:59").AddDate(0, 0, 120) }, ReferralCandidate},
		"the last overturned": {func(s *tale) {
			s.add(Event{Kind: EventAppealDecide, At: on("09:30:00"), Caller: caller, Result: overturned})
		}, NoReferral},
		"the last overturned afterwards": {func(s *tale) {
			s.add(Event{Kind: EventAppealDecide, At: on("10:30:00"), Caller: caller, Result: overturned})
		}, ReferralCandidate},
	})
}

func TestAnApprovalTakesEffect(t *testing.T) {
	s := fruitless()
	s.add(Event{Kind: EventApprove, At: on("09:48:20"), Caller: caller, By: "sup1", Role: Supervisor})
	for at, want := range map[string]Answer{"09:48:20": "IVR_ONLY", "03 09:48:19": "IVR_ONLY", "03 09:48:20": "ADMIT"} {
		if got := Simulate(p0(t), s.events, invite(on(at))); got != want {
			t.Errorf("%s: %s, want %s", at, got, want)
		}
	}
}

func TestThePolicyRules(t *testing.T) {
	p := p0(t)
	for name, c := range map[string]struct {
		policy func(*Policy)
		change func(*tale)
		want   Answer
	}{
		"a recording counts":           {func(p *Policy) { p.Reminder.Recording = true }, func(s *tale) { s.find(EventRemind, 0).Auto = true }, granted},
		"but none of nobody":           {func(p *Policy) { p.Reminder.Recording = true }, func(s *tale) { r := s.find(EventRemind, 0); r.Auto, r.Staff = true, "" }, deny(ReasonNotStaff)},
		"access need protects not":     {func(p *Policy) { p.Protected.AccessNeed = false }, accessNeed(on("09:46:00")), granted},
		"seven calls":                  {func(p *Policy) { p.Repeat.Short.Calls = 7 }, func(*tale) {}, deny(ReasonNotRepeated)},
		"silent does not count":        {func(p *Policy) { p.Counted = p.Counted[:1] }, func(s *tale) { s.find(EventCall, 0).Outcome = "silent" }, deny(ReasonNotRepeated)},
		"managers alone":               {func(p *Policy) { p.Approvers = [][]Role{{Manager}, {Manager}, {Manager}} }, func(*tale) {}, deny(ReasonRole)},
		"a term cut to the longest":    {func(p *Policy) { p.Measure.Longest = time.Hour }, func(*tale) {}, "SUSPEND:L1:2026-03-02T10:48:20+08:00"},
		"more time is reasonable":      {func(p *Policy) { p.Grace.Time = 121 * time.Second }, func(*tale) {}, deny(ReasonGrace)},
		"five waiting hinder":          {func(p *Policy) { p.Hindrance.Waiting, p.Hindrance.Occupancy = 5, 0.98 }, func(*tale) {}, deny(ReasonNoHindrance)},
		"a reminder for a minute less": {func(p *Policy) { p.Reminder.Valid = 120 * time.Second }, func(*tale) {}, deny(ReasonOldReminder)},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := p, fruitless()
			c.policy(&p)
			c.change(s)
			if got := Simulate(p, s.events, s.query); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestStages(t *testing.T) {
	s := fruitless()
	s.add(Event{Kind: EventApprove, At: on("09:48:20"), Caller: caller, By: "sup1", Role: Supervisor})
	stage := func(at string) Stage {
		l := NewLedger(p0(t))
		events := pick(s.events, func(e Event) bool { return !e.At.After(on(at)) })
		slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
		for _, e := range events {
			l.Apply(e)
		}
		return l.Stage(caller, on(at))
	}
	check := func(want ...string) {
		t.Helper()
		for _, w := range want {
			at, stagename, _ := strings.Cut(w, " = ")
			if got := stage(at); string(got) != stagename {
				t.Errorf("%s: %s, want %s", at, got, stagename)
			}
		}
	}
	check("08:00:00 = NORMAL", "09:40:30 = NORMAL", "09:41:00 = GRACE", "09:43:00 = GRACE", "09:46:50 = PROPOSED",
		"09:48:20 = SUSPENDED", "03 09:48:19 = SUSPENDED", "03 09:48:20 = EXPIRED")
	s.add(Event{Kind: EventAppealDecide, At: on("09:50:00"), Caller: caller, Result: overturned})
	check("09:50:00 = WATCH", "12:00:00 = NORMAL")

	s = fruitless()
	s.drop(EventRemind)
	check("09:46:40 = WATCH", "09:46:50 = WATCH", "10:30:00 = NORMAL")

	s = fruitless()
	s.drop(EventPropose)
	s.find(EventMark, 0).At = on("09:42:59")
	check("03 09:40:59 = GRACE", "03 09:41:00 = NORMAL") // reminded, and nothing came of it
	s = fruitless()
	s.add(ask("c5", on("09:47:00")))
	check("09:46:50 = PROPOSED", "09:47:00 = NORMAL")

	s = abusive()
	check("09:01:10 = REMINDED", "09:59:00 = PROPOSED")

	s = &tale{}
	for i := range 3 {
		s.add(aDecision(1, on("01 09:00:00").AddDate(0, 0, -i), on("01 10:00:00").AddDate(0, 0, -i)))
	}
	check("01 09:00:00 = REFERRAL_CANDIDATE", "02 09:00:00 = REFERRAL_CANDIDATE")
	s.add(Event{Kind: EventAppealDecide, At: on("01 09:10:00"), Caller: caller, Result: overturned})
	check("01 09:10:00 = RESTORED")
	s.find(EventAppealDecide, 0).Caller = "caller-B"
	if got := stage("09:00:00"); got != StageReferrable {
		t.Errorf("another caller's appeal: %s", got)
	}
}
