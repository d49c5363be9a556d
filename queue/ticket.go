package queue

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

var _ session.Ticket = (*ticket)(nil)

// ticket is a caller's place. Its fields below entry are guarded by the queue's mutex.
type ticket struct {
	q       *Queue
	updates chan session.QueueUpdate
	cfg     QueueConfig
	redial  string // the number's pseudonym
	sealed  string // the number itself
	arrived time.Time
	entry   session.QueueEntry

	queue    string // the present one; overflow changes it
	state    EntryState
	version  int64
	score    int64
	placed   bool   // Redis gave the score
	dropped  string // the last token given back
	agent    string
	offer    session.Offer
	deadline time.Time // of an offer, or of a cancelled one's return; while Redis is away
	talked   bool
	ended    string // the event that ended it
	left     time.Time
	task     string        // that the call pays, until its caller has answered
	guess    time.Duration // the first estimate of the wait, told at guessed
	guessed  time.Time
	told     session.QueueUpdate
}

func (q *Queue) newTicket(e session.QueueEntry, qc QueueConfig) *ticket {
	t := &ticket{q: q, updates: make(chan session.QueueUpdate, 1), cfg: qc, entry: e, queue: e.Queue,
		state: EntryWaiting, arrived: e.Arrived}
	// A call may enter again after it left (in danger, to the front). Its versions go on from a later
	// number, so that late news of the first entry is not taken for news of the second.
	t.version = time.Now().UnixMicro()
	if t.arrived.IsZero() {
		t.arrived = time.Now()
	}
	t.redial, t.sealed = q.conceal(e.Caller)
	return t
}

// conceal is what Redis is given of a number: a pseudonym, and the number sealed. A caller who withholds the
// number has neither.
func (q *Queue) conceal(n call.Number) (redial, sealed string) {
	if n.E164 == "" {
		return "", ""
	}
	if q.deps.Pseudonym != nil {
		redial = q.deps.Pseudonym(n)
	}
	if q.deps.Seal != nil {
		sealed = base64.StdEncoding.EncodeToString(q.deps.Seal(n))
	}
	return redial, sealed
}

// record is the ticket as the scripts are told of it.
func (t *ticket) record(now time.Time) record {
	r := record{ID: t.entry.CallID, Queue: t.queue, Node: t.q.deps.Node, Credit: millis(t.entry.Credit),
		Waited: max(0, millis(now.Sub(t.arrived))), Front: t.entry.Front, Max: t.cfg.MaxWaiting,
		Ring: millis(t.cfg.Ring), Wrap: millis(t.cfg.Wrapup), Miss: t.q.cfg.AutoPauseAfter,
		OverMS: millis(t.cfg.MaxWait), OverTo: t.cfg.OverflowTo, Redial: t.redial,
		Sealed: t.sealed, Task: t.task, Caller: t.entry.Caller.Masked(), Lang: t.entry.Language, Why: t.entry.Reason, V: t.version}
	if t.placed {
		r.Score = t.score
	}
	return r
}

// Entry implements [session.Ticket]; the entry is the call.
func (t *ticket) Entry() string { return t.entry.CallID }

// Updates implements [session.Ticket].
func (t *ticket) Updates() <-chan session.QueueUpdate { return t.updates }

// tell puts the news where the caller's session finds it, in place of older news; an offer that was
// not read yet stays in it. q.mu is held.
func (t *ticket) tell() {
	news := t.told
	select {
	case old := <-t.updates:
		if news.Offer == nil && old.Offer != nil && old.Offer.Token == t.offer.Token {
			news.Offer = old.Offer
		}
	default:
	}
	t.updates <- news // there is room: only tell sends, under the lock
	t.told.Offer = nil
}

// hold notes an offer and tells of it. q.mu is held.
func (t *ticket) hold(o session.Offer) {
	o.Ring = t.cfg.Ring
	t.deadline = time.Now().Add(t.cfg.Ring + 5*time.Second)
	t.offer, t.agent = o, o.Agent
	t.told.Offer = &o
	t.tell()
}

// Accept implements [session.Ticket].
func (t *ticket) Accept(ctx context.Context, o session.Offer) error {
	err := t.act(ctx, "accept", func(ctx context.Context) error {
		v, err := t.q.acted(ctx, t.q.scripts.accept, "", t.entry.CallID, o.Token)
		return t.stepped(v, err, EntryTalk, o.Token)
	}, func() error { return t.q.acceptLocal(t, o.Token) })
	if errors.Is(err, session.ErrFenced) {
		t.q.metrics.offers.WithLabelValues(t.entry.Queue, "fenced").Inc()
	}
	return err
}

