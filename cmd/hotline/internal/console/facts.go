package console

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hotline12345/gateway/internal/session"
)

// The bounds of what an agent writes, in characters, and of the requests in one call.
const (
	maxName     = 60
	maxContact  = 120
	maxSummary  = 1300 // 3,900 bytes of Chinese: the session takes 4,000
	maxNote     = 2000
	maxUrgent   = 200
	maxRequests = 20
)

// agentOutcomes are the outcomes that an agent can tell; the others are the line's own to say.
var agentOutcomes = []session.Outcome{session.OutcomeRegistered, session.OutcomeConsultation,
	session.OutcomeProgress, session.OutcomeUnclear, session.OutcomeNoRequest, session.OutcomeSilent,
	session.OutcomeOOSTold, session.OutcomeAbuse, session.OutcomeEmergency}

// factsForm is the form of Art. 7 and 8 as an agent sees it.
type factsForm struct {
	CallID  string // "" if there is no call: the form is not shown
	Facts   session.Facts
	Errors  map[string]string // a field's name to a text's key
	Problem string            // a text's key, or ""
	Focus   string            // the field that is written in next, or ""
	Saved   bool

	Outcomes []session.Outcome
	Kinds    []session.Kind
}

// formOf is the form for the visitor's own call, as it was last saved.
func (c *Console) formOf(v *visit) factsForm {
	form := factsForm{Outcomes: agentOutcomes, Kinds: session.Kinds()}
	if view, ok := c.callOf(v.person.ID); ok {
		form.CallID, form.Facts = view.CallID, view.Facts
		form.Facts.Requests = slices.Clone(view.Facts.Requests)
	}
	if len(form.Facts.Requests) == 0 {
		form.Facts.Requests = []session.Request{{}} // the first request begins with the call
	}
	return form
}

