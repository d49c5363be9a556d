package queue

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

func TestCallFromEnterToWrapUp(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		caller := n.enter("c1", func(e *session.QueueEntry) { e.Caller, e.Reason = number(1), "menu" })
		line := n.lines()[0]
		if line.Waiting != 1 || len(line.Entries) != 1 || line.Entries[0].Caller != "138****0001" || line.Entries[0].Reason != "menu" {
			t.Fatalf("the line is %+v", line)
		}
		n.login("n1a", "general")
		o := n.offer(caller)
		if o.Agent != "n1a" || o.Extension != "n1a" || o.Node != "n1" || o.Ring != 20*time.Second || len(o.Token) != 32 {
			t.Fatalf("the offer is %+v", o)
		}
		if a := n.agent("n1a"); a.State != Offered || a.CallID != "c1" {
			t.Fatalf("the agent is %+v", a)
		}
		n.must(caller.Accept(t.Context(), o))
		n.must(caller.Accept(t.Context(), o)) // twice is once
		n.awaitAgent("n1a", Talk)
		if err := caller.Leave(t.Context(), session.LeaveAbandon); !errors.Is(err, session.ErrFenced) {
			t.Fatalf("a leave in talk: %v", err)
		}
		n.must(caller.Complete(t.Context(), o, call.EndCaller))
		n.must(caller.Complete(t.Context(), o, call.EndCaller))
		a := n.agent("n1a")
		if left := time.Until(a.WrapupEnds); a.State != Wrapup || left < 50*time.Second || left > 61*time.Second {
			t.Fatalf("after the talk: %+v", a)
		}
		n.must(n.FinishWrapUp(t.Context(), "n1a"))
		if err := n.FinishWrapUp(t.Context(), "n1a"); !errors.Is(err, ErrRefused) {
			t.Fatalf("a wrap-up finished twice: %v", err)
		}
		n.awaitAgent("n1a", Idle)
		want := []string{EnterQueue, OfferMade, Connect, CompleteCaller}
		if diff := cmp.Diff(want, b.events("c1")); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAnOfferComesAtOnce(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		best := time.Hour
		for _, id := range []string{"c1", "c2", "c3", "c4", "c5"} {
			caller := n.enter(id)
			start := time.Now()
			n.login("n1"+id, "general")
			n.offer(caller)
			best = min(best, time.Since(start))
		}
		if best > 50*time.Millisecond {
			t.Errorf("the fastest of five offers took %v", best)
		}
	})
}

func TestLevelThenLongestIdle(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.must(n.Login(t.Context(), Agent{ID: "n1second", Extension: "n1x", Queues: map[string]int{"general": 2}}))
		n.login("n1b", "general")
		n.must(n.Pause(t.Context(), "n1b", "tea"))
		n.login("n1a", "general")
		n.await("a later millisecond", func() bool { return time.Since(n.agent("n1a").Since) > 5*time.Millisecond })
		n.must(n.Ready(t.Context(), "n1b"))
		var got []string
		for _, id := range []string{"c1", "c2", "c3"} {
			got = append(got, n.offer(n.enter(id)).Agent)
		}
		if diff := cmp.Diff([]string{"n1a", "n1b", "n1second"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAnAgentGetsTheForemostCallerOverAllQueues(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		ago := func(d time.Duration, credit time.Duration, front bool, queue string) func(*session.QueueEntry) {
			return func(e *session.QueueEntry) {
				e.Arrived, e.Credit, e.Front, e.Queue = time.Now().Add(-d), credit, front, queue
			}
		}
		tickets := map[string]session.Ticket{
			"old":    n.enter("old", ago(60*time.Second, 0, false, "general")),
			"credit": n.enter("credit", ago(10*time.Second, 120*time.Second, false, "road")),
			"front":  n.enter("front", ago(0, 0, true, "road")),
			"new":    n.enter("new", ago(0, 0, false, "general")),
		}
		for i, want := range []string{"front", "credit", "old", "new"} {
			n.login([]string{"n1a", "n1b", "n1c", "n1d"}[i], "general", "road")
			n.offer(tickets[want])
		}
	})
}

func TestNoAnswerPausesTheAgentAndKeepsThePlace(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.login("n1a", "general")
		first := n.enter("c1")
		o := n.offer(first)
		second := n.enter("c2")
		n.must(first.Decline(t.Context(), o, session.DeclineNoAnswer))
		if a := n.agent("n1a"); a.State != Paused || a.Reason != "noanswer" {
			t.Fatalf("the agent is %+v", a)
		}
		n.login("n1b", "general")
		again := n.offer(first) // and not the second
		if again.Agent != "n1b" || again.Token == o.Token {
			t.Fatalf("the second offer is %+v", again)
		}
		if err := first.Accept(t.Context(), o); !errors.Is(err, session.ErrFenced) {
			t.Fatalf("a late answer: %v", err)
		}
		if err := first.Decline(t.Context(), o, session.DeclineNoAnswer); !errors.Is(err, session.ErrFenced) {
			t.Fatalf("a late decline: %v", err)
		}
		n.must(first.Accept(t.Context(), again))
		if err := first.Complete(t.Context(), o, call.EndAgent); !errors.Is(err, session.ErrFenced) {
			t.Fatalf("a complete with an old token: %v", err)
		}
		n.must(n.Ready(t.Context(), "n1a"))
		n.offer(second)
	})
}

