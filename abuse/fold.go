package abuse

import (
	"slices"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// Ledger folds what happened, event after event in the order of time, and answers what follows from it by
// the rules of Article 29. It is pure: it reads no clock and does no I/O, so that the same events give
// the same answers. The caller of an INVITE goes through [Decide], as on the live line. It is not safe
// for use by several goroutines at once.
type Ledger struct {
	policy   Policy
	matters  map[string]*matter // by caller
	owners   map[string]*matter // by call
	loads    []Event
	surges   []Event
	down     bool
	snapshot time.Time
}

// NewLedger makes a ledger in which nothing has happened.
func NewLedger(p Policy) *Ledger {
	return &Ledger{policy: p, matters: make(map[string]*matter), owners: make(map[string]*matter)}
}

// Simulate answers a query from the events that had happened by then, in any order.
func Simulate(p Policy, events []Event, q Query) Answer {
	events = pick(events, func(e Event) bool { return !e.At.After(q.At) })
	slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
	l := NewLedger(p)
	for _, e := range events {
		l.Apply(e)
	}
	return l.Decide(q)
}

// Decide answers a query at its time, which is no earlier than any event. It changes nothing.
func (l *Ledger) Decide(q Query) Answer {
	f := l.matter(q.Caller, q.At)
	switch q.Kind {
	case QueryInvite:
		return Answer(Decide(l.policy, l.facts(f, q)).Decision)
	case QueryReferral:
		if f.confirmed(l.policy, q.At) >= l.policy.Referral.Decisions {
			return ReferralCandidate
		}
		return NoReferral
	case QueryApprove:
		m, reason := l.approve(f, q.At, q.By, q.Role)
		if reason != ReasonNone {
			return deny(reason)
		}
		return suspend(m)
	}
	return ""
}

// Stage is where a caller's matter stands at a time, which is no earlier than any event.
func (l *Ledger) Stage(caller string, at time.Time) Stage {
	return l.matter(caller, at).stage
}

// matter is a caller's matter at a time. What settles in it does not reach the ledger.
func (l *Ledger) matter(caller string, at time.Time) *matter {
	f := newMatter()
	if known := l.matters[caller]; known != nil {
		*f = *known
	}
	l.settle(f, at)
	return f
}

// Apply folds an event, which is no earlier than those before it.
func (l *Ledger) Apply(e Event) {
	switch e.Kind {
	case EventLoad:
		l.loads = append(l.loads, e)
	case EventSurge:
		l.surges = append(l.surges, e)
	case EventRedis:
		l.down = e.State == "down"
	case EventSnapshot:
		l.snapshot = e.At
	case EventLease, EventRelease:
		l.beat(e)
	case EventCall, EventRemind, EventMark, EventRequest, EventPropose, EventApprove, EventDecision, EventAppeal,
		EventAppealDecide, EventRefer, EventAccessNeed, EventProtect, EventCase:
		f := l.of(e.Caller)
		l.settle(f, e.At)
		l.note(f, e)
		l.settle(f, e.At)
	}
}

// of is a caller's matter, which begins with its first event.
func (l *Ledger) of(caller string) *matter {
	f := l.matters[caller]
	if f == nil {
		f = newMatter()
		l.matters[caller] = f
	}
	return f
}

// note puts an event to a caller's matter.
func (l *Ledger) note(f *matter, e Event) {
	switch e.Kind {
	case EventCall:
		f.calls = append(f.calls, e)
		l.owners[e.ID] = f
		if e.Identity == call.Verified {
			f.beats[e.ID] = e.At // a call that is let in takes its place at once
		}
	case EventRemind:
		f.reminders = append(f.reminders, e)
	case EventMark:
		f.marks = append(f.marks, e)
	case EventRequest:
		if e.Scope == "in" {
			f.requests = append(f.requests, e)
		}
	case EventCase:
		f.open[e.ID] = e.State != "closed"
	case EventAccessNeed:
		f.access = true
	case EventProtect:
		f.protected = true
	default:
		l.act(f, e)
	}
}

// act puts an act of the staff, or the caller's appeal, to a matter.
func (l *Ledger) act(f *matter, e Event) {
	switch e.Kind {
	case EventPropose:
		f.proposal = &e
		if l.stands(f, e.Clause, e.At) != nil {
			f.step(actPropose)
		}
	case EventApprove:
		if m, reason := l.approve(f, e.At, e.By, e.Role); reason == ReasonNone {
			f.step(actApprove)
			f.suspend(l.policy, m)
		}
	case EventDecision:
		f.step(actAdopt)
		f.suspend(l.policy, &measure{decision: e.Decision, clause: e.Clause, level: e.Level, from: e.At, until: e.Until})
	case EventAppeal:
		if m := f.appealable(e.Decision); m != nil && m.appealed.IsZero() {
			m.appealed = e.At
		}
	case EventRefer:
		f.step(actRefer)
	case EventAppealDecide:
		f.appealDecide(l.policy, e)
	default:
	}
}

// beat prolongs or gives back a call's lease. An event without a caller finds the call by its id.
func (l *Ledger) beat(e Event) {
	f := l.owners[e.ID]
	if e.Caller != "" {
		f = l.of(e.Caller)
	}
	if f == nil {
		return // the lease of a call that nobody knows
	}
	if e.Kind == EventRelease {
		delete(f.beats, e.ID)
	} else if c, known := f.call(e.ID); !known || c.Identity == call.Verified {
		f.beats[e.ID] = e.At
	}
}

// declared tells whether calls on a topic that begin at a time are justified by an event that is declared
// by now: what happened happened before anybody declared it. At its end it is over.
func (l *Ledger) declared(topic string, at time.Time) bool {
	return topic != "" && slices.ContainsFunc(l.surges, func(s Event) bool { return s.Topic == topic && at.Before(s.To) })
}

// step brings a matter forward if the table has the step.
func (f *matter) step(a stageAct) bool {
	to, ok := stageSteps[a][f.stage]
	if ok {
		f.stage = to
	}
	return ok
}

// settle takes the steps that are due by a time, until none is.
func (l *Ledger) settle(f *matter, at time.Time) {
	for f.step(l.due(f, at)) {
	}
}

// due is the step that time, counters or a reminder call for, or none.
func (l *Ledger) due(f *matter, at time.Time) stageAct {
	reminder := l.stands(f, "", at)
	running := f.running(l.policy, at, at) != nil
	many := f.confirmed(l.policy, at) >= l.policy.Referral.Decisions
	watched := Watch(l.policy, at, l.counted(f, at), 0, 0) != session.NoBanner
	switch s := f.stage; {
	case s == StageSuspended && many, many && reminder == nil && (s == StageNormal || s == StageExpired || s == StageRestored):
		return actCandidate
	case s == StageReferrable && !many:
		return actFade
	case s == StageSuspended && !running:
		return actExpire
	case s == StageProposed && l.stands(f, f.proposal.Clause, at) == nil,
		(s == StageReminded || s == StageGrace) && reminder == nil:
		return actLapse
	case s == StageReminded && reminder.What == Clause1:
		return actGrace
	case s == StageGrace && reminder.What == Clause2,
		reminder != nil && !running && slices.Contains([]Stage{StageNormal, StageWatch, StageExpired, StageRestored, StageReferrable, StageReferred}, s):
		return actRemind
	case watched && (s == StageNormal || s == StageExpired || s == StageRestored):
		return actWatch
	case s == StageWatch && !watched:
		return actCalm
	}
	return ""
}

// stands is the latest reminder of a clause, or of any, that still counts for something: by the staff, in
// a recorded call, its time not over without the conduct it was given for, and not answered by a request.
func (l *Ledger) stands(f *matter, clause string, at time.Time) *Event {
	for _, r := range slices.Backward(f.reminders) {
		p := &Event{At: at, Clause: r.What}
		if clause != "" && r.What != clause || !f.heard(r) || !l.byStaff(r) || !f.verified(r.Call) || !f.recorded(r.Call) {
			continue
		}
		if r.What == Clause1 && f.asked(r.At, at) {
			continue
		}
		rest := l.fruitless
		if r.What == Clause2 {
			rest = l.abusive
		}
		_, complete := rest(f, p, []Event{r})
		if complete == ReasonNone || at.Before(r.At.Add(l.policy.Reminder.Valid)) {
			return &r
		}
	}
	return nil
}
