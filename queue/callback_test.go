package queue

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
)

// shelf is a node's copy of the ledger that a test can look into.
type shelf struct {
	mu      sync.Mutex
	records map[string]journal.CallBackRecord
}

func (s *shelf) SaveCallBack(_ context.Context, r journal.CallBackRecord) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records == nil {
		s.records = make(map[string]journal.CallBackRecord)
	}
	if old, ok := s.records[r.ID]; !ok || !r.Updated.Before(old.Updated) {
		s.records[r.ID] = r
	}
	return nil
}

func (s *shelf) CallBackRecords(context.Context) ([]journal.CallBackRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.records)), nil
}

// from is a caller with a number.
func from(i int) func(*session.QueueEntry) {
	return func(e *session.QueueEntry) { e.Caller = number(i) }
}

// task is a number's task: the zero value when there is none.
func (n *node) task(i int) CallBack {
	n.t.Helper()
	for _, closed := range []bool{false, true} {
		list, err := n.CallBacks(n.t.Context(), closed)
		n.must(err)
		for _, c := range list {
			if c.ID == pseudonym(number(i)) {
				return c
			}
		}
	}
	return CallBack{}
}

// missed makes a task of the number.
func (n *node) missed(id string, i int) CallBack {
	n.t.Helper()
	n.must(n.enter(id, from(i)).Leave(n.t.Context(), session.LeaveAbandon))
	c := n.task(i)
	if c.State != "open" {
		n.t.Fatalf("after a missed call: %+v", c)
	}
	return c
}

func (n *node) takeTask(i int, agent, id string) session.CallBackTask {
	n.t.Helper()
	taken, err := n.TakeCallBack(n.t.Context(), pseudonym(number(i)), agent, id)
	n.must(err)
	return taken
}

func TestOneTaskANumber(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		first := n.enter("c1", from(1), func(e *session.QueueEntry) { e.Arrived, e.Language = time.Now().Add(-time.Minute), "en" })
		n.must(first.Leave(t.Context(), session.LeaveAbandon))
		one := n.task(1)
		if age := time.Since(one.Since); one.Missed != 1 || one.CallID != "c1" || one.Why != "abandon" || one.Caller != "138****0001" ||
			one.Language != "en" || age < 59*time.Second || age > 90*time.Second {
			t.Fatalf("the task is %+v", one)
		}
		n.login("n1a", "general")
		ringing := n.enter("c2", from(1), func(e *session.QueueEntry) { e.Arrived = time.Now() })
		n.offer(ringing)
		n.must(ringing.Leave(t.Context(), session.LeaveDrained))
		two := n.task(1)
		if two.Missed != 2 || two.CallID != "c2" || two.Why != "drained" || !two.Since.Equal(one.Since) {
			t.Fatalf("after a second miss: %+v", two)
		}
		other := n.enter("c3", from(1))
		n.must(other.Leave(t.Context(), session.LeaveEmergency)) // to a service: nobody is owed
		n.must(n.Ready(t.Context(), "n1a"))
		answered := n.enter("c4", from(1))
		n.must(answered.Accept(t.Context(), n.offer(answered)))
		if c := n.task(1); c.State != "closed" || c.Ending != "answered" || c.ClosedBy != "n1a" || c.Closed.IsZero() || c.Missed != 2 {
			t.Fatalf("after an answer: %+v", c)
		}
		n.must(answered.Complete(t.Context(), answered.(*ticket).offer, call.EndCaller))
		again := n.missed("c5", 1)
		if again.Missed != 1 || again.Ending != "" || again.Attempts != 0 {
			t.Fatalf("missed again: %+v", again)
		}
	})
}

func TestACallerWithoutANumberIsCounted(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		for id, caller := range map[string]call.Number{"c1": {}, "c2": {Raw: "anonymous"}} {
			ticket := n.enter(id, func(e *session.QueueEntry) { e.Caller = caller })
			n.must(ticket.Leave(t.Context(), session.LeaveAbandon))
		}
		n.must(n.Owe(t.Context(), session.OwedCall{CallID: "c3", Queue: "general"}))
		n.await("three callers are counted", func() bool { return count(n.metrics.unnumbered) == 3 })
		if list, err := n.CallBacks(t.Context(), false); err != nil || len(list) != 0 {
			t.Fatalf("the ledger is %+v, %v", list, err)
		}
	})
}

