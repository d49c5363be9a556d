package abuse

import (
	"slices"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// Place is what became of a call's wish for a lease.
type Place int

// The places of a call among its number's calls.
const (
	NotAsked Place = iota // none is needed, or Redis is away
	Taken                 // it has one
	Refused               // as many calls as may be at once are up
)

// Facts are all that a decision on a call rests on.
type Facts struct {
	At        time.Time // of the INVITE
	OwnNumber bool
	Identity  call.Identity
	Measure   *session.Measure // the number's latest, running or not; nil if none
	From      time.Time        // when the measure began
	Copy      bool             // the measure is from a copy, since Redis is away
	CopyAge   time.Duration    // how old the copy is
	Place     Place
	Counted   []Counted // the latest counted calls, in any order
	Danger    bool      // an emergency word or key came
	Progress  bool      // it asks how an open case of its own stands
	Exempt    bool      // no measure touches it: a protected person, or a declared event's topic
}

// Counted is a call that counts against its number.
type Counted struct {
	Start    time.Time // of the call
	Answered time.Time // by an agent
	Ended    time.Time
}

// Rule is the rule that a decision came from.
type Rule string

// The rules, in the order in which they are asked.
const (
	RuleOwnNumber Rule = "own_number"
	RuleDanger    Rule = "danger"
	RuleProgress  Rule = "progress"
	RuleMeasure   Rule = "measure"
	RuleLease     Rule = "lease"
	RuleRepeat    Rule = "repeat"
	RuleLong      Rule = "long"
	RuleNone      Rule = "none"
)

// Ruling is a decision and what it came from.
type Ruling struct {
	Decision session.Decision
	Rule     Rule
	Banner   session.Banner
}

// The decisions on a call that has said what it wants. A live INVITE says nothing yet: its emergency exit
// and its question about a case come in the stages that answer it.
const (
	AdmitEmergency session.Decision = "ADMIT_EMERGENCY"
	AdmitProgress  session.Decision = "ADMIT_PROGRESS"
)

// Decide applies the rules to the facts of an INVITE. Each decision but REJECT_NET answers the call, so
// that its emergency exit is open; REJECT_NET comes of the hotline's own number alone.
func Decide(p Policy, f Facts) Ruling {
	switch {
	case f.OwnNumber:
		return Ruling{Decision: session.RejectNet, Rule: RuleOwnNumber} // Art. 28: a fault of signalling, not conduct
	case f.Danger:
		return Ruling{Decision: AdmitEmergency, Rule: RuleDanger} // Art. 9(1), whoever calls
	case f.Identity != call.Verified:
		return Ruling{Decision: session.Admit, Rule: RuleNone} // many people's number is never barred, and is told of nobody's case
	case f.Progress:
		return Ruling{Decision: AdmitProgress, Rule: RuleProgress} // Art. 14, 17
	case !f.Exempt && f.suspended(p):
		return Ruling{Decision: session.IVROnly, Rule: RuleMeasure}
	case f.Place == Refused:
		return Ruling{Decision: session.QueueLease, Rule: RuleLease}
	}
	switch banner := Watch(p, f.At, f.Counted, 0, 0); banner {
	case session.BannerRepeat:
		return Ruling{Decision: session.AdmitWatch, Rule: RuleRepeat, Banner: banner}
	case session.BannerLong:
		return Ruling{Decision: session.AdmitWatch, Rule: RuleLong, Banner: banner}
	case session.NoBanner:
	}
	return Ruling{Decision: session.Admit, Rule: RuleNone}
}

// suspended tells whether a measure runs: from its start up to, and not at, its end.
func (f Facts) suspended(p Policy) bool {
	if f.Measure == nil || f.At.Before(f.From) || !f.At.Before(f.Measure.Until) {
		return false
	}
	return !f.Copy || f.CopyAge <= p.Snapshot // an old copy may lack a restoration
}

// Watch says which banner a number's conduct raises at a moment. talk is how long the call that is up
// has been with an agent, and all how long all calls of the number that are up have been; at an
// INVITE both are 0.
func Watch(p Policy, at time.Time, counted []Counted, talk, all time.Duration) session.Banner {
	if g := grounds(p, at, at, counted, talk, all); len(g) > 0 {
		return g[0].banner
	}
	return session.NoBanner
}

// ground is one way in which calls amount to repeated dialling or long occupation, and those calls.
type ground struct {
	banner session.Banner
	calls  []Counted
}

// grounds lists what the calls amount to in the windows that end at end, as known at now. A call lies in
// a window by its start, and whole.
func grounds(p Policy, end, now time.Time, counted []Counted, talk, all time.Duration) (found []ground) {
	for _, r := range []Rate{p.Repeat.Short, p.Repeat.Day} {
		if calls := since(counted, end, r.Within); len(calls) >= r.Calls {
			found = append(found, ground{session.BannerRepeat, calls})
		}
	}
	calls, total := since(counted, end, p.Long.Within), all
	if talk >= p.Long.Call {
		found = append(found, ground{banner: session.BannerLong})
	}
	for i, c := range calls {
		d := c.connected(now)
		total += d
		if d >= p.Long.Call {
			found = append(found, ground{session.BannerLong, calls[i : i+1]})
		}
	}
	if total >= p.Long.Total {
		found = append(found, ground{session.BannerLong, calls})
	}
	return found
}

// since picks the calls that began in the window that ends at end: after its begin, up to its end.
func since(counted []Counted, end time.Time, window time.Duration) (in []Counted) {
	for _, c := range counted {
		if c.Start.After(end.Add(-window)) && !c.Start.After(end) {
			in = append(in, c)
		}
	}
	return in
}

// connected is how long the call has been with an agent.
func (c Counted) connected(now time.Time) time.Duration {
	return max(0, earlier(c.Ended, now).Sub(c.Answered))
}

// earlier is the first of two times; the zero time is not known, and never comes.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// Counts tells whether a call counts against its number.
func Counts(p Policy, o session.CallOutcome) bool {
	return o.Caller.E164 != "" && counts(p, o.Identity, !o.Answered.IsZero(), o.Outcome, o.Topic != "")
}

func counts(p Policy, id call.Identity, answered bool, o session.Outcome, surge bool) bool {
	return id == call.Verified && answered &&
		!surge && // Art. 13: calls on a declared event are justified
		slices.Contains(p.Counted, o)
}
