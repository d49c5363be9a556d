package session

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/journal"
)

// story is one call. Its methods but snapshot, update, line, note and mark belong to the call's goroutine.
type story struct {
	m       *Manager
	leg     call.Leg // the caller's; written under mu, once more at most: see met
	info    call.Info
	id      string
	log     *slog.Logger
	verdict Verdict
	pad     *keypad
	voice   *voice
	orders  chan order // from the console; 4, as one saves and ends a write-up in one act
	done    sync.WaitGroup
	faulted atomic.Bool // a helper panicked
	notes   atomic.Int32
	seal    func() []byte // the caller's number, sealed once

	mu   sync.Mutex
	view View
	rec  Recording
	due  time.Time // when the stage must be over; zero for one without an end of its own
	gone time.Time // when the caller's leg ended

	cdr     journal.CDR
	detach  func()
	opening chan opened // a recording that the disk has not opened yet
	reason  call.EndReason
	urgent  bool          // the urgent hand-over has gone
	offer   *Offer        // the agent who took the call last
	far     string        // the leg of the agent who talks
	ticket  Ticket        // whose Complete is due
	outcome Outcome       // what the line itself knows of the call
	flow    FlowExit      // the last exit of the flow
	ear     Ear           // nil for a caller who is not heard; written under mu
	asked   question      // that a caller's words may answer; under mu
	placed  time.Time     // when the caller first entered a queue: the place to keep
	noted   bool          // the queue knows that the caller left without an agent
	task    *CallBackTask // of a call that the line placed
	told    bool          // the ledger knows how the task came out
	owed    string        // why the line owes the caller a call, once that is known
}

// An order is an act of the console on a live call.
type order struct {
	kind    orderKind
	by      string
	service Service
	at      time.Time   // with orderEmergency: when it was asked for
	conduct ConductKind // with orderConduct
	clause  string      // of a reminder
	played  bool        // by a recording
}

type orderKind int

const (
	orderFinish orderKind = iota
	orderEmergency
	orderHangup
	orderKeep    // write what the agent entered into the checkpoint
	orderConduct // an act of Article 29
)

// begin makes the story of a call and shows it.
func (m *Manager) begin(leg call.Leg, info call.Info) *story {
	s := &story{
		m: m, leg: leg, info: info, id: info.ID,
		log:    m.Log.With("call", info.ID),
		orders: make(chan order, 4),
		pad:    &keypad{keys: make(chan byte, 32), watch: m.KeyWatch()},
	}
	s.pad.danger = func(*errDanger) {
		s.update(func(v *View) { v.Alert = true })
		s.note("danger", "the caller pressed the emergency key", nil)
	}
	s.pad.told = func(d call.Digit, private bool) {
		attrs := map[string]string{"source": string(d.Source)}
		if !private {
			attrs["key"] = string(d.Key)
		}
		s.note("digit", "key pressed", attrs)
	}
	s.voice = &voice{leg: leg, pad: s.pad, node: s.atNode, record: s.record, lasts: s.lasts, contain: s.contain}
	s.seal = sync.OnceValue(s.sealedCaller)
	s.view = View{
		CallID: s.id, Started: info.At, Since: info.At, Stage: StageScreened, Trunk: info.Trunk,
		Caller: s.shown(), Identity: info.Identity, Called: info.Called, Language: "zh", Gateway: m.cfg.Node,
	}
	s.cdr = journal.CDR{
		CallID: s.id, Node: m.cfg.Node, Trunk: info.Trunk, Caller: info.Caller, Called: info.Called,
		Identity: string(info.Identity), Started: info.At, Evidence: "none",
	}
	m.mu.Lock()
	m.calls[s.id] = s
	m.mu.Unlock()
	m.metrics.stage(StageScreened, 1)
	m.changed()
	s.lasts(answering)
	s.listen()
	return s
}