func TestTheNumberIsNotInRedisInClear(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.missed("c1", 1)
		n.enter("c2", from(1))
		for _, key := range b.store.Blocking().Keys(t.Context(), "*").Val() {
			for _, text := range []string{b.store.Blocking().HGetAll(t.Context(), key).String(), b.store.Blocking().XRange(t.Context(), key, "-", "+").String()} {
				if strings.Contains(text, strings.TrimPrefix(number(1).E164, "+86")) {
					t.Errorf("%s: %s", key, text)
				}
			}
		}
	})
}

func TestACallBackFromTheClickToTheAnswer(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.login("n1a", "general")
		n.must(n.Pause(t.Context(), "n1a", "tea"))
		owed := n.missed("c1", 1)
		taken := n.takeTask(1, "n1a", "b1")
		if taken.Number != number(1) || taken.Entry.CallID != "b1" || !taken.Entry.Arrived.Equal(owed.Since) || taken.Offer.Agent != "n1a" ||
			taken.Offer.Ring != 20*time.Second || taken.Entry.Queue != "general" {
			t.Fatalf("taken: %+v", taken)
		}
		if again := n.takeTask(1, "n1a", "b1"); again.Offer.Token != taken.Offer.Token { // twice is once
			t.Fatalf("asked again: %+v", again.Offer)
		}
		if a, c := n.agent("n1a"), n.task(1); a.State != Offered || a.CallID != "b1" || c.State != "taken" || c.By != "n1a" {
			t.Fatalf("%+v, %+v", a, c)
		}
		if line := n.lines()[0]; line.Waiting != 0 {
			t.Fatalf("a call back stands in the line: %+v", line)
		}
		n.must(taken.Ticket.Accept(t.Context(), taken.Offer))
		if c := n.task(1); c.State != "taken" { // the agent answered, not yet the caller
			t.Fatalf("in the agent's ear: %+v", c)
		}
		n.must(n.EndCallBack(t.Context(), taken.ID, "b1", session.CallBackAnswered))
		n.must(n.EndCallBack(t.Context(), taken.ID, "b1", session.CallBackAnswered))
		if c := n.task(1); c.State != "closed" || c.Ending != "answered" || c.ClosedBy != "n1a" || c.Attempts != 1 || c.LastResult != "answered" {
			t.Fatalf("after the answer: %+v", c)
		}
		if got := count(n.metrics.attempts.WithLabelValues("general", "answered")); got != 1 {
			t.Errorf("%v attempts were counted", got)
		}
		n.must(taken.Ticket.Complete(t.Context(), taken.Offer, call.EndCaller))
		n.awaitAgent("n1a", Wrapup)
		n.must(n.FinishWrapUp(t.Context(), "n1a"))
		if a := n.agent("n1a"); a.State != Paused || a.Reason != "tea" {
			t.Errorf("the pause goes on after it: %+v", a)
		}
	})
}

func TestWhoMayTakeACallBack(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		take := func(agent, id string, want error) {
			t.Helper()
			if _, err := n.TakeCallBack(t.Context(), pseudonym(number(1)), agent, id); !errors.Is(err, want) {
				t.Errorf("%s takes it: %v, want %v", agent, err, want)
			}
		}
		n.login("n1a", "general")
		n.login("n1b", "general")
		take("n1a", "b1", session.ErrNoTask)
		n.missed("c1", 1)
		n.must(n.Ready(t.Context(), "n1a"))
		take("nobody", "b1", session.ErrAgentBusy)
		caller := n.enter("c2")
		o := n.offer(caller)
		take(o.Agent, "b1", session.ErrAgentBusy)
		n.must(caller.Accept(t.Context(), o))
		take(o.Agent, "b1", session.ErrAgentBusy)
		n.must(caller.Complete(t.Context(), o, call.EndCaller))
		n.takeTask(1, o.Agent, "b1") // in wrap-up
		free := map[string]string{"n1a": "n1b", "n1b": "n1a"}[o.Agent]
		take(free, "b2", session.ErrTaskTaken)
		n.missed("c3", 2)
		n.must(n.CloseCallBack(t.Context(), pseudonym(number(2)), "boss", "called from the desk"))
		if err := n.CloseCallBack(t.Context(), pseudonym(number(2)), "boss", "again"); !errors.Is(err, session.ErrNoTask) {
			t.Errorf("closed twice: %v", err)
		}
		if c := n.task(2); c.Ending != "dismissed" || c.ClosedBy != "boss" || c.Note != "called from the desk" {
			t.Errorf("%+v", c)
		}
		if _, err := n.TakeCallBack(t.Context(), pseudonym(number(2)), free, "b2"); !errors.Is(err, session.ErrNoTask) {
			t.Errorf("a closed task: %v", err)
		}
	})
}