// Decline implements [session.Ticket].
func (t *ticket) Decline(ctx context.Context, o session.Offer, why session.DeclineReason) error {
	switch why {
	case session.DeclineRejected, session.DeclineUnreachable, session.DeclineCancelled, session.DeclineEngaged:
	default:
		why = session.DeclineNoAnswer
	}
	return t.act(ctx, "decline", func(ctx context.Context) error {
		v, err := t.q.acted(ctx, t.q.scripts.decline, seed(), t.entry.CallID, o.Token, string(why), o.Holder)
		return t.stepped(v, err, EntryWaiting, o.Token)
	}, func() error { return t.q.declineLocal(t, o.Token, string(why)) })
}

// Complete implements [session.Ticket].
func (t *ticket) Complete(ctx context.Context, o session.Offer, by call.EndReason) error {
	name := CompleteCaller
	if by == call.EndAgent {
		name = CompleteAgent
	}
	return t.act(ctx, "complete", func(ctx context.Context) error {
		v, err := t.q.acted(ctx, t.q.scripts.complete, seed(), t.entry.CallID, o.Token, name, string(by))
		if err == nil && v == late && t.overrules(o.Token, name) {
			return nil
		}
		return t.stepped(v, err, EntryGone, name)
	}, func() error { return t.q.completeLocal(t, o.Token, name, string(by)) })
}

// overrules ends a talk that Redis does not know as one, as after a failover that lost its beginning: the node's word
// on its own call holds, and the node tells anew what it has.
func (t *ticket) overrules(token, name string) bool {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if t.state != EntryTalk || t.offer.Token != token {
		return false
	}
	t.ended = name
	t.q.drop(t)
	t.q.apart(errForgot)
	return true
}

// leaving says how a reason of leaving is told.
var leaving = map[session.LeaveReason]string{
	session.LeaveAbandon: Abandon, session.LeaveDrained: Abandon, session.LeaveEmergency: ExitWithKey,
	session.LeaveTimeout: ExitWithTimeout, session.LeaveOverflow: ExitWithTimeout,
}

// Leave implements [session.Ticket]. In a talk it fails with ErrFenced: that ends by Complete.
func (t *ticket) Leave(ctx context.Context, why session.LeaveReason) error {
	name, ok := leaving[why]
	if !ok {
		name, why = Abandon, session.LeaveAbandon
	}
	window := t.keeps(name)
	return t.act(ctx, "leave", func(ctx context.Context) error {
		v, err := t.q.acted(ctx, t.q.scripts.leave, seed(), t.entry.CallID, name, string(why), window)
		return t.stepped(v, err, EntryGone, name)
	}, func() error { return t.q.leaveLocal(t, name, string(why)) })
}

// connected notes that an agent answered, and how far the estimate was from the wait. q.mu is held.
func (t *ticket) connected() {
	t.talked = true
	if t.guess > 0 {
		t.q.metrics.guessed.WithLabelValues(t.queue).Observe(math.Abs((time.Since(t.guessed) - t.guess).Seconds()))
		t.guess = 0
	}
}

// keeps is how long, in ms, a place is kept after an event.
func (t *ticket) keeps(name string) int64 {
	if name == Abandon && t.task == "" {
		return millis(t.q.cfg.RedialWindow)
	}
	return 0
}

func (t *ticket) act(ctx context.Context, what string, remote func(context.Context) error, local func() error) error {
	if err := t.q.act(ctx, remote, local); err != nil {
		return fmt.Errorf("queue: %s: %w", what, err)
	}
	return nil
}

// late is a script's answer to an act that comes too late: the offer is no more in force.
const late = "0"

// stepped notes the state that a script's answer means, the call's version or [late]. The last argument is the
// offer's token, or the event that ends the call.
func (t *ticket) stepped(answer string, err error, to EntryState, by string) error {
	if err != nil {
		return err
	}
	version, err := strconv.ParseInt(answer, 10, 64)
	if err != nil {
		return fmt.Errorf("a script answered %q: %w", answer, err)
	}
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if to == EntryWaiting && t.task != "" {
		to = EntryGone // nobody waits behind a call back
	}
	switch {
	case version == 0:
		if t.state == EntryOffered && t.offer.Token == by { // or it would be told of as an offer that still rings
			t.state, t.dropped, t.offer, t.agent = EntryWaiting, by, session.Offer{}, ""
		}
		return session.ErrFenced
	case to == EntryGone:
		t.ended = by
		t.q.drop(t)
	case version > t.version: // the stream may have told of a later state already
		t.version, t.state = version, to
		switch to {
		case EntryTalk:
			t.connected()
		case EntryWaiting:
			t.dropped, t.offer, t.agent = t.offer.Token, session.Offer{}, ""
		}
	}
	return nil
}
