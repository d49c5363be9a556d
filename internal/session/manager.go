// Package session is one call's story: screened, flow, queue, talk, wrap-up.
//
// A call is one goroutine that runs straight down story.go; read that file first. Each stage writes
// a checkpoint at its edge, and runs under a context that the emergency key can end, so that danger
// interrupts a caller anywhere: in a prompt, a collection, the queue, the automatic path of a
// suspended caller. In talk an emergency adds a leg instead.
//
// # Who is called back
//
// A missed call is called back (漏接电话回拨): that of a caller who wanted a person and did not reach one, for
// a reason that is not the caller's own. Who leaves a queue is noted by the queue. The session notes the rest,
// with the old place: who found no place in the queue or on the line; who was answered and then cut, wherever
// they were, because the node was killed, left, or failed; and who pressed the emergency key and was gone before
// anybody answered. It does not note who hangs up in the flow (they may have heard all they wanted), who gave
// up before the answer, a third call of a number that has two on the line, a caller under a measure, and
// a number that is unknown or spoofed, which is nobody's or another's. Whoever is answered later is not owed
// a call any more: the ledger knows.
//
// The package imports no room. What it needs of them stands in ports.go.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/journal"
)

// Journal is the book of calls (package internal/journal). Append must not block; a call never
// waits for the book.
type Journal interface {
	SaveCDR(ctx context.Context, c journal.CDR) error
	Append(e journal.Entry)
	SaveCheckpoint(ctx context.Context, c call.Checkpoint) error
	DropCheckpoint(ctx context.Context, callID string) error
	Checkpoints(ctx context.Context) ([]call.Checkpoint, error)
	// Call returns a call's detail record, or [journal.ErrNotFound].
	Call(ctx context.Context, callID string) (journal.Row, error)
}

// Desk is what an agent does on the phone: log in, pause, be ready, log out.
type Desk interface {
	Login(ctx context.Context, extension, person, pin string) error
	Logout(ctx context.Context, extension string) error
	Pause(ctx context.Context, extension, reason string) error
	Ready(ctx context.Context, extension string) error
}

// Deps are the rooms and the ground that a call walks on.
type Deps struct {
	Log        *slog.Logger
	Registerer prometheus.Registerer // nil registers nothing
	Switch     call.Switch
	Screener   Screener
	Flow       Flow
	Prompts    Prompts
	KeyWatch   func() KeyWatch // makes one a call
	Queue      Queue
	Recorder   Recorder
	Intake     Intake
	Journal    Journal
	Desk       Desk
	Hearing    Hearing                           // nil hears nobody
	Conduct    Conduct                           // the book of Article 29; nil keeps none
	CallBacks  CallBacks                         // the ledger of callers who are owed a call; nil keeps none
	Seal       func(call.Number) []byte          // seals a number in a checkpoint; nil leaves it out
	Open       func([]byte) (call.Number, error) // opens what Seal made
}

// Manager runs the calls of a node and shows them to the console.
type Manager struct {
	cfg Config
	Deps
	metrics *metrics

	ledger ledger
	late   crowd // calls, and what is left of them: dials that lost a race, notes for the ledger

	mu       sync.Mutex
	calls    map[string]*story
	watchers map[chan struct{}]struct{}
	cut      map[string]call.Checkpoint // by the caller's leg; see [Manager.Cut]
	pledges  map[string]pledge          // by the caller's leg; see [Manager.Pledge]
	exit     exit
	calling  int // callers who are called back
}

// New makes a manager. It starts nothing.
func New(cfg Config, d Deps) (*Manager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	m := &Manager{
		cfg: cfg, Deps: d, metrics: newMetrics(d.Registerer),
		calls:    map[string]*story{},
		watchers: map[chan struct{}]struct{}{},
		cut:      map[string]call.Checkpoint{},
		pledges:  map[string]pledge{},
		exit:     newExit(),
	}
	m.ledger.m = m
	if d.Registerer != nil {
		d.Registerer.MustRegister(newStuckCalls(m))
	}
	return m, nil
}

// Handle is the call handler of a backend. It returns when the call's story has ended, wrap-up
// included.
func (m *Manager) Handle(_ context.Context, leg call.Leg, from *call.Checkpoint) {
	defer m.late.enter()()
	if leg.Info().Extension != "" {
		m.phone(leg)
		return
	}
	info := leg.Info()
	if from != nil {
		info.ID = ulid.Make().String() // the books of the call that was cut are closed
	}
	s := m.begin(leg, info)
	defer s.close()
	s.run(from)
}

// errPanic is what stands for a panic of a call's helper.
var errPanic = errors.New("session: a panic")

// contain runs f, which works beside a call's own goroutine, and turns its panic into an error.
func (m *Manager) contain(callID string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			m.metrics.faults.WithLabelValues("panic").Inc()
			m.Log.Error("a helper of a call panicked", "call", callID, "panic", v, "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	return f()
}

// Wait returns when no call is left, and nothing of one, or when ctx ends.
func (m *Manager) Wait(ctx context.Context) error { return m.late.wait(ctx) }

func (m *Manager) stories() []*story {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.calls))
}

// Views are the live calls, the oldest first.
func (m *Manager) Views() []View {
	stories := m.stories()
	views := make([]View, 0, len(stories))
	for _, s := range stories {
		views = append(views, s.snapshot())
	}
	slices.SortFunc(views, func(a, b View) int { return a.Started.Compare(b.Started) })
	return views
}

