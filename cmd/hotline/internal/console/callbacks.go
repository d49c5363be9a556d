package console

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hotline12345/gateway/queue"
)

// closeReasons is the closed set of why a caller is not called back any more.
var closeReasons = []string{"reached", "duplicate", "unreachable", "declined", "other"}

const (
	maxNotes = 200 // characters of a note
	maxRows  = 200 // tasks on a page; the oldest go first, so the rest follows as they are served
)

// digits is what could be a caller's number: the ledger lies in Redis, where none is kept in clear.
var digits = regexp.MustCompile(`[0-9０-９][0-9０-９ -]{3,}[0-9０-９]`)

// errNumber refuses a note with something like a number in it.
var errNumber = errors.New("console: a note must not hold a number")

// callBackTable is the routes of the ledger, none where nobody is called back.
func (c *Console) callBackTable() []route {
	if c.deps.CallBacks == nil {
		return nil
	}
	return []route{
		{"GET", "/callbacks", allMembers, c.callBacksPage, nil},
		{"GET", "/callbacks/closed", allMembers, c.closedPage, nil},
		{"GET", "/callbacks/stream", allMembers, c.callBacksStream, nil},
		{"POST", "/callbacks/{id}/call", agents, c.callBack, nil},
		{"POST", "/callbacks/{id}/close", leaders, c.closeCallBack, nil},

		{"GET", v1 + "/callbacks", allMembers, c.apiCallBacks, op("listCallBacks", "Callers who are owed a call back, the oldest place first; or those of the last days who are not any more", nil, []queue.CallBack{}, "closed")},
		{"POST", v1 + "/callbacks/{id}/call", agents, c.apiCallBack, op("callBack", "Call a caller back: one's own phone rings first. It is audited", nil, Begun{})},
		{"POST", v1 + "/callbacks/{id}/close", leaders, c.apiCloseCallBack, op("closeCallBack", "Close a call back without a call, which is audited", Closing{}, nil)},
	}
}

// The bodies of the ledger's API.
type (
	// Begun is a call that has begun.
	Begun struct {
		CallID string `json:"call_id"`
	}
	// Closing is why a call back is closed: a reason of the closed set, and a note without any number.
	Closing struct {
		Reason string `json:"reason"`
		Note   string `json:"note,omitempty"`
	}
)

// why is how the ledger keeps it.
func (in Closing) why() (string, error) {
	note := strings.TrimSpace(in.Note)
	switch {
	case !slices.Contains(closeReasons, in.Reason), utf8.RuneCountInString(note) > maxNotes:
		return "", errInput
	case digits.MatchString(note):
		return "", errNumber
	case note == "":
		return in.Reason, nil
	}
	return in.Reason + ": " + note, nil
}

// callBacksData is what the page of call backs shows.
type callBacksData struct {
	Snapshot
	Tasks        []queue.CallBack
	More         int // tasks that are not shown
	Me           Agent
	CloseReasons []string
}

// Closing is what a person said who closed a task.
func (callBacksData) Closing(note string) Closing {
	reason, text, _ := strings.Cut(note, ": ")
	return Closing{reason, text}
}

// Free says whether the visitor's phone may be rung for a call back.
func (d callBacksData) Free() bool {
	return slices.Contains([]queue.AgentState{queue.Idle, queue.Paused, queue.Wrapup}, d.Me.State)
}

func (c *Console) callBacksOf(v *visit, s Snapshot, tasks []queue.CallBack) callBacksData {
	shown := tasks[:min(len(tasks), maxRows)]
	return callBacksData{Snapshot: s, Tasks: shown, More: len(tasks) - len(shown), Me: s.agentOf(v.person.ID),
		CloseReasons: closeReasons}
}

// addCallBacks adds who is owed a call back.
func (c *Console) addCallBacks(ctx context.Context, s *Snapshot) {
	if c.deps.CallBacks == nil {
		return
	}
	var err error
	if s.CallBacks, err = c.callBacks(ctx, false); err != nil {
		s.Warnings = append(s.Warnings, warnCallBacks)
		return
	}
	c.owed.Store(int64(len(s.CallBacks)))
}

