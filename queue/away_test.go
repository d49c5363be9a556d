package queue

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

var errAway = errors.New("no route to redis")

// away cuts a node off from Redis.
func (n *node) away() {
	n.t.Helper()
	n.fault.Fail(errAway)
	n.await("the node queues on its own", func() bool { return !n.Online() })
}

// back ends it.
func (n *node) back() {
	n.t.Helper()
	n.fault.Fail(nil)
	n.await("the node is attached again", n.Online)
}

func TestANodeAloneServesItsCallersWithItsAgents(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n, other := b.node("n1"), b.node("n2")
		other.login("n2a", "general")
		n.login("n1a", "general")
		n.must(n.Pause(t.Context(), "n1a", "tea"))
		n.away()

		caller := n.enter("c1") // n2a is idle, and not this node's
		n.must(n.Ready(t.Context(), "n1a"))
		o := n.offer(caller)
		if o.Agent != "n1a" || o.Node != "n1" {
			t.Fatalf("the offer is %+v", o)
		}
		waiting := n.enter("c2")
		n.must(caller.Accept(t.Context(), o))
		n.must(caller.Accept(t.Context(), o))
		n.login("n1b", "general") // and one who comes meanwhile
		n.must(waiting.Decline(t.Context(), n.offer(waiting), session.DeclineNoAnswer))
		if a := n.agent("n1b"); a.State != Paused || a.Reason != "noanswer" {
			t.Fatalf("n1b is %+v", a)
		}
		if err := waiting.Accept(t.Context(), o); !errors.Is(err, session.ErrFenced) {
			t.Fatalf("another's token: %v", err)
		}

		n.back()
		if got := n.offer(waiting); got.Agent != "n2a" { // the other node's agent, at once
			t.Fatalf("after the return: %+v", got)
		}
		other.await("the other node is attached", other.Online) // on the embedded Redis it was cut off too
		if a := other.agent("n1a"); a.State != Talk || a.CallID != "c1" {
			t.Errorf("n1a is %+v for the other node", a)
		}
		if a := other.agent("n1b"); a.State != Paused {
			t.Errorf("n1b is %+v for the other node", a)
		}
		n.must(caller.Complete(t.Context(), o, call.EndCaller))
		n.awaitAgent("n1a", Wrapup)
	})
}

func TestACallThatEndsWhileRedisIsAway(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n, other := b.node("n1"), b.node("n2")
		n.login("n1a", "general")
		mine := n.enter("c1")
		o := n.offer(mine)
		n.must(mine.Accept(t.Context(), o))
		other.login("n2a", "general")
		theirs := n.enter("c2")
		foreign := n.offer(theirs)
		n.must(theirs.Accept(t.Context(), foreign))
		quits := n.enter("c3")
		n.awaitAgent("n2a", Talk)
		n.away()
		n.must(mine.Complete(t.Context(), o, call.EndAgent))
		n.must(mine.Complete(t.Context(), o, call.EndAgent))
		n.must(theirs.Complete(t.Context(), foreign, call.EndCaller))
		n.must(quits.Leave(t.Context(), session.LeaveAbandon))
		n.must(n.FinishWrapUp(t.Context(), "n1a"))
		n.back()
		if a := n.agent("n1a"); a.State != Idle {
			t.Errorf("n1a is %+v", a)
		}
		if a := n.agent("n2a"); a.State != Wrapup {
			t.Errorf("n2a is %+v", a)
		}
		if n.lines()[0].Waiting != 0 {
			t.Errorf("the line is %+v", n.lines()[0])
		}
		for id, last := range map[string]string{"c1": CompleteAgent, "c2": CompleteCaller, "c3": Abandon} {
			names := b.events(id)
			if names[len(names)-1] != last {
				t.Errorf("%s: %v", id, names)
			}
		}
	})
}

// Redis made an offer whose news never came, and the node made another of the same agent.
func TestNoAgentIsPromisedTwice(t *testing.T) {
	server := storetest.Start(t)
	b := &bed{t: t, store: storetest.Open(t, server.Addr), server: server, cfg: testConfig()}
	n, other := b.node("n1"), b.node("n2")
	n.login("n1a", "general")
	n.away()
	theirs := other.enter("c2") // offered n1a by Redis
	o2 := other.offer(theirs)
	mine := n.enter("c1", func(e *session.QueueEntry) { e.Arrived = time.Now().Add(-time.Minute) })
	o1 := n.offer(mine) // offered n1a by the node
	n.must(mine.Accept(t.Context(), o1))
	n.back()
	if a := other.agent("n1a"); a.State != Talk || a.CallID != "c1" || a.Stuck {
		t.Fatalf("n1a is %+v", a)
	}
	if err := theirs.Accept(t.Context(), o2); !errors.Is(err, session.ErrFenced) {
		t.Fatalf("the other's accept: %v", err)
	}
	other.login("n2a", "general")
	if o := other.offer(theirs); o.Agent != "n2a" {
		t.Fatalf("the other caller is offered %+v", o)
	}
}

func TestAwayFromTheFirstMoment(t *testing.T) {
	b := &bed{t: t, store: storetest.Open(t, ""), cfg: testConfig()}
	n := b.node("n1")
	n.away()
	b.cfg.Queues[0].MaxWaiting = 1
	late := n.enter("late")
	front := n.enter("front", func(e *session.QueueEntry) { e.Front = true })
	n.login("n1a", "general")
	n.offer(front)
	n.must(n.Pause(t.Context(), "n1a", "lunch"))
	n.must(front.Leave(t.Context(), session.LeaveEmergency))
	n.awaitAgent("n1a", Paused) // the wish was granted
	n.must(n.Ready(t.Context(), "n1a"))
	n.offer(late)
	n.must(n.Logout(t.Context(), "n1a"))
	n.must(late.Leave(t.Context(), session.LeaveAbandon))
	if err := n.Ready(t.Context(), "n1a"); !errors.Is(err, ErrRefused) {
		t.Fatalf("an act after the log-out: %v", err)
	}
	n.back()
	if a := n.agent("n1a"); a.State != LoggedOut {
		t.Errorf("n1a is %+v", a)
	}
}