// listen reads the keys of the caller's leg for as long as it lives, and notes its end.
func (s *story) listen() {
	leg := s.leg
	s.beside(func() error { s.pad.run(leg); return nil })
	context.AfterFunc(leg.Context(), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.leg == leg {
			s.gone = time.Now()
		}
	})
}

// line is the caller's leg, for whoever is not the call's own goroutine.
func (s *story) line() call.Leg {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leg
}

// beside runs f beside the call, which waits for its end.
func (s *story) beside(f func() error) {
	s.done.Go(func() { _ = s.contain(f) }) // whoever needs to know is told by f itself
}

// contain runs f; its panic ends this call, and no other.
func (s *story) contain(f func() error) error {
	err := s.m.contain(s.id, f)
	if errors.Is(err, errPanic) {
		s.faulted.Store(true)
		s.hangup(s.line())
	}
	return err
}

// run is the call from its INVITE to the hand-over.
func (s *story) run(from *call.Checkpoint) {
	ctx := s.leg.Context()
	if from != nil {
		s.adopted(ctx, from)
	} else if !s.screened(ctx) {
		return
	}
	s.conclude(s.served(ctx, from))
}

// conclude is the end of a call by its cause. A caller in danger is helped first, as often as it takes.
func (s *story) conclude(err error) {
	ctx := s.leg.Context()
	for interrupted(err) && ctx.Err() == nil {
		if danger, ok := errors.AsType[*errDanger](err); ok {
			err = s.emergency(ctx, danger)
		} else {
			err = s.dismissed(ctx)
		}
	}
	s.ended(err)
	s.wrapUp()
}

// interrupted tells whether a stage was cut short by what concerns the whole call.
func interrupted(err error) bool {
	_, danger := errors.AsType[*errDanger](err)
	return danger || errors.Is(err, errLeaving)
}

// screened asks admission, and answers the call or refuses it.
func (s *story) screened(ctx context.Context) bool {
	s.judged(s.m.Screener.Screen(ctx, s.screenRequest()))
	if s.verdict.Decision == RejectNet {
		s.outcome, s.reason = OutcomeRefused, call.EndRejected
		if err := s.leg.Reject(ctx, call.CauseForbidden); err != nil {
			s.log.Warn("reject failed", "err", err)
		}
		return false
	}
	if err := s.leg.Answer(ctx); err != nil {
		s.ended(err)
		return false
	}
	s.cdr.Answered = time.Now()
	s.attend()
	return true
}

// judged takes admission's word.
func (s *story) judged(v Verdict) {
	s.verdict = v
	s.cdr.Decision, s.cdr.FailOpen = string(v.Decision), v.FailOpen
	s.update(func(w *View) { w.Decision, w.Banner = v.Decision, v.Banner })
	s.note("screened", string(v.Decision), map[string]string{"fail_open": strconv.FormatBool(v.FailOpen)})
}

// shown is the caller's number as people see it: masked, or nothing when the caller withheld it.
func (s *story) shown() string {
	if s.info.Withheld {
		return call.Number{}.Masked()
	}
	return s.info.Caller.Masked()
}

func (s *story) screenRequest() ScreenRequest {
	return ScreenRequest{CallID: s.id, Caller: s.info.Caller, Identity: s.info.Identity,
		OwnNumber: s.info.OwnNumber, Trunk: s.info.Trunk, Called: s.info.Called, At: s.info.At}
}

// served is the ordinary way of an answered call. It returns an *errDanger when the caller pressed
// the emergency key, and the leg's cause when it ended.
func (s *story) served(ctx context.Context, from *call.Checkpoint) error {
	if from != nil {
		return s.goesOn(ctx, from)
	}
	if s.info.Reserve {
		return s.reserve(ctx)
	}
	return s.admitted(ctx)
}

// admitted is the way that admission's word opens. A measure may have begun while the caller waited.
func (s *story) admitted(ctx context.Context) error {
	if s.verdict.Decision == QueueLease {
		if err := s.leaseWait(ctx); err != nil {
			return err
		}
	}
	if s.verdict.Decision == IVROnly {
		return s.suspended(ctx)
	}
	return s.walk(ctx, FlowPoint{Language: s.snapshot().Language})
}