// However an attempt fails, the caller is not on the line and must not stand in a queue.
func TestAnAttemptThatFails(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.missed("c1", 1)
		n.login("n1a", "general")
		settle := func(id string, r session.CallBackResult) {
			t.Helper()
			n.must(n.EndCallBack(t.Context(), pseudonym(number(1)), id, r))
		}
		state := func(what, state string, attempts int) {
			t.Helper()
			if c, line := n.task(1), n.lines()[0]; c.State != state || c.Attempts != attempts || line.Waiting != 0 {
				t.Fatalf("%s: %+v, %d wait", what, c, line.Waiting)
			}
		}
		missed := n.takeTask(1, "n1a", "b1")
		n.must(missed.Ticket.Decline(t.Context(), missed.Offer, session.DeclineNoAnswer))
		settle("b1", session.CallBackAgentMissed)
		state("the agent missed", "open", 0)
		if a := n.agent("n1a"); a.State != Paused || a.Reason != "noanswer" {
			t.Fatalf("the agent is %+v", a)
		}
		n.takeTask(1, "n1a", "b2")
		b.due(n, "offers", "b2") // a session that forgot its offer
		state("the sweep ended it", "open", 0)
		n.must(n.Ready(t.Context(), "n1a"))

		for i, r := range []session.CallBackResult{session.CallBackNoAnswer, session.CallBackBusy, session.CallBackFailed} {
			id := []string{"b3", "b4", "b5"}[i]
			taken := n.takeTask(1, "n1a", id)
			n.must(taken.Ticket.Accept(t.Context(), taken.Offer))
			if i == 1 { // in either order
				n.must(taken.Ticket.Complete(t.Context(), taken.Offer, call.EndCaller))
			}
			settle(id, r)
			settle(id, r)
			if i != 1 {
				n.must(taken.Ticket.Complete(t.Context(), taken.Offer, call.EndCaller))
			}
			if a := n.agent("n1a"); a.State != Idle {
				t.Fatalf("there is nothing to write up: %+v", a)
			}
			if i < 2 {
				state(string(r), "open", i+1)
				if c := n.task(1); c.LastTry.IsZero() || c.NextTry.Sub(c.LastTry) != b.cfg.CallBack.Between {
					t.Errorf("the next try is not told: %+v", c)
				}
			}
		}
		state("the attempts are used up", "closed", 3)
		if c := n.task(1); c.Ending != "unreached" || c.LastResult != "failed" {
			t.Errorf("%+v", c)
		}
	})
}

func TestATaskWhoseCallVanishedIsOpenAgain(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		dying, n := b.node("n1"), b.node("n2")
		n.login("n2a", "general")
		n.missed("c1", 1)
		n.must(n.Ready(t.Context(), "n2a"))
		taken := dying.takeTask(1, "n2a", "b1")
		dying.must(taken.Ticket.Accept(t.Context(), taken.Offer))
		dying.stop()
		b.due(n, "nodes", "n1")
		if c := n.task(1); c.State != "open" || c.Missed != 1 {
			t.Fatalf("its node died: %+v", c)
		}
		n.awaitAgent("n2a", Wrapup) // the phone may hang in the dead call
		n.takeTask(1, "n2a", "b2")
		if err := b.store.Blocking().Del(t.Context(), prefix+":c:b2").Err(); err != nil { // as a failover may lose it
			t.Fatal(err)
		}
		b.due(n, "cbl", pseudonym(number(1)))
		if c := n.task(1); c.State != "open" {
			t.Fatalf("its call vanished: %+v", c)
		}
	})
}

