package abuse

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

var _ session.Conduct = (*Admission)(nil)

// The reasons that a live act is refused for besides those of a proposal.
const (
	ReasonNoNumber Reason = "no_number" // the caller has none that a matter could be kept under
	ReasonInFile   Reason = "in_file"   // who took part in a decision does not decide on the appeal against it
	ReasonNoAppeal Reason = "no_appeal" // none waits, or it was left too long
)

func refused(r Reason) error { return &session.Refusal{Why: string(r)} }

// Note implements [session.Conduct]: it records an agent's act with the call as it stands. A proposal whose
// file lacks something is not recorded; the refusal names what it lacks.
func (a *Admission) Note(ctx context.Context, n session.ConductNote) (session.Standing, error) {
	number := n.Call.Caller
	if number.E164 == "" {
		return session.Standing{}, refused(ReasonNoNumber)
	}
	now := a.now().UTC().Truncate(time.Millisecond)
	calls := a.callsOf(ctx, n.Call)
	act := Event{At: now, Kind: EventMark, Call: n.Call.CallID, What: string(n.Kind), Staff: n.By, Offset: n.Offset}
	switch n.Kind {
	case session.ConductRemind:
		act.Kind, act.What, act.Script, act.Auto = EventRemind, n.Clause, n.Script, n.Script != ""
	case session.ConductPropose:
		act = Event{At: now, Kind: EventPropose, Call: n.Call.CallID, Clause: n.Clause, By: n.By}
		var err error
		if act.Clause, err = a.mayPropose(number, append(calls, act)); err != nil {
			return session.Standing{}, err
		}
	default:
	}
	id, err := a.put(ctx, number, n.By, append(calls, act)...)
	if err != nil {
		return session.Standing{}, err
	}
	a.log.Info("noted under article 29", "call", n.Call.CallID, "act", n.Kind, "by", n.By)
	return a.standing(id, now), nil
}

// mayPropose tells the clause of a proposal that is the last of some events yet to be recorded, or what its
// file lacks for an approval by a person who may give it.
func (a *Admission) mayPropose(n call.Number, events []Event) (clause string, err error) {
	propose := &events[len(events)-1]
	id := a.keys.measure(n.E164)
	d, _ := a.docketOf(id)
	d.events = append(d.events, events...)
	l := a.fold(d, n.E164)
	f := l.matter(id, propose.At)
	if propose.Clause == "" {
		r := l.stands(f, "", propose.At)
		if r == nil {
			return "", refused(ReasonNoReminder)
		}
		propose.Clause = r.What
	}
	f.proposal.Clause = propose.Clause
	lacks := l.lacks(f, propose.At)
	a.shadowAct(shadowPropose, d, n.E164, propose.At, lacks, func(l *Ledger, f *matter) Reason {
		f.proposal = &Event{At: propose.At, Kind: EventPropose, Clause: propose.Clause, By: propose.By}
		return l.lacks(f, propose.At)
	})
	if lacks != ReasonNone {
		return "", refused(lacks)
	}
	return propose.Clause, nil
}

// lacks is what the proposal that waits lacks for an approval by somebody who may give it.
func (l *Ledger) lacks(f *matter, at time.Time) Reason {
	f.stage = StageProposed // whether it may come there is what the rest says
	_, reason := l.approve(f, at, somebody, Manager)
	if reason == ReasonRole { // an agency may leave a level to supervisors alone
		_, reason = l.approve(f, at, somebody, Supervisor)
	}
	return reason
}

// somebody is a person who had no part in any matter: no id of the staff reads so.
const somebody = "*"

// docketOf copies what was noted of a matter, which is empty when it is not known.
func (a *Admission) docketOf(id string) (d *docket, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d = &docket{id: id}
	if own := a.dockets.byID[id]; own != nil {
		d.events, known = slices.Clone(own.events), true
	}
	return d, known
}

