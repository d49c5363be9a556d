package session

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
	"github.com/hotline12345/gateway/internal/journal"
)

// rig is a session on the wireless backend, with its rooms reduced to scripts. Every prompt is a clip
// of 100 ms that is noted when it is asked for.
type rig struct {
	t    *testing.T
	sw   *calltest.Fake
	m    *Manager
	stop func()

	mu       sync.Mutex
	said     []string
	verdicts []Verdict // the answers of admission, in turn; the last stays
	counted  []CallOutcome
	overs    []HandOver
	cdrs     []journal.CDR
	notes    []journal.Entry
	points   map[string]call.Checkpoint
	entries  []QueueEntry
	left     []LeaveReason
	declined []DeclineReason
	complete []call.EndReason
	tickets  chan *ticket
	flow     func(ctx context.Context, v Voice, at FlowPoint) (FlowExit, error)
	noSpace  bool
	panics   bool // music does
	full     bool
	desk     []string
	recorder *recorder
	ledger   book
	ears     chan *listener
	deaf     error // why nobody is heard
	reg      *prometheus.Registry
}

// in runs a test in a bubble with a rig in it.
func in(t *testing.T, body func(r *rig), change ...func(*Config)) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, sw: calltest.NewFake(), points: map[string]call.Checkpoint{}, tickets: make(chan *ticket, 8), ears: make(chan *listener, 8)}
		r.recorder = &recorder{r: r}
		r.ledger = book{r: r, tasks: map[string]CallBackTask{}, ends: map[string]CallBackResult{}}
		r.reg = prometheus.NewRegistry()
		r.flow = func(context.Context, Voice, FlowPoint) (FlowExit, error) {
			return FlowExit{Kind: ExitQueue, Queue: "default", Node: "to_agent"}, nil
		}
		cfg := Defaults()
		cfg.AnnounceAgent = false
		cfg.CallBack.Trunk = "out"
		for _, c := range change {
			c(&cfg)
		}
		var err error
		r.m, err = New(cfg, Deps{Log: slog.New(slog.DiscardHandler), Registerer: r.reg, CallBacks: &r.ledger, Seal: seal, Open: open, Switch: r.sw, Screener: r, Flow: r, Prompts: r, KeyWatch: func() KeyWatch { return &stars{} },
			Queue: r, Recorder: r.recorder, Intake: r, Journal: r, Desk: r, Hearing: r})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.sw.Serve(ctx, r.m.Handle) }()
		r.stop = sync.OnceFunc(func() {
			cancel()
			r.m.Drain()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if err := r.m.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		})
		body(r)
		r.stop()
	})
}

// seal stands for a cipher: it hides nothing, and refuses what it did not make.
func seal(n call.Number) []byte { return []byte("sealed " + n.E164) }

func open(b []byte) (call.Number, error) {
	digits, ok := strings.CutPrefix(string(b), "sealed ")
	if !ok {
		return call.Number{}, errors.New("not sealed by us")
	}
	return call.Number{E164: digits}, nil
}

// book is the ledger of call backs as a script.
type book struct {
	r     *rig
	mu    sync.Mutex
	away  bool
	tasks map[string]CallBackTask
	ends  map[string]CallBackResult // by call
	owed  []OwedCall
}

func (b *book) TakeCallBack(_ context.Context, task, agent, callID string) (CallBackTask, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, ok := b.tasks[task]
	if !ok {
		return t, ErrNoTask
	}
	delete(b.tasks, task)
	t.ID, t.Offer = task, Offer{Agent: agent, Extension: agent[1:], Token: "tok", Ring: 20 * time.Second}
	t.Ticket = &ticket{r: b.r, entry: QueueEntry{CallID: callID, Queue: t.Entry.Queue}, updates: make(chan QueueUpdate, 4)}
	return t, nil
}

func (b *book) EndCallBack(_ context.Context, _, callID string, result CallBackResult) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return errors.New("away")
	}
	if _, ok := b.ends[callID]; !ok {
		b.ends[callID] = result
	}
	return nil
}

func (b *book) Owe(_ context.Context, o OwedCall) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return errors.New("away")
	}
	b.owed = append(b.owed, o)
	return nil
}