// factsPart answers the page's question after "call-changed". Nothing is sent when the page has the
// form already, so that a stream that came back cannot wipe what is being written.
func (c *Console) factsPart(w http.ResponseWriter, v *visit) {
	form := c.formOf(v)
	if !v.htmx {
		redirect(w, v, "/agent")
		return
	}
	if form.CallID == v.FormValue("call") {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	c.send(w, http.StatusOK, "agent", "facts", c.model(v, agentData{Form: form}))
}

// saveFacts does what the form's button says: save, save and finish, add a request, or remove one.
func (c *Console) saveFacts(w http.ResponseWriter, v *visit) {
	if err := v.ParseForm(); err != nil {
		c.fail(w, v, errInput)
		return
	}
	form := c.formOf(v)
	if form.CallID != v.PathValue("id") {
		c.fail(w, v, session.ErrNotYours)
		return
	}
	known := form.Facts.Requests
	form.Facts = readFacts(v.PostForm, known)
	form.Facts.By = v.person.ID
	do := v.PostForm.Get("do")
	switch {
	case do == "add":
		c.addRequest(v, &form)
		c.showForm(w, v, http.StatusOK, form)
	case strings.HasPrefix(do, "remove."):
		if i, err := strconv.Atoi(do[len("remove."):]); err == nil && i >= 0 && i < len(form.Facts.Requests) {
			form.Facts.Requests = slices.Delete(form.Facts.Requests, i, i+1)
		}
		c.showForm(w, v, http.StatusOK, form)
	default:
		c.keepFacts(w, v, form, do == "finish")
	}
}

// addRequest opens another request at the present place of the recording. Without a recording, or
// after the talk, its place is not known and stays at the start.
func (c *Console) addRequest(v *visit, form *factsForm) {
	if len(form.Facts.Requests) >= maxRequests {
		form.Problem = "facts.toomany"
		return
	}
	at, err := c.deps.Desk.Mark(form.CallID, v.person.ID)
	if err != nil {
		at = 0
	}
	form.Focus = fmt.Sprintf("request.%d.kind", len(form.Facts.Requests))
	form.Facts.Requests = append(form.Facts.Requests, session.Request{Mark: at.Truncate(time.Millisecond)})
}

func (c *Console) keepFacts(w http.ResponseWriter, v *visit, form factsForm, finish bool) {
	form.Facts.Requests = slices.DeleteFunc(form.Facts.Requests, func(r session.Request) bool {
		return r.Kind == "" && r.Summary == "" && r.Urgent == ""
	})
	if form.Errors = checkFacts(form.Facts, finish); len(form.Errors) > 0 {
		form.Problem, form.Focus = "error.badfacts", form.firstWrong()
		c.showForm(w, v, http.StatusUnprocessableEntity, form)
		return
	}
	err := c.deps.Desk.SetFacts(v.Context(), form.CallID, v.person.ID, form.Facts)
	if err == nil && finish {
		err = c.deps.Desk.FinishWrapUp(v.Context(), form.CallID, v.person.ID)
	}
	if err != nil {
		var status int
		status, form.Problem = c.failure(err)
		c.showForm(w, v, status, form)
		return
	}
	switch {
	case finish: // the next call may be here already, so the page is made anew
		redirect(w, v, "/agent?said=said.finished")
		return
	case !v.htmx:
		redirect(w, v, "/agent?said=said.saved")
		return
	}
	form = c.formOf(v) // with the identities that the requests were given
	form.Saved = true
	c.showForm(w, v, http.StatusOK, form)
}

// showForm answers with the form alone, or with the page that it stands on.
func (c *Console) showForm(w http.ResponseWriter, v *visit, status int, form factsForm) {
	if len(form.Facts.Requests) == 0 {
		form.Facts.Requests = []session.Request{{}}
	}
	if !v.htmx {
		c.agentPageWith(w, v, status, form)
		return
	}
	c.send(w, status, "agent", "facts", c.model(v, agentData{Form: form}))
}

// firstWrong is the first field from above that does not hold.
func (f factsForm) firstWrong() string {
	var fields []string
	for i := range f.Facts.Requests {
		for _, name := range []string{"kind", "urgent", "summary"} {
			fields = append(fields, fmt.Sprintf("request.%d.%s", i, name))
		}
	}
	// A registered call without a request has its error on the empty first one.
	fields = append(fields, "request.0.summary", "name", "contact", "outcome", "note")
	i := slices.IndexFunc(fields, func(name string) bool { return f.Errors[name] != "" })
	if i < 0 {
		return ""
	}
	return fields[i]
}

// Field is what a template needs to know of a field.
func (p page) Field(f factsForm, name string) field {
	key := f.Errors[name]
	return field{Name: name, Key: key, Text: p.T(key), Focus: f.Focus == name}
}

// field is a field's error, with Key "" if there is none, and whether it is written in next.
type field struct {
	Name, Key, Text string
	Focus           bool
}

// readFacts reads the form.
func readFacts(in url.Values, known []session.Request) session.Facts {
	get := func(name string) string { return strings.TrimSpace(in.Get(name)) }
	f := session.Facts{Outcome: session.Outcome(get("outcome")), Feedback: in.Get("feedback") != "",
		Name: get("name"), Contact: get("contact"), Note: get("note")}
	for i := range maxRequests {
		p := fmt.Sprintf("request.%d.", i)
		if !in.Has(p + "kind") {
			break
		}
		r := session.Request{ID: in.Get(p + "id"), Kind: session.Kind(get(p + "kind")),
			Summary: get(p + "summary"), Urgent: get(p + "urgent")}
		if ms, err := strconv.ParseInt(in.Get(p+"mark"), 10, 32); err == nil {
			r.Mark = time.Duration(ms) * time.Millisecond
		}
		f.Requests = append(f.Requests, r)
	}
	f.Requests = owned(f.Requests, known)
	return f
}

// owned lets a request keep its identity only if the call has such a request, so that nobody takes over
// another call's, and lets none begin before its call.
func owned(requests, known []session.Request) []session.Request {
	for i := range requests {
		r := &requests[i]
		r.Mark = max(r.Mark, 0)
		if !slices.ContainsFunc(known, func(k session.Request) bool { return k.ID == r.ID }) {
			r.ID = ""
		}
	}
	return requests
}

// checkFacts says which fields do not hold. Facts that are final must have an outcome.
func checkFacts(f session.Facts, final bool) map[string]string {
	bad := map[string]string{}
	long := func(field, s string, most int) {
		if utf8.RuneCountInString(s) > most {
			bad[field] = "facts.toolong"
		}
	}
	if final && f.Outcome == "" || f.Outcome != "" && !slices.Contains(agentOutcomes, f.Outcome) {
		bad["outcome"] = "facts.nooutcome"
	}
	if f.Feedback && f.Name == "" { // Art. 7: who wants an answer gives a name and a way to be reached
		bad["name"] = "facts.noname"
	}
	if f.Feedback && f.Contact == "" {
		bad["contact"] = "facts.nocontact"
	}
	long("name", f.Name, maxName)
	long("contact", f.Contact, maxContact)
	long("note", f.Note, maxNote)
	if f.Outcome == session.OutcomeRegistered && len(f.Requests) == 0 {
		bad["request.0.summary"] = "facts.norequest"
	}
	if len(f.Requests) > maxRequests {
		bad["requests"] = "facts.toomany"
	}
	for i, r := range f.Requests {
		p := fmt.Sprintf("request.%d.", i)
		if !slices.Contains(session.Kinds(), r.Kind) {
			bad[p+"kind"] = "facts.nokind"
		}
		if r.Summary == "" { // Art. 8: what is not clear is not registered
			bad[p+"summary"] = "facts.nosummary"
		}
		long(p+"summary", r.Summary, maxSummary)
		long(p+"urgent", r.Urgent, maxUrgent)
	}
	return bad
}