// A caller who was reached and whose agent's phone fails waits on, as the same call, at the old place.
func TestACallBackWhoseAgentIsLostWaitsOn(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.login("n1a", "general")
		n.must(n.Pause(t.Context(), "n1a", "tea"))
		owed := n.missed("c1", 1)
		taken := n.takeTask(1, "n1a", "b1")
		n.must(taken.Ticket.Accept(t.Context(), taken.Offer))
		n.must(n.EndCallBack(t.Context(), taken.ID, "b1", session.CallBackAnswered))
		n.must(taken.Ticket.Complete(t.Context(), taken.Offer, call.EndAgent))
		n.enter("c2", from(2), func(e *session.QueueEntry) { e.Arrived = owed.Since.Add(time.Millisecond) })
		entry := taken.Entry
		waiting, err := n.Enter(t.Context(), entry)
		n.must(err)
		if line := n.lines()[0].Entries; len(line) != 2 || line[0].CallID != "b1" {
			t.Fatalf("the line is %+v", line)
		}
		n.must(waiting.Leave(t.Context(), session.LeaveAbandon))
		if c := n.task(1); c.State != "open" || c.CallID != "b1" || c.Since.After(owed.Since) {
			t.Fatalf("who gives up then is owed again: %+v", c)
		}
	})
}

func TestAKilledNodesCallersAreInTheLedger(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		dying, n := b.node("n1"), b.node("n2")
		n.login("n2a", "general")
		talking := dying.enter("c1", from(1))
		n.must(talking.Accept(t.Context(), dying.offer(talking)))
		dying.enter("c2", from(2), func(e *session.QueueEntry) { e.Arrived = time.Now().Add(-time.Minute) })
		dying.stop()
		b.due(n, "nodes", "n1")
		for i, id := range map[int]string{1: "c1", 2: "c2"} {
			if c := n.task(i); c.State != "open" || c.Why != "node_lost" || c.CallID != id || c.Missed != 1 {
				t.Errorf("%s: %+v", id, c)
			}
		}
		// The restarted node finds the same calls in its own books.
		owe := session.OwedCall{CallID: "c1", Queue: "general", Caller: number(1), Arrived: time.Now(), Left: time.Now(), Why: "node_lost"}
		n.must(n.Owe(t.Context(), owe))
		if c := n.task(1); c.Missed != 1 {
			t.Errorf("noted twice: %+v", c)
		}
		// The redial is answered at another node; what is told late of an earlier moment changes nothing.
		n.must(n.FinishWrapUp(t.Context(), "n2a"))
		redial := n.enter("c3", from(2))
		n.must(redial.Accept(t.Context(), n.offer(redial)))
		if c := n.task(2); c.Ending != "answered" || c.ClosedBy != "n2a" {
			t.Errorf("after the redial: %+v", c)
		}
		owe.CallID, owe.Caller, owe.Left = "c0", number(2), time.Now().Add(-time.Hour)
		n.must(n.Owe(t.Context(), owe))
		if c := n.task(2); c.State != "closed" {
			t.Errorf("answered later than it was missed: %+v", c)
		}
		owe.CallID, owe.Left = "c9", time.Now().Add(time.Minute)
		n.must(n.Owe(t.Context(), owe))
		if c := n.task(2); c.State != "open" || c.CallID != "c9" {
			t.Errorf("missed after the answer: %+v", c)
		}
	})
}

// A node that was only frozen takes its callers out of the ledger again.
func TestAFrozenNodesCallersLeaveTheLedger(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n, other := b.node("n1"), b.node("n2")
		other.login("n2a", "general")
		caller := n.enter("c1", from(1))
		o := n.offer(caller)
		n.must(caller.Accept(t.Context(), o))
		waiting := n.enter("c2", from(2))
		n.must(other.Pause(t.Context(), "n2a", "tea"))
		b.due(other, "nodes", "n1")
		n.await("the node has told anew", func() bool {
			n.beat(t.Context())
			return n.agent("n2a").State == Talk && n.lines()[0].Waiting == 1
		})
		for i := 1; i <= 2; i++ {
			if c := n.task(i); c.State != "" {
				t.Errorf("caller %d is in the ledger: %+v", i, c)
			}
		}
		n.must(caller.Complete(t.Context(), o, call.EndCaller))
		n.must(waiting.Leave(t.Context(), session.LeaveAbandon))
		if c := n.task(2); c.Missed != 1 || c.Why != "abandon" {
			t.Errorf("who left then: %+v", c)
		}
		if c := n.task(1); c.State != "" {
			t.Errorf("who was served: %+v", c)
		}
	})
}

