package console

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
	"github.com/hotline12345/gateway/queue"
)

// world is a line in memory: what the console needs of the rest, with the same promises.
type world struct {
	mu       sync.Mutex
	views    []session.View
	agents   []Agent
	queues   []QueueState
	trunks   []Trunk
	tasks    []queue.CallBack // the ledger, empty until owe
	shut     []queue.CallBack // its closed tasks
	nodes    []Node           // none until join
	warnings []ops.Warning
	acts     []act
	did      []string
	auditErr error
	away     error
	tokens   map[string]string // token to person
	watchers map[chan struct{}]struct{}
}

// act is an entry of the world's audit log.
type act struct {
	by, what, on string
	detail       map[string]string
}

var people = map[string]staff.Person{
	"1001":  {ID: "1001", Name: "王芳", Extension: "8001", Roles: []staff.Role{staff.Agent}},
	"1002":  {ID: "1002", Name: "李强", Extension: "8002", Roles: []staff.Role{staff.Agent}},
	"chief": {ID: "chief", Name: "陈静", Roles: []staff.Role{staff.Supervisor}},
	"audit": {ID: "audit", Name: "赵敏", Roles: []staff.Role{staff.Auditor}},
	"root":  {ID: "root", Name: "吴涛", Roles: []staff.Role{staff.Admin}},
}

var noon = time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)

func newWorld(now time.Time) *world {
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	view := func(id string, st session.Stage, since, started int, caller string) session.View {
		return session.View{CallID: id, Stage: st, Since: ago(since), Started: ago(started), Trunk: "mobile", Caller: caller,
			Identity: call.Verified, Called: "12345", Language: "zh", Decision: session.Admit, Evidence: "recorded"}
	}
	talk := view("C2", session.StageTalk, 185, 214, "138****5678")
	talk.Heard = session.Heard{Kind: session.HeardTransfer, Service: session.Fire, Words: "厨房着火了"}
	talk.Queue, talk.Agent, talk.Extension, talk.Banner = "general", "1001", "8001", session.BannerRepeat
	talk.Decision, talk.Reason = session.AdmitWatch, "person"
	wait := view("C3", session.StageQueue, 74, 90, "139****0021")
	wait.Queue, wait.Position = "general", 1
	wait2 := view("C4", session.StageQueue, 21, 37, "0571****1234")
	wait2.Queue, wait2.Position, wait2.Identity = "enterprise", 1, call.Shared
	flow := view("C5", session.StageFlow, 6, 6, "anonymous")
	flow.Identity, flow.Evidence, flow.Node = call.Anonymous, "none", "welcome"
	danger := view("C1", session.StageEmergency, 12, 48, "150****7788")
	danger.Emergency, danger.Agent = session.Fire, ""
	measure := view("C6", session.StageSuspended, 33, 33, "177****4410")
	measure.Decision = session.IVROnly
	return &world{
		views: []session.View{talk, wait, wait2, flow, danger, measure},
		agents: []Agent{
			{ID: "1001", Name: "王芳", Extension: "8001", State: queue.Talk, Since: ago(185), CallID: "C2", Queues: []string{"general"}},
			{ID: "1002", Name: "李强", Extension: "8002", State: queue.Paused, Since: ago(640), Reason: "meal", Queues: []string{"general"}},
			{ID: "1003", Name: "周洋", Extension: "8003", State: queue.Idle, Since: ago(15), Queues: []string{"enterprise"}},
		},
		queues: []QueueState{
			{Name: "general", Display: queue.Display{ZH: "综合受理", EN: "General"}, Waiting: 1, Oldest: ago(74), Talking: 1, Offered: 412, Answered: 401, InTime: 379, Abandoned: 11},
			{Name: "enterprise", Waiting: 1, Oldest: ago(21), Ready: 1, Offered: 58, Answered: 58, InTime: 57},
		},
		trunks: []Trunk{
			{Name: "mobile", Up: true, Since: ago(86000), RTT: 8 * time.Millisecond, Channels: 6, Limit: 300},
			{Name: "telecom", Since: ago(130), Limit: 300, Problem: "OPTIONS: no answer"},
		},
		warnings: []ops.Warning{{Code: "trunk-down", Title: "Trunk telecom is down", Detail: "OPTIONS: no answer for 130 s", Mend: "Ask the carrier; calls come in by the other trunk."}},
		tokens:   map[string]string{},
		watchers: map[chan struct{}]struct{}{},
	}
}