func TestMissesBeforeThePause(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.cfg.AutoPauseAfter = 2
		n := b.node("n1")
		n.login("n1a", "general")
		caller := n.enter("c1")
		o := n.offer(caller)
		n.must(caller.Decline(t.Context(), o, session.DeclineRejected))
		o = n.offer(caller) // the only agent, once more
		if a := n.agent("n1a"); a.Misses != 1 {
			t.Fatalf("the agent is %+v", a)
		}
		n.must(caller.Decline(t.Context(), o, session.DeclineUnreachable))
		if a := n.agent("n1a"); a.State != Paused || a.Reason != "unreachable" {
			t.Fatalf("the agent is %+v", a)
		}
	})
}

func TestACallerWhoLeavesWhileItRings(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.login("n1a", "general")
		since := n.agent("n1a").Since
		caller := n.enter("c1")
		n.offer(caller)
		n.must(caller.Leave(t.Context(), session.LeaveAbandon))
		n.must(caller.Leave(t.Context(), session.LeaveAbandon))
		score, err := b.store.Blocking().ZScore(t.Context(), prefix+":idle:general", "n1a").Result()
		if err != nil || int64(score) != 1e13+since.UnixMilli() {
			t.Fatalf("idle since %.0f, want %d: %v", score, since.UnixMilli(), err)
		}
		if diff := cmp.Diff([]string{EnterQueue, OfferMade, Abandon}, b.events("c1")); diff != "" {
			t.Error(diff)
		}
	})
}

func TestACancelledOfferParksTheCaller(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.login("n1a", "general")
		caller := n.enter("c1")
		n.must(caller.Decline(t.Context(), n.offer(caller), session.DeclineCancelled))
		if a := n.agent("n1a"); a.State != Idle { // and not offered the same caller
			t.Fatalf("the agent is %+v", a)
		}
		b.due(n, "offers", "c1")
		n.offer(caller)
		n.must(caller.Leave(t.Context(), session.LeaveEmergency))
		want := []string{EnterQueue, OfferMade, RingCanceled, OfferMade, ExitWithKey}
		if diff := cmp.Diff(want, b.events("c1")); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTheSweepEndsWhatIsOver(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.login("n1a", "general")
		caller := n.enter("c1")
		n.offer(caller)
		b.due(n, "offers", "c1") // a session that forgot its offer
		n.awaitAgent("n1a", Paused)
		n.must(n.Ready(t.Context(), "n1a"))
		o := n.offer(caller)
		n.must(caller.Accept(t.Context(), o))
		n.must(caller.Complete(t.Context(), o, call.EndAgent))
		n.awaitAgent("n1a", Wrapup)
		b.due(n, "wrap", "n1a")
		n.awaitAgent("n1a", Idle)
	})
}