func TestTheLedgerWhileRedisIsAway(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		copied := &shelf{}
		b.ledger = copied
		n := b.node("n1")
		n.login("n1a", "general")
		n.must(n.Pause(t.Context(), "n1a", "tea"))
		n.missed("c1", 1)
		n.missed("c2", 2)
		taken := n.takeTask(2, "n1a", "b2")
		n.must(taken.Ticket.Accept(t.Context(), taken.Offer))
		n.await("the copy has both", func() bool {
			list, err := n.callBacksCopy(t.Context(), false)
			return err == nil && len(list) == 2 && list[1].State == "taken"
		})
		n.away()
		list, err := n.CallBacks(t.Context(), false)
		if err != nil || len(list) != 2 || list[0].CallID != "c1" {
			t.Fatalf("the copy: %+v, %v", list, err)
		}
		if _, err := n.TakeCallBack(t.Context(), pseudonym(number(1)), "n1a", "b1"); !errors.Is(err, store.ErrAway) {
			t.Errorf("taken without Redis: %v", err)
		}
		if err := n.CloseCallBack(t.Context(), pseudonym(number(1)), "boss", "x"); !errors.Is(err, store.ErrAway) {
			t.Errorf("closed without Redis: %v", err)
		}
		n.must(n.EndCallBack(t.Context(), taken.ID, "b2", session.CallBackAnswered))
		n.must(taken.Ticket.Complete(t.Context(), taken.Offer, call.EndCaller))
		n.must(n.enter("c3", from(3)).Leave(t.Context(), session.LeaveAbandon))
		n.must(n.FinishWrapUp(t.Context(), "n1a"))
		n.must(n.Ready(t.Context(), "n1a"))
		redial := n.enter("c4", from(1))
		o := n.offer(redial)
		n.must(redial.Accept(t.Context(), o))
		n.must(redial.Complete(t.Context(), o, call.EndCaller))
		n.must(n.Owe(t.Context(), session.OwedCall{CallID: "c5", Queue: "general", Caller: number(5), Arrived: time.Now(), Left: time.Now(), Why: "full"}))
		n.back()
		for i, want := range map[int]string{1: "answered", 2: "answered", 3: "", 5: ""} {
			if c := n.task(i); c.Ending != want || c.State == "" {
				t.Errorf("caller %d: %+v", i, c)
			}
		}
		if a := n.agent("n1a"); a.State != Wrapup {
			t.Errorf("the agent is %+v", a)
		}
	})
}