func (w *world) deps() Deps {
	return Deps{Calls: w, Desk: w, Agents: (*worldAgents)(w), Queues: w, Trunks: w, Journal: w, Staff: w2{w}, Audit: w, Health: w,
		CallBacks: worldLedger{w}, Nodes: worldNodes{w}, Article29: &worldMatters{}, Recordings: worldSound{}}
}

func (w *world) Views() []session.View {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.views)
}

func (w *world) Watch() (<-chan struct{}, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch := make(chan struct{}, 1)
	w.watchers[ch] = struct{}{}
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watchers, ch)
	}
}

// change does something to the world and tells the watchers.
func (w *world) change(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
	for ch := range w.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (w *world) find(id, by string) (*session.View, error) {
	for i := range w.views {
		if w.views[i].CallID == id {
			if by != "" && w.views[i].Agent != by {
				return nil, session.ErrNotYours
			}
			return &w.views[i], nil
		}
	}
	return nil, session.ErrNoCall
}

func (w *world) SetFacts(_ context.Context, id, by string, f session.Facts) (err error) {
	w.change(func() {
		v, e := w.find(id, by)
		if e != nil {
			err = e
			return
		}
		for i := range f.Requests {
			if f.Requests[i].ID == "" {
				f.Requests[i].ID = "R" + string(rune('1'+i))
			}
		}
		v.Facts = f
	})
	return err
}

func (w *world) do(id, by, what string) (err error) {
	w.change(func() {
		if _, err = w.find(id, by); err == nil {
			w.did = append(w.did, what+" "+id)
		}
	})
	return err
}

func (w *world) FinishWrapUp(_ context.Context, id, by string) error { return w.do(id, by, "finish") }
func (w *world) Emergency(_ context.Context, id, by string, s session.Service) error {
	return w.do(id, by, "emergency "+string(s))
}
func (w *world) Hangup(_ context.Context, id, _ string) error  { return w.do(id, "", "hangup") }
func (w *world) Hold(_ context.Context, id, by string) error   { return w.do(id, by, "hold") }
func (w *world) Resume(_ context.Context, id, by string) error { return w.do(id, by, "resume") }
func (w *world) Mark(id, by string) (time.Duration, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.find(id, by)
	return 95*time.Second + 250*time.Millisecond, err
}

// done is what was done, and acts what the log has of it.
func (w *world) done() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.did)
}

func (w *world) logged() []act {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acts)
}

func (w *world) Queues(context.Context) ([]QueueState, error) { return slices.Clone(w.queues), w.away }
func (w *world) Trunks(context.Context) ([]Trunk, error)      { return slices.Clone(w.trunks), w.away }
func (w *world) Warnings(context.Context) []ops.Warning       { return w.warnings }

func (w *world) Record(_ context.Context, by, what, on string, detail map[string]string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.auditErr == nil {
		w.acts = append(w.acts, act{by, what, on, detail})
	}
	return w.auditErr
}

func (w *world) Call(_ context.Context, id string) (journal.Row, error) {
	if id != "OLD" {
		return journal.Row{}, journal.ErrNotFound
	}
	return journal.Row{Masked: "138****5678", CDR: journal.CDR{CallID: "OLD", Trunk: "mobile", Identity: "verified", Called: "12345",
		Started: noon, Answered: noon.Add(time.Second), Connected: noon.Add(9 * time.Second), Ended: noon.Add(180 * time.Second),
		Queue: "general", Agent: "1001", Decision: "ADMIT", Outcome: "registered", EndReason: "caller", Cause: 16, Recording: "REC1", Evidence: "recorded"}}, nil
}