func TestAWishInMidCallIsGrantedAfterIt(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		for i, wish := range []struct {
			ask  func(id string) error
			want AgentState
		}{
			{func(id string) error { return n.Pause(t.Context(), id, "lunch") }, Paused},
			{func(id string) error { return n.Logout(t.Context(), id) }, LoggedOut},
			{func(id string) error {
				return errors.Join(n.Pause(t.Context(), id, "lunch"), n.Ready(t.Context(), id))
			}, Idle},
		} {
			id := []string{"n1a", "n1b", "n1c"}[i]
			n.login(id, "general")
			caller := n.enter("c" + id)
			o := n.offer(caller)
			n.must(wish.ask(id))
			n.must(caller.Accept(t.Context(), o))
			n.must(caller.Complete(t.Context(), o, call.EndAgent))
			n.must(n.FinishWrapUp(t.Context(), id))
			if a := n.agent(id); a.State != wish.want {
				t.Errorf("%s is %+v, want %s", id, a, wish.want)
			}
			_ = n.Logout(t.Context(), id)
		}
	})
}

func TestARedialRegainsThePlace(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		first := n.enter("c1", from(1), func(e *session.QueueEntry) { e.Arrived = time.Now().Add(-time.Minute) })
		n.enter("c2", from(2))
		n.must(first.Leave(t.Context(), session.LeaveAbandon))
		n.enter("c3", from(1))
		got := n.lines()[0].Entries
		if len(got) != 2 || got[0].CallID != "c3" || got[1].CallID != "c2" {
			t.Errorf("the line is %+v", got)
		}
	})
}

func TestTheQueueIsBounded(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.cfg.Queues[0].MaxWaiting = 2
		n := b.node("n1")
		n.enter("c1")
		n.enter("c2")
		if _, err := n.Enter(t.Context(), session.QueueEntry{CallID: "c3", Queue: "general"}); !errors.Is(err, session.ErrQueueFull) {
			t.Fatalf("the third caller: %v", err)
		}
		n.enter("danger", func(e *session.QueueEntry) { e.Front = true }) // in danger: always
		if _, err := n.Enter(t.Context(), session.QueueEntry{CallID: "c4", Queue: "none"}); !errors.Is(err, session.ErrNoQueue) {
			t.Fatalf("a queue that is not: %v", err)
		}
	})
}

func TestOverflowKeepsThePlace(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		b.cfg.Queues[0].MaxWait, b.cfg.Queues[0].OverflowTo = time.Hour, "road"
		n := b.node("n1")
		n.enter("r1", func(e *session.QueueEntry) { e.Queue = "road" })
		caller := n.enter("c1", func(e *session.QueueEntry) { e.Arrived = time.Now().Add(-time.Minute) })
		b.due(n, "over", "c1")
		road := n.lines()[1]
		if road.Waiting != 2 || road.Entries[0].CallID != "c1" {
			t.Fatalf("the road's line is %+v", road)
		}
		n.login("n1a", "road")
		n.offer(caller)
		want := []string{EnterQueue, ExitWithTimeout, EnterQueue, OfferMade}
		if diff := cmp.Diff(want, b.events("c1")); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPlacesAreToldDownwards(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		var tickets []session.Ticket
		for id := range strings.SplitSeq("abcdef", "") {
			tickets = append(tickets, n.enter(id))
		}
		last := tickets[5]
		if u := <-last.Updates(); u.Position != 6 || u.Offer != nil {
			t.Fatalf("the first news is %+v", u)
		}
		n.enter("danger", func(e *session.QueueEntry) { e.Front = true }) // moves everyone back: told to none
		for _, ticket := range tickets[:3] {
			n.must(ticket.Leave(t.Context(), session.LeaveAbandon))
		}
		limit := time.After(patience)
		for at := 6; at != 4; {
			select {
			case u := <-last.Updates():
				if u.Position >= at {
					t.Fatalf("told %d after %d", u.Position, at)
				}
				at = u.Position
			case <-limit:
				t.Fatalf("the place 4 was never told, but %d", at)
			}
		}
	})
}

