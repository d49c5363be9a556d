package app

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/hotline12345/gateway/cmd/hotline/internal/console"
	"github.com/hotline12345/gateway/cmd/hotline/internal/nodes"
	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/intake"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
)

// Order is what one gateway asks another to do for a person. Who asks has checked that the person may, and
// both write it into their audit logs.
type Order struct {
	By      string          `json:"by"`
	Reason  string          `json:"reason,omitempty"`
	Facts   session.Facts   `json:"facts,omitzero"`
	Service session.Service `json:"service,omitempty"`

	Conduct session.ConductKind `json:"conduct,omitempty"`
	Clause  string              `json:"clause,omitempty"`
	Played  bool                `json:"played,omitempty"`
}

// peerState is what a gateway tells the others of itself every other second.
type peerState struct {
	Trunks   []console.Trunk          `json:"trunks"`
	Warnings []ops.Warning            `json:"warnings"`
	Day      map[string]journal.Tally `json:"day"`
}

// peerStaff is a page of the people's changes.
type peerStaff struct {
	Changes []staff.Change `json:"changes"`
	Next    string         `json:"next"`
}

// NodeItem is an event for case intake, and the gateway that has it.
type NodeItem struct {
	Node string `json:"node"`
	intake.Item
}

// servePeers answers the other gateways, once everything is made.
func (a *App) servePeers(w http.ResponseWriter, r *http.Request) { a.peers.ServeHTTP(w, r) }

// peerRoutes is all that another gateway can ask of this one.
func (a *App) peerRoutes() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { a.answerPeer(w)(f(r)) })
	}
	get(nodes.NewsPath, func(r *http.Request) (any, error) { return a.feed.Since(r.Context(), r.URL.Query().Get("since")), nil })
	get("/calls/{id}", func(r *http.Request) (any, error) { return a.record(r.Context(), r.PathValue("id")) })
	get("/cdrs", func(r *http.Request) (any, error) { return a.cdrs(r.Context()) })
	get("/state", func(r *http.Request) (any, error) { return a.state(r.Context()) })
	get("/intake/waiting", func(r *http.Request) (any, error) { return a.outbox.List() })
	get("/intake/dead", func(r *http.Request) (any, error) { return a.outbox.Dead() })
	get("/staff", func(r *http.Request) (any, error) {
		changes, next, err := a.staff.Changes(r.Context(), r.URL.Query().Get("since"))
		return peerStaff{changes, next}, err
	})

	act := func(path, name string, do func(ctx context.Context, subject string, o Order) (any, error)) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			a.answerPeer(w)(a.obey(r, name, do))
		})
	}
	desk := callDesk{a.calls, a.queue}
	act("/calls/{id}/facts", "call.facts", func(ctx context.Context, id string, o Order) (any, error) {
		return nil, desk.SetFacts(ctx, id, o.By, o.Facts)
	})
	act("/calls/{id}/finish", "call.finish", func(ctx context.Context, id string, o Order) (any, error) {
		return nil, desk.FinishWrapUp(ctx, id, o.By)
	})
	act("/calls/{id}/emergency", "call.emergency", func(ctx context.Context, id string, o Order) (any, error) {
		return nil, desk.Emergency(ctx, id, o.By, o.Service)
	})
	act("/calls/{id}/hangup", "call.hangup", func(ctx context.Context, id string, o Order) (any, error) { return nil, desk.Hangup(ctx, id, o.By) })
	act("/calls/{id}/conduct", "call.conduct", func(ctx context.Context, id string, o Order) (any, error) {
		return nil, desk.NoteConduct(ctx, id, o.By, o.Conduct, o.Clause, o.Played)
	})
	act("/calls/{id}/mark", "call.mark", func(_ context.Context, id string, o Order) (any, error) { return desk.Mark(id, o.By) })
	act("/intake/{id}/retry", "intake.retry", func(_ context.Context, id string, _ Order) (any, error) { return nil, a.outbox.Retry(id) })
	act("/drain", "node.drain", func(context.Context, string, Order) (any, error) { a.drain(true); return nil, nil })
	act("/resume", "node.resume", func(context.Context, string, Order) (any, error) { a.drain(false); return nil, nil })
	return mux
}

// obey writes an order of another gateway into the audit log and then does it.
func (a *App) obey(r *http.Request, name string, do func(ctx context.Context, subject string, o Order) (any, error)) (any, error) {
	var o Order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		return nil, err
	}
	subject := r.PathValue("id")
	if subject == "" {
		subject = a.cluster.Name()
	}
	if err := a.audit.Record(r.Context(), o.By, name, subject, map[string]string{"asked_by": nodes.From(r.Context())}); err != nil {
		return nil, err
	}
	return do(r.Context(), subject, o)
}

// answerPeer writes a result, or an error that the asking gateway knows by name.
func (a *App) answerPeer(w http.ResponseWriter) func(any, error) {
	return func(v any, err error) {
		if err != nil {
			w.WriteHeader(http.StatusUnprocessableEntity)
			v = a.cluster.FaultOf(err)
		}
		_ = json.NewEncoder(w).Encode(v) // into memory
	}
}

// cdrs is this gateway's latest calls.
func (a *App) cdrs(ctx context.Context) ([]journal.Row, error) {
	return a.journal.CDRs(ctx, journal.Filter{Limit: 50})
}

// state is what this gateway tells the others of itself.
func (a *App) state(ctx context.Context) (s peerState, err error) {
	s.Trunks = a.line.Trunks()
	s.Warnings = a.health.Warnings(ctx)
	s.Day, err = a.queues.today(ctx)
	return s, err
}
