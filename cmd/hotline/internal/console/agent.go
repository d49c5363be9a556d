package console

import (
	"context"
	"net/http"
	"reflect"
	"regexp"
	"slices"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

// desk is the live part of an agent's page.
type desk struct {
	Agent        Agent
	Call         *session.View // without facts; nil if none
	Queue        string        // its name for people
	Keys, Way    []string      // what the caller pressed, and the nodes of the flow on the way
	Holds        bool
	Conducts     bool // acts under Article 29 can be noted
	PauseReasons []string
	Services     []session.Service
	Owed         *queue.CallBack // the caller to be called back next; nil if none or while the agent is busy
	OwedQueue    string          // its name for people
	OwedCount    int
}

// InTalk says whether the caller is on the line with the agent.
func (d desk) InTalk() bool {
	return d.Call != nil && slices.Contains([]session.Stage{session.StageTalk, session.StageEmergency,
		session.StageService}, d.Call.Stage)
}

// agentData is the agent's page.
type agentData struct {
	Desk desk
	Form factsForm
}

// deskOf picks what concerns one agent out of the picture of the line.
func (c *Console) deskOf(v *visit, s Snapshot) desk {
	_, holds := c.deps.Desk.(Holder)
	_, conducts := c.deps.Desk.(Conductor)
	d := desk{Agent: s.agentOf(v.person.ID), Holds: holds, Conducts: conducts && c.deps.Article29 != nil, PauseReasons: pauseReasons, Services: session.Services()}
	for _, call := range s.Calls {
		if call.Agent == v.person.ID {
			d.Call, d.Queue = &call, s.QueueName(v.lang, call.Queue)
		}
	}
	d.OwedCount = len(s.CallBacks)
	if task, ok := s.nextFor(d.Agent, c.now()); ok && d.Call == nil {
		d.Owed, d.OwedQueue = &task, s.QueueName(v.lang, task.Queue)
	}
	return d
}

// retrace adds the caller's way, from the call's timeline. A key whose entry does not name it was part
// of a number and is not shown. A journal that does not answer costs the agent only these lines.
func (c *Console) retrace(v *visit, d *desk) {
	if d.Call == nil {
		return
	}
	entries, err := c.deps.Journal.Timeline(v.Context(), d.Call.CallID)
	if err != nil {
		return
	}
	for _, e := range entries {
		switch key := e.Attrs["key"]; {
		case e.Kind == "digit" && key != "":
			d.Keys = append(d.Keys, key)
		case e.Kind == "node":
			d.Way = append(d.Way, e.Text)
		}
	}
}

func (c *Console) agentPage(w http.ResponseWriter, v *visit) {
	c.agentPageWith(w, v, http.StatusOK, c.formOf(v))
}

func (c *Console) agentPageWith(w http.ResponseWriter, v *visit, status int, form factsForm) {
	d := c.deskOf(v, c.snapshot(v.Context()))
	c.retrace(v, &d)
	m := c.model(v, agentData{d, form})
	m.Flash = m.said(v.Request)
	if form.Problem != "" {
		m.Flash = Flash{Text: m.T(form.Problem), Bad: true}
	}
	c.send(w, status, "agent", "layout", m)
}

// agentStream shows the agent's own state and call. A new call, or none, is an event that lets the
// page fetch the form; the form itself is never sent while somebody may be writing in it.
func (c *Console) agentStream(w http.ResponseWriter, v *visit) {
	var last desk
	var shown *string // the call that the page was told of
	c.stream(w, v, func(e events, s Snapshot) error {
		d := c.deskOf(v, s)
		if shown != nil && reflect.DeepEqual(d, last) {
			return nil
		}
		last = d
		c.retrace(v, &d)
		if err := c.show(e, v, "agent", "desk", agentData{Desk: d}); err != nil {
			return err
		}
		if id := callID(d.Call); shown == nil || *shown != id {
			shown = &id
			return e.event("call-changed")
		}
		return nil
	})
}

func callID(v *session.View) string {
	if v == nil {
		return ""
	}
	return v.CallID
}

// extension is what a phone may be called.
var extension = regexp.MustCompile(`^[0-9]{2,8}$`)

func (c *Console) agentLogin(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.loginBy(v, v.person.ID, v.PostFormValue("extension")), "said.loggedin", "/agent")
}

func (c *Console) loginBy(v *visit, person, ext string) error {
	if !extension.MatchString(ext) {
		return errInput
	}
	return c.deps.Agents.Login(v.Context(), person, ext)
}

func (c *Console) agentLogout(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.deps.Agents.Logout(v.Context(), v.person.ID), "said.loggedout", "/agent")
}

func (c *Console) agentReady(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.deps.Agents.Ready(v.Context(), v.person.ID), "said.ready", "/agent")
}

func (c *Console) agentPause(w http.ResponseWriter, v *visit) {
	reason, err := v.PostFormValue("reason"), errInput
	if validReason(reason) {
		err = c.deps.Agents.Pause(v.Context(), v.person.ID, reason)
	}
	c.done(w, v, err, "said.paused", "/agent")
}

// own is an act of an agent on their own call: another's is refused here already.
func (c *Console) own(v *visit, do func(callID, by string) error) error {
	id := v.PathValue("id")
	view, ok := c.callOf(v.person.ID)
	if !ok {
		return session.ErrNoCall
	}
	if view.CallID != id {
		return session.ErrNotYours
	}
	return do(id, v.person.ID)
}

func (c *Console) finishWrapUp(w http.ResponseWriter, v *visit) {
	err := c.own(v, func(id, by string) error { return c.deps.Desk.FinishWrapUp(v.Context(), id, by) })
	c.done(w, v, err, "said.finished", "/agent")
}

func (c *Console) emergency(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.emergencyBy(v, session.Service(v.PostFormValue("service"))), "said.emergency", "/agent")
}

func (c *Console) emergencyBy(v *visit, s session.Service) error {
	if !slices.Contains(session.Services(), s) {
		return errInput
	}
	return c.own(v, func(id, by string) error { return c.deps.Desk.Emergency(v.Context(), id, by, s) })
}

func (c *Console) agentHangup(w http.ResponseWriter, v *visit) {
	err := c.own(v, func(id, by string) error { return c.deps.Desk.Hangup(v.Context(), id, by) })
	c.done(w, v, err, "said.hungup", "/agent")
}

func (c *Console) hold(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.holding(v, Holder.Hold), "said.held", "/agent")
}

func (c *Console) resume(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.holding(v, Holder.Resume), "said.resumed", "/agent")
}

// holding does what a desk that can hold can do.
func (c *Console) holding(v *visit, do func(Holder, context.Context, string, string) error) error {
	h, ok := c.deps.Desk.(Holder)
	if !ok {
		return errInput
	}
	return c.own(v, func(id, by string) error { return do(h, v.Context(), id, by) })
}
