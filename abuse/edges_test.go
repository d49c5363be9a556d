package abuse

import (
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// TestEdgesOfAnInvite stands on the bounds to the nanosecond.
func TestEdgesOfAnInvite(t *testing.T) {
	p := p0(t)
	measure := &session.Measure{Until: at}
	hour := func(short time.Duration) []Counted { // four calls of 15 minutes
		calls := counted(15*time.Minute, every(2*time.Hour, 4, time.Hour)...)
		calls[0].Ended = calls[0].Ended.Add(-short)
		return calls
	}
	future := Counted{at, at.Add(time.Minute), at.Add(2 * time.Minute)} // at its INVITE; an agent comes later
	for name, c := range map[string]struct {
		f    Facts
		want session.Decision
	}{
		"at the measure's end":                 {Facts{Measure: measure, From: at.Add(-time.Hour)}, session.Admit},
		"a nanosecond before it":               {Facts{Measure: &session.Measure{Until: at.Add(1)}, From: at.Add(-time.Hour)}, session.IVROnly},
		"an hour less a nanosecond":            {Facts{Counted: hour(1)}, session.Admit},
		"an hour":                              {Facts{Counted: hour(0)}, session.AdmitWatch},
		"a call without an agent adds nothing": {Facts{Counted: append(hour(1), future)}, session.Admit},
		"nor does it take anything away":       {Facts{Counted: append(hour(0), future)}, session.AdmitWatch},
	} {
		c.f.At, c.f.Identity = at, call.Verified
		if got := Decide(p, c.f); got.Decision != c.want {
			t.Errorf("%s: %s, want %s", name, got.Decision, c.want)
		}
	}
}

// TestEdgesOfAMatter: what happens at one instant with a reminder, and an hour less or more by a nanosecond.
func TestEdgesOfAMatter(t *testing.T) {
	check(t, abusive, changes{
		"criticism at the reminder's instant": {func(s *tale) {
			s.find(EventMark, 0).What, s.find(EventMark, 0).At = markCriticism, on("09:01:10")
		}, deny(ReasonNotAbuse)},
	})
	for short, want := range map[time.Duration]Stage{0: StageWatch, 1: StageNormal} {
		l := NewLedger(p0(t))
		for i := range 4 {
			c := aCall(string(rune('a'+i)), on("01:00:00").Add(time.Duration(i)*2*time.Hour), 15*time.Minute+5*time.Second, "no_request")
			if i == 0 {
				c.Ended = c.Ended.Add(-short)
			}
			l.Apply(c)
		}
		if got := l.Stage(caller, on("09:00:00")); got != want {
			t.Errorf("an hour with an agent less %v: %s, want %s", short, got, want)
		}
	}
}

// TestALoadOfAnotherCallProvesNothing: two calls of one caller are up at once, the load of each is noted of itself, and
// the heavy one belongs to the call that does not count.
func TestALoadOfAnotherCallProvesNothing(t *testing.T) {
	beside := func(s *tale) *Event {
		s.drop(EventLoad)
		s.add(aCall("x", on("09:00:00"), 47*time.Minute, "emergency"))
		return s.find(EventCall, 6)
	}
	check(t, fruitless, changes{
		"of the other call":       {func(s *tale) { beside(s).Waiting = 9 }, deny(ReasonNoHindrance)},
		"of a counted call":       {func(s *tale) { beside(s); s.find(EventCall, 2).Waiting = 1 }, granted},
		"too light for it":        {func(s *tale) { beside(s); s.find(EventCall, 2).Occupancy = 0.84 }, deny(ReasonNoHindrance)},
		"heavy enough":            {func(s *tale) { beside(s); s.find(EventCall, 2).Occupancy = 0.85 }, granted},
		"begun as a counted call": {func(s *tale) { x := beside(s); x.Waiting, x.Answered = 9, on("09:00:05") }, deny(ReasonNoHindrance)},
		"ended as a counted call": {func(s *tale) { x := beside(s); x.Waiting, x.At, x.Ended = 9, on("09:00:01"), on("09:03:00") }, deny(ReasonNoHindrance)},
		"answered at another time": {func(s *tale) {
			x := beside(s)
			x.Waiting, x.Answered, x.Ended = 9, on("09:00:06"), on("09:03:00")
		}, deny(ReasonNoHindrance)},
	})
}

// TestACandidateForReferralStaysOne while as many decisions are confirmed: after one of four was overturned, and after
// a reminder that came to nothing.
func TestACandidateForReferralStaysOne(t *testing.T) {
	decided := func(n int) *Ledger {
		l := NewLedger(p0(t))
		for i := range n {
			from := on("02 01:00:00").Add(time.Duration(i) * 24 * time.Hour)
			l.Apply(aDecision(1, from, from.Add(time.Hour)))
		}
		return l
	}
	l := decided(4)
	l.Apply(Event{Kind: EventAppealDecide, At: on("05 03:00:00"), Caller: caller, Result: overturned})
	if got := l.Stage(caller, on("05 03:00:00")); got != StageReferrable {
		t.Errorf("three of four are confirmed: %s", got)
	}
	l = decided(3)
	l.Apply(aCall("c0", on("05 09:00:00"), 5*time.Minute, "no_request"))
	l.Apply(Event{Kind: EventRemind, At: on("05 09:01:00"), Caller: caller, Call: "c0", Staff: "ag7", What: Clause1})
	for at, want := range map[time.Time]Stage{on("05 09:01:00"): StageGrace, on("06 09:00:59"): StageGrace, on("06 09:01:00"): StageReferrable} {
		if got := l.Stage(caller, at); got != want {
			t.Errorf("%v: %s, want %s", at, got, want)
		}
	}
}