// walk runs the flow from a point, and goes where it leads.
func (s *story) walk(ctx context.Context, at FlowPoint) error {
	at.Called, at.Trunk, at.Caller, at.Now = s.info.Called, s.info.Trunk, s.info.Caller, time.Now()
	s.phase(PhaseIVR)
	exit, err := s.inFlow(ctx, at)
	if interrupted(err) || ctx.Err() != nil {
		return err
	}
	if err != nil {
		s.log.Error("the flow failed; the caller goes to a person", "err", err)
		exit = FlowExit{Kind: ExitQueue, Queue: s.m.cfg.DefaultQueue}
	}
	s.flow = exit
	if exit.Language != "" {
		s.update(func(v *View) { v.Language = exit.Language })
	}
	switch exit.Kind {
	case ExitEmergency:
		return &errDanger{Service: exit.Service, At: time.Now()}
	case ExitMessage:
		s.outcome, s.reason = OutcomeMessage, call.EndLine
		return nil
	case ExitTransfer:
		return s.transfer(ctx, exit.Endpoint)
	case ExitHangup:
		s.reason = call.EndLine
		return nil
	default:
		return s.queued(ctx, QueueEntry{Queue: exit.Queue, Credit: exit.Credit, Reason: exit.Node})
	}
}

func (s *story) inFlow(ctx context.Context, at FlowPoint) (FlowExit, error) {
	ctx, release := s.enter(ctx, StageFlow, s.m.cfg.FlowStuck)
	defer release()
	return s.m.Flow.Run(ctx, s.voice, at)
}

// enter begins a stage in which the caller waits: a context that the emergency key ends, and the node's
// leaving; the metric, and the checkpoint, for which a disk may be waited for, but not the key.
func (s *story) enter(ctx context.Context, stage Stage, most time.Duration) (context.Context, func()) {
	guarded, release := s.pad.guard(ctx)
	stay := context.AfterFunc(s.m.leaving(), func() { s.pad.cut(errLeaving) })
	s.stage(stage, most)
	return guarded, func() { stay(); release() }
}

// stage begins a stage. It lasts at most as long as is said; 0 is a stage that others end.
func (s *story) stage(stage Stage, most time.Duration) {
	var old Stage
	s.lasts(most)
	s.update(func(v *View) { old, v.Stage, v.Since = v.Stage, stage, time.Now() })
	s.m.metrics.stage(old, -1)
	s.m.metrics.stage(stage, 1)
	s.note("stage", string(stage), nil)
	s.checkpoint()
}

// checkpoint writes where the call stands. A failure is noted and the call goes on.
func (s *story) checkpoint() {
	v := s.snapshot()
	c := call.Checkpoint{CallID: s.id, LegID: s.leg.Info().ID, Stage: string(v.Stage), FlowNode: v.Node,
		Language: v.Language, Agent: v.Agent, At: v.Since, Trunk: v.Trunk, Called: v.Called, Identity: v.Identity,
		Caller: s.seal(), Started: v.Started, Queue: v.Queue, Placed: s.placed, Owed: s.owed, AgentLeg: s.far, Emergency: s.cdr.Emergency}
	if s.task != nil && s.cdr.Answered.IsZero() {
		c.CallBack = s.task.ID
	}
	if s.ticket != nil {
		c.QueueEntry = s.ticket.Entry()
		c.Offer = s.pledge()
	}
	if rec := s.recording(); rec != nil {
		c.Recording = rec.ID()
	}
	if s.owes() {
		c.HandOvers = s.prepared()
	}
	if !s.cdr.Ended.IsZero() {
		c.Record = s.summary()
	}
	if err := s.m.Journal.SaveCheckpoint(context.WithoutCancel(s.leg.Context()), c); err != nil {
		s.m.metrics.faults.WithLabelValues("checkpoint").Inc()
		s.log.Warn("checkpoint not written", "err", err)
	}
}

