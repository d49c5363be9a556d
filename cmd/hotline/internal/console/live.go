package console

import (
	"errors"
	"net/http"
	"slices"

	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
)

// hangupReasons and pauseReasons are the closed sets of why: what the audit log and the supervisors'
// figures count by. A phone that did not answer pauses its agent with a reason of the queue's own.
var (
	hangupReasons = []string{"stuck", "asked", "other"}
	pauseReasons  = []string{"break", "meal", "training", "meeting", "affairs"}
)

func validReason(reason string) bool { return slices.Contains(pauseReasons, reason) }

// liveData is what the live page shows.
type liveData struct {
	Snapshot
	PauseReasons []string
}

func (c *Console) livePage(w http.ResponseWriter, v *visit) {
	m := c.model(v, liveData{c.snapshot(v.Context()), pauseReasons})
	m.Flash = m.said(v.Request)
	c.send(w, http.StatusOK, "live", "layout", m)
}

func (c *Console) liveStream(w http.ResponseWriter, v *visit) {
	c.stream(w, v, func(e events, s Snapshot) error {
		return c.show(e, v, "live", "line", liveData{s, pauseReasons})
	})
}

// callData is what the page of one call shows: the view while it is live, the record once it ended.
type callData struct {
	CallID        string
	View          *session.View
	CDR           *journal.Row
	Queue         string // its name for people
	Timeline      []step
	HangupReasons []string
}

// step is an entry of the timeline with its lane on the ladder and the time since the first one.
type step struct {
	journal.Entry
	Lane  string // "caller", "line", "agent" or "service"
	After string // 0.000
	// Details is what the attributes say to people.
	Details string
}

func (c *Console) callPage(w http.ResponseWriter, v *visit) {
	d, err := c.callData(v)
	if err != nil {
		c.fail(w, v, err)
		return
	}
	m := c.model(v, d)
	m.Flash = m.said(v.Request)
	c.send(w, http.StatusOK, "call", "layout", m)
}

// callData gathers what is known of a call; session.ErrNoCall when nothing is.
func (c *Console) callData(v *visit) (callData, error) {
	d := callData{CallID: v.PathValue("id"), HangupReasons: hangupReasons}
	s := c.snapshot(v.Context())
	for _, view := range s.Calls {
		if view.CallID == d.CallID {
			d.View, d.Queue = &view, s.QueueName(v.lang, view.Queue)
		}
	}
	row, err := c.deps.Journal.Call(v.Context(), d.CallID)
	switch {
	case err == nil:
		d.CDR, d.Queue = &row, s.QueueName(v.lang, row.Queue)
	case !errors.Is(err, journal.ErrNotFound):
		return d, err
	}
	entries, err := c.deps.Journal.Timeline(v.Context(), d.CallID)
	if err != nil {
		return d, err
	}
	if d.View == nil && d.CDR == nil && len(entries) == 0 {
		return d, session.ErrNoCall
	}
	d.Timeline = steps(entries)
	return d, nil
}
