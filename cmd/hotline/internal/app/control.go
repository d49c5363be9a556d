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

// known tells whether there is anything of the call.
func (r CallRecord) known() bool { return r.CDR != nil || len(r.Timeline) > 0 }

func (c *control) routes() http.Handler {
	a := c.app
	mux := http.NewServeMux()
	get := func(path string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { answer(w)(f(r)) })
	}
	// everywhere is a list of all gateways: those that are missing are named beside it.
	everywhere := func(path string, f func(r *http.Request) (any, []string, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			v, missing, err := f(r)
			for _, m := range missing {
				w.Header().Add(MissingHeader, m)
			}
			answer(w)(v, err)
		})
	}
	everywhere("/calls", func(*http.Request) (any, []string, error) { return a.everyCall().Views(), a.missing(), nil })
	everywhere("/cdrs", func(r *http.Request) (any, []string, error) { return everyRow(r.Context(), a, "/cdrs", a.cdrs) })
	everywhere("/calls/{id}", func(r *http.Request) (any, []string, error) {
		id := r.PathValue("id")
		rec, missing, err := a.recordOf(r.Context(), id)
		if err == nil && !rec.known() {
			err = fmt.Errorf("there is no call %s at any gateway that answers; `hotline call list` shows the latest", id)
		}
		return rec, missing, err
	})
	everywhere("/queues", func(r *http.Request) (any, []string, error) {
		v, err := a.queue.Queues(r.Context())
		return v, a.apart(), err
	})
	everywhere("/agents", func(r *http.Request) (any, []string, error) {
		v, err := a.queue.Agents(r.Context())
		return v, a.apart(), err
	})
	everywhere("/intake/waiting", func(r *http.Request) (any, []string, error) {
		return a.items(r.Context(), "/intake/waiting", a.outbox.List)
	})
	everywhere("/intake/dead", func(r *http.Request) (any, []string, error) {
		return a.items(r.Context(), "/intake/dead", a.outbox.Dead)
	})
	get("/trunks", func(r *http.Request) (any, error) { return everyTrunk{a}.Trunks(r.Context()) })
	get("/measures", func(*http.Request) (any, error) { return a.admission.List(), nil })
	get("/measures/{id}", func(r *http.Request) (any, error) { return a.admission.Show(r.PathValue("id")) })
	get("/health", func(r *http.Request) (any, error) { return ops.NewHealth(a.checks()...).States(r.Context()), nil })
	get("/nodes", func(r *http.Request) (any, error) { return everyNode{a}.List(r.Context()) })
	get("/callbacks", func(r *http.Request) (any, error) {
		return callBacks{a}.List(r.Context(), r.URL.Query().Get("closed") == "true")
	})
	c.acts(mux)
	c.matters(mux)
	c.lists(mux)
	return mux
}

// acts is what the command line may do.
func (c *control) acts(mux *http.ServeMux) {
	a := c.app
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
	post(mux, "/measures/rebuild", func(ctx context.Context, _ *http.Request, p Act) (any, error) {
		return nil, a.admission.ConfirmRebuild(ctx, p.By)
	})
	post(mux, "/intake/{id}/retry", func(ctx context.Context, r *http.Request, p Act) (any, error) {
		return nil, a.retry(ctx, r.PathValue("id"), p.By)
	})
	node := func(act string, do func(ctx context.Context, name, by string) error) {
		post(mux, "/nodes/{name}/"+act, func(ctx context.Context, r *http.Request, p Act) (any, error) {
			name := r.PathValue("name")
			return nil, a.audited(ctx, p.By, "node."+act, name, nil, func() error { return do(ctx, name, p.By) })
		})
	}
	node("drain", everyNode{a}.Drain)
	node("resume", everyNode{a}.Resume)
	node("forget", everyNode{a}.Forget)
	post(mux, "/callbacks/{id}/call", func(ctx context.Context, r *http.Request, p struct{ By, Agent string }) (callID any, err error) {
		id := r.PathValue("id")
		err = a.audited(ctx, p.By, "callback.call", id, map[string]string{"agent": p.Agent}, func() error {
			callID, err = callBacks{a}.Call(ctx, id, p.Agent)
			return err
		})
		return callID, err
	})
	post(mux, "/callbacks/{id}/close", func(ctx context.Context, r *http.Request, p Act) (any, error) {
		id := r.PathValue("id")
		return nil, a.audited(ctx, p.By, "callback.close", id, map[string]string{"reason": p.Reason}, func() error {
			return callBacks{a}.Close(ctx, id, p.By, p.Reason)
		})
	})
}

// audited writes an act into the audit log and then does it; what cannot be written is not done.
func (a *App) audited(ctx context.Context, by, act, subject string, detail map[string]string, do func() error) error {
	if err := a.audit.Record(ctx, by, act, subject, detail); err != nil {
		return err
	}
	return do()
}

// record is all that this gateway's journal has of a call, which may be nothing.
func (a *App) record(ctx context.Context, id string) (CallRecord, error) {
	timeline, err := a.journal.Timeline(ctx, id)
	if err != nil {
		return CallRecord{}, err
	}
	out := CallRecord{Timeline: timeline}
	row, err := a.journal.Call(ctx, id)
	if err == nil {
		out.CDR = &row
	} else if !errors.Is(err, journal.ErrNotFound) {
		return CallRecord{}, err
	}
	return out, nil
}

// maxOrder bounds the body of an act: the longest is a file of lists.
const maxOrder = 4 << 20

// post is a route with a JSON body.
func post[T any](mux *http.ServeMux, path string, f func(ctx context.Context, r *http.Request, body T) (any, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var body T
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder)).Decode(&body); err != nil {
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
