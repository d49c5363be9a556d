package console

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hotline12345/gateway/abuse"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/recording"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
)

// Article29 is the matters of callers under Article 29: an *abuse.Admission. What it refuses is a
// *session.Refusal with a word of a closed set; its acts are in the audit log by themselves.
type Article29 interface {
	Matters() []abuse.Matter
	Matter(id string) (abuse.Matter, error)
	Appeals() []abuse.Appealed
	List() []abuse.Case
	Shadow() *abuse.Shadow
	Propose(ctx context.Context, id, clause, by string) error
	Approve(ctx context.Context, id, by string, role abuse.Role, reason string) (abuse.Case, error)
	Appeal(ctx context.Context, decision, callID string) error
	DecideAppeal(ctx context.Context, decision string, overturn bool, reason, by string, role abuse.Role) (abuse.Case, error)
}

// Conductor is a Desk on which an agent acts under Article 29. The buttons are shown only when Desk is one.
type Conductor interface {
	NoteConduct(ctx context.Context, callID, by string, kind session.ConductKind, clause string, played bool) error
}

// Recordings plays what was recorded: a *recording.Recorder.
type Recordings interface {
	// Play writes a finished recording as a WAV file.
	Play(ctx context.Context, w io.Writer, id string) error
}

// maxWhy bounds a reason, in characters.
const maxWhy = 500

// listeners may hear the recordings of a matter.
var listeners = []staff.Role{staff.Supervisor, staff.Manager, staff.Auditor}

func (c *Console) abuseTable() []route {
	table := []route{{"POST", "/agent/calls/{id}/conduct", agents, c.conduct, nil},
		{"POST", v1 + "/calls/{id}/conduct", agents, c.apiConduct, op("noteConduct", "Note an act under Article 29 in one's own call: a mark, a reminder, a proposal", Conduct{}, nil)}}
	if c.deps.Article29 == nil {
		return table
	}
	return append(table, []route{
		{"GET", "/art29", watchers, c.mattersPage, nil},
		{"GET", "/art29/{id}", watchers, c.matterPage, nil},
		{"GET", "/art29/{id}/audio/{call}", listeners, c.matterAudio, nil},
		{"POST", "/art29/{id}/propose", leaders, c.propose29, nil},
		{"POST", "/art29/{id}/approve", leaders, c.approve29, nil},
		{"POST", "/art29/{id}/appeal", leaders, c.appeal29, nil},
		{"POST", "/art29/{id}/decide", leaders, c.decide29, nil},

		{"GET", v1 + "/matters", watchers, c.apiMatters, op("listMatters", "Matters under Article 29, the one that something was noted of last first", nil, []abuse.Matter{})},
		{"GET", v1 + "/matters/{id}", watchers, c.apiMatter, op("getMatter", "A matter with all that was noted of it", nil, abuse.Matter{})},
		{"GET", v1 + "/shadow", watchers, func(w http.ResponseWriter, _ *visit) { c.json(w, c.deps.Article29.Shadow(), nil) },
			op("getShadow", "What the shadow policy would have done since this gateway started; null without one", nil, abuse.Shadow{})},
		{"GET", v1 + "/appeals", watchers, c.apiAppeals, op("listAppeals", "Appeals that wait, the one that is due first first", nil, []abuse.Appealed{})},
		{"POST", v1 + "/matters/{id}/propose", leaders, c.apiPropose, op("propose", "Propose a measure on what the matter has", Proposing{}, nil)},
		{"POST", v1 + "/matters/{id}/approve", leaders, c.apiApprove, op("approve", "Approve the proposal that waits, as another person of the right role", Why{}, abuse.Case{})},
		{"POST", v1 + "/decisions/{id}/appeal", leaders, c.apiAppeal, op("appeal", "Enter an appeal that the caller made in writing or on the web", nil, nil)},
		{"POST", v1 + "/decisions/{id}/decide", leaders, c.apiDecide, op("decideAppeal", "Decide on an appeal, as a manager who had no part in the decision", Deciding{}, abuse.Case{})},
	}...)
}

