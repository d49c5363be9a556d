package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Conduct is the book of Article 29: what the staff note of a caller, and the caller's appeal (package abuse).
type Conduct interface {
	// Note records an act of an agent in a call, and tells where the caller's matter stands after it. What
	// is not allowed as the matter stands is recorded nowhere; the error says why.
	Note(ctx context.Context, n ConductNote) (Standing, error)
	// Appeal records a caller's appeal against a decision; a second one changes nothing.
	Appeal(ctx context.Context, decision, callID string) error
}

// ConductKind is what an agent notes of a caller.
type ConductKind string

// The kinds of a note. The first four mark what is heard.
const (
	MarkNoRequest  ConductKind = "no_request"
	MarkAbuse      ConductKind = "abuse"
	MarkCriticism  ConductKind = "criticism" // a request (Art. 6(4)), never abuse
	MarkOOSTold    ConductKind = "oos_told"  // out of scope, and told why and where to go (Art. 9)
	ConductRemind  ConductKind = "remind"    // of a clause
	ConductPropose ConductKind = "propose"   // a suspension
)

// ConductKinds lists every kind.
func ConductKinds() []ConductKind {
	return []ConductKind{MarkNoRequest, MarkAbuse, MarkCriticism, MarkOOSTold, ConductRemind, ConductPropose}
}

// ConductNote is one act, with the call as it stands.
type ConductNote struct {
	Kind   ConductKind
	Clause string        // "29-1" or "29-2", of a reminder; a proposal's may be "": that of the reminder that stands
	By     string        // the agent
	Script string        // the recording that the agent had spoken a reminder; "" when the agent spoke it
	Offset time.Duration // in the call's recording, where the act begins
	Call   CallOutcome   // Ended is zero while the call is up
}

// Standing is where a caller's matter stands, as the agent is shown it.
type Standing struct {
	Stage    string    `json:"stage"`
	Clause   string    `json:"clause,omitempty"`   // of the reminder that stands
	Reminded time.Time `json:"reminded,omitzero"`  // when it was given
	Grace    time.Time `json:"grace,omitzero"`     // the end of reasonable time (29(1))
	Lacks    string    `json:"lacks,omitempty"`    // what a proposal would still lack, or "" if nothing
	Mark     string    `json:"mark,omitempty"`     // the last mark
	Problem  string    `json:"problem,omitempty"`  // why the last act was not recorded
	Proposed bool      `json:"proposed,omitempty"` // a proposal waits for another person
}

// Refusal answers an act of Article 29 that is not allowed as the matter stands. Why is a word of a closed
// set, that of the rules or "unheard": the caller had gone.
type Refusal struct{ Why string }

func (r *Refusal) Error() string { return "session: refused under Article 29: " + r.Why }

// errNoBook answers every act where no book is kept.
var errNoBook = errors.New("session: no book of Article 29 is kept")

// conductCodes are what an agent dials in talk, after *2.
var conductCodes = map[byte]order{
	'1': {conduct: MarkNoRequest}, '2': {conduct: MarkAbuse}, '3': {conduct: MarkCriticism}, '4': {conduct: MarkOOSTold},
	'5': {conduct: ConductRemind, clause: "29-1"}, '6': {conduct: ConductRemind, clause: "29-2"},
	'7': {conduct: ConductRemind, clause: "29-1", played: true}, '8': {conduct: ConductRemind, clause: "29-2", played: true},
	'9': {conduct: ConductPropose},
}

// reminders are the recordings that speak a reminder, by clause.
var reminders = map[string]string{"29-1": "remind_29_1", "29-2": "remind_29_2"}

// NoteConduct has an agent's act of Article 29 carried out: what becomes of it is shown in the call's view.
// played has the reminder of the clause spoken to the caller by a recording. By is the call's agent.
func (m *Manager) NoteConduct(_ context.Context, callID, by string, kind ConductKind, clause string, played bool) error {
	if !slices.Contains(ConductKinds(), kind) || kind == ConductRemind && reminders[clause] == "" || played && kind != ConductRemind {
		return fmt.Errorf("%w: there is no act %q of clause %q", ErrBadFacts, kind, clause)
	}
	s, err := m.of(callID, by)
	if err != nil {
		return err
	}
	st := s.snapshot().Stage
	if st != StageTalk && (st != StageWrapUp || kind == ConductRemind) { // a reminder is given to who hears it
		return ErrNotInTalk
	}
	return m.order(callID, by, order{kind: orderConduct, by: by, conduct: kind, clause: clause, played: played})
}

// conducted carries out an agent's act beside the call, and shows what became of it.
func (s *story) conducted(o order) {
	n := ConductNote{Kind: o.conduct, Clause: o.clause, By: o.by, Call: s.outcomeNow()}
	s.beside(func() error {
		if o.conduct == ConductRemind {
			n.Offset = s.mark("remind " + o.clause)
		} else {
			n.Offset = s.mark(string(o.conduct))
		}
		standing, err := s.reminded(o, &n)
		if err != nil {
			s.note("conduct", "an act was not recorded", map[string]string{"act": string(o.conduct), "err": err.Error()})
			standing = s.snapshot().Standing
			standing.Problem = "failed"
			if no, ok := errors.AsType[*Refusal](err); ok {
				standing.Problem = no.Why
			}
		} else {
			s.note("conduct", string(o.conduct), map[string]string{"by": o.by, "clause": o.clause, "script": n.Script, "offset": n.Offset.String()})
		}
		s.update(func(v *View) { v.Standing = standing; v.Facts.Outcome = marked(v.Facts.Outcome, o.conduct, err) })
		return nil
	})
}

// reminded plays what is to be played, and records the act. A reminder that the caller did not hear to its
// end is none.
func (s *story) reminded(o order, n *ConductNote) (Standing, error) {
	if s.m.Conduct == nil {
		return Standing{}, errNoBook
	}
	leg := s.line()
	if o.played {
		n.Script = reminders[o.clause]
		if err := leg.Play(leg.Context(), s.m.Prompts.Say(s.snapshot().Language, n.Script)...); err != nil {
			return Standing{}, errors.Join(&Refusal{"unheard"}, err)
		}
	}
	if o.conduct == ConductRemind && leg.Context().Err() != nil {
		return Standing{}, &Refusal{"unheard"}
	}
	return s.m.Conduct.Note(context.WithoutCancel(leg.Context()), *n)
}

// marked is the outcome that a mark gives a call whose agent has written none yet.
func marked(o Outcome, kind ConductKind, err error) Outcome {
	given := map[ConductKind]Outcome{MarkNoRequest: OutcomeNoRequest, MarkAbuse: OutcomeAbuse, MarkOOSTold: OutcomeOOSTold}[kind]
	if err != nil || o != OutcomeNone || given == OutcomeNone {
		return o
	}
	return given
}

// outcomeNow is the call as its counters are told of it, at this moment.
func (s *story) outcomeNow() CallOutcome {
	return CallOutcome{CallID: s.id, Caller: s.info.Caller, Identity: s.info.Identity, Outcome: s.finalOutcome(),
		Started: s.info.At, Answered: s.answeredByAgent(), Ended: s.cdr.Ended, Agent: s.cdr.Agent, Evidence: s.cdr.Evidence}
}
