package queue

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

// Every state meets every event, in the scripts and in the node's own steps: both do what the table says,
// and refuse what it does not have.

func TestWalkAgent(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		lib, err := library()
		if err != nil {
			t.Fatal(err)
		}
		script := b.store.Script("walk", lib+`
local a = {id = 'a', state = ARGV[2], since = 0, idle = 1, deadline = 1, reason = '', call = '', token = '',
  queues = 'general:1', ext = '1', node = 'n', misses = 0, next = '', v = 0}
local ok = agent_step(a, ARGV[3])
return {ok and 1 or 0, a.state, redis.call('ZSCORE', K .. 'idle:general', 'a') and 1 or 0,
  redis.call('SISMEMBER', K .. 'on:general', 'a'), redis.call('ZSCORE', K .. 'wrap', 'a') and 1 or 0}`)
		for event := range agentSteps {
			for _, from := range AgentStates() {
				if err := b.store.Blocking().FlushAll(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				reply, err := script.Run(t.Context(), b.store.Blocking(), []string{prefix}, "", string(from), event).Slice()
				if err != nil {
					t.Fatal(err)
				}
				to, ok := agentSteps.next(event, from)
				want := []any{int64(0), string(from), int64(0), int64(0), int64(0)}
				if ok {
					want = []any{int64(1), string(to), bit(to == Idle), bit(to != Paused && to != LoggedOut), bit(to == Wrapup)}
				}
				if fmt.Sprint(reply) != fmt.Sprint(want) {
					t.Errorf("lua: %s in %s: %v, want %v", event, from, reply, want)
				}
			}
		}
	})
	q := standing(t)
	for event := range agentSteps {
		for _, from := range AgentStates() {
			a := agent{ID: "a", Node: "n1", State: from, Queues: map[string]int{"general": 1}}
			q.agents = map[string]agent{"a": a}
			to, ok := agentSteps.next(event, from)
			if got := q.stepAgent(a, event, nil); got != ok || ok && q.agents["a"].State != to {
				t.Errorf("go: %s in %s: %v %s, want %v %s", event, from, got, q.agents["a"].State, ok, to)
			}
		}
	}
}

func TestWalkEntry(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		lib, err := library()
		if err != nil {
			t.Fatal(err)
		}
		script := b.store.Script("walk", lib+`
local c = {id = 'c', state = ARGV[2], v = 0, queue = 'general', node = 'n', score = 1, t0 = 1, redial = '', agent = '', token = ''}
local ok = entry_step(c, ARGV[3], nil, 'NAME')
return {ok and 1 or 0, c.state, redis.call('ZSCORE', K .. 'wait:general', 'c') and 1 or 0, redis.call('EXISTS', K .. 'c:c')}`)
		for event := range entrySteps {
			for _, from := range EntryStates() {
				if err := b.store.Blocking().FlushAll(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				reply, err := script.Run(t.Context(), b.store.Blocking(), []string{prefix}, "", string(from), event).Slice()
				if err != nil {
					t.Fatal(err)
				}
				to, ok := entrySteps.next(event, from)
				want := []any{int64(0), string(from), int64(0), int64(0)}
				if ok {
					want = []any{int64(1), string(to), bit(to == EntryWaiting), bit(to != EntryGone)}
				}
				if fmt.Sprint(reply) != fmt.Sprint(want) {
					t.Errorf("lua: %s in %s: %v, want %v", event, from, reply, want)
				}
			}
		}
	})
	q := standing(t)
	for event := range entrySteps {
		for _, from := range EntryStates() {
			ticket := q.newTicket(session.QueueEntry{CallID: "c", Queue: "general"}, q.queues["general"])
			q.tickets["c"] = ticket
			ticket.state = from
			to, ok := entrySteps.next(event, from)
			if got := q.stepEntry(ticket, event, EnterQueue, "", agent{}, ""); got != ok || ok && ticket.state != to {
				t.Errorf("go: %s in %s: %v %s, want %v %s", event, from, got, ticket.state, ok, to)
			}
		}
	}
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// standing is a queue that does not run, so that the test alone steps it.
func standing(t *testing.T) *Queue {
	t.Helper()
	q, err := New(testConfig(), Deps{Node: "n1", Store: embedded(t), Owns: func(string) bool { return false }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestEstimate(t *testing.T) {
	l := load{agents: 150, handled: 100, handle: 100 * 210 * time.Second, abandons: 100, waited: 100 * 180 * time.Second,
		headWaits: 42 * time.Second}
	// 1/(sμ) is 1.4 s; each caller ahead also gives up once in 180 s: the sum over 100 places is less than 140 s.
	if got := l.estimate(100); got < 80*time.Second || got > 140*time.Second {
		t.Errorf("the estimate at place 100 is %v", got)
	}
	if l.estimate(1) >= l.estimate(2) {
		t.Error("a place further back waits longer")
	}
	young := l
	young.abandons = 49
	if got := young.estimate(100); got != 42*time.Second {
		t.Errorf("before 50 abandons: %v", got)
	}
	small := l
	small.agents = 7
	if got := small.estimate(100); got != 0 {
		t.Errorf("with 7 agents: %v", got)
	}
	for d, want := range map[time.Duration]time.Duration{0: 0, time.Second: time.Minute, 61 * time.Second: 2 * time.Minute,
		6 * time.Minute: 10 * time.Minute, 3 * time.Hour: time.Hour} {
		if got := bandWait(d); got != want {
			t.Errorf("bandWait(%v) = %v, want %v", d, got, want)
		}
	}
	for p, want := range map[int]int{1: 1, 5: 5, 6: 10, 11: 20, 21: 50, 51: 100, 101: 200} {
		if got := bandPosition(p); got != want {
			t.Errorf("bandPosition(%d) = %d, want %d", p, got, want)
		}
	}
}

// An offer that was not read stays when a place is told after it.
func TestNewsDoesNotHideAnOffer(t *testing.T) {
	q := standing(t)
	ticket := q.newTicket(session.QueueEntry{CallID: "c", Queue: "general"}, q.queues["general"])
	ticket.hold(session.Offer{Agent: "a", Token: "t"})
	ticket.move(3, 2*time.Minute)
	u := <-ticket.Updates()
	if u.Offer == nil || u.Offer.Token != "t" || u.Position != 3 || u.Wait != 2*time.Minute {
		t.Fatalf("the news is %+v", u)
	}
	ticket.move(7, 5*time.Minute) // further back: not told
	ticket.move(2, 5*time.Minute)
	if u := <-ticket.Updates(); u.Offer != nil || u.Position != 2 || u.Wait != 2*time.Minute {
		t.Fatalf("the news is %+v", u)
	}
}