// The bodies of the acts.
type (
	// Conduct is an agent's act. Clause goes with a reminder, Played has a recording speak it.
	Conduct struct {
		Act    session.ConductKind `json:"act"`
		Clause string              `json:"clause,omitempty"`
		Played bool                `json:"played,omitempty"`
	}
	// Proposing names the clause of a proposal; "" is that of the reminder that stands.
	Proposing struct {
		Clause string `json:"clause,omitempty"`
	}
	// Why is the facts, for the record, without personal data.
	Why struct {
		Reason string `json:"reason"`
	}
	// Deciding is a decision on an appeal.
	Deciding struct {
		Overturn bool   `json:"overturn"`
		Reason   string `json:"reason"`
	}
)

// holds checks a reason: there is one, it is not too long, and nothing in it looks like a number.
func (w Why) holds() (string, error) {
	reason := strings.TrimSpace(w.Reason)
	switch {
	case reason == "" || utf8.RuneCountInString(reason) > maxWhy:
		return "", errInput
	case digits.MatchString(reason):
		return "", errNumber
	}
	return reason, nil
}

func (c *Console) conductBy(v *visit, in Conduct) error {
	desk, ok := c.deps.Desk.(Conductor)
	if !ok {
		return errInput
	}
	return c.own(v, func(id, by string) error {
		return desk.NoteConduct(v.Context(), id, by, in.Act, in.Clause, in.Played)
	})
}

func (c *Console) conduct(w http.ResponseWriter, v *visit) {
	act, clause, _ := strings.Cut(v.PostFormValue("act"), " ")
	clause, played := strings.CutSuffix(clause, " played")
	c.done(w, v, c.conductBy(v, Conduct{session.ConductKind(act), clause, played}), "said.noted", "/agent")
}

func (c *Console) apiConduct(w http.ResponseWriter, v *visit) {
	in, err := body[Conduct](v)
	if err == nil {
		err = c.conductBy(v, in)
	}
	c.json(w, nil, err)
}

// role is what a visitor decides as.
func role(p staff.Person) abuse.Role {
	if p.Has(staff.Manager) {
		return abuse.Manager
	}
	return abuse.Supervisor
}

func (c *Console) approveBy(v *visit, in Why) (abuse.Case, error) {
	why, err := in.holds()
	if err != nil {
		return abuse.Case{}, err
	}
	return c.deps.Article29.Approve(v.Context(), v.PathValue("id"), v.person.ID, role(v.person), why)
}

func (c *Console) decideBy(v *visit, in Deciding, decision string) (abuse.Case, error) {
	why, err := Why{in.Reason}.holds()
	if err != nil {
		return abuse.Case{}, err
	}
	return c.deps.Article29.DecideAppeal(v.Context(), decision, in.Overturn, why, v.person.ID, role(v.person))
}

// matterOf is where a visitor goes after an act.
func matterOf(v *visit) string { return "/art29/" + v.PathValue("id") }

func (c *Console) propose29(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.deps.Article29.Propose(v.Context(), v.PathValue("id"), v.PostFormValue("clause"), v.person.ID), "said.proposed", matterOf(v))
}

func (c *Console) approve29(w http.ResponseWriter, v *visit) {
	_, err := c.approveBy(v, Why{v.PostFormValue("reason")})
	c.done(w, v, err, "said.approved", matterOf(v))
}

func (c *Console) appeal29(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.deps.Article29.Appeal(v.Context(), v.PostFormValue("decision"), ""), "said.appealed", matterOf(v))
}

func (c *Console) decide29(w http.ResponseWriter, v *visit) {
	in := Deciding{v.PostFormValue("result") == "overturned", v.PostFormValue("reason")}
	_, err := c.decideBy(v, in, v.PostFormValue("decision"))
	c.done(w, v, err, "said.decided", matterOf(v))
}

func (c *Console) apiMatters(w http.ResponseWriter, _ *visit) {
	c.json(w, list(c.deps.Article29.Matters()), nil)
}

