package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hotline12345/gateway/abuse"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
)

// loadPatience is how long the journal is waited for when a call's load is looked up.
const loadPatience = 2 * time.Second

// heaviest is the heaviest load of the line between two times, by the samples of this gateway: most callers
// who waited in a queue, and the largest share of its agents that was busy. What the journal does not tell
// proves nothing.
func (a *App) heaviest(from, to time.Time) (waiting int, occupancy float64) {
	ctx, stop := context.WithTimeout(context.Background(), loadPatience)
	defer stop()
	for _, q := range a.cfg.Queue.Queues {
		samples, err := a.journal.Load(ctx, q.Name, from, to)
		if err != nil {
			a.log.Warn("the load during a call is not known", "queue", q.Name, "err", err)
			continue
		}
		// The sample before is in force until the next one; an old one is none.
		if first, err := a.journal.LoadAt(ctx, q.Name, from); err == nil && from.Sub(first.At) <= 2*loadEvery {
			samples = append(samples, first)
		}
		for _, s := range samples {
			waiting, occupancy = max(waiting, s.Waiting), max(occupancy, s.Occupied)
		}
	}
	return waiting, occupancy
}

// NoteConduct implements console.Conductor.
func (d everyDesk) NoteConduct(ctx context.Context, callID, by string, kind session.ConductKind, clause string, played bool) error {
	here := d.callDesk.NoteConduct(ctx, callID, by, kind, clause, played)
	return d.there(ctx, callID, "conduct", Order{By: by, Conduct: kind, Clause: clause, Played: played}, nil, here)
}

// deciding is the role in which a person of the staff decides under Article 29; "" is none.
func (a *App) deciding(ctx context.Context, person string) (abuse.Role, error) {
	p, err := a.staff.Person(ctx, person)
	switch {
	case err != nil || p.Disabled:
		return "", err
	case p.Has(staff.Manager):
		return abuse.Manager, nil
	case p.Has(staff.Supervisor):
		return abuse.Supervisor, nil
	}
	return "", nil
}

// Ruling is a person's decision on an appeal.
type Ruling struct {
	By       string `json:"by"`
	Reason   string `json:"reason"`
	Overturn bool   `json:"overturn"`
}

// Proposal is a proposal that is made off the line.
type Proposal struct {
	By     string `json:"by"`
	Clause string `json:"clause"` // "" is that of the reminder that stands
}

