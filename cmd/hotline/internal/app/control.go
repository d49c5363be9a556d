package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/hotline12345/gateway/abuse"
	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/journal"
)

// control is how the command line talks to the process: HTTP over a unix socket in the data directory.
// Who may open the socket may do everything; each act is in the audit log as the socket's user.
type control struct {
	app    *App
	listen net.Listener
}

func newControl(a *App) (*control, error) {
	path := a.cfg.Socket()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // the audit chain's lock says that nobody listens on it
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("data: %w; a unix socket's path has 107 characters at most, so choose a shorter directory", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &control{a, l}, nil
}

// close closes the socket, which Run has closed when it ran.
func (c *control) close() error {
	if err := c.listen.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Run serves until ctx ends.
func (c *control) Run(ctx context.Context) error {
	srv := &http.Server{Handler: c.routes(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(c.listen); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// MeasureOrder is a measure that the command line asks for.
type MeasureOrder struct {
	Number string        `json:"number"`
	Clause string        `json:"clause"`
	Level  int           `json:"level"`
	For    time.Duration `json:"for"` // 0 is the level's term
	Reason string        `json:"reason"`
	By     string        `json:"by"`
}

// Act is who does something, and why.
type Act struct {
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// CallRecord is a call with its timeline, as `hotline call show` prints it.
type CallRecord struct {
	CDR      *journal.Row    `json:"cdr,omitempty"`
	Timeline []journal.Entry `json:"timeline"`
}

func (c *control) routes() http.Handler {
	a := c.app
	mux := http.NewServeMux()
	get := func(path string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { answer(w)(f(r)) })
	}
	get("/calls", func(*http.Request) (any, error) { return a.calls.Views(), nil })
	get("/cdrs", func(r *http.Request) (any, error) { return a.journal.CDRs(r.Context(), journal.Filter{Limit: 50}) })
	get("/calls/{id}", func(r *http.Request) (any, error) { return a.record(r.Context(), r.PathValue("id")) })
	get("/queues", func(r *http.Request) (any, error) { return a.queue.Queues(r.Context()) })
	get("/agents", func(r *http.Request) (any, error) { return a.queue.Agents(r.Context()) })
	get("/trunks", func(r *http.Request) (any, error) { return trunksView{a.sip}.Trunks(r.Context()) })
	get("/measures", func(*http.Request) (any, error) { return a.admission.List(), nil })
	get("/measures/{id}", func(r *http.Request) (any, error) { return a.admission.Show(r.PathValue("id")) })
	get("/intake/waiting", func(*http.Request) (any, error) { return a.outbox.List() })
	get("/intake/dead", func(*http.Request) (any, error) { return a.outbox.Dead() })
	get("/health", func(r *http.Request) (any, error) { return ops.NewHealth(a.checks()...).States(r.Context()), nil })

	post(mux, "/agents/{id}/login", func(ctx context.Context, r *http.Request, p struct{ Extension string }) (any, error) {
		return nil, pageDesk{a.desk}.Login(ctx, r.PathValue("id"), p.Extension)
	})
	post(mux, "/agents/{id}/logout", func(ctx context.Context, r *http.Request, _ Act) (any, error) {
		return nil, pageDesk{a.desk}.Logout(ctx, r.PathValue("id"))
	})
	post(mux, "/agents/{id}/pause", func(ctx context.Context, r *http.Request, p Act) (any, error) {
		return nil, a.queue.Pause(ctx, r.PathValue("id"), p.Reason)
	})
	post(mux, "/agents/{id}/ready", func(ctx context.Context, r *http.Request, _ Act) (any, error) {
		return nil, a.queue.Ready(ctx, r.PathValue("id"))
	})
	post(mux, "/measures", func(ctx context.Context, _ *http.Request, o MeasureOrder) (any, error) { return a.measure(ctx, o) })
	post(mux, "/measures/{id}/restore", func(ctx context.Context, r *http.Request, p Act) (any, error) {
		return a.admission.Restore(ctx, r.PathValue("id"), p.Reason, p.By)
	})
	post(mux, "/intake/{id}/retry", func(_ context.Context, r *http.Request, _ Act) (any, error) {
		return nil, a.outbox.Retry(r.PathValue("id"))
	})
	return mux
}

// measure sets a measure on a number, in whatever form it was written.
func (a *App) measure(ctx context.Context, o MeasureOrder) (abuse.Case, error) {
	n := a.plan.Parse(o.Number)
	if n.E164 == "" {
		return abuse.Case{}, fmt.Errorf("%q is no telephone number; write it as 13800138000, 0571-12345678 or +86…", o.Number)
	}
	m := abuse.Measure{Number: n, Clause: o.Clause, Level: o.Level, Reason: o.Reason}
	if o.For > 0 {
		m.Until = time.Now().Add(o.For)
	}
	return a.admission.SetMeasure(ctx, m, o.By)
}

// record is all that the journal has of a call.
func (a *App) record(ctx context.Context, id string) (any, error) {
	timeline, err := a.journal.Timeline(ctx, id)
	if err != nil {
		return nil, err
	}
	out := CallRecord{Timeline: timeline}
	row, err := a.journal.Call(ctx, id)
	switch {
	case err == nil:
		out.CDR = &row
	case !errors.Is(err, journal.ErrNotFound):
		return nil, err
	case len(timeline) == 0:
		return nil, fmt.Errorf("there is no call %s on this node; `hotline call list` shows the latest", id)
	}
	return out, nil
}

// post is a route with a JSON body.
func post[T any](mux *http.ServeMux, path string, f func(ctx context.Context, r *http.Request, body T) (any, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var body T
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&body); err != nil {
			answer(w)(nil, fmt.Errorf("the request does not read: %w", err))
			return
		}
		answer(w)(f(r.Context(), r, body))
	})
}

// answer writes a result, or an error as text.
func answer(w http.ResponseWriter) func(any, error) {
	return func(v any, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the command line went away
	}
}
