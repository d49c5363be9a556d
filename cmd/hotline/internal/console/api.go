package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
)

// The bodies of the API.
type (
	// Reason is why an act is done, from the closed sets of the console.
	Reason struct {
		Reason string `json:"reason"`
	}
	// Phone is the extension that a person answers on.
	Phone struct {
		Extension string `json:"extension"`
	}
	// Service is the emergency service that a caller is joined with.
	Service struct {
		Service session.Service `json:"service"`
	}
	// Call is what is known of a call. Facts are in it for the agent of the call alone.
	Call struct {
		Live     *session.View   `json:"live,omitempty"`
		CDR      *journal.Row    `json:"cdr,omitempty"`
		Timeline []journal.Entry `json:"timeline"`
	}
	// Problem is an error (RFC 9457).
	Problem struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}
)

// operation is a route's entry in the OpenAPI document. In and Out are values of the types that it
// takes and gives; nil is none. Flags are the names of its query parameters, each true or false.
type operation struct {
	id, summary string
	in, out     any
	flags       []string
}

func op(id, summary string, in, out any, flags ...string) *operation {
	return &operation{id, summary, in, out, flags}
}

// v1 is where the API stands.
const v1 = "/api/v1"

func (c *Console) apiTable() []route {
	return []route{
		{"GET", v1 + "/openapi.json", everyone, c.apiDocument, op("openapi", "This document", nil, map[string]any{})},
		{"GET", v1 + "/calls", watchers, c.apiCalls, op("listCalls", "Live calls of every gateway, the oldest first", nil, []session.View{})},
		{"GET", v1 + "/calls/{id}", allMembers, c.apiCall, op("getCall", "A call, live or ended; an agent sees their own live call", nil, Call{})},
		{"POST", v1 + "/calls/{id}/hangup", agentsToo, c.apiHangup, op("hangUp", "End a call: one's own, or any as a supervisor, which is audited", Reason{}, nil)},
		{"PUT", v1 + "/calls/{id}/facts", agents, c.apiFacts, op("setFacts", "Write the facts of one's own call (Art. 7 and 8)", session.Facts{}, nil)},
		{"POST", v1 + "/calls/{id}/done", agents, c.apiDone, op("finishWrapUp", "End the wrap-up of one's own call", nil, nil)},
		{"POST", v1 + "/calls/{id}/emergency", agents, c.apiEmergency, op("emergency", "Join the caller of one's own call with an emergency service", Service{}, nil)},
		{"GET", v1 + "/queues", allMembers, c.apiQueues, op("listQueues", "How the queues stand", nil, []QueueState{})},
		{"GET", v1 + "/agents", watchers, c.apiAgents, op("listAgents", "How the agents stand", nil, []Agent{})},
		{"POST", v1 + "/agents/{id}/login", agents, c.apiAgentLogin, op("agentLogin", "Log in on a phone, for oneself", Phone{}, nil)},
		{"POST", v1 + "/agents/{id}/ready", agents, c.apiAgentReady, op("agentReady", "Take calls, for oneself", nil, nil)},
		{"POST", v1 + "/agents/{id}/pause", agentsToo, c.apiAgentPause, op("agentPause", "Take no calls: oneself, or anyone as a supervisor, which is audited", Reason{}, nil)},
		{"POST", v1 + "/agents/{id}/logout", agentsToo, c.apiAgentLogout, op("agentLogout", "Leave the phone: oneself, or anyone as a supervisor, which is audited", nil, nil)},
		{"GET", v1 + "/trunks", watchers, c.apiTrunks, op("listTrunks", "How the trunks stand", nil, []Trunk{})},
	}
}

func (c *Console) apiDocument(w http.ResponseWriter, _ *visit) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(c.openapi) // the caller has gone: nothing is left to tell them
}

func (c *Console) apiCalls(w http.ResponseWriter, _ *visit) { c.json(w, list(c.calls()), nil) }

func (c *Console) apiCall(w http.ResponseWriter, v *visit) {
	if own, ok := c.callOf(v.person.ID); ok && own.CallID == v.PathValue("id") {
		entries, err := c.deps.Journal.Timeline(v.Context(), own.CallID)
		c.json(w, Call{Live: &own, Timeline: list(entries)}, err)
		return
	}
	if !v.person.Has(watchers...) {
		c.json(w, nil, session.ErrNotYours)
		return
	}
	d, err := c.callData(v)
	out := Call{Live: d.View, CDR: d.CDR, Timeline: []journal.Entry{}}
	for _, s := range d.Timeline {
		out.Timeline = append(out.Timeline, s.Entry)
	}
	c.json(w, out, err)
}