// Referring is a proposal to refer a matter, sealed to an age key.
type Referring struct {
	By     string `json:"by"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

// referral refers a matter and returns its file.
func (a *App) referral(ctx context.Context, id string, p Act, role abuse.Role) (sealed []byte, err error) {
	m, err := a.admission.Refer(ctx, id, p.Reason, p.By, role)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = a.admission.WriteReferral(&out, m, a.recordingsOf(ctx, m))
	return out.Bytes(), err
}

// maxEnclosed bounds the recordings of a referral, in bytes: half an hour of calls goes with it.
const maxEnclosed = 32 << 20

var errFull = errors.New("the file is full; export this recording apart")

// recordingsOf are the recordings of a matter's calls with their manifests, under hold from now on, and a note of those
// that this gateway has not, or has no key to.
func (a *App) recordingsOf(ctx context.Context, m abuse.Matter) (files []abuse.Enclosed) {
	var missing strings.Builder
	room := maxEnclosed
	for _, e := range m.Events {
		if e.Kind != abuse.EventCall {
			continue
		}
		var wav bytes.Buffer
		var manifest []byte
		row, err := a.journal.Call(ctx, e.ID)
		if err == nil {
			err = errors.Join(a.recorder.Hold(row.Recording, "referral of "+m.ID), a.recorder.Play(ctx, &wav, row.Recording))
		}
		if err == nil {
			manifest, err = a.manifest(row.Recording)
		}
		if err == nil && wav.Len() > room {
			err = errFull
		}
		if err != nil {
			fmt.Fprintf(&missing, "%s: %v\n", e.ID, err)
			continue
		}
		room -= wav.Len()
		files = append(files, abuse.Enclosed{Name: "recordings/" + e.ID + ".wav", Data: wav.Bytes()},
			abuse.Enclosed{Name: "recordings/" + e.ID + ".json", Data: manifest})
	}
	return append(files, abuse.Enclosed{Name: "recordings/MISSING.txt", Data: []byte(missing.String())})
}

func (a *App) manifest(recording string) ([]byte, error) {
	m, err := a.recorder.Manifest(recording)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(m, "", "  ")
}

// Listing is the lists of Article 29 as a CSV file, and who puts them in the place of those in force.
type Listing struct {
	By  string `json:"by,omitempty"`
	CSV string `json:"csv"`
}

// lists is what the command line does with the lists. It is the one way out for the numbers on them.
func (c *control) lists(mux *http.ServeMux) {
	a := c.app
	mux.HandleFunc("GET /lists", func(w http.ResponseWriter, _ *http.Request) {
		var out strings.Builder
		err := a.admission.Lists().Write(&out)
		answer(w)(Listing{CSV: out.String()}, err)
	})
	post(mux, "/lists", func(ctx context.Context, _ *http.Request, l Listing) (any, error) {
		lists, err := a.admission.ImportLists(ctx, strings.NewReader(l.CSV), l.By)
		if err != nil {
			return nil, err
		}
		return lists.Lengths(), nil
	})
}

// matters is what the command line does under Article 29. Who acts is a person of the staff; their roles are
// looked up.
func (c *control) matters(mux *http.ServeMux) {
	a := c.app
	mux.HandleFunc("GET /matters", func(w http.ResponseWriter, _ *http.Request) { answer(w)(a.admission.Matters(), nil) })
	mux.HandleFunc("GET /matters/{id}", func(w http.ResponseWriter, r *http.Request) { answer(w)(a.admission.Matter(r.PathValue("id"))) })
	mux.HandleFunc("GET /appeals", func(w http.ResponseWriter, _ *http.Request) { answer(w)(a.admission.Appeals(), nil) })
	post(mux, "/matters/{id}/propose", func(ctx context.Context, r *http.Request, p Proposal) (any, error) {
		if _, err := a.deciding(ctx, p.By); err != nil { // who proposes is a person, so that another can approve
			return nil, err
		}
		return nil, a.admission.Propose(ctx, r.PathValue("id"), p.Clause, p.By)
	})
	post(mux, "/matters/{id}/approve", func(ctx context.Context, r *http.Request, p Act) (any, error) {
		role, err := a.deciding(ctx, p.By)
		if err != nil {
			return nil, err
		}
		return a.admission.Approve(ctx, r.PathValue("id"), p.By, role, p.Reason)
	})
	post(mux, "/matters/{id}/referral/propose", func(ctx context.Context, r *http.Request, p Referring) (any, error) {
		role, err := a.deciding(ctx, p.By)
		if err != nil {
			return nil, err
		}
		return nil, a.admission.ProposeReferral(ctx, r.PathValue("id"), p.To, p.Reason, p.By, role)
	})
	post(mux, "/matters/{id}/referral/approve", func(ctx context.Context, r *http.Request, p Act) (any, error) {
		role, err := a.deciding(ctx, p.By)
		if err != nil {
			return nil, err
		}
		return a.referral(ctx, r.PathValue("id"), p, role)
	})
	post(mux, "/measures/{id}/appeal", func(ctx context.Context, r *http.Request, _ Act) (any, error) {
		return nil, a.admission.Appeal(ctx, r.PathValue("id"), "")
	})
	post(mux, "/measures/{id}/decide", func(ctx context.Context, r *http.Request, p Ruling) (any, error) {
		role, err := a.deciding(ctx, p.By)
		if err != nil {
			return nil, err
		}
		return a.admission.DecideAppeal(ctx, r.PathValue("id"), p.Overturn, p.Reason, p.By, role)
	})
}