func TestADeadNodeFreesItsAgentsAndKeepsItsCallersPlaces(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		dying, n := b.node("n1"), b.node("n2")
		n.login("n2a", "general")
		talking := dying.enter("talk", func(e *session.QueueEntry) { e.Caller = number(1) })
		n.must(talking.Accept(t.Context(), dying.offer(talking)))
		dying.enter("wait", func(e *session.QueueEntry) {
			e.Caller, e.Arrived = number(2), time.Now().Add(-time.Minute)
		})
		dying.login("n1a", "road")
		dying.stop()
		n.enter("other")
		b.due(n, "nodes", "n1")
		n.awaitAgent("n2a", Wrapup) // there is a case to write up
		n.must(n.FinishWrapUp(t.Context(), "n2a"))
		n.await("the agent at the living node has the next caller", func() bool { return n.agent("n2a").CallID == "other" })
		n.await("the dead node's agent is paused", func() bool { return n.agent("n1a").Reason == reasonNodeLost })
		n.enter("redial", func(e *session.QueueEntry) { e.Caller = number(2) })
		n.enter("third")
		if got := n.lines()[0].Entries; len(got) != 2 || got[0].CallID != "redial" {
			t.Errorf("the line is %+v", got)
		}
		if err := n.Login(t.Context(), Agent{ID: "n1a", Extension: "n2x", Queues: map[string]int{"road": 1}}); err != nil {
			t.Fatal(err)
		}
		if a := n.agent("n1a"); a.State != Idle || a.Node != "n2" || a.Extension != "n2x" {
			t.Errorf("after a log-in anew: %+v", a)
		}
	})
}

func TestAPauseOutlastsTheNode(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		dying, n := b.node("n1"), b.node("n2")
		dying.login("resting", "general")
		dying.login("busy", "road")
		n.must(n.Pause(t.Context(), "resting", "lunch"))
		caller := n.enter("c1", func(e *session.QueueEntry) { e.Queue = "road" })
		o := n.offer(caller)
		n.must(caller.Accept(t.Context(), o))
		n.must(n.Pause(t.Context(), "busy", "supervisor")) // after the talk
		dying.stop()
		b.due(n, "nodes", "n1")
		n.must(caller.Complete(t.Context(), o, call.EndCaller))
		n.must(n.FinishWrapUp(t.Context(), "busy"))
		for id, why := range map[string]string{"resting": "lunch", "busy": "supervisor"} {
			if err := n.Login(t.Context(), Agent{ID: id, Extension: "n2x", Queues: map[string]int{"road": 1}}); err != nil {
				t.Fatal(err)
			}
			if a := n.agent(id); a.State != Paused || a.Reason != why || a.Node != "n2" {
				t.Errorf("after a log-in at another node: %+v", a)
			}
		}
	})
}

// A node dies, and an agent at it is offered a call before anyone knows: that the phone is out of reach is not the
// agent's fault, and ends with the node's return.
func TestAnAgentOutOfReachComesBackWithTheNode(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		dying, n := b.node("n1"), b.node("n2")
		dying.login("early", "general")
		dying.login("late", "road")
		dying.stop()
		early := n.enter("c1")
		n.must(early.Decline(t.Context(), n.offer(early), session.DeclineUnreachable)) // before the sweep
		late := n.enter("c2", func(e *session.QueueEntry) { e.Queue = "road" })
		o := n.offer(late)
		b.due(n, "nodes", "n1")
		n.must(late.Decline(t.Context(), o, session.DeclineUnreachable)) // after it
		again := b.node("n1")
		for id, queue := range map[string]string{"early": "general", "late": "road"} {
			if err := again.Login(t.Context(), Agent{ID: id, Extension: "n1" + id, Queues: map[string]int{queue: 1}}); err != nil {
				t.Fatal(err)
			}
			again.await(id+" is given the caller again", func() bool { return again.agent(id).State == Offered })
		}
	})
}

func TestARestartedNodeDropsTheCallsOfTheOldProcess(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		old := b.node("n1")
		old.login("n1a", "general")
		caller := old.enter("c1")
		old.must(caller.Accept(t.Context(), old.offer(caller)))
		old.stop()
		n := b.node("n1")
		n.awaitAgent("n1a", Wrapup)
		n.must(n.Ready(t.Context(), "n1a"))
		n.offer(n.enter("c2"))
	})
}