// fold makes a ledger of a number's docket and its measures. A number that was destroyed is "", which is on no list.
func (a *Admission) fold(d *docket, e164 string) *Ledger { return a.foldBy(a.policy, d, e164) }

// foldBy makes it under a policy.
func (a *Admission) foldBy(p Policy, d *docket, e164 string) *Ledger {
	l := NewLedger(p)
	for _, e := range a.listed(e164, d.happened(a.casesOf(d.id))) {
		l.Apply(e)
	}
	return l
}

// casesOf are the measures of a number, the oldest first.
func (a *Admission) casesOf(id string) (cases []Case) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.ledger {
		if c.pseudonym == id {
			cases = append(cases, *c)
		}
	}
	slices.SortFunc(cases, func(x, y Case) int { return x.From.Compare(y.From) })
	return cases
}

// standing is where a matter stands, as an agent is shown it.
func (a *Admission) standing(id string, at time.Time) session.Standing {
	m, err := a.Matter(id)
	if err != nil {
		return session.Standing{}
	}
	s := session.Standing{Stage: string(m.Stage), Clause: m.Clause, Reminded: m.Reminded, Grace: m.Grace, Lacks: string(m.Lacks), Proposed: m.Proposal != nil}
	for _, e := range m.Events {
		if e.Kind == EventMark && !e.At.After(at) {
			s.Mark = e.What
		}
	}
	return s
}

// callsOf are the events of the calls that an act rests on: the one it is in, and those before it that
// count against the number as Redis has them. What Redis does not tell now is not held against the caller.
func (a *Admission) callsOf(ctx context.Context, o session.CallOutcome) []Event {
	events := []Event{a.callEvent(o, a.skew.wall())}
	for _, name := range a.keys.counters(o.Caller.E164) {
		all, err := a.store.Client().HGetAll(ctx, keyCounted(name)).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			a.log.Warn("earlier calls are not known now", "call", o.CallID, "err", err)
			break
		}
		for id, text := range all {
			if e, ok := countedEvent(id, text); ok && id != o.CallID && !a.knows(o.Caller.E164, id) {
				events = append(events, e)
			}
		}
	}
	return events
}

// knows tells whether the docket of a number has a call.
func (a *Admission) knows(e164, id string) bool {
	name := a.keys.measure(e164)
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.dockets.byID[name]
	return d != nil && slices.ContainsFunc(d.events, func(e Event) bool { return e.Kind == EventCall && e.ID == id })
}

// callEvent is a call as it stands, with the load while it was with an agent.
func (a *Admission) callEvent(o session.CallOutcome, now time.Time) Event {
	e := Event{Kind: EventCall, At: a.skew.right(o.Started).UTC().Truncate(time.Millisecond), ID: o.CallID, Call: o.CallID, Identity: a.identity(o.Identity, o.Caller.E164),
		Answered: a.skew.right(o.Answered).UTC().Truncate(time.Millisecond), Ended: a.skew.right(o.Ended).UTC().Truncate(time.Millisecond), Agent: o.Agent, Topic: o.Topic}
	if o.Answered.IsZero() {
		e.Answered = time.Time{}
	}
	if o.Ended.IsZero() {
		e.Ended = time.Time{}
	} else {
		e.Outcome = string(o.Outcome)
	}
	if o.Evidence != "recorded" {
		e.Evidence = "none"
	}
	if a.load != nil && !e.Answered.IsZero() {
		e.Waiting, e.Occupancy = a.load(o.Answered, earlier(o.Ended, now)) // by the node's own clock, as it was noted
		e.Occupancy = math.Floor(e.Occupancy*1000+1e-9) / 1000             // what Redis keeps; never rounded up against the caller
	}
	return e
}

