package queue

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
)

// While Redis is away a node does for its own callers and agents what the scripts do for all, by the same
// tables. q.mu is held in all of this file. Redial and overflow wait for Redis.

// stepEntry takes a call through the table and applies the event that it makes.
func (q *Queue) stepEntry(t *ticket, step, name, reason string, a agent, token string) bool {
	to, ok := entrySteps.next(step, t.state)
	if !ok {
		return false
	}
	q.apply(event{name: name, call: t.entry.CallID, queue: t.queue, node: q.deps.Node, agent: a.ID, token: token,
		ext: a.Extension, phoneNode: a.Node, reason: reason, state: to, version: t.version + 1, score: t.score, task: t.task, numbered: t.sealed != "",
		elapsed: millis(time.Since(t.arrived))})
	return true
}

// stepAgent takes an agent through the table. Whoever comes to idle with a wish that waited has it granted.
func (q *Queue) stepAgent(a agent, step string, change func(*agent)) bool {
	to, ok := agentSteps.next(step, a.State)
	if !ok {
		return false
	}
	if change != nil {
		change(&a)
	}
	switch {
	case to == Idle && a.Next == "logout":
		to = LoggedOut
	case to == Idle && a.Next != "":
		to, a.Reason = Paused, strings.TrimPrefix(a.Next, "pause:")
	}
	if to == Idle || to == Paused || to == LoggedOut {
		a.Next = ""
	}
	if to == Idle {
		a.Reason = ""
	}
	if to != a.State {
		a.Since = q.clock()
	}
	a.State, a.changed = to, true
	a.Version++
	q.put(a)
	return true
}

func (q *Queue) enterLocal(t *ticket) error {
	waiting := 0
	for _, other := range q.tickets {
		if other.queue == t.queue && other.state == EntryWaiting {
			waiting++
		}
	}
	if waiting > t.cfg.MaxWaiting && !t.entry.Front { // the ticket itself is among them
		return session.ErrQueueFull
	}
	if !t.placed {
		t.score = q.clock() - millis(time.Since(t.arrived)) - millis(t.entry.Credit)
		if t.entry.Front {
			t.score -= frontCredit
		}
	}
	q.apply(event{name: EnterQueue, call: t.entry.CallID, queue: t.queue, node: q.deps.Node, state: EntryWaiting,
		version: t.version + 1, score: t.score})
	q.matchLocal()
	return nil
}

// frontCredit, in ms, is more than anyone can have waited.
const frontCredit = 1e13

func (q *Queue) acceptLocal(t *ticket, token string) error {
	if t.state == EntryTalk && t.offer.Token == token {
		return nil
	}
	if t.offer.Token != token || token == "" || !q.stepEntry(t, "accept", Connect, "", agent{ID: t.agent}, token) {
		return session.ErrFenced
	}
	if a, ok := q.holder(t); ok {
		q.stepAgent(a, "accept", func(a *agent) { a.Misses = 0 })
	}
	return nil
}

func (q *Queue) declineLocal(t *ticket, token, why string) error {
	if t.offer.Token != token || token == "" {
		return session.ErrFenced
	}
	a, held := q.holder(t)
	name := RingNoAnswer
	if why == string(session.DeclineCancelled) {
		name = RingCanceled
	}
	step := "decline"
	if t.task != "" {
		step = "leave" // nobody waits behind a call back
	}
	if !q.stepEntry(t, step, name, why, agent{ID: t.agent}, token) {
		return session.ErrFenced
	}
	t.deadline = time.Time{}
	if name == RingCanceled {
		t.deadline = time.Now().Add(5 * time.Second) // parked, since the caller is leaving
	}
	if held {
		q.missLocal(a, why)
	}
	q.matchLocal()
	return nil
}

// engagedFor is how long an agent gets no offer whose phone was found to be engaged, or out of reach for the first time;
// REST in line.lua is the same.
const engagedFor = 2 * time.Second

func (q *Queue) missLocal(a agent, why string) {
	release := func(a *agent) { a.Call, a.Token = "", "" }
	switch {
	case why == string(session.DeclineCancelled):
		q.stepAgent(a, "cancel", release)
	case why == string(session.DeclineEngaged), why == string(session.DeclineUnreachable) && a.Misses == 0:
		q.stepAgent(a, "engaged", func(a *agent) {
			release(a)
			a.Deadline, a.Last = q.clock()+millis(engagedFor), ""
			if why == string(session.DeclineUnreachable) {
				a.Misses = 1
			}
		})
	case a.Misses+1 >= q.cfg.AutoPauseAfter:
		q.stepAgent(a, "missout", func(a *agent) { release(a); a.Misses, a.Reason = 0, why })
	default:
		q.stepAgent(a, "miss", func(a *agent) { release(a); a.Misses++; a.Idle = q.clock() })
	}
}

