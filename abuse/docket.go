package abuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
)

// actMatter begins the act of every entry that tells of a matter: an event's kind follows, "matter.remind".
const actMatter = "matter."

// The details of such an entry: what happened, as JSON, and an id, by which a copy is known.
const (
	detailEvent = "event"
	detailID    = "id"
)

// docket is what the chains tell of one caller's matter besides the measures.
type docket struct {
	id      string // the case pseudonym of the number, under the key in force
	entries []told
	events  []Event // what the entries say
}

// dockets are those of all callers, by their ids. What a chain was told under a key that is no longer in
// force is found by what the number is called now.
type dockets struct {
	byID   map[string]*docket
	learnt map[string]bool   // the ids of entries
	now    map[string]string // by a former id
}

func newDockets() dockets {
	return dockets{byID: make(map[string]*docket), learnt: make(map[string]bool), now: make(map[string]string)}
}

// learn takes what an entry tells. It says false of one that was known, or tells of no matter.
func (ds *dockets) learn(e audit.Entry, node string) bool {
	var what Event
	id := e.Detail[detailID]
	if !strings.HasPrefix(e.Act, actMatter) || id == "" || ds.learnt[id] || json.Unmarshal([]byte(e.Detail[detailEvent]), &what) != nil {
		return false
	}
	ds.learnt[id] = true
	d := ds.of(e.Subject)
	d.entries = append(d.entries, told{node, original(e)})
	d.events = append(d.events, what)
	return true
}

// of is the docket of a subject, which may be a former name.
func (ds *dockets) of(subject string) *docket {
	if now, ok := ds.now[subject]; ok {
		subject = now
	}
	d := ds.byID[subject]
	if d == nil {
		d = &docket{id: subject}
		ds.byID[subject] = d
	}
	return d
}

// rename gives a docket the name of the key in force.
func (ds *dockets) rename(old, id string) {
	from := ds.byID[old]
	delete(ds.byID, old)
	for former, now := range ds.now {
		if now == old {
			ds.now[former] = id
		}
	}
	ds.now[old] = id
	to := ds.of(id)
	to.entries, to.events = append(to.entries, from.entries...), append(to.events, from.events...)
}

// callerFile is what the number of a docket is sealed under.
func callerFile(id string) string { return "caller-" + id }

// keepCaller puts a docket's number aside, sealed, unless it is there. It returns what is sealed.
func (a *Admission) keepCaller(id string, n call.Number) (sealed string, err error) {
	if b, err := os.ReadFile(a.numberFile(callerFile(id))); err == nil {
		return string(b), nil
	}
	text, err := json.Marshal(private{E164: n.E164})
	if err != nil {
		return "", err
	}
	if sealed, err = a.keys.sealText(callerFile(id), string(text)); err != nil {
		return "", err
	}
	return sealed, a.writeNumber(callerFile(id), sealed)
}

// put records events of a number's matter in this node's chain, and tells the other nodes. What the stream
// does not take now it gets with the next Sync. Errors: [ErrAway] before the keys are agreed, and those of
// the audit log and the disk.
func (a *Admission) put(ctx context.Context, n call.Number, actor string, events ...Event) (id string, err error) {
	if id = a.keys.measure(n.E164); id == "" {
		return "", errors.Join(ErrAway, errKeys)
	}
	sealed, err := a.keepCaller(id, n)
	if err != nil {
		return "", err
	}
	for _, what := range events {
		what.Caller = ""
		text, err := json.Marshal(what)
		if err != nil {
			return "", err
		}
		entry := audit.Entry{Actor: actor, Act: actMatter + string(what.Kind), Subject: id, Call: what.Call,
			Detail: map[string]string{detailEvent: string(text), detailID: fmt.Sprintf("%x", randomBytes(16))}}
		if _, err := a.audit.Append(ctx, entry); err != nil {
			return "", err
		}
		a.mu.Lock()
		a.dockets.learn(entry, a.audit.Node())
		a.mu.Unlock()
		if err := a.tell(ctx, event{Node: a.audit.Node(), Entry: entry, Sealed: sealed}); err != nil {
			a.log.Warn("an act of a matter waits for redis; it is recorded here", "act", entry.Act, "err", err)
			a.owe()
		}
	}
	return id, nil
}