// Watch tells of changes: the channel holds one notice, and newer ones join it. Call stop when done.
func (m *Manager) Watch() (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	m.mu.Lock()
	m.watchers[ch] = struct{}{}
	m.mu.Unlock()
	return ch, func() {
		m.mu.Lock()
		delete(m.watchers, ch)
		m.mu.Unlock()
	}
}

func (m *Manager) changed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ch := range m.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// SetFacts keeps what an agent wrote of a call, in talk and in wrap-up. It gives each new request
// its identity; the first request's is the call's own. The errors are ErrNoCall, ErrNotYours and
// ErrBadFacts.
func (m *Manager) SetFacts(_ context.Context, callID, by string, f Facts) error {
	if err := f.validate(); err != nil {
		return err
	}
	s, err := m.of(callID, by)
	if err != nil {
		return err
	}
	f.By = by
	s.update(func(v *View) {
		if f.Requests, err = identified(callID, v.Facts.Requests, f.Requests); err == nil {
			v.Facts = f
		}
	})
	if err != nil {
		return err
	}
	s.note("facts", "the agent wrote the call up", map[string]string{"outcome": string(f.Outcome)})
	select {
	case s.orders <- order{kind: orderKeep, by: by}:
	default: // an act that waits to be carried out will write the checkpoint as well
	}
	return nil
}

// identified are requests with their identities. A request keeps the one it was given; it cannot take
// one of its own choice, which could be another call's, nor that of its neighbour.
func identified(callID string, old, requests []Request) ([]Request, error) {
	free := map[string]bool{callID: true}
	for _, r := range old {
		free[r.ID] = true
	}
	requests = slices.Clone(requests)
	for i, r := range requests {
		if r.ID != "" && !free[r.ID] {
			return nil, fmt.Errorf("%w: request %d: identity %q is not of this call, or there twice; leave it out for a new one", ErrBadFacts, i+1, r.ID)
		}
		delete(free, r.ID)
	}
	for i := range requests {
		switch {
		case requests[i].ID != "":
		case free[callID]:
			requests[i].ID = callID
			delete(free, callID)
		default:
			requests[i].ID = ulid.Make().String()
		}
	}
	return requests, nil
}

func (f Facts) validate() error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrBadFacts}, a...)...))
	}
	if f.Outcome != OutcomeNone && !slices.Contains(Outcomes(), f.Outcome) {
		bad("outcome %q is none of the set", f.Outcome)
	}
	if f.Feedback && (f.Name == "" || f.Contact == "") {
		bad("a caller who wants feedback leaves a name and a way to be reached (Art. 7)")
	}
	if len(f.Requests) > 20 {
		bad("%d requests; at most 20 fit in one call", len(f.Requests))
	}
	for i, r := range f.Requests {
		if !slices.Contains(Kinds(), r.Kind) {
			bad("request %d: kind %q is none of the five (Art. 6)", i+1, r.Kind)
		}
		if len(r.Summary) > 4000 {
			bad("request %d: the summary is longer than 4000 bytes", i+1)
		}
	}
	return errors.Join(errs...)
}

// FinishWrapUp ends the write-up, so that the hand-over goes at once.
func (m *Manager) FinishWrapUp(_ context.Context, callID, by string) error {
	return m.order(callID, by, order{kind: orderFinish, by: by})
}

// Emergency brings a service into a call as its agent asks (Art. 9(1)).
func (m *Manager) Emergency(_ context.Context, callID, by string, svc Service) error {
	if keyOf(svc) == 0 {
		return fmt.Errorf("%w: %q is no service", ErrBadFacts, svc)
	}
	s, err := m.of(callID, by)
	if err != nil {
		return err
	}
	if st := s.snapshot().Stage; st != StageTalk && st != StageService {
		return ErrNotInTalk
	}
	return m.order(callID, by, order{kind: orderEmergency, by: by, service: svc, at: time.Now()})
}

// Hangup ends a call. By is its agent, or a supervisor: whoever asks for it has checked that the person
// may. A caller without an agent is hung up wherever they are.
func (m *Manager) Hangup(ctx context.Context, callID, by string) error {
	s, err := m.of(callID, "")
	if err != nil {
		return err
	}
	if st := s.snapshot().Stage; st == StageTalk || st == StageService {
		return m.order(callID, "", order{kind: orderHangup, by: by})
	}
	s.note("hangup", "hung up by "+by, nil)
	ctx = context.WithoutCancel(ctx)
	leg := s.line()
	err = leg.Hangup(ctx, call.CauseNormal)
	if now := s.line(); now != leg { // a caller who is called back has answered meanwhile
		err = now.Hangup(ctx, call.CauseNormal)
	}
	return err
}

// Mark is the recording's offset now, for a request that begins here (Art. 8).
func (m *Manager) Mark(callID, by string) (time.Duration, error) {
	s, err := m.of(callID, by)
	if err != nil {
		return 0, err
	}
	return s.mark("request"), nil
}

// of is the live call of an agent; by "" is a supervisor, to whom every call is open.
func (m *Manager) of(callID, by string) (*story, error) {
	m.mu.Lock()
	s := m.calls[callID]
	m.mu.Unlock()
	if s == nil {
		return nil, ErrNoCall
	}
	if v := s.snapshot(); by != "" && v.Agent != by {
		return nil, ErrNotYours
	}
	return s, nil
}

func (m *Manager) order(callID, by string, o order) error {
	s, err := m.of(callID, by)
	if err != nil {
		return err
	}
	select {
	case s.orders <- o:
		return nil
	default:
		return fmt.Errorf("%w: the last act is still being carried out", ErrNotInTalk)
	}
}