// An empty Redis is filled from the copies: the later word on a task wins, whoever is first.
func TestAnEmptyRedisIsFilledFromTheCopies(t *testing.T) {
	for _, first := range []string{"n1", "n2"} {
		t.Run(first, func(t *testing.T) {
			each(t, func(t *testing.T, b *bed) {
				shelves := map[string]*shelf{"n1": {}, "n2": {}}
				b.ledger = shelves["n1"]
				n := b.node("n1")
				n.missed("c1", 1)
				n.missed("c2", 2)
				n.await("the copy has both", func() bool {
					list, err := n.callBacksCopy(t.Context(), false)
					return err == nil && len(list) == 2
				})
				n.stop()
				b.ledger = shelves["n2"]
				n = b.node("n2")
				n.must(n.CloseCallBack(t.Context(), pseudonym(number(1)), "boss", "done"))
				n.await("the copy has it", func() bool {
					list, err := n.callBacksCopy(t.Context(), true)
					return err == nil && len(list) == 1
				})
				n.stop()
				if err := b.store.Blocking().FlushAll(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				second := map[string]string{"n1": "n2", "n2": "n1"}[first]
				b.ledger = shelves[first]
				b.node(first)
				b.ledger = shelves[second]
				n = b.node(second)
				if one, two := n.task(1), n.task(2); one.State != "closed" || one.Note != "done" || two.State != "open" || two.CallID != "c2" {
					t.Errorf("%+v, %+v", one, two)
				}
				n.login("n2a", "general")
				n.login("n1a", "general")
				if taken := n.takeTask(2, "n1a", "b2"); taken.Number != number(2) {
					t.Errorf("%+v", taken)
				}
			})
		})
	}
}

// A copy that is older than closed tasks are kept is not news.
func TestAnOldCopyDoesNotWakeTheDead(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		copied := &shelf{}
		b.ledger = copied
		n := b.node("n1")
		n.missed("c1", 1)
		n.await("the copy has it", func() bool { return len(copied.all()) == 1 })
		n.stop()
		old := copied.all()[0]
		var f fields
		if err := json.Unmarshal(old.Body, &f); err != nil {
			t.Fatal(err)
		}
		f["v"] = "1"
		copied.records[old.ID] = journal.CallBackRecord{ID: old.ID, Updated: time.UnixMilli(1), Open: true, Body: []byte(encode(f))}
		r := b.store.Blocking()
		for _, err := range []error{r.Del(t.Context(), prefix+":t:"+old.ID, prefix+":cb", prefix+":cb:general").Err(),
			r.Set(t.Context(), prefix+":born", 2, 0).Err()} {
			n.must(err)
		}
		n = b.node("n1")
		if c := n.task(1); c.State != "" {
			t.Errorf("woken: %+v", c)
		}
		if all := copied.all(); all[0].Open {
			t.Errorf("the copy still says open: %s", all[0].Body)
		}
	})
}

func (s *shelf) all() []journal.CallBackRecord {
	all, _ := s.CallBackRecords(context.Background())
	return all
}

func TestTheLedgerIsBounded(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.cfg.CallBack.Max = 100
		n := b.node("n1")
		for i := range 102 {
			n.must(n.Owe(t.Context(), session.OwedCall{CallID: "c" + number(i).E164, Queue: "general", Caller: number(i), Why: "full",
				Arrived: time.Now().Add(time.Duration(i-200) * time.Second), Left: time.Now()}))
		}
		n.beat(t.Context())
		list, err := n.CallBacks(t.Context(), false)
		if err != nil || len(list) != 100 || list[0].ID != pseudonym(number(2)) || count(n.metrics.dropped) != 2 {
			t.Fatalf("%d are left, %v", len(list), err)
		}
		if c := n.task(0); c.Ending != "dropped" {
			t.Errorf("the oldest: %+v", c)
		}
		b.due(n, "cbx", pseudonym(number(0)))
		if c := n.task(0); c.State != "" {
			t.Errorf("kept for ever: %+v", c)
		}
		n.measure(t.Context())
		if got := count(n.metrics.pending.WithLabelValues("general")); got != 100 {
			t.Errorf("%v pending", got)
		}
		if got := count(n.metrics.owedFor.WithLabelValues("general")); got < 198 || got > 260 {
			t.Errorf("the first is owed for %v s", got)
		}
	})
}

func TestAnAgentsPhoneMovesToAnotherNode(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		one, two := b.node("n1"), b.node("n2")
		one.login("n1a", "general")
		caller := two.enter("c1", from(1))
		o := two.offer(caller)
		two.must(caller.Accept(t.Context(), o))
		move := func(n *node, at string) error {
			return n.Login(t.Context(), Agent{ID: "n1a", Extension: "n1a", Node: at, Queues: map[string]int{"general": 1}})
		}
		one.must(move(one, "n2")) // in mid-talk, told by the other node
		if a := two.agent("n1a"); a.State != Talk || a.Node != "n2" || a.CallID != "c1" {
			t.Fatalf("moved: %+v", a)
		}
		one.stop()
		b.due(two, "nodes", "n1")
		if a := two.agent("n1a"); a.State != Talk || a.Wish != "" {
			t.Fatalf("the old node died: %+v", a)
		}
		two.must(caller.Complete(t.Context(), o, call.EndCaller))
		two.awaitAgent("n1a", Wrapup)
		if err := move(two, "n1"); !errors.Is(err, ErrRefused) {
			t.Errorf("to a dead node: %v", err)
		}
		two.away()
		if err := move(two, "n9"); !errors.Is(err, store.ErrAway) {
			t.Errorf("to another node without Redis: %v", err)
		}
	})
}