// copyAct puts what another node noted of a matter into this node's chain.
func (a *Admission) copyAct(ctx context.Context, id string, e event) error {
	a.mu.Lock()
	known := a.dockets.learnt[e.Entry.Detail[detailID]]
	a.mu.Unlock()
	if known {
		return nil
	}
	if !validSubject.MatchString(e.Entry.Subject) {
		a.log.Error("an event of the stream of measures names no matter; it is passed over", "id", id)
		return nil
	}
	if _, err := os.Stat(a.numberFile(callerFile(e.Entry.Subject))); errors.Is(err, os.ErrNotExist) && e.Sealed != "" {
		if err := a.writeNumber(callerFile(e.Entry.Subject), e.Sealed); err != nil {
			return err
		}
	}
	if err := a.copyEntry(ctx, id, e); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dockets.learn(e.Entry, e.Node)
	a.renameDocket(e.Entry.Subject)
	return nil
}

// renameDocket gives a docket the name that its number has under the key in force. A number that was
// destroyed leaves the name as it is. a.mu is held.
func (a *Admission) renameDocket(id string) {
	n, err := a.readNumber(callerFile(id))
	if err != nil || a.dockets.byID[id] == nil {
		return
	}
	name := a.keys.measure(n.E164)
	if name == "" || name == id {
		return
	}
	if _, err := a.keepCaller(name, n); err != nil {
		a.log.Error("the number of a matter could not be sealed anew", "err", err)
		return
	}
	a.dockets.rename(id, name)
}

// untold are the acts that a stream that is new must hear of: those of the look-back. a.mu is held.
func (a *Admission) untold(now time.Time) (events []event) {
	since := now.Add(-a.policy.Measure.LookBack)
	for _, d := range a.dockets.byID {
		sealed, _ := os.ReadFile(a.numberFile(callerFile(d.id))) // a destroyed number is no error
		for i, t := range d.entries {
			if d.events[i].At.After(since) {
				t.entry.Subject = d.id // by the name that the number is sealed under
				events = append(events, event{Node: t.node, Entry: t.entry, Sealed: string(sealed)})
			}
		}
	}
	return events
}

// happened are the events of a docket and of its measures, in the order of time. A call's latest event
// stands for it, with the load that was noted of it.
func (d *docket) happened(cases []Case) []Event {
	last := make(map[string]int)
	for i, e := range d.events {
		if e.Kind == EventCall {
			last[e.ID] = i
		}
	}
	var events []Event
	for _, c := range cases { // first: what is said of a measure in its own instant follows it
		events = append(events, c.events(d.id, d.overturned(c.Decision))...)
	}
	for i, e := range d.events {
		e.Caller = d.id
		if e.Kind == EventCall && last[e.ID] != i {
			continue
		}
		events = append(events, e)
	}
	slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
	return events
}

// overturned tells whether the docket has it that an appeal lifted a measure.
func (d *docket) overturned(decision string) bool {
	return slices.ContainsFunc(d.events, func(e Event) bool {
		return e.Kind == EventAppealDecide && e.Decision == decision && e.Result == overturned
	})
}

// events are what a measure adds to its matter: that it was decided on and, unless that is known, that a person
// lifted it.
func (c *Case) events(caller string, known bool) []Event {
	if c.From.IsZero() || c.State == Void {
		return nil
	}
	events := []Event{{Kind: EventDecision, At: c.From, Caller: caller, Decision: c.Decision, Clause: c.Clause, Level: c.Level, Until: c.Until, By: c.Actor}}
	if c.State == Restored && !known {
		lifted := Event{Kind: EventAppealDecide, At: c.Ended, Caller: caller, Decision: c.Decision, Result: overturned}
		if lifted.At.IsZero() {
			lifted.At = c.From
		}
		events = append(events, lifted)
	}
	return events
}