// owes are the reasons for which callers are owed a call, so far.
func (b *book) owes() (whys []string) {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.owed {
		whys = append(whys, o.Why)
	}
	return whys
}

// stars is the emergency key as package ivr/emergency has it: 0, and *0 among digits.
type stars struct{ star bool }

func (s *stars) Press(key byte, _ time.Time, collecting bool) bool {
	fired := key == '0' && (s.star || !collecting)
	s.star = key == '*'
	return fired
}

var citizen = call.Number{E164: "+8613800138000", Raw: "13800138000"}

// dial brings a caller in.
func (r *rig) dial() *calltest.Party {
	return r.sw.Call(call.Info{Caller: citizen, Called: "12345", Trunk: "t", Identity: call.Verified})
}

func (r *rig) Screen(context.Context, ScreenRequest) Verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.verdicts) == 0 {
		return Verdict{Decision: Admit, Lease: newLease()}
	}
	v := r.verdicts[0]
	if len(r.verdicts) > 1 {
		r.verdicts = r.verdicts[1:]
	}
	return v
}

func (r *rig) Count(_ context.Context, o CallOutcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counted = append(r.counted, o)
}

type lease struct {
	banners  chan Banner
	released chan struct{}
	once     sync.Once
}

func newLease() *lease                  { return &lease{banners: make(chan Banner, 1), released: make(chan struct{})} }
func (l *lease) Phase(Phase)            {}
func (l *lease) Banners() <-chan Banner { return l.banners }
func (l *lease) Release()               { l.once.Do(func() { close(l.released) }) }

func (r *rig) Run(ctx context.Context, v Voice, at FlowPoint) (FlowExit, error) {
	return r.flow(ctx, v, at)
}

func (r *rig) Say(_ string, parts ...string) []*call.Clip {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, strings.Join(parts, " "))
	return []*call.Clip{calltest.Clip(parts[0], 500, 100*time.Millisecond)}
}

func (r *rig) Music() []*call.Clip {
	if r.panics {
		panic("no music")
	}
	return []*call.Clip{calltest.Clip("music", 300, time.Second)}
}

// ticket is a place in the scripted queue.
type ticket struct {
	r       *rig
	entry   QueueEntry
	updates chan QueueUpdate
	fenced  bool
	holds   chan struct{} // an act hangs until it is closed; nil for one that does not
}

func (r *rig) Enter(_ context.Context, e QueueEntry) (Ticket, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, e)
	if r.full {
		return nil, ErrQueueFull
	}
	t := &ticket{r: r, entry: e, updates: make(chan QueueUpdate, 4)}
	r.tickets <- t
	return t, nil
}

func (r *rig) Resume(_ context.Context, e QueueEntry, _ Offer) (Ticket, error) {
	return &ticket{r: r, entry: e, updates: make(chan QueueUpdate, 4)}, nil
}

func (t *ticket) Entry() string               { return t.entry.CallID + "/" + t.entry.Queue }
func (t *ticket) Updates() <-chan QueueUpdate { return t.updates }
func (t *ticket) offer(ext string) {
	t.updates <- QueueUpdate{Offer: &Offer{Agent: "p" + ext, Extension: ext, Token: "tok", Ring: 20 * time.Second}}
}
func (t *ticket) Accept(context.Context, Offer) error {
	t.hang()
	if t.fenced {
		return ErrFenced
	}
	return nil
}
func (t *ticket) Decline(_ context.Context, _ Offer, why DeclineReason) error {
	return t.note(func() { t.r.declined = append(t.r.declined, why) })
}
func (t *ticket) Complete(_ context.Context, _ Offer, by call.EndReason) error {
	return t.note(func() { t.r.complete = append(t.r.complete, by) })
}
func (t *ticket) Leave(_ context.Context, why LeaveReason) error {
	t.hang()
	return t.note(func() { t.r.left = append(t.r.left, why) })
}
func (t *ticket) hang() {
	if t.holds != nil {
		<-t.holds
	}
}
func (t *ticket) note(f func()) error {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	f()
	return nil
}