// What does not fit together, as a failover may leave it, is mended; nothing stays stuck.
func TestWhatDoesNotFitIsMended(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		r := b.store.Blocking()
		n.login("n1a", "general")
		talk := n.enter("c1")
		n.must(talk.Accept(t.Context(), n.offer(talk)))
		n.login("n1b", "road")
		rings := n.enter("c2", func(e *session.QueueEntry) { e.Queue = "road" })
		n.offer(rings)
		n.enter("c3")
		for _, err := range []error{
			r.Del(t.Context(), prefix+":c:c1").Err(),                // the call of an agent in talk
			r.ZRem(t.Context(), prefix+":wait:general", "c3").Err(), // a waiter in no queue
			r.ZRem(t.Context(), prefix+":offers", "c2").Err(),       // an offer that nothing ends
			r.SAdd(t.Context(), prefix+":n:n1", "c9").Err(),         // a member without a record
		} {
			n.must(err)
		}
		n.check(t.Context())
		age := func(ms int64) {
			t.Helper()
			odd, err := r.ZRangeWithScores(t.Context(), prefix+":odd", 0, -1).Result()
			n.must(err)
			for _, z := range odd {
				n.must(r.ZIncrBy(t.Context(), prefix+":odd", float64(-ms), z.Member.(string)).Err())
			}
		}
		age(11000)
		n.check(t.Context())
		for c, want := range map[prometheus.Collector]float64{
			n.metrics.stuck.WithLabelValues("talk"):           1,
			n.metrics.stuckCallers.WithLabelValues("waiting"): 1,
			n.metrics.stuckCallers.WithLabelValues("offered"): 1,
			n.metrics.stuckCallers.WithLabelValues("gone"):    3, // c1 in two sets, c9
		} {
			if count(c) != want {
				t.Errorf("%v stuck, want %v", count(c), want)
			}
		}
		n.check(t.Context())
		if got := n.stuck(); got != 0 {
			t.Errorf("%v are stuck after the mending", got)
		}
		n.awaitAgent("n1a", Wrapup)
		n.awaitAgent("n1b", Paused)
		if line := n.lines(); line[0].Waiting != 1 || line[1].Waiting != 1 {
			t.Errorf("the lines are %+v", line)
		}
	})
}

// stuck is the sum of all that the last check found stuck.
func (n *node) stuck() (sum float64) {
	for _, state := range stuckAgents {
		sum += count(n.metrics.stuck.WithLabelValues(state))
	}
	for _, state := range stuckCallers {
		sum += count(n.metrics.stuckCallers.WithLabelValues(state))
	}
	return sum
}

func TestWalkTask(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		lib, err := library()
		if err != nil {
			t.Fatal(err)
		}
		script := b.store.Script("walk", lib+`
local t = {id = 't', state = ARGV[2], queue = 'general', score = 1, v = 0}
local ok = task_step(t, ARGV[3])
local function has(set) return redis.call('ZSCORE', K .. set, 't') and 1 or 0 end
return {ok and 1 or 0, t.state, has('cb'), has('cb:general'), has('cbl'), has('cbx'), redis.call('EXISTS', K .. 't:t')}`)
		for event := range taskSteps {
			for _, from := range TaskStates() {
				n := b.store.Blocking()
				if err := n.FlushAll(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				reply, err := script.Run(t.Context(), n, []string{prefix}, "", string(from), event).Slice()
				if err != nil {
					t.Fatal(err)
				}
				to, ok := taskSteps.next(event, from)
				want := []any{int64(0), string(from), int64(0), int64(0), int64(0), int64(0), int64(0)}
				if ok {
					due := bit(to == TaskOpen || to == TaskTaken)
					want = []any{int64(1), string(to), due, due, bit(to == TaskTaken), bit(to == TaskClosed), bit(to != TaskNone)}
				}
				if diff := cmp.Diff(want, reply); diff != "" {
					t.Errorf("%s in %s: %s", event, from, diff)
				}
			}
		}
	})
}
