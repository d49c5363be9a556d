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

// Decide applies the rules to the facts of an INVITE. Each decision but REJECT_NET answers the call, so
// that its emergency exit is open; REJECT_NET comes of the hotline's own number alone.
func Decide(p Policy, f Facts) Ruling {
	if f.OwnNumber {
		return Ruling{Decision: session.RejectNet, Rule: RuleOwnNumber} // Art. 28: a fault of signalling, not conduct
	}
	if f.Identity != call.Verified {
		return Ruling{Decision: session.Admit, Rule: RuleNone} // many people's number is never barred
	}
	if f.suspended(p) {
		return Ruling{Decision: session.IVROnly, Rule: RuleMeasure}
	}
	if f.Place == Refused {
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
	if calls(counted, at, p.Repeat.Short.Within) >= p.Repeat.Short.Calls ||
		calls(counted, at, p.Repeat.Day.Within) >= p.Repeat.Day.Calls {
		return session.BannerRepeat
	}
	longest, total := talk, all
	for _, c := range counted {
		d := c.connected(at, p.Long.Within)
		longest, total = max(longest, d), total+d
	}
	if longest >= p.Long.Call || total >= p.Long.Total {
		return session.BannerLong
	}
	return session.NoBanner
}

// calls counts those that began in the window that ends at at: after its begin, up to its end.
func calls(counted []Counted, at time.Time, window time.Duration) int {
	n := 0
	for _, c := range counted {
		if c.Start.After(at.Add(-window)) && !c.Start.After(at) {
			n++
		}
	}
	return n
}

// connected is how long the call was with an agent within the window that ends at at.
func (c Counted) connected(at time.Time, window time.Duration) time.Duration {
	from, to := c.Answered, c.Ended
	if begin := at.Add(-window); from.Before(begin) {
		from = begin
	}
	if to.After(at) {
		to = at
	}
	return max(0, to.Sub(from))
}

// Counts tells whether a call counts against its number.
func Counts(p Policy, o session.CallOutcome) bool {
	return o.Identity == call.Verified && o.Caller.E164 != "" &&
		!o.Answered.IsZero() &&
		o.Topic == "" && // Art. 13: calls on a declared event are justified
		slices.Contains(p.Counted, o.Outcome)
}
