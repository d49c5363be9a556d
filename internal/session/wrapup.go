package session

import (
	"context"
	"encoding/json"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// The revisions of a request's hand-over. They are fixed, so that a hand-over that a killed node may
// or may not have made can be made again without a second effect.
const (
	revisionUrgent   = 1
	revisionRecorded = 2
)

// record begins the call's recording, once, when there is someone to hear: a talk, a message, danger.
// The call waits a moment for the disk; on a slow one it goes on, and the recording joins it later.
// Without room the call goes on unrecorded, and is marked so.
func (s *story) record(kind string) {
	switch {
	case s.recording() != nil:
		s.mark(kind)
		return
	case s.opening != nil:
		select {
		case o := <-s.opening:
			s.begun(o)
		default:
		}
		return
	}
	opening := make(chan opened, 1)
	s.opening = opening
	facts := RecordingFacts{CallID: s.id, Trunk: s.info.Trunk, Called: s.info.Called, Started: time.Now(), Node: s.m.cfg.Node}
	s.beside(func() error {
		defer close(opening) // a panic tells nothing, and is no reason to wait
		rec, err := s.m.Recorder.Start(s.leg.Context(), facts)
		opening <- opened{rec, err, kind}
		return nil
	})
	patience := time.NewTimer(patienceFor(kind))
	defer patience.Stop()
	select {
	case o := <-opening:
		s.begun(o)
	case <-patience.C:
		s.note("recording", "the disk is slow; the recording begins when it answers", nil)
	}
}

// patienceFor is how long a call waits for a disk that is slow: a talk must not be held up, and what is
// said into a message would be lost.
func patienceFor(kind string) time.Duration {
	switch kind {
	case "message":
		return 5 * time.Second
	case "danger":
		return 50 * time.Millisecond // the service is to be called within 300 ms of its key
	default:
		return 500 * time.Millisecond
	}
}

// opened is what became of a recording that was asked for.
type opened struct {
	rec  Recording
	err  error
	kind string
}

// begun takes a recording that has opened, and taps the caller's leg.
func (s *story) begun(o opened) {
	s.opening = nil
	if o.rec == nil {
		s.unrecorded("start", o.err)
		return
	}
	s.mu.Lock()
	s.rec = o.rec
	s.mu.Unlock()
	s.cdr.Recording = o.rec.ID()
	detach, err := s.leg.Tap(o.rec.Sink())
	if err != nil {
		s.unrecorded("tap", err)
	} else {
		s.detach, s.cdr.Evidence = detach, "recorded"
		s.update(func(v *View) { v.Evidence = "recorded" })
	}
	s.mark(o.kind)
	s.checkpoint()
}

func (s *story) unrecorded(step string, err error) {
	s.update(func(v *View) { v.Evidence = "none" })
	s.m.metrics.faults.WithLabelValues("recording").Inc()
	s.note("recording", "the call goes on unrecorded", map[string]string{"step": step})
	s.log.Error("the call goes on unrecorded", "step", step, "err", err)
}

func (s *story) recording() Recording {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec
}

// mark notes an event in the recording and returns its offset.
func (s *story) mark(kind string) time.Duration {
	rec := s.recording()
	if rec == nil {
		return 0
	}
	rec.Mark(kind, "")
	return rec.Offset()
}

// wrapUp waits for the agent to write up a call that an agent had: until it is done, or the time is
// over, or the process leaves.
func (s *story) wrapUp() {
	s.stopRecording()
	if s.offer == nil {
		return
	}
	s.update(func(v *View) { v.Agent, v.Extension = s.offer.Agent, s.offer.Extension }) // also when the next one was ringing
	s.stage(StageWrapUp, s.m.cfg.WrapUp)
	over := time.NewTimer(s.m.cfg.WrapUp)
	defer over.Stop()
	for {
		select {
		case o := <-s.orders:
			if o.kind == orderFinish {
				return
			}
			if o.kind == orderConduct {
				s.conducted(o)
			}
			s.checkpoint()
		case <-over.C:
			return
		case <-s.m.exit.closed:
			return
		}
	}
}

func (s *story) stopRecording() {
	if s.opening != nil {
		s.begun(<-s.opening) // the leg has ended, so that Start gives up; what it made is finished empty
	}
	if s.detach != nil {
		s.detach()
		s.detach = nil
	}
}

// settle closes the call's books: recording, hand-over, counters, CDR, ledger. The checkpoint goes last, and
// stays when the hand-over could not be kept, or the ledger not told, so that the next start does it.
func (s *story) settle(ctx context.Context) {
	s.stopRecording()
	kept := s.handOver(ctx)
	outcome := s.finalOutcome()
	if s.task == nil { // a call that the line placed counts for nothing
		s.m.Screener.Count(ctx, s.outcomeNow())
	}
	s.cdr.Outcome, s.cdr.EndReason, s.cdr.Language = string(outcome), string(s.reason), s.snapshot().Language
	s.cdr.CallerLeg = s.leg.Stats()
	s.m.metrics.calls.WithLabelValues(string(outcome), string(s.reason)).Inc()
	if err := s.m.Journal.SaveCDR(ctx, s.cdr); err != nil {
		s.m.metrics.faults.WithLabelValues("journal").Inc()
		s.log.Error("the CDR was not kept", "err", err)
	}
	s.log.Info("call ended", "outcome", outcome, "reason", s.reason, "agent", s.cdr.Agent,
		"evidence", s.cdr.Evidence, "seconds", int(s.cdr.Ended.Sub(s.info.At).Seconds()))
	s.owed = s.debt()
	if !kept || s.owed != "" {
		s.checkpoint() // with all that the agent wrote
	}
	if s.owed != "" {
		s.m.owe(s.owedCall(), kept)
	} else if kept {
		s.m.drop(ctx, s.id)
	}
}

// summary is the detail record as it stands, for the case that the agent's write-up is cut.
func (s *story) summary() []byte {
	cdr := s.cdr
	cdr.Outcome, cdr.EndReason, cdr.Language = string(s.finalOutcome()), string(s.reason), s.snapshot().Language
	b, err := json.Marshal(cdr)
	if err != nil {
		s.log.Error("the record of a call that is written up is not kept yet", "err", err)
	}
	return b
}

// drop forgets a call whose books are all kept.
func (m *Manager) drop(ctx context.Context, callID string) {
	if err := m.Journal.DropCheckpoint(ctx, callID); err != nil {
		m.Log.Warn("checkpoint not dropped; the next start sees that the call has its CDR", "call", callID, "err", err)
	}
}

func (s *story) answeredByAgent() time.Time {
	if s.offer == nil {
		return time.Time{}
	}
	return s.cdr.Connected
}

// finalOutcome is the agent's word, then the line's; a call that we cut counts against nobody.
func (s *story) finalOutcome() Outcome {
	switch s.reason {
	case call.EndFault, call.EndDrained, call.EndNodeLost:
		return OutcomeFault
	default: // somebody ended it on purpose
	}
	if o := s.snapshot().Facts.Outcome; o != OutcomeNone {
		return o
	}
	if s.outcome == OutcomeNone && s.cdr.Connected.IsZero() && s.task == nil {
		return OutcomeAbandoned
	}
	return s.outcome
}

// owes tells whether case intake is to be told of the call: somebody spoke.
func (s *story) owes() bool { return s.recording() != nil || s.offer != nil || s.urgent }

// handOver finishes the recording and gives every request of the call to the outbox.
func (s *story) handOver(ctx context.Context) (kept bool) {
	if !s.owes() {
		return true
	}
	overs := s.handOvers()
	if rec := s.recording(); rec != nil {
		sealed, err := rec.Finish(ctx)
		if err != nil {
			s.log.Error("the recording was not finished; the next start finishes it", "err", err)
			return false
		}
		for i := range overs {
			overs[i].Recording = &sealed
		}
	}
	kept = true
	for _, h := range overs {
		s.cdr.RequestIDs = append(s.cdr.RequestIDs, h.RequestID)
		if err := s.m.Intake.Submit(ctx, h); err != nil {
			kept = false
			s.m.metrics.faults.WithLabelValues("intake").Inc()
			s.log.Error("the hand-over was not kept; the next start makes it", "err", err)
		}
	}
	return kept
}

// handOvers is one event for each request of the call; a call without one still has its own.
func (s *story) handOvers() []HandOver {
	v := s.snapshot()
	requests := v.Facts.Requests
	if len(requests) == 0 {
		requests = []Request{{ID: s.id}}
	}
	overs := make([]HandOver, 0, len(requests))
	for _, r := range requests {
		facts := s.publicFacts()
		facts["kind"] = string(r.Kind)
		facts["mark_ms"] = r.Mark.Milliseconds()
		overs = append(overs, HandOver{Type: RequestRecorded, RequestID: r.ID, Revision: revisionRecorded,
			CallID: s.id, At: time.Now(), Urgent: s.urgency(r), Facts: facts, Sealed: s.sealed(r), Evidence: s.cdr.Evidence})
	}
	return overs
}

func (s *story) urgency(r Request) string {
	if r.Urgent == "" && s.cdr.Emergency != "" {
		return "emergency " + s.cdr.Emergency
	}
	return r.Urgent
}

// publicFacts are the facts of a hand-over that name nobody.
func (s *story) publicFacts() map[string]any {
	v := s.snapshot()
	return map[string]any{
		"trunk": v.Trunk, "called": v.Called, "identity": string(v.Identity), "language": v.Language,
		"queue": v.Queue, "agent": v.Agent, "reason": v.Reason, "started": v.Started.Format(time.RFC3339Nano),
		"outcome": string(s.finalOutcome()), "emergency": string(v.Emergency), "heard": v.Heard.Words, "feedback": v.Facts.Feedback,
	}
}

// sealed are the facts that name someone, encrypted to the recording's key. Without a recording there
// is no key of the call, and the recorder seals them to the agency alone.
func (s *story) sealed(r Request) []byte {
	v := s.snapshot()
	plain, err := json.Marshal(map[string]any{
		"caller": s.info.Caller.E164, "caller_raw": s.info.Caller.Raw, "name": v.Facts.Name,
		"contact": v.Facts.Contact, "summary": r.Summary, "note": v.Facts.Note, "collected": s.flow.Data,
	})
	if err != nil {
		s.log.Error("facts not encoded", "err", err)
		return nil
	}
	seal := s.m.Recorder.SealFacts
	if rec := s.recording(); rec != nil {
		seal = rec.SealFacts
	}
	out, err := seal(plain)
	if err != nil {
		s.log.Error("facts not sealed", "err", err)
	}
	return out
}

// prepared is the hand-over as a checkpoint keeps it.
func (s *story) prepared() []byte {
	b, err := json.Marshal(s.handOvers())
	if err != nil {
		s.log.Error("hand-over not encoded", "err", err)
	}
	return b
}