func (c *Console) apiMatter(w http.ResponseWriter, v *visit) {
	m, err := c.deps.Article29.Matter(v.PathValue("id"))
	c.json(w, m, err)
}

func (c *Console) apiAppeals(w http.ResponseWriter, _ *visit) {
	c.json(w, list(c.deps.Article29.Appeals()), nil)
}

func (c *Console) apiPropose(w http.ResponseWriter, v *visit) {
	in, err := body[Proposing](v)
	if err == nil {
		err = c.deps.Article29.Propose(v.Context(), v.PathValue("id"), in.Clause, v.person.ID)
	}
	c.json(w, nil, err)
}

func (c *Console) apiApprove(w http.ResponseWriter, v *visit) {
	in, err := body[Why](v)
	var m abuse.Case
	if err == nil {
		m, err = c.approveBy(v, in)
	}
	c.json(w, m, err)
}

func (c *Console) apiAppeal(w http.ResponseWriter, v *visit) {
	c.json(w, nil, c.deps.Article29.Appeal(v.Context(), v.PathValue("id"), ""))
}

func (c *Console) apiDecide(w http.ResponseWriter, v *visit) {
	in, err := body[Deciding](v)
	var m abuse.Case
	if err == nil {
		m, err = c.decideBy(v, in, v.PathValue("id"))
	}
	c.json(w, m, err)
}

// mattersData is the page of all matters.
type mattersData struct {
	Snapshot
	Proposed []abuse.Matter
	Appeals  []abuse.Appealed
	Running  []abuse.Case
	Watched  []abuse.Matter // with something noted, and no proposal or measure yet
	Banners  []session.View // live calls of callers whose counters raise a banner
	Referred []abuse.Matter // candidates for a referral (29(3))
	Shadow   *abuse.Shadow  // nil without another policy
	Parted   []abuse.Matter // that would stand elsewhere under it
}

// May says whether a visitor may approve a proposal, as far as roles and the file tell.
func (mattersData) May(p staff.Person, m abuse.Matter) bool {
	return m.Proposal != nil && m.Lacks == abuse.ReasonNone && m.Proposal.By != p.ID && slices.Contains(m.Approvers, role(p)) && p.Has(leaders...)
}

func (c *Console) mattersPage(w http.ResponseWriter, v *visit) {
	d := mattersData{Snapshot: c.snapshot(v.Context()), Appeals: c.deps.Article29.Appeals(), Shadow: c.deps.Article29.Shadow()}
	for _, m := range c.deps.Article29.Matters() {
		switch {
		case m.Proposal != nil:
			d.Proposed = append(d.Proposed, m)
		case m.Stage != abuse.StageSuspended && m.Stage != abuse.StageReferrable:
			d.Watched = append(d.Watched, m)
		}
		if s := m.Shadow; s != nil && (s.Stage != m.Stage || s.Lacks != m.Lacks || s.Level != m.Level) {
			d.Parted = append(d.Parted, m)
		}
		if m.Refer {
			d.Referred = append(d.Referred, m)
		}
	}
	for _, m := range c.deps.Article29.List() {
		if m.State == abuse.Running {
			d.Running = append(d.Running, m)
		}
	}
	for _, view := range d.Calls {
		if view.Banner != session.NoBanner {
			d.Banners = append(d.Banners, view)
		}
	}
	m := c.model(v, d)
	m.Flash = m.said(v.Request)
	c.send(w, http.StatusOK, "art29", "layout", m)
}

// matterData is the page of one matter.
type matterData struct {
	Snapshot
	abuse.Matter
	Steps   []matterStep
	Waits   []abuse.Appealed
	Listens bool
}

// May is that of the list.
func (d matterData) May(p staff.Person) bool { return mattersData{}.May(p, d.Matter) }

// matterStep is a line of a matter's timeline.
type matterStep struct {
	abuse.Event
	By     string // who acted
	What   string // the key of a word for what was done: "conduct.abuse"
	Hear   bool   // the recording can be heard from here on
	CallID string
}