type recorder struct {
	r    *rig
	left []Recovered
	open []*recording
	slow time.Duration // of the disk
}

type recording struct {
	facts RecordingFacts
	start time.Time
	mu    sync.Mutex
	marks []string
	ended bool
	heard []byte // what the caller heard
}

func (c *recorder) Start(ctx context.Context, f RecordingFacts) (Recording, error) {
	select {
	case <-time.After(c.slow):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c.r.noSpace {
		return nil, ErrNoSpace
	}
	rec := &recording{facts: f, start: time.Now()}
	c.open = append(c.open, rec)
	return rec, nil
}
func (c *recorder) SealFacts(f []byte) ([]byte, error)           { return f, nil }
func (c *recorder) Recover(context.Context) ([]Recovered, error) { return c.left, nil }
func (c *recording) ID() string                                  { return c.facts.CallID }
func (c *recording) Sink() call.AudioSink                        { return &ear{c} }
func (c *recording) Offset() time.Duration                       { return time.Since(c.start) }
func (c *recording) SealFacts(f []byte) ([]byte, error)          { return f, nil }
func (c *recording) Mark(kind, _ string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marks = append(c.marks, kind)
}
func (c *recording) Finish(context.Context) (Sealed, error) {
	c.ended = true
	return Sealed{ID: c.ID(), SHA256Sealed: "hash", Duration: time.Since(c.start)}, nil
}

type ear struct{ *recording }

func (e *ear) Write(track call.Track, _ uint32, payload []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if track == call.TrackOut {
		e.heard = append(e.heard, payload...)
	}
}
func (*ear) Gap(call.Track) {}
func (*ear) Close()         {}

// kept is how long a tone is in the recording.
func (c *recording) kept(hz float64) (d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for frame := range slices.Chunk(c.heard, call.FrameBytes) {
		if calltest.Share(frame, hz) > 0.5 {
			d += 20 * time.Millisecond
		}
	}
	return d
}

func (r *rig) Submit(_ context.Context, h HandOver) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.overs = append(r.overs, h)
	return nil
}

func (r *rig) SaveCDR(_ context.Context, c journal.CDR) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cdrs = append(r.cdrs, c)
	return nil
}

func (r *rig) Call(_ context.Context, id string) (journal.Row, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.cdrs {
		if c.CallID == id {
			return journal.Row{CDR: c}, nil
		}
	}
	return journal.Row{}, journal.ErrNotFound
}

func (r *rig) Append(e journal.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, e)
}

func (r *rig) SaveCheckpoint(_ context.Context, c call.Checkpoint) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.points[c.CallID] = c
	return nil
}

func (r *rig) DropCheckpoint(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.points, id)
	return nil
}

func (r *rig) Checkpoints(context.Context) ([]call.Checkpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.points)), nil
}

func (r *rig) Login(_ context.Context, ext, person, pin string) error {
	if pin != "2468" {
		return errors.New("wrong PIN")
	}
	r.desk = append(r.desk, "login "+ext+" "+person)
	return nil
}
func (r *rig) Logout(_ context.Context, ext string) error {
	r.desk = append(r.desk, "logout "+ext)
	return nil
}
func (r *rig) Pause(_ context.Context, ext, _ string) error {
	r.desk = append(r.desk, "pause "+ext)
	return nil
}
func (r *rig) Ready(_ context.Context, ext string) error {
	r.desk = append(r.desk, "ready "+ext)
	return nil
}

// settled waits until nothing moves, lets d pass, and returns the only CDR.
func (r *rig) settled(d time.Duration) journal.CDR {
	r.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cdrs) != 1 {
		r.t.Fatalf("%d CDRs, want one; stages: %v", len(r.cdrs), r.stages())
	}
	return r.cdrs[0]
}

// stages are the stages that calls went through; r.mu is held.
func (r *rig) stages() (out []string) {
	for _, n := range r.notes {
		if n.Kind == "stage" {
			out = append(out, n.Text)
		}
	}
	return out
}

func (r *rig) path() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.stages(), " ")
}

func (r *rig) heard(prompt string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.said, func(s string) bool { return strings.Contains(s, prompt) })
}
