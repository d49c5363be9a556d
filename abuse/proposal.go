package abuse

import (
	"slices"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// approve decides on the proposal that waits. What is held against the caller must have been known when it
// was proposed; what speaks for the caller counts until the decision.
func (l *Ledger) approve(f *matter, at time.Time, by string, role Role) (*measure, Reason) {
	p := f.proposal
	switch {
	case f.running(l.policy, at, at) != nil:
		return nil, ReasonSuspended
	case p == nil:
		return nil, ReasonNoProposal
	case f.running(l.policy, p.At, p.At) != nil:
		return nil, ReasonSuspended
	}
	reminders, reason := l.file(f, p, at)
	if reason != ReasonNone {
		return nil, reason
	}
	level := f.level(l.policy, at)
	switch {
	case f.exempt(l.policy):
		return nil, ReasonProtected
	case by == p.By || slices.ContainsFunc(reminders, func(r Event) bool { return r.Staff == by }):
		return nil, ReasonConflict // Art. 30(5)
	case !slices.Contains(l.policy.Approvers[level-1], role):
		return nil, ReasonRole // the agency decides
	}
	if _, ok := stageSteps[actApprove][f.stage]; !ok {
		return nil, ReasonNoProposal
	}
	return &measure{clause: p.Clause, level: level, from: at, until: at.Add(l.policy.term(level))}, ReasonNone
}

// file looks whether every element of the clause is proven, and returns the reminders that it rests on.
func (l *Ledger) file(f *matter, p *Event, at time.Time) ([]Event, Reason) {
	reminders, reason := l.reminders(f, p)
	if reason != ReasonNone {
		return nil, reason
	}
	if p.Clause == Clause2 {
		return l.abusive(f, p, reminders)
	}
	if reminders = f.unanswered(reminders, at); len(reminders) == 0 {
		return nil, ReasonRequest
	}
	if reason := l.conduct(f, p.At); reason != ReasonNone {
		return nil, reason
	}
	return l.fruitless(f, p, reminders)
}

// reminders picks those that can carry a proposal: heard, by the staff, for its clause, by one person
// known to be the caller, and recorded.
func (l *Ledger) reminders(f *matter, p *Event) ([]Event, Reason) {
	left := f.reminders
	for _, need := range []struct {
		is  func(Event) bool
		not Reason
	}{
		{func(r Event) bool { return !r.At.After(p.At) && f.heard(r) }, ReasonNoReminder},
		{l.byStaff, ReasonNotStaff},
		{func(r Event) bool { return r.What == p.Clause }, ReasonOtherClause},
		{func(r Event) bool { return f.verified(r.Call) }, ReasonIdentity},
		{func(r Event) bool { return f.recorded(r.Call) }, ReasonNoEvidence},
	} {
		if left = pick(left, need.is); len(left) == 0 {
			return nil, need.not
		}
	}
	return left, ReasonNone
}

// heard tells whether the caller was with an agent, and no measure has used the reminder up.
func (f *matter) heard(r Event) bool {
	c, ok := f.call(r.Call)
	if m := f.latest(); m != nil && !r.At.After(m.from) {
		return false
	}
	return ok && answered(c, r.At) && (c.Ended.IsZero() || !r.At.After(c.Ended))
}

// byStaff tells whether hotline staff gave the reminder, as Article 29 says.
func (l *Ledger) byStaff(r Event) bool {
	return r.Staff != "" && (!r.Auto || l.policy.Reminder.Recording)
}

func (f *matter) verified(id string) bool {
	c, ok := f.call(id)
	return ok && c.Identity == call.Verified
}

func (f *matter) recorded(id string) bool {
	c, ok := f.call(id)
	return ok && c.Evidence != "none"
}

// conduct looks for repeated dialling or long occupation that hindered others. The windows end at the
// start of the latest counted call, and hold nothing that a measure was decided on already.
func (l *Ledger) conduct(f *matter, by time.Time) Reason {
	var counted []Counted
	var end time.Time
	for _, c := range l.countedWithEvidence(f, by) {
		if m := f.latest(); m != nil && !c.Start.After(m.from) {
			continue
		}
		counted = append(counted, c)
		if c.Start.After(end) {
			end = c.Start
		}
	}
	found := grounds(l.policy, end, by, counted, 0, 0)
	if len(found) == 0 {
		return ReasonNotRepeated
	}
	for _, g := range found {
		if slices.ContainsFunc(g.calls, func(c Counted) bool { return l.hindered(c.Answered, earlier(c.Ended, by)) || l.hinders(f, c) }) {
			return ReasonNone
		}
	}
	return ReasonNoHindrance
}

// countedWithEvidence leaves out the calls that could not be recorded: they prove nothing.
func (l *Ledger) countedWithEvidence(f *matter, by time.Time) []Counted {
	proven := *f
	proven.calls = pick(f.calls, func(c Event) bool { return c.Evidence != "none" })
	return l.counted(&proven, by)
}

// hindered tells whether a load under which others were hindered was in force between two times.
func (l *Ledger) hindered(from, to time.Time) bool {
	for i, load := range l.loads {
		begin := load.At
		if begin.Before(from) {
			begin = from
		}
		over := i+1 < len(l.loads) && !l.loads[i+1].At.After(begin)
		if !over && begin.Before(to) && l.heavy(load) {
			return true
		}
	}
	return false
}

// heavy tells whether others were hindered under a load.
func (l *Ledger) heavy(load Event) bool {
	h := l.policy.Hindrance
	return load.Waiting >= h.Waiting || load.Occupancy >= h.Occupancy
}

// hinders tells whether others were hindered by the load that was noted of a call itself. That of another call of
// the caller's which was up meanwhile proves nothing about this one.
func (l *Ledger) hinders(f *matter, c Counted) bool {
	return slices.ContainsFunc(f.calls, func(e Event) bool {
		return e.At.Equal(c.Start) && e.Answered.Equal(c.Answered) && e.Ended.Equal(c.Ended) && l.heavy(e)
	})
}

// fruitless looks for the rest of 29(1): reasonable time after the reminder, and the agent's mark that there
// is still no request within scope.
func (l *Ledger) fruitless(f *matter, p *Event, reminders []Event) ([]Event, Reason) {
	grace := f.grace(l.policy)
	return followed(reminders, l.after(f, p, markNoRequest), []need{
		{func(r, a Event) bool { return a.At.After(r.At) }, ReasonNotAfter},
		{func(r, a Event) bool { return a.At.Before(r.At.Add(l.policy.Reminder.Valid)) }, ReasonOldReminder},
		{func(r, a Event) bool { return !a.At.Before(r.At.Add(grace)) }, ReasonGrace},
	})
}

// abusive looks for the rest of 29(2): it went on after the reminder.
func (l *Ledger) abusive(f *matter, p *Event, reminders []Event) ([]Event, Reason) {
	reminders, marks := pick(reminders, f.forAbuse), l.after(f, p, markAbuse)
	if len(reminders) == 0 || len(marks) == 0 {
		return nil, ReasonNotAbuse
	}
	return followed(reminders, marks, []need{
		{func(r, a Event) bool { return a.At.After(r.At) }, ReasonStopped},
		{func(r, a Event) bool { return a.At.Before(r.At.Add(l.policy.Reminder.Valid)) }, ReasonOldReminder},
		{func(r, a Event) bool { return a.Call == r.Call || !a.At.After(r.At.Add(l.policy.Continuation)) }, ReasonStopped},
	})
}

// need is what a reminder and a mark after it must have to each other.
type need struct {
	is  func(reminder, mark Event) bool
	not Reason
}

// followed keeps the reminders that some mark meets every need with.
func followed(reminders, marks []Event, needs []need) ([]Event, Reason) {
	type pair struct{ reminder, mark Event }
	var left []pair
	for _, r := range reminders {
		for _, m := range marks {
			left = append(left, pair{r, m})
		}
	}
	for _, n := range needs {
		if left = pick(left, func(x pair) bool { return n.is(x.reminder, x.mark) }); len(left) == 0 {
			return nil, n.not
		}
	}
	var kept []Event
	for _, x := range left {
		kept = append(kept, x.reminder)
	}
	return kept, ReasonNone
}

// after lists the marks of a kind that can show that a reminder was of no use: known when it was proposed,
// in recorded calls of the caller's own, and under 29(1) not on a declared event. A call's outcome is none:
// it does not tell what came before the reminder from what came after.
func (l *Ledger) after(f *matter, p *Event, kind string) []Event {
	return pick(f.marks, func(m Event) bool {
		c, _ := f.call(m.Call)
		return m.What == kind && !m.At.After(p.At) && f.verified(m.Call) && f.recorded(m.Call) &&
			(p.Clause == Clause2 || !l.declared(c.Topic, c.At))
	})
}

// unanswered keeps the reminders that no request within scope came after.
func (f *matter) unanswered(reminders []Event, at time.Time) []Event {
	return pick(reminders, func(r Event) bool { return !f.asked(r.At, at) })
}

// asked tells whether the caller came with a request within scope after a time: one that was noted, a
// call that turned out to be one, or criticism, which is one (Art. 6(4)).
func (f *matter) asked(from, at time.Time) bool {
	return slices.ContainsFunc(f.requests, func(r Event) bool { return r.At.After(from) }) ||
		slices.ContainsFunc(f.marks, func(m Event) bool { return m.What == markCriticism && m.At.After(from) }) ||
		slices.ContainsFunc(f.calls, func(c Event) bool {
			return c.Ended.After(from) && !c.Ended.After(at) && slices.Contains(inScope, outcomeOf(c.Outcome))
		})
}

// forAbuse tells whether a reminder was given for abuse: the agent's last mark before it, in the same
// call, is none of criticism.
func (f *matter) forAbuse(r Event) bool {
	before := pick(f.marks, func(m Event) bool { return m.Call == r.Call && !m.At.After(r.At) })
	return len(before) == 0 || before[len(before)-1].What != markCriticism
}

// pick returns the elements that are as wanted, in a list of its own.
func pick[T any](list []T, wanted func(T) bool) (in []T) {
	for _, e := range list {
		if wanted(e) {
			in = append(in, e)
		}
	}
	return in
}