// From is where in a recording a step is heard, in seconds.
func (s matterStep) From() int { return int(s.Offset / time.Second) }

func stepsOf(m abuse.Matter) (steps []matterStep) {
	for _, e := range m.Events {
		s := matterStep{Event: e, By: cmp.Or(e.Staff, e.By, e.Agent), CallID: cmp.Or(e.Call, e.ID)}
		s.What = "event29." + string(e.Kind)
		s.Hear = s.CallID != "" && (e.Kind == abuse.EventRemind || e.Kind == abuse.EventMark || e.Kind == abuse.EventCall && e.Evidence != "none")
		if e.Kind == abuse.EventLoad && e.Waiting == 0 && e.Occupancy == 0 {
			continue // nothing that could hinder anybody
		}
		steps = append(steps, s)
	}
	return steps
}

func (c *Console) matterPage(w http.ResponseWriter, v *visit) {
	matter, err := c.deps.Article29.Matter(v.PathValue("id"))
	if err != nil {
		c.fail(w, v, err)
		return
	}
	d := matterData{Snapshot: c.snapshot(v.Context()), Matter: matter, Steps: stepsOf(matter), Listens: c.deps.Recordings != nil && v.person.Has(listeners...)}
	for _, a := range c.deps.Article29.Appeals() {
		if a.ID == matter.ID {
			d.Waits = append(d.Waits, a)
		}
	}
	m := c.model(v, d)
	m.Flash = m.said(v.Request)
	c.send(w, http.StatusOK, "matter", "layout", m)
}

// matterAudio plays the recording of one of a matter's calls. That it was listened to is audited.
func (c *Console) matterAudio(w http.ResponseWriter, v *visit) {
	matter, err := c.deps.Article29.Matter(v.PathValue("id"))
	callID := v.PathValue("call")
	if err == nil && (c.deps.Recordings == nil || !slices.ContainsFunc(matter.Events, func(e abuse.Event) bool { return e.ID == callID || e.Call == callID })) {
		err = session.ErrNoCall
	}
	var wav bytes.Buffer
	if err == nil {
		err = c.audited(v, "recording.play", callID, "art29 "+matter.ID, func() error {
			row, err := c.deps.Journal.Call(v.Context(), callID)
			if err != nil {
				return err
			}
			return c.deps.Recordings.Play(v.Context(), &wav, row.Recording)
		})
	}
	if err != nil {
		c.fail(w, v, err)
		return
	}
	w.Header().Set("Content-Type", "audio/wav")
	http.ServeContent(w, v.Request, "", time.Time{}, bytes.NewReader(wav.Bytes())) // ranges: a player begins where it likes
}

// refusal is the text of an error that Article 29 and its recordings answer with.
func refusal(err error) (key string, ok bool) {
	if r, is := errors.AsType[*session.Refusal](err); is {
		return fmt.Sprintf("lacks.%s", r.Why), true
	}
	switch {
	case errors.Is(err, abuse.ErrUnknown):
		return "error.nomatter", true
	case errors.Is(err, abuse.ErrRunning), errors.Is(err, abuse.ErrChanged), errors.Is(err, abuse.ErrOver):
		return "error.changed29", true
	case errors.Is(err, abuse.ErrAway):
		return "error.away", true
	case errors.Is(err, recording.ErrNoListeningKey), errors.Is(err, recording.ErrUnfinished), errors.Is(err, recording.ErrKeyDestroyed),
		errors.Is(err, recording.ErrNotFound), errors.Is(err, journal.ErrNotFound):
		return "error.norecording", true
	}
	return "", false
}

// Marks29 and Clauses29 are what an agent may mark, and remind of.
func (page) Marks29() []session.ConductKind {
	return []session.ConductKind{session.MarkNoRequest, session.MarkAbuse, session.MarkCriticism, session.MarkOOSTold}
}
func (page) Clauses29() []string { return []string{abuse.Clause1, abuse.Clause2} }

// Within29 says whether a decision can still be appealed against.
func (page) Within29(m abuse.Case) bool { return m.State == abuse.Running || m.State == abuse.Expired }