func (w *world) Timeline(_ context.Context, id string) ([]journal.Entry, error) {
	if id != "OLD" && id != "C2" {
		return nil, nil
	}
	at := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
	return []journal.Entry{
		{CallID: id, At: at(0), Kind: "sip", Text: "INVITE ← mobile", Attrs: map[string]string{"lane": "caller"}},
		{CallID: id, At: at(3), Kind: "stage", Text: "ADMIT_WATCH → flow"},
		{CallID: id, At: at(1012), Kind: "sip", Text: "200 OK →", Attrs: map[string]string{"lane": "caller"}},
		{CallID: id, At: at(1013), Kind: "node", Text: "welcome"},
		{CallID: id, At: at(4210), Kind: "digit", Text: "key pressed", Attrs: map[string]string{"key": "9"}},
		{CallID: id, At: at(4215), Kind: "queue", Text: "ENTERQUEUE general, 1"},
		{CallID: id, At: at(4230), Kind: "offer", Text: "ringing 8001", Attrs: map[string]string{"agent": "1001"}},
		{CallID: id, At: at(9120), Kind: "offer", Text: "CONNECT"},
		{CallID: id, At: at(62000), Kind: "emergency", Text: "119 INVITE"},
	}, nil
}

// worldAgents is the agents of a world.
type worldAgents world

func (a *worldAgents) List(context.Context) ([]Agent, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.agents), a.away
}

func (a *worldAgents) set(person string, s queue.AgentState, reason string) error {
	err := error(ErrNoAgent)
	(*world)(a).change(func() {
		for i := range a.agents {
			if a.agents[i].ID == person {
				a.agents[i].State, a.agents[i].Reason, err = s, reason, nil
			}
		}
	})
	return err
}

func (a *worldAgents) Login(_ context.Context, person, ext string) error {
	(*world)(a).change(func() {
		a.agents = append(a.agents, Agent{ID: person, Name: people[person].Name, Extension: ext, State: queue.Idle})
	})
	return nil
}
func (a *worldAgents) Logout(_ context.Context, p string) error { return a.set(p, queue.LoggedOut, "") }
func (a *worldAgents) Pause(_ context.Context, p, reason string) error {
	return a.set(p, queue.Paused, reason)
}
func (a *worldAgents) Ready(_ context.Context, p string) error { return a.set(p, queue.Idle, "") }

// w2 is the staff of a world: every password is "secret-" and the name.
type w2 struct{ *world }

func (w w2) Login(_ context.Context, id, password, _ string) (staff.Session, error) {
	p, ok := people[id]
	switch {
	case id == "flood":
		return staff.Session{}, staff.ErrThrottled
	case !ok || password != "secret-"+id:
		return staff.Session{}, staff.ErrLogin
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens["token-"+id] = id
	return staff.Session{Token: "token-" + id, Person: p}, nil
}

func (w w2) Session(_ context.Context, token string) (staff.Person, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if token == "broken" {
		return staff.Person{}, errors.New("disk")
	}
	id, ok := w.tokens[token]
	if !ok {
		return staff.Person{}, staff.ErrNoSession
	}
	return people[id], nil
}

// Token is a session's with a prefix, so that neither passes for the other.
func (w w2) Token(ctx context.Context, token string) (staff.Person, error) {
	t, ok := strings.CutPrefix(token, "api-")
	if !ok {
		return staff.Person{}, staff.ErrNoSession
	}
	return w.Session(ctx, t)
}

func (w w2) Logout(_ context.Context, token string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.tokens, token)
	return nil
}

// bench is a console over a world, served to one browser.
type bench struct {
	t     *testing.T
	world *world
	c     *Console
	srv   *httptest.Server
}

func newBench(t *testing.T, now time.Time, edit ...func(*Config)) *bench {
	t.Helper()
	w := newWorld(now)
	cfg := Defaults()
	for _, e := range edit {
		e(&cfg)
	}
	c, err := New(cfg, w.deps(), slog.New(slog.NewTextHandler(t.Output(), nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	srv := httptest.NewServer(c.Handler())
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	return &bench{t, w, c, srv}
}

// as gives a person's browser, logged in.
func (b *bench) as(person string) func(method, path string, form url.Values, header ...string) (*http.Response, string) {
	b.t.Helper()
	s, err := w2{b.world}.Login(b.t.Context(), person, "secret-"+person, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return func(method, path string, form url.Values, header ...string) (*http.Response, string) {
		b.t.Helper()
		return b.request(method, path, form, append(header, "Cookie", sessionCookie+"="+s.Token)...)
	}
}

// request sends a form, with headers as pairs of name and value, and follows nothing.
func (b *bench) request(method, path string, form url.Values, header ...string) (*http.Response, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.srv.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp, readAll(b.t, resp)
}