// callBacks is the open tasks by their place, or the closed ones from the last.
func (c *Console) callBacks(ctx context.Context, closed bool) ([]queue.CallBack, error) {
	tasks, err := c.deps.CallBacks.List(ctx, closed)
	tasks = slices.Clone(tasks)
	slices.SortStableFunc(tasks, func(a, b queue.CallBack) int {
		if closed {
			return b.Closed.Compare(a.Closed)
		}
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	return tasks, err
}

// nextFor is the caller whom an agent should call back: the oldest one of the agent's queues whom nobody
// calls, or has just tried. Only who has nothing to do is asked.
func (s Snapshot) nextFor(a Agent, now time.Time) (queue.CallBack, bool) {
	if a.State != queue.Idle {
		return queue.CallBack{}, false
	}
	i := slices.IndexFunc(s.CallBacks, func(b queue.CallBack) bool {
		return b.State == "open" && !b.NextTry.After(now) && slices.Contains(a.Queues, b.Queue)
	})
	if i < 0 {
		return queue.CallBack{}, false
	}
	return s.CallBacks[i], true
}

func (c *Console) callBacksPage(w http.ResponseWriter, v *visit) {
	s := c.snapshot(v.Context())
	m := c.model(v, c.callBacksOf(v, s, s.CallBacks))
	m.Flash = m.said(v.Request)
	c.send(w, http.StatusOK, "callbacks", "layout", m)
}

func (c *Console) closedPage(w http.ResponseWriter, v *visit) {
	s := c.snapshot(v.Context())
	tasks, err := c.callBacks(v.Context(), true)
	if err != nil {
		c.fail(w, v, err)
		return
	}
	c.page(w, v, http.StatusOK, "callbacks", c.callBacksOf(v, s, tasks))
}

func (c *Console) callBacksStream(w http.ResponseWriter, v *visit) {
	c.stream(w, v, func(e events, s Snapshot) error {
		return c.show(e, v, "callbacks", "owed", c.callBacksOf(v, s, s.CallBacks))
	})
}

// call rings the visitor's own phone, and the caller after it.
func (c *Console) call(v *visit) (callID string, err error) {
	id := v.PathValue("id")
	err = c.audited(v, "callback.call", id, "", func() error {
		callID, err = c.deps.CallBacks.Call(v.Context(), id, v.person.ID)
		return err
	})
	return callID, err
}

func (c *Console) callBack(w http.ResponseWriter, v *visit) {
	if _, err := c.call(v); err != nil {
		c.fail(w, v, err)
		return
	}
	redirect(w, v, "/agent?said=said.callingback")
}

func (c *Console) closeBy(v *visit, in Closing) error {
	why, err := in.why()
	if err != nil {
		return err
	}
	id := v.PathValue("id")
	return c.audited(v, "callback.close", id, why, func() error {
		return c.deps.CallBacks.Close(v.Context(), id, v.person.ID, why)
	})
}

func (c *Console) closeCallBack(w http.ResponseWriter, v *visit) {
	in := Closing{Reason: v.PostFormValue("reason"), Note: v.PostFormValue("note")}
	c.done(w, v, c.closeBy(v, in), "said.closed", "/callbacks")
}

func (c *Console) apiCallBacks(w http.ResponseWriter, v *visit) {
	closed := v.URL.Query().Get("closed")
	if closed != "" && closed != "true" && closed != "false" {
		c.json(w, nil, errInput)
		return
	}
	tasks, err := c.callBacks(v.Context(), closed == "true")
	c.json(w, list(tasks), err)
}

func (c *Console) apiCallBack(w http.ResponseWriter, v *visit) {
	id, err := c.call(v)
	c.json(w, Begun{id}, err)
}

func (c *Console) apiCloseCallBack(w http.ResponseWriter, v *visit) {
	in, err := body[Closing](v)
	if err == nil {
		err = c.closeBy(v, in)
	}
	c.json(w, nil, err)
}
