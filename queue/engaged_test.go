package queue

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// An engaged phone costs the caller no place and the agent nothing: the next agent gets the caller, and the agent is
// asked again a little later.
func TestAnEngagedPhoneIsNoMiss(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.login("n1a", "general")
		first := n.enter("c1")
		o := n.offer(first)
		second := n.enter("c2")
		n.login("n1b", "general")
		if got := n.offer(second); got.Agent != "n1b" {
			t.Fatalf("offered %+v", got)
		}
		start := time.Now()
		n.must(first.Decline(t.Context(), o, session.DeclineEngaged))
		if a := n.agent("n1a"); a.State != Wrapup || a.CallID != "" || time.Until(a.WrapupEnds) > engagedFor {
			t.Fatalf("the agent is %+v", a)
		}
		n.login("n1c", "general")
		if got := n.offer(first); got.Agent != "n1c" {
			t.Fatalf("the caller is offered %+v", got)
		}
		third := n.enter("c3")
		if got := n.offer(third); got.Agent != "n1a" || time.Since(start) < engagedFor/2 {
			t.Fatalf("after %v the third is offered %+v", time.Since(start), got)
		}
		if a := n.agent("n1a"); a.State != Offered || a.Reason != "" {
			t.Fatalf("the agent is %+v", a)
		}
	})
}

// A phone that is out of reach, as while another gateway stands still for a moment, is tried once more before its agent is
// paused; an answer ends the count.
func TestAPhoneOutOfReachIsTriedOnceMore(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		for name, alone := range map[string]bool{"n1a": false, "n1b": true} {
			if alone {
				n.away()
			}
			n.login(name, "general")
			caller := n.enter("c" + name)
			n.must(caller.Decline(t.Context(), n.offer(caller), session.DeclineUnreachable))
			if a := n.agent(name); a.State != Wrapup || a.Misses != 1 || time.Until(a.WrapupEnds) > engagedFor {
				t.Fatalf("alone %v: the agent is %+v", alone, a)
			}
			n.must(caller.Decline(t.Context(), n.offer(caller), session.DeclineUnreachable))
			if a := n.agent(name); a.State != Paused || a.Reason != "unreachable" {
				t.Fatalf("alone %v: the agent is %+v", alone, a)
			}
			n.must(caller.Leave(t.Context(), session.LeaveAbandon))
			if alone {
				n.back()
			}
		}
	})
}

// A talk that has lost its agent in the books, as after a failover, gets the agent back by the word of the phone's owner.
func TestTheHolderOfAnEngagedPhoneGetsItsAgentBack(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.login("n1a", "general")
		talk := n.enter("c1")
		held := n.offer(talk)
		n.must(talk.Accept(t.Context(), held))
		n.must(b.store.Blocking().HSet(t.Context(), prefix+":a:n1a", "state", "idle", "call", "", "token", "").Err())
		n.must(b.store.Blocking().ZAdd(t.Context(), prefix+":idle:general", redis.Z{Score: 1e13, Member: "n1a"}).Err())
		waiting := n.enter("c2")
		o := n.offer(waiting)
		if o.Agent != "n1a" {
			t.Fatalf("offered %+v", o)
		}
		o.Holder = "c1"
		n.must(waiting.Decline(t.Context(), o, session.DeclineEngaged))
		if a := n.agent("n1a"); a.State != Talk || a.CallID != "c1" {
			t.Fatalf("the agent is %+v", a)
		}
		n.must(talk.Complete(t.Context(), held, call.EndCaller))
		n.awaitAgent("n1a", Wrapup)
		n.must(n.FinishWrapUp(t.Context(), "n1a"))
		if got := n.offer(waiting); got.Agent != "n1a" {
			t.Fatalf("offered %+v", got)
		}
	})
}

// The word of a phone's owner is not taken for a call that has another agent, or none.
func TestAStrangeHolderGetsNobody(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.login("n1b", "general")
		talk := n.enter("c1")
		n.must(talk.Accept(t.Context(), n.offer(talk)))
		for _, holder := range []string{"c1", "c2", "c3"} { // another's, its own, nobody's
			n.login("n1a", "general")
			waiting := n.enter("c2")
			o := n.offer(waiting)
			o.Holder = holder
			n.must(waiting.Decline(t.Context(), o, session.DeclineEngaged))
			if a := n.agent("n1a"); a.State != Wrapup || a.CallID != "" {
				t.Fatalf("with %s the agent is %+v", holder, a)
			}
			n.must(waiting.Leave(t.Context(), session.LeaveAbandon))
			n.must(n.FinishWrapUp(t.Context(), "n1a"))
		}
	})
}

func TestAnEngagedPhoneWhileRedisIsAway(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		n.login("n1a", "general")
		n.away()
		caller := n.enter("c1")
		n.must(caller.Decline(t.Context(), n.offer(caller), session.DeclineEngaged))
		if a := n.agent("n1a"); a.State != Wrapup {
			t.Fatalf("the agent is %+v", a)
		}
		if again := n.offer(caller); again.Agent != "n1a" {
			t.Fatalf("offered %+v", again)
		}
	})
}