func TestANodeThatWasSilentTellsAllAnew(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n, other := b.node("n1"), b.node("n2")
		n.login("n1a", "general")
		caller := n.enter("c1")
		o := n.offer(caller)
		n.must(caller.Accept(t.Context(), o))
		waiting := n.enter("c2")
		b.due(other, "nodes", "n1")
		n.await("the node has its agent and callers back", func() bool {
			n.beat(t.Context())
			return n.agent("n1a").State == Talk && n.lines()[0].Waiting == 1
		})
		n.must(caller.Complete(t.Context(), o, call.EndCaller))
		n.must(n.FinishWrapUp(t.Context(), "n1a"))
		n.offer(waiting)
	})
}

func TestRedisSilenceIsNotTheNodes(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n, other := b.node("n1"), b.node("n2")
		n.enter("c1", func(e *session.QueueEntry) { e.Caller = number(1) })
		n.stop() // it says nothing more, as if it were the slower of the two to come back
		old := float64(time.Now().Add(-time.Minute).UnixMilli())
		n.must(b.store.Blocking().ZAdd(t.Context(), prefix+":nodes", redis.Z{Score: old, Member: "n1"}, redis.Z{Score: old, Member: "n2"}).Err())
		other.beat(t.Context())
		seen, err := b.store.Blocking().ZScore(t.Context(), prefix+":nodes", "n1").Result()
		n.must(err)
		if got := other.lines()[0].Waiting; got != 1 || seen <= old {
			t.Errorf("the other node was taken for dead: %d wait, last seen %v", got, time.UnixMilli(int64(seen)))
		}
	})
}

func TestOnlyAnotherServerIsToldAnew(t *testing.T) {
	q := &Queue{online: true}
	for _, step := range []struct {
		now   string
		other bool
	}{{"", false}, {"first", false}, {"first", false}, {"", false}, {"second", true}} {
		if got := q.otherRedis(step.now); got != step.other {
			t.Errorf("another than %q: %q is said to be %v", q.generation, step.now, got)
		}
	}
}

// Another server may lack another node's news as well, so nobody meets there before the others can have told theirs.
func TestNobodyMeetsOnAnotherServerAtOnce(t *testing.T) {
	server := storetest.Start(t)
	b := &bed{t: t, store: storetest.Open(t, server.Addr), server: server, cfg: testConfig()}
	n := b.node("n1")
	n.await("the server has a name", func() bool { return n.deps.Store.Generation() != "" })
	n.beat(t.Context())
	caller := n.enter("c1")
	n.mu.Lock()
	n.generation = "another" // of which this node was told
	n.mu.Unlock()
	n.beat(t.Context())
	n.await("it was told anew", n.Online)
	start := time.Now()
	hold := b.store.Blocking().PTTL(t.Context(), prefix+":hold").Val()
	if hold <= 0 {
		t.Fatalf("the hold lasts %v", hold)
	}
	n.login("n1a", "general")
	if n.offer(caller); time.Since(start) < hold/2 {
		t.Errorf("offered after %v of %v", time.Since(start), hold)
	}
}

func TestLogin(t *testing.T) {
	n := (&bed{t: t, store: embedded(t), cfg: testConfig()}).node("n1")
	for _, a := range []Agent{
		{ID: "a b", Extension: "1", Queues: map[string]int{"general": 1}},
		{ID: "a", Extension: "", Queues: map[string]int{"general": 1}},
		{ID: "a", Extension: "1"},
		{ID: "a", Extension: "1", Queues: map[string]int{"none": 1}},
		{ID: "a", Extension: "1", Queues: map[string]int{"general": 0}},
	} {
		if err := n.Login(t.Context(), a); err == nil {
			t.Errorf("%+v was let in", a)
		}
	}
	for _, err := range []error{n.Ready(t.Context(), "a"), n.Pause(t.Context(), "a", "x"), n.Logout(t.Context(), "a")} {
		if !errors.Is(err, ErrRefused) {
			t.Errorf("an act of nobody: %v", err)
		}
	}
}