func (q *Queue) completeLocal(t *ticket, token, name, reason string) error {
	if t.state == EntryGone {
		return nil
	}
	a, held := q.holder(t)
	if t.offer.Token != token || token == "" || !q.stepEntry(t, "complete", name, reason, agent{ID: t.agent}, token) {
		return session.ErrFenced
	}
	t.ended = name
	if !held {
		return nil
	}
	wrapup := t.cfg.Wrapup
	if t.task != "" {
		wrapup = 0 // the caller did not answer: there is nothing to write up
	}
	q.stepAgent(a, "complete", func(a *agent) {
		a.Call, a.Token, a.Deadline, a.Last = "", "", q.clock()+millis(wrapup), t.queue
	})
	q.wrapLocal()
	return nil
}

func (q *Queue) leaveLocal(t *ticket, name, reason string) error {
	if t.state == EntryGone {
		return nil
	}
	a, held := q.holder(t)
	if !q.stepEntry(t, "leave", name, reason, agent{ID: t.agent}, t.offer.Token) {
		return session.ErrFenced
	}
	t.ended = name
	if held {
		q.missLocal(a, string(session.DeclineCancelled))
		q.matchLocal()
	}
	return nil
}

// holder is the agent of this node whom a call holds.
func (q *Queue) holder(t *ticket) (agent, bool) {
	a, ok := q.agents[t.agent]
	return a, ok && t.offer.Token != "" && a.Token == t.offer.Token
}

// sweepLocal is the beat's work while Redis is away.
func (q *Queue) sweepLocal() {
	for _, t := range q.tickets {
		if t.state == EntryOffered && time.Now().After(t.deadline) {
			_ = q.declineLocal(t, t.offer.Token, string(session.DeclineNoAnswer)) // it holds its own offer: never fenced
		}
	}
	q.wrapLocal()
	q.matchLocal()
}

// wrapLocal ends the wrap-ups that are over.
func (q *Queue) wrapLocal() {
	for _, a := range q.agents {
		if a.State == Wrapup && a.Deadline <= q.clock() {
			q.stepAgent(a, "wrapped", func(a *agent) { a.Idle = q.clock() })
		}
	}
}

// matchLocal offers this node's callers, foremost first, the agents whose phones it owns.
func (q *Queue) matchLocal() {
	if time.Since(q.since) < q.grace {
		return
	}
	for _, t := range q.line() {
		if a, ok := q.idlest(t.queue); ok {
			token := seed()
			q.stepEntry(t, "offer", OfferMade, "", a, token)
			q.stepAgent(a, "offer", func(a *agent) { a.Call, a.Token = t.entry.CallID, token })
		}
	}
}

// line is this node's waiting callers in order; those who are parked are left out.
func (q *Queue) line() []*ticket {
	var out []*ticket
	for _, t := range q.tickets {
		if t.state == EntryWaiting && time.Now().After(t.deadline) {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *ticket) int {
		return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(a.entry.CallID, b.entry.CallID))
	})
	return out
}

// idlest is the agent of the lowest level who has been idle longest.
func (q *Queue) idlest(queue string) (agent, bool) {
	var able []agent
	for _, a := range q.agents {
		if a.State == Idle && a.Queues[queue] > 0 && q.deps.Owns(a.Extension) {
			able = append(able, a)
		}
	}
	if len(able) == 0 {
		return agent{}, false
	}
	return slices.MinFunc(able, func(a, b agent) int {
		return cmp.Or(cmp.Compare(a.Queues[queue], b.Queues[queue]), cmp.Compare(a.Idle, b.Idle), cmp.Compare(a.ID, b.ID))
	}), true
}

// agentLocal is what an agent does while Redis is away.
func (q *Queue) agentLocal(id, step, reason string, login *Agent) error {
	a, known := q.agents[id]
	if !known {
		a = agent{ID: id, State: LoggedOut, Idle: q.clock(), Version: q.clock()}
	}
	busy := a.State == Offered || a.State == Talk
	change := func(a *agent) { a.Reason = reason }
	switch {
	case step == "login":
		lost := a.State == Paused && a.Reason == reasonNodeLost
		if lost {
			step = "ready"
		}
		if login.Node != q.deps.Node {
			return fmt.Errorf("the phone is at the node %s: %w", login.Node, store.ErrAway)
		}
		change = func(a *agent) {
			a.Node, a.Extension, a.Queues = q.deps.Node, login.Extension, maps.Clone(login.Queues)
			if lost {
				a.Idle = q.clock()
			}
		}
	case step == "ready":
		change = func(a *agent) {
			if a.Next, a.Misses = "", 0; a.State != Idle && !busy {
				a.Idle = q.clock()
			}
		}
	case step == "wrapped":
		change = func(a *agent) { a.Idle = q.clock() }
	case busy && step == "pause":
		change = func(a *agent) { a.Next = "pause:" + reason }
	case busy:
		change = func(a *agent) { a.Next = "logout" }
	}
	if !known && step != "login" || !q.stepAgent(a, step, change) {
		return ErrRefused
	}
	q.matchLocal()
	return nil
}
