package session

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/journal"
)

// Recovered is a recording that a killed node left, finished at the next start.
type Recovered struct {
	Facts  RecordingFacts
	Sealed Sealed
}

// evidence is "partial" when the kill cut the recording, and "recorded" when it had been finished.
func (r Recovered) evidence() string {
	if r.Sealed.Partial {
		return "partial"
	}
	return "recorded"
}

// Recover finishes what a killed node left: each recording is handed over, marked partial, each call gets
// its CDR, and each caller who was cut is noted in the ledger. It runs before the first call is taken.
func (m *Manager) Recover(ctx context.Context) error {
	points, err := m.Journal.Checkpoints(ctx)
	if err != nil {
		return err
	}
	found, err := m.Recorder.Recover(ctx)
	if err != nil {
		return err
	}
	recordings := map[string]Recovered{}
	for _, r := range found {
		recordings[r.Facts.CallID] = r
	}
	var errs []error
	for _, c := range points {
		rec, ok := recordings[c.CallID]
		delete(recordings, c.CallID)
		errs = append(errs, m.recoverCall(ctx, leftover{c, rec, ok}))
	}
	for id, rec := range recordings { // a recording whose checkpoint was lost with the journal
		errs = append(errs, m.recoverCall(ctx, leftover{call.Checkpoint{CallID: id, At: rec.Facts.Started}, rec, true}))
	}
	m.forgoOthers(ctx)
	return errors.Join(errs...)
}

// leftover is what a killed process left of a call.
type leftover struct {
	call.Checkpoint
	rec      Recovered
	recorded bool
}

// recoverCall closes the books of one call. A call that has its CDR ended in an orderly way, and what is
// left to do of it is done again, which has no second effect; its CDR stays.
func (m *Manager) recoverCall(ctx context.Context, c leftover) error {
	_, err := m.Journal.Call(ctx, c.CallID)
	ended := err == nil
	if err != nil && !errors.Is(err, journal.ErrNotFound) {
		return err
	}
	ids, err := m.recoverHandOvers(ctx, c, ended)
	if err != nil {
		return err
	}
	caller := m.opened(c.Checkpoint)
	if !ended {
		cdr := m.lostCDR(c)
		cdr.Caller, cdr.RequestIDs = caller, ids
		if err := m.Journal.SaveCDR(ctx, cdr); err != nil {
			return err
		}
		m.Log.Warn("a call of a killed process was closed", "call", c.CallID, "stage", c.Stage, "recorded", c.recorded)
		m.metrics.calls.WithLabelValues(cdr.Outcome, cdr.EndReason).Inc()
	}
	_, adopts := m.Switch.(call.Adopter)
	why := c.debt(ended)
	owe := func() { m.drop(context.WithoutCancel(ctx), c.CallID) }
	if m.CallBacks != nil && why != "" && caller != (call.Number{}) {
		owed := m.whole(OwedCall{CallID: c.CallID, Queue: c.Queue, Language: c.Language, Caller: caller, Arrived: c.Placed,
			Left: c.lived(), Why: why}, c.Started)
		owe = func() { m.owe(owed, true) }
	}
	switch {
	case adopts && why != "" && !ended:
		m.owesUnlessAdopted(c.Checkpoint, owe)
	case m.CallBacks != nil && c.CallBack != "" && !ended:
		m.ledger.add(func(ctx context.Context) error {
			if err := m.CallBacks.EndCallBack(ctx, c.CallBack, c.CallID, CallBackAgentMissed); err != nil {
				return err
			}
			m.drop(ctx, c.CallID)
			return nil
		})
	default:
		owe()
	}
	return nil
}

// recoverHandOvers gives the outbox what a call owes case intake.
func (m *Manager) recoverHandOvers(ctx context.Context, c leftover, ended bool) (ids []string, err error) {
	var overs []HandOver
	if len(c.HandOvers) > 0 {
		if err := json.Unmarshal(c.HandOvers, &overs); err != nil {
			m.Log.Error("the checkpoint's hand-over does not read; the recording goes without it", "call", c.CallID, "err", err)
		}
	}
	if len(overs) == 0 && c.recorded {
		overs = []HandOver{{Type: RequestRecorded, RequestID: c.CallID, Revision: revisionRecorded, CallID: c.CallID}}
	}
	for _, h := range overs {
		h.At, h.Evidence = time.Now(), "none"
		if c.recorded {
			h.Recording, h.Evidence = &c.rec.Sealed, c.rec.evidence()
		}
		if h.Facts == nil {
			h.Facts = map[string]any{}
		}
		if !ended && len(c.Record) == 0 {
			h.Facts["end_reason"] = string(call.EndNodeLost)
		}
		if err := m.Intake.Submit(ctx, h); err != nil {
			return ids, err
		}
		ids = append(ids, h.RequestID)
	}
	return ids, nil
}

// lostCDR is the detail record of a call whose node was killed: what the checkpoint knew.
func (m *Manager) lostCDR(c leftover) journal.CDR {
	var done journal.CDR
	if len(c.Record) > 0 && json.Unmarshal(c.Record, &done) == nil { // the caller had gone before the kill
		if c.recorded {
			done.Recording, done.Evidence = c.rec.Sealed.ID, c.rec.evidence()
		}
		return done
	}
	cdr := journal.CDR{CallID: c.CallID, Node: m.cfg.Node, Started: c.Started, Queued: c.Placed, Ended: time.Now(), Agent: c.Agent,
		Trunk: c.Trunk, Called: c.Called, Identity: string(c.Identity), Queue: c.Queue,
		Outcome: string(OutcomeFault), EndReason: string(call.EndNodeLost), Language: c.Language, Evidence: "none"}
	if s := Stage(c.Stage); s == StageTalk || s == StageService {
		cdr.Connected = c.At
	}
	if c.recorded {
		facts := c.rec.Facts
		cdr.Trunk, cdr.Called = cmp.Or(cdr.Trunk, facts.Trunk), cmp.Or(cdr.Called, facts.Called)
		cdr.Recording, cdr.Evidence = c.rec.Sealed.ID, c.rec.evidence()
		if cdr.Started.IsZero() {
			cdr.Started = facts.Started
		}
	}
	if cdr.Started.IsZero() {
		cdr.Started = c.At
	}
	return cdr
}

// opened is the caller's number of a checkpoint.
func (m *Manager) opened(c call.Checkpoint) call.Number {
	if m.Open == nil || len(c.Caller) == 0 {
		return call.Number{}
	}
	n, err := m.Open(c.Caller)
	if err != nil { // another cluster's secret: the caller cannot be known any more
		m.metrics.faults.WithLabelValues("ledger").Inc()
		m.Log.Error("a caller's number does not open", "call", c.CallID, "err", err)
	}
	return n
}

// debt is why the caller is owed a call: what the end of the call said, or that the kill cut it.
func (c leftover) debt(ended bool) string {
	cut := []Stage{StageFlow, StageLeaseWait, StageQueue, StageRing, StageTalk, StageEmergency, StageService}
	switch {
	case c.Identity == call.Spoof:
		return ""
	case ended:
		return c.Owed
	case Stage(c.Stage) == StageReserve:
		return OwedFull
	case slices.Contains(cut, Stage(c.Stage)):
		return OwedNodeLost
	}
	return ""
}

// lived is the last moment that the call is known to have been up.
func (c leftover) lived() time.Time {
	at := c.At
	if end := c.rec.Facts.Started.Add(c.rec.Sealed.Duration); c.recorded && end.After(at) {
		at = end
	}
	return at
}