func (s *story) atNode(node, language string) {
	s.lasts(s.m.cfg.FlowStuck)
	s.update(func(v *View) { v.Node, v.Language = node, language })
	s.note("node", node, nil)
	s.checkpoint()
}

func (s *story) phase(p Phase) {
	if s.verdict.Lease != nil {
		s.verdict.Lease.Phase(p)
	}
}

// say plays prompts by identity, in the caller's language.
func (s *story) say(ctx context.Context, barge bool, parts ...string) error {
	return s.voice.Say(ctx, barge, s.m.Prompts.Say(s.snapshot().Language, parts...)...)
}

func (s *story) snapshot() View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view
}

func (s *story) update(change func(*View)) {
	s.mu.Lock()
	change(&s.view)
	s.mu.Unlock()
	s.m.changed()
}

// maxNotes bounds a call's timeline: the journal shows a thousand lines of a call, SIP's among them.
const maxNotes = 800

func (s *story) note(kind, text string, attrs map[string]string) {
	switch n := s.notes.Add(1); {
	case n > maxNotes:
		return
	case n == maxNotes:
		kind, text, attrs = "timeline", "what follows is too much for a timeline, and is not kept", nil
	}
	s.m.Journal.Append(journal.Entry{CallID: s.id, At: time.Now(), Kind: kind, Text: text, Attrs: attrs})
}

// ended notes why the call is over, unless a stage knew better, and hangs up.
func (s *story) ended(err error) {
	ended, gone := errors.AsType[*call.Ended](err)
	if !gone {
		ended, gone = errors.AsType[*call.Ended](context.Cause(s.leg.Context()))
	}
	switch {
	case s.faulted.Load():
		s.reason = call.EndFault
	case s.reason != "":
	case gone && ended.Reason != "":
		s.reason = ended.Reason
	case gone && ended.Remote && s.cdr.Answered.IsZero():
		s.reason = call.EndCancelled
	case gone && ended.Remote:
		s.reason = call.EndCaller
	case err != nil && !gone:
		s.reason = call.EndFault
		s.log.Error("the call ended by a fault", "err", err)
	default:
		s.reason = call.EndLine
	}
	if gone {
		s.cdr.Cause = int(ended.Cause)
	}
	s.cdr.Ended = time.Now()
	s.hangup(s.leg)
}

// close is the end of every story, a panicking one included.
func (s *story) close() {
	if s.cdr.Ended.IsZero() {
		s.cdr.Ended = time.Now()
	}
	if s.reason == "" {
		s.reason = call.EndFault
	}
	if s.verdict.Lease != nil {
		s.verdict.Lease.Release()
	}
	s.hangup(s.leg)
	s.done.Wait()
	if s.task != nil {
		s.callBackEnded(CallBackAgentMissed) // a panic is no attempt of the caller's
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.leg.Context()), settling)
	defer cancel()
	s.forsaken(ctx)
	s.settle(ctx)
	s.m.mu.Lock()
	delete(s.m.calls, s.id)
	s.m.mu.Unlock()
	s.m.metrics.stage(s.snapshot().Stage, -1)
	s.m.changed()
}

// forsaken gives back the place in the queue that a panic left, and its agent.
func (s *story) forsaken(ctx context.Context) {
	if s.ticket == nil {
		return
	}
	s.noted = s.offer == nil // an agent who had the call is told of its end, and the ledger is not
	var errs []error
	if s.offer != nil {
		errs = append(errs, s.ticket.Complete(ctx, *s.offer, s.reason))
	}
	errs = append(errs, s.ticket.Leave(ctx, LeaveAbandon))
	for _, err := range errs {
		if err != nil && !errors.Is(err, ErrFenced) { // one of the two comes too late
			s.log.Warn("the place in the queue was not given back", "err", err)
		}
	}
}