// countedText is a call as Redis keeps it: times in ms, and what proves something about it.
func countedText(e Event) string {
	return fmt.Sprintf("%d %d %d %s %s %s %d %s", e.At.UnixMilli(), e.Answered.UnixMilli(), e.Ended.UnixMilli(), e.Outcome, e.Agent,
		orDash(e.Evidence), e.Waiting, strconv.FormatFloat(e.Occupancy, 'f', 3, 64))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// countedEvent is the inverse of countedText.
func countedEvent(id, text string) (Event, bool) {
	ms, ok := numbers(text)
	f := strings.Fields(text)
	if !ok || len(f) != 8 {
		return Event{}, false
	}
	e := Event{Kind: EventCall, At: time.UnixMilli(ms[0]).UTC(), Answered: time.UnixMilli(ms[1]).UTC(), Ended: time.UnixMilli(ms[2]).UTC(),
		ID: id, Call: id, Identity: call.Verified, Outcome: f[3], Agent: f[4]}
	if f[5] != "-" {
		e.Evidence = f[5]
	}
	e.Waiting, _ = strconv.Atoi(f[6])             // what is no number proves nothing
	e.Occupancy, _ = strconv.ParseFloat(f[7], 64) // as above
	return e, true
}

// noteEnded adds a call that has ended to the docket of its number, if there is one.
func (a *Admission) noteEnded(ctx context.Context, o session.CallOutcome) {
	if o.Caller.E164 == "" || o.Answered.IsZero() {
		return
	}
	id := a.keys.measure(o.Caller.E164)
	a.mu.Lock()
	open := a.dockets.byID[id] != nil
	a.mu.Unlock()
	if !open {
		return
	}
	if _, err := a.put(ctx, o.Caller, "node", a.callEvent(o, o.Ended)); err != nil {
		a.log.Error("a call was not added to its caller's file", "call", o.CallID, "err", err)
	}
}

// Approve decides on the proposal of a matter: another person of the right role suspends the number, from now
// on and for the term of the level. What every node knows is brought together first. Errors: [ErrAway],
// [ErrUnknown], those of [Admission.SetMeasure], and a *session.Refusal that says what is against it.
func (a *Admission) Approve(ctx context.Context, id, by string, role Role, reason string) (Case, error) {
	if err := a.Sync(ctx); err != nil {
		return Case{}, errors.Join(ErrAway, err)
	}
	number, err := a.readNumber(callerFile(id))
	if err != nil {
		return Case{}, errors.Join(ErrUnknown, err)
	}
	d, known := a.docketOf(id)
	if !known {
		return Case{}, ErrUnknown
	}
	now := a.now().UTC()
	l := a.fold(d, number.E164)
	f := l.matter(id, now)
	m, why := l.approve(f, now, by, role)
	a.shadowAct(shadowApprove, d, number.E164, now, why, func(l *Ledger, f *matter) Reason {
		_, why := l.approve(f, now, by, role)
		return why
	})
	if why != ReasonNone {
		return Case{}, refused(why)
	}
	basis := map[string]string{"proposed_by": f.proposal.By, "proposed_at": f.proposal.At.Format(time.RFC3339), "role": string(role)}
	return a.SetMeasure(ctx, Measure{Number: number, Clause: m.clause, Level: m.level, Reason: reason, Basis: basis}, by)
}

// Appeal implements [session.Conduct]: it records the caller's appeal against a decision that has not been
// lifted. Its clock runs from now on. Errors: [ErrUnknown], [ErrOver], those of the audit log and the disk.
func (a *Admission) Appeal(ctx context.Context, decision, callID string) error {
	c, err := a.Show(decision)
	switch {
	case err != nil:
		return err
	case c.State != Running && c.State != Expired:
		return ErrOver
	case c.Number.E164 == "":
		return ErrUnknown
	}
	if at, _ := a.appealOf(c); !at.IsZero() {
		return nil
	}
	if _, err := a.put(ctx, c.Number, "caller", Event{At: a.now().UTC().Truncate(time.Millisecond), Kind: EventAppeal, Decision: decision, Call: callID}); err != nil {
		return err
	}
	a.log.Info("an appeal came", "decision", decision, "call", callID)
	return nil
}

// appealOf is when the appeal against a measure came, and how it was decided in time: "" if it was not.
func (a *Admission) appealOf(c Case) (at time.Time, result string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.dockets.byID[c.pseudonym]
	if d == nil {
		return at, ""
	}
	for _, e := range d.events {
		switch {
		case e.Decision != c.Decision:
		case e.Kind == EventAppeal && at.IsZero():
			at = e.At
		case e.Kind == EventAppealDecide && result == "" && (e.Result == overturned || e.At.Before(at.Add(a.policy.Appeal.Lapse))):
			result = e.Result
		}
	}
	return at, result
}

// DecideAppeal decides on an appeal, as somebody who had no part in the decision. Overturned restores the
// caller at once and takes the decision off the ladder; upheld lets it run. Errors: [ErrUnknown], those of
// the audit log and the disk, and a *session.Refusal.
func (a *Admission) DecideAppeal(ctx context.Context, decision string, overturn bool, reason, by string, role Role) (Case, error) {
	c, err := a.Show(decision)
	if err != nil {
		return Case{}, err
	}
	at, result := a.appealOf(c)
	now := a.now().UTC().Truncate(time.Millisecond)
	switch {
	case at.IsZero() || result != "" || !overturn && !now.Before(at.Add(a.policy.Appeal.Lapse)):
		return Case{}, refused(ReasonNoAppeal)
	case role != Manager:
		return Case{}, refused(ReasonRole)
	case a.tookPart(c, by):
		return Case{}, refused(ReasonInFile)
	}
	result = "upheld"
	if overturn {
		result = overturned
	}
	e := Event{At: now, Kind: EventAppealDecide, Decision: decision, Result: result, By: by, Role: role, Reason: reason}
	if _, err := a.put(ctx, c.Number, by, e); err != nil || !overturn {
		return c, err
	}
	restored, err := a.Restore(ctx, decision, reason, by)
	if errors.Is(err, ErrOver) { // its term is over: it is off the ladder all the same
		return c, nil
	}
	return restored, err
}

// tookPart tells whether a person decided on a measure, proposed it, or gave a reminder in its matter.
func (a *Admission) tookPart(c Case, by string) bool {
	if by == "" || by == c.Actor {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.dockets.byID[c.pseudonym]
	return d != nil && slices.ContainsFunc(d.events, func(e Event) bool {
		return !e.At.After(c.From) && (e.Kind == EventPropose && e.By == by || e.Kind == EventRemind && e.Staff == by)
	})
}

// lapseElsewhere is how much later a node ends another's measure whose appeal was left undecided: that one is
// the first to do it, and lives in all likelihood.
const lapseElsewhere = 30 * time.Second

// lapse ends the measures whose appeal nobody has decided in time.
func (a *Admission) lapse(ctx context.Context, now time.Time) error {
	var errs []error
	for _, c := range a.List() {
		at, result := a.appealOf(c)
		due := at.Add(a.policy.Appeal.Lapse)
		if c.Node != a.audit.Node() {
			due = due.Add(lapseElsewhere)
		}
		if at.IsZero() || result != "" || c.State != Running || now.Before(due) {
			continue
		}
		c.State = Lapsed
		_, err := a.lift(ctx, c, "the appeal was left undecided", "node")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Propose records a proposal that is made off the line, on what the matter has already. Errors: [ErrUnknown],
// those of the audit log and the disk, and a *session.Refusal that names what the file lacks.
func (a *Admission) Propose(ctx context.Context, id, clause, by string) error {
	number, err := a.Caller(id)
	if err != nil {
		return err
	}
	act := Event{At: a.now().UTC().Truncate(time.Millisecond), Kind: EventPropose, Clause: clause, By: by}
	if act.Clause, err = a.mayPropose(number, []Event{act}); err != nil {
		return err
	}
	_, err = a.put(ctx, number, by, act)
	return err
}
