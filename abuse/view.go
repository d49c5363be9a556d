package abuse

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// Matter is a caller's matter as people see it.
type Matter struct {
	ID     string      `json:"id"` // the case pseudonym
	Number call.Number `json:"-"`  // masks itself; empty when the sealed number was destroyed
	Caller string      `json:"caller"`
	Stage  Stage       `json:"stage"`

	Clause   string    `json:"clause,omitempty"`  // of the proposal that waits, else of the reminder that stands
	Reminded time.Time `json:"reminded,omitzero"` // when it was given
	Grace    time.Time `json:"grace,omitzero"`    // the end of reasonable time (29(1))

	Proposal  *Event `json:"proposal,omitempty"` // that waits
	Lacks     Reason `json:"lacks,omitempty"`    // what it, or one made now, lacks for an approval; "" if nothing
	Level     int    `json:"level"`              // that a measure would have
	Approvers []Role `json:"approvers"`          // who may approve it

	Shadow *ShadowStanding `json:"shadow,omitempty"` // under the other policy; nil without one

	Confirmed int     `json:"confirmed"` // decisions in the look-back
	Refer     bool    `json:"refer"`     // they are as many as make a candidate for a referral (29(3))
	Cases     []Case  `json:"cases"`     // the oldest first
	Events    []Event `json:"events"`    // by time
}

// Appealed is an appeal that waits.
type Appealed struct {
	Case Case      `json:"case"`
	At   time.Time `json:"at"`
	Due  time.Time `json:"due"` // the measure lapses then
	ID   string    `json:"id"`  // of the matter
}

// Matter returns a matter as it stands, or [ErrUnknown].
func (a *Admission) Matter(id string) (Matter, error) {
	d, known := a.docketOf(id)
	if !known {
		return Matter{}, ErrUnknown
	}
	return a.view(d), nil
}

// Matters lists all matters, the one that something was noted of last first.
func (a *Admission) Matters() []Matter {
	a.mu.Lock()
	ids := slices.Collect(maps.Keys(a.dockets.byID))
	a.mu.Unlock()
	var list []Matter
	for _, id := range ids {
		if m, err := a.Matter(id); err == nil {
			list = append(list, m)
		}
	}
	last := func(m Matter) time.Time { return m.Events[len(m.Events)-1].At }
	slices.SortFunc(list, func(x, y Matter) int { return cmp.Or(last(y).Compare(last(x)), cmp.Compare(x.ID, y.ID)) })
	return list
}

func (a *Admission) view(d *docket) Matter {
	now := a.now().UTC()
	number, _ := a.readNumber(callerFile(d.id)) // a destroyed one is no error
	l := a.fold(d, number.E164)
	f := l.matter(d.id, now)
	m := Matter{ID: d.id, Stage: f.stage, Level: f.level(a.policy, now), Confirmed: f.confirmed(a.policy, now), Cases: a.casesOf(d.id)}
	m.Approvers = a.policy.Approvers[m.Level-1]
	m.Refer = m.Confirmed >= a.policy.Referral.Decisions
	m.Number, m.Caller = number, number.Masked()
	for i := range m.Cases {
		a.complete(&m.Cases[i], now)
	}
	m.Events = d.happened(m.Cases)
	m.Shadow = a.shadowOf(d, number.E164, now)
	if r := l.stands(f, "", now); r != nil {
		m.Clause, m.Reminded = r.What, r.At
		if r.What == Clause1 {
			m.Grace = r.At.Add(f.grace(a.policy))
		}
	}
	if f.stage == StageProposed {
		p := *f.proposal
		m.Proposal, m.Clause = &p, p.Clause
	} else {
		f.proposal = &Event{At: now, Kind: EventPropose, Clause: m.Clause}
	}
	m.Lacks = l.lacks(f, now)
	return m
}

// Appeals lists the appeals that wait, the one that is due first first.
func (a *Admission) Appeals() (list []Appealed) {
	for _, c := range a.List() {
		at, result := a.appealOf(c)
		if at.IsZero() || result != "" || c.State != Running && c.State != Expired {
			continue
		}
		due := at.Add(a.policy.Appeal.Lapse)
		if c.State == Running || a.now().Before(due) {
			list = append(list, Appealed{c, at, due, c.pseudonym})
		}
	}
	slices.SortFunc(list, func(x, y Appealed) int { return x.Due.Compare(y.Due) })
	return list
}

// Caller is the number of a matter, for whoever has recorded that they may see it; [ErrUnknown] when there is
// no such matter, or its number was destroyed.
func (a *Admission) Caller(id string) (call.Number, error) {
	n, err := a.readNumber(callerFile(id))
	if err != nil {
		return call.Number{}, errors.Join(ErrUnknown, err)
	}
	return n, nil
}
