package console

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
	"github.com/hotline12345/gateway/internal/store"
)

// failures are the errors that have a text for people; all others are ours.
var failures = []struct {
	err    error
	status int
	key    string
}{
	{session.ErrNoCall, http.StatusNotFound, "error.nocall"},
	{session.ErrNotYours, http.StatusForbidden, "error.notyours"},
	{session.ErrBadFacts, http.StatusUnprocessableEntity, "error.badfacts"},
	{session.ErrNotInTalk, http.StatusConflict, "error.notintalk"},
	{staff.ErrExtensionBusy, http.StatusConflict, "error.extensionbusy"},
	{staff.ErrNoExtension, http.StatusUnprocessableEntity, "error.noextension"},
	{ErrNoAgent, http.StatusConflict, "error.noagent"},
	{session.ErrNoTask, http.StatusNotFound, "error.notask"},
	{session.ErrTaskTaken, http.StatusConflict, "error.tasktaken"},
	{session.ErrAgentBusy, http.StatusConflict, "error.agentbusy"},
	{session.ErrCallBackOff, http.StatusConflict, "error.callbackoff"},
	{session.ErrCallBacksFull, http.StatusServiceUnavailable, "error.callbacksfull"},
	{store.ErrNodeUnknown, http.StatusNotFound, "error.nonode"},
	{store.ErrNodeAlive, http.StatusConflict, "error.nodealive"},
	{store.ErrAway, http.StatusServiceUnavailable, "error.away"},
	{ErrNodeAway, http.StatusBadGateway, "error.nodeaway"},
	{errNumber, http.StatusUnprocessableEntity, "error.number"},
	{errInput, http.StatusUnprocessableEntity, "error.input"},
	{errAudit, http.StatusServiceUnavailable, "error.audit"},
}

var (
	errInput = errors.New("console: the input does not hold")
	errAudit = errors.New("console: the act could not be written to the audit log")
)

// failure is an error's status and text.
func (c *Console) failure(err error) (int, string) {
	for _, f := range failures {
		if errors.Is(err, f.err) {
			return f.status, f.key
		}
	}
	if key, ok := refusal(err); ok {
		return http.StatusConflict, key
	}
	c.log.Error("console act failed", slog.Any("error", err))
	return http.StatusInternalServerError, "error.internal"
}

func (c *Console) fail(w http.ResponseWriter, v *visit, err error) {
	status, key := c.failure(err)
	c.message(w, v, status, key)
}

// done answers an act: htmx gets a line for the page, a plain form the page it came from, which
// shows the line once.
func (c *Console) done(w http.ResponseWriter, v *visit, err error, said, back string) {
	switch {
	case err != nil:
		c.fail(w, v, err)
	case v.htmx:
		c.message(w, v, http.StatusOK, said)
	default:
		http.Redirect(w, v.Request, back+"?said="+said, http.StatusSeeOther)
	}
}

// said is the line of the last act, from the address that done sent the visitor to. Only our own
// texts can be shown so.
func (p page) said(r *http.Request) Flash {
	key := r.URL.Query().Get("said")
	if text, ok := p.texts[key]; ok && len(key) > 5 && key[:5] == "said." {
		return Flash{Text: text}
	}
	return Flash{}
}

// audited writes an act to the log and then does it; an act without its record is not done.
func (c *Console) audited(v *visit, act, subject, reason string, do func() error) error {
	detail := map[string]string{"source": v.source()}
	if reason != "" {
		detail["reason"] = reason
	}
	if err := c.deps.Audit.Record(v.Context(), v.person.ID, act, subject, detail); err != nil {
		c.log.Error("audit failed", slog.String("act", act), slog.Any("error", err))
		return errAudit
	}
	return do()
}

func (c *Console) forceHangup(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.hangupBy(v, v.PathValue("id"), v.PostFormValue("reason")), "said.hungup", "/live")
}

func (c *Console) hangupBy(v *visit, callID, reason string) error {
	if !slices.Contains(hangupReasons, reason) {
		return errInput
	}
	return c.audited(v, "call.hangup", callID, reason, func() error {
		return c.deps.Desk.Hangup(v.Context(), callID, v.person.ID)
	})
}

func (c *Console) forcePause(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.pauseBy(v, v.PathValue("id"), v.PostFormValue("reason")), "said.paused", "/live")
}

func (c *Console) pauseBy(v *visit, person, reason string) error {
	if !validReason(reason) {
		return errInput
	}
	return c.audited(v, "agent.pause", person, reason, func() error {
		return c.deps.Agents.Pause(v.Context(), person, reason)
	})
}

func (c *Console) forceLogout(w http.ResponseWriter, v *visit) {
	c.done(w, v, c.logoutBy(v, v.PathValue("id")), "said.loggedout", "/live")
}

func (c *Console) logoutBy(v *visit, person string) error {
	return c.audited(v, "agent.logout", person, "", func() error {
		return c.deps.Agents.Logout(v.Context(), person)
	})
}