func TestRedisHangsInMidCall(t *testing.T) {
	server := storetest.Start(t)
	b := &bed{t: t, store: storetest.Open(t, server.Addr), server: server, cfg: testConfig()}
	b.cfg.StoreTimeout = 200 * time.Millisecond
	n := b.node("n1")
	n.login("n1a", "general")
	caller := n.enter("c1")
	o := n.offer(caller)
	n.must(caller.Accept(t.Context(), o))
	server.Pause(t)
	start := time.Now()
	waiting := n.enter("c2")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a caller's entry took %v", took)
	}
	n.must(caller.Complete(t.Context(), o, call.EndCaller))
	n.must(n.FinishWrapUp(t.Context(), "n1a"))
	second := n.offer(waiting)
	n.must(waiting.Accept(t.Context(), second))
	server.Resume(t)
	n.await("the node is attached", n.Online)
	n.must(waiting.Complete(t.Context(), second, call.EndCaller))
	n.awaitAgent("n1a", Wrapup)
}

func TestRedisIsKilledInMidCall(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(map[bool]string{false: "kept", true: "lost"}[lost], func(t *testing.T) {
			server := storetest.Start(t)
			b := &bed{t: t, store: storetest.Open(t, server.Addr), server: server, cfg: testConfig()}
			n := b.node("n1")
			n.login("n1a", "general")
			caller := n.enter("c1")
			o := n.offer(caller)
			n.must(caller.Accept(t.Context(), o))
			second := n.enter("c2")
			n.awaitAgent("n1a", Talk)
			server.Kill(t)
			n.await("the node queues on its own", func() bool { return !n.Online() })
			n.enter("c3")
			server.Restart(t)
			n.await("the node is attached", n.Online)
			if lost { // a failover to an empty replica
				n.away()
				if err := b.store.Blocking().FlushAll(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				n.back()
			}
			if a := n.agent("n1a"); a.State != Talk || a.CallID != "c1" || a.Stuck {
				t.Fatalf("n1a is %+v", a)
			}
			var order []string
			for _, e := range n.lines()[0].Entries {
				order = append(order, e.CallID)
			}
			if diff := cmp.Diff([]string{"c2", "c3"}, order); diff != "" {
				t.Error(diff)
			}
			n.must(caller.Complete(t.Context(), o, call.EndCaller))
			n.must(n.FinishWrapUp(t.Context(), "n1a"))
			n.offer(second)
		})
	}
}

// A call of two nodes ends, in talk or while it rings, when Redis is away, and Redis comes back empty: the agent's node
// still takes it for one, and learns better whichever node is back first.
func TestACallEndsThatRedisForgot(t *testing.T) {
	for _, first := range []string{"n1", "n2"} {
		for _, state := range []AgentState{Offered, Talk} {
			t.Run(fmt.Sprint(first, " ", state), func(t *testing.T) {
				t.Parallel()
				server := storetest.Start(t)
				b := &bed{t: t, store: storetest.Open(t, server.Addr), server: server, cfg: testConfig()}
				n, other := b.node("n1"), b.node("n2")
				other.login("n2a", "general")
				caller := n.enter("c1")
				o := n.offer(caller)
				if state == Talk {
					n.must(caller.Accept(t.Context(), o))
				}
				other.await("its node knows of the call", func() bool {
					other.mu.Lock()
					defer other.mu.Unlock()
					return other.agents["n2a"].State == state
				})
				n.away()
				other.away()
				n.must(b.store.Blocking().FlushAll(t.Context()).Err())
				if state == Talk {
					n.must(caller.Complete(t.Context(), o, call.EndCaller))
				} else {
					n.must(caller.Leave(t.Context(), session.LeaveAbandon))
				}
				back := []*node{n, other}
				if first == "n2" {
					slices.Reverse(back)
				}
				for _, n := range back {
					n.back()
				}
				a := n.agent("n2a")
				if a.CallID != "" || state == Talk && (a.State != Wrapup || time.Until(a.WrapupEnds) > b.cfg.Queues[0].Wrapup) {
					t.Errorf("n2a is %+v", a)
				}
				if state == Offered {
					n.awaitAgent("n2a", Idle)
				}
			})
		}
	}
}

// A caller in danger leaves and enters again as the same call, at the front.
func TestACallEntersAgain(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		n := b.node("n1")
		front := func(e *session.QueueEntry) { e.Front = true }
		for _, alone := range []bool{false, true} {
			n.enter("first")
			caller := n.enter("c1")
			if alone {
				n.away()
			}
			n.must(caller.Leave(t.Context(), session.LeaveEmergency))
			again := n.enter("c1", front)
			if alone {
				n.back()
			}
			n.login("n1a", "general")
			n.must(again.Accept(t.Context(), n.offer(again)))
			n.awaitAgent("n1a", Talk)
			n.must(again.Complete(t.Context(), again.(*ticket).offer, call.EndCaller))
			n.must(n.Logout(t.Context(), "n1a"))
			if names := b.events("c1"); names[len(names)-1] != CompleteCaller {
				t.Errorf("alone %v: %v", alone, names)
			}
		}
	})
}