func (c *Console) apiHangup(w http.ResponseWriter, v *visit) {
	in, err := body[Reason](v)
	if err == nil {
		err = c.own(v, func(id, by string) error { return c.deps.Desk.Hangup(v.Context(), id, by) })
		if errors.Is(err, session.ErrNoCall) || errors.Is(err, session.ErrNotYours) {
			if v.person.Has(leaders...) {
				err = c.hangupBy(v, v.PathValue("id"), in.Reason)
			}
		}
	}
	c.json(w, nil, err)
}

func (c *Console) apiFacts(w http.ResponseWriter, v *visit) {
	facts, err := body[session.Facts](v)
	if err == nil {
		err = c.own(v, func(id, by string) error {
			if bad := checkFacts(facts, false); len(bad) > 0 {
				return fmt.Errorf("%w: %s", session.ErrBadFacts, strings.Join(slices.Sorted(maps.Keys(bad)), ", "))
			}
			own, _ := c.callOf(by)
			facts.Requests, facts.By = owned(facts.Requests, own.Facts.Requests), by
			return c.deps.Desk.SetFacts(v.Context(), id, by, facts)
		})
	}
	c.json(w, nil, err)
}

func (c *Console) apiDone(w http.ResponseWriter, v *visit) {
	c.json(w, nil, c.own(v, func(id, by string) error { return c.deps.Desk.FinishWrapUp(v.Context(), id, by) }))
}

func (c *Console) apiEmergency(w http.ResponseWriter, v *visit) {
	in, err := body[Service](v)
	if err == nil {
		err = c.emergencyBy(v, in.Service)
	}
	c.json(w, nil, err)
}

func (c *Console) apiQueues(w http.ResponseWriter, v *visit) {
	out, err := c.deps.Queues.Queues(v.Context())
	c.json(w, list(out), err)
}

func (c *Console) apiAgents(w http.ResponseWriter, v *visit) {
	out, err := c.deps.Agents.List(v.Context())
	c.json(w, list(out), err)
}

func (c *Console) apiTrunks(w http.ResponseWriter, v *visit) {
	out, err := c.deps.Trunks.Trunks(v.Context())
	c.json(w, list(out), err)
}

// self says whether an agent acts on their own state.
func (v *visit) self() bool { return v.PathValue("id") == v.person.ID && v.person.Has(agents...) }

func (c *Console) apiAgentLogin(w http.ResponseWriter, v *visit) {
	in, err := body[Phone](v)
	switch {
	case err != nil:
	case !v.self():
		err = session.ErrNotYours
	default:
		err = c.loginBy(v, v.person.ID, in.Extension)
	}
	c.json(w, nil, err)
}

func (c *Console) apiAgentReady(w http.ResponseWriter, v *visit) {
	err := session.ErrNotYours
	if v.self() {
		err = c.deps.Agents.Ready(v.Context(), v.person.ID)
	}
	c.json(w, nil, err)
}

func (c *Console) apiAgentPause(w http.ResponseWriter, v *visit) {
	in, err := body[Reason](v)
	switch {
	case err != nil:
	case !validReason(in.Reason):
		err = errInput
	case v.self():
		err = c.deps.Agents.Pause(v.Context(), v.person.ID, in.Reason)
	case v.person.Has(leaders...):
		err = c.pauseBy(v, v.PathValue("id"), in.Reason)
	default:
		err = session.ErrNotYours
	}
	c.json(w, nil, err)
}

func (c *Console) apiAgentLogout(w http.ResponseWriter, v *visit) {
	err := session.ErrNotYours
	switch {
	case v.self():
		err = c.deps.Agents.Logout(v.Context(), v.person.ID)
	case v.person.Has(leaders...):
		err = c.logoutBy(v, v.PathValue("id"))
	}
	c.json(w, nil, err)
}

// list is a list that is never null on the wire.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// body reads a request's JSON. Unknown fields are refused: a misspelt one must not be lost.
func body[T any](v *visit) (T, error) {
	var in T
	d := json.NewDecoder(v.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return in, fmt.Errorf("%w: %w", errInput, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return in, fmt.Errorf("%w: more than one value", errInput)
	}
	return in, nil
}

// json answers with a value, with 204 for none, or with a problem.
func (c *Console) json(w http.ResponseWriter, out any, err error) {
	if err != nil {
		status, _ := c.failure(err)
		detail := err.Error()
		if status == http.StatusInternalServerError {
			detail = "see the log" // what went wrong inside is not the caller's to see
		}
		c.problem(w, status, detail)
		return
	}
	if out == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	b, err := json.Marshal(out)
	if err != nil {
		c.log.Error("answer failed", slog.Any("error", err))
		c.problem(w, http.StatusInternalServerError, "see the log")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // the caller has gone: nothing is left to tell them
}

func (c *Console) problem(w http.ResponseWriter, status int, detail string) {
	b, _ := json.Marshal(Problem{http.StatusText(status), status, detail}) // strings and a number always do
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}
