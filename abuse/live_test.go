package abuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// soaks tells whether a test has all the time that it wants.
func soaks() bool { return os.Getenv("HOTLINE_SOAK") == "1" }

// lived is a random stream that happens twice: to the pure engine, and to a node with a real Redis. What other nodes
// do comes over Redis's stream of measures, as it does on the line.
type lived struct {
	n        *node
	number   call.Number
	id       string
	r        *stream
	at       time.Time // of the last query: now
	todo     []Event   // in the order of time
	calls    map[string]Event
	loads    []Event
	told     []event // not yet in Redis
	sim      *Ledger
	happened []Event // as simulate is told
	crowd    []Event // calls that are up in the end
	compared map[string]int
}

// theirs are the events of a stream that a line has acts for.
var theirs = []EventKind{EventCall, EventLoad, EventRemind, EventMark, EventRequest, EventPropose, EventApprove, EventDecision, EventAppeal, EventAppealDecide}

// newLived makes a stream whose end is now. Its calls last as long as what happens in them, and are written up as what
// they were; no two events are at one time.
func newLived(n *node, seed uint64, now time.Time, compared map[string]int) *lived {
	v := &lived{n: n, number: call.Number{E164: fmt.Sprintf("+86138%08d", seed)}, r: streamOf(2*seed+1, 12), at: now,
		calls: map[string]Event{}, sim: NewLedger(n.policy), compared: compared}
	v.id = n.keys.measure(v.number.E164)
	v.todo = pick(v.r.events, func(e Event) bool { return slices.Contains(theirs, e.Kind) && (e.Caller == caller || e.Caller == "") })
	v.r.add(Event{})
	v.todo = append(v.todo, Event{Kind: EventApprove, At: v.r.now, Caller: caller, By: one(v.r, "sup1", "m1"), Role: one(v.r, Supervisor, Manager, Manager)})
	last := v.r.now
	for i := range v.todo {
		v.todo[i].Occupancy = math.Floor(v.todo[i].Occupancy*100) / 100 // the chain takes ten digits for a telephone number
		if c := &v.todo[i]; c.Kind == EventCall {
			v.writeUp(c)
			if c.Ended.After(last) {
				last = c.Ended
			}
		}
	}
	shift := now.Sub(last.Add(time.Duration(1+v.r.IntN(3)*v.r.IntN(100_000)) * time.Second))
	for i := range v.todo {
		e := &v.todo[i]
		for _, at := range []*time.Time{&e.At, &e.Answered, &e.Ended, &e.Until} {
			if !at.IsZero() {
				*at = at.Add(shift)
			}
		}
	}
	v.meet()
	return v
}

// writeUp gives a call its end and outcome by what happened in it. Nothing is on a declared event.
func (v *lived) writeUp(c *Event) {
	var asked, criticism, against bool
	for _, e := range v.todo {
		if e.Call != c.ID {
			continue
		}
		if !e.At.Before(c.Ended) {
			c.Ended = e.At.Add(time.Second)
		}
		asked = asked || e.Kind == EventRequest && e.Scope == "in"
		criticism = criticism || e.What == markCriticism
		against = against || e.What == markNoRequest || e.What == markAbuse
	}
	if asked || criticism && !against {
		c.Outcome = "registered"
	}
	if c.Topic = ""; !c.Ended.After(c.At) {
		c.Ended = c.At.Add(time.Second)
	}
}

// meet has some calls of the number up in the end, with their heartbeats.
func (v *lived) meet() {
	for i := range v.r.IntN(5) {
		id, begun := fmt.Sprint("up", i), v.at.Add(-time.Duration(v.r.IntN(25))*time.Second)
		c := Event{Kind: EventCall, At: begun, Caller: caller, ID: id, Identity: one(v.r, call.Verified, call.Verified, call.Shared)}
		if v.r.IntN(4) == 0 {
			c.Ended = begun.Add(time.Duration(v.r.IntN(30)) * time.Second)
		}
		v.crowd = append(v.crowd, c)
		if v.r.IntN(2) == 0 {
			beat := v.at.Add(-time.Duration(v.r.IntN(int(v.at.Sub(begun)/time.Second)+1)) * time.Second)
			v.crowd = append(v.crowd, Event{Kind: one(v.r, EventLease, EventLease, EventRelease), At: beat, Caller: caller, ID: id})
		}
	}
}

// note has another node tell of an event.
func (v *lived) note(e Event) {
	e.Caller = ""
	text, _ := json.Marshal(e) // an event always marshals
	v.told = append(v.told, event{Node: "elsewhere", Entry: audit.Entry{Actor: "node", Act: actMatter + string(e.Kind), Subject: v.id, Call: e.Call,
		Detail: map[string]string{detailEvent: string(text), detailID: fmt.Sprintf("%x", randomBytes(16))}}})
}

// asOf is a call as it is known at a time, with the heaviest load while it was with an agent.
func (v *lived) asOf(c Event, now time.Time) Event {
	c.Call = c.ID
	if c.Ended.After(now) {
		c.Ended, c.Outcome = time.Time{}, ""
	}
	for i, load := range v.loads {
		begin := load.At
		if begin.Before(c.Answered) {
			begin = c.Answered
		}
		if over := i+1 < len(v.loads) && !v.loads[i+1].At.After(begin); !over && begin.Before(earlier(c.Ended, now)) {
			c.Waiting, c.Occupancy = max(c.Waiting, load.Waiting), max(c.Occupancy, load.Occupancy)
		}
	}
	return c
}

// noteCalls notes the calls that are up.
func (v *lived) noteCalls(now time.Time) {
	for _, c := range v.calls {
		if c.Ended.After(now) {
			v.note(v.asOf(c, now))
		}
	}
}

// tell puts what was noted into Redis, and has the node copy it. Nothing else reads the stream meanwhile.
func (v *lived) tell() error {
	_, err := v.n.store.Client().Pipelined(v.n.t.Context(), func(p redis.Pipeliner) error {
		for _, e := range v.told {
			text, _ := json.Marshal(e) // an event always marshals
			p.XAdd(v.n.t.Context(), &redis.XAddArgs{Stream: keyStream, Values: []any{"e", text}})
		}
		return nil
	})
	v.told = nil
	return errors.Join(err, v.n.copyStream(v.n.t.Context()))
}

// run lets all happen, and says where the two differ.
func (v *lived) run() error {
	if _, err := v.n.keepCaller(v.id, v.number); err != nil {
		return err
	}
	ended := pick(v.todo, func(e Event) bool { return e.Kind == EventCall })
	for i := range ended {
		ended[i].At = ended[i].Ended
		ended[i].Kind = "end"
	}
	todo := append(ended, v.todo...) // in one instant an end comes first
	slices.SortStableFunc(todo, func(a, b Event) int { return a.At.Compare(b.At) })
	for _, e := range todo {
		v.n.clock.set(e.At)
		if err := v.happen(e); err != nil {
			return fmt.Errorf("%s at %v: %w", e.Kind, e.At, err)
		}
	}
	v.n.clock.set(v.at)
	return errors.Join(v.tell(), v.n.lapse(v.n.t.Context(), v.at))
}

// happen lets one event happen to both.
func (v *lived) happen(e Event) error {
	switch e.Kind {
	case "end":
		v.note(v.asOf(v.calls[e.ID], e.At))
		return nil
	case EventLoad:
		v.loads = append(v.loads, e)
	case EventCall:
		v.calls[e.ID] = e
		v.note(v.asOf(e, e.At))
	case EventRemind, EventMark, EventRequest:
		v.note(v.asOf(v.calls[e.Call], e.At))
		v.note(e)
	default:
		v.noteCalls(e.At)
		if err := v.tell(); err != nil {
			return err
		}
		stays, err := v.act(&e)
		if err != nil || !stays {
			return err
		}
	}
	v.sim.Apply(e)
	v.happened = append(v.happened, e)
	return nil
}

// act lets an act of the staff, or the caller's appeal, happen on the line. What the line refuses, simulate is not
// told of, if it would refuse it too.
func (v *lived) act(e *Event) (stays bool, err error) {
	switch e.Kind {
	case EventPropose:
		return v.propose(*e)
	case EventApprove:
		return true, v.approve(Query{At: e.At, Kind: QueryApprove, Caller: caller, By: e.By, Role: e.Role})
	case EventDecision:
		return v.decide(e)
	case EventAppeal:
		if m := v.case_(func(c Case) bool { return c.State != Restored }); m != nil {
			if err := v.n.Appeal(v.n.t.Context(), m.Decision, ""); err != nil && !errors.Is(err, ErrOver) {
				return false, err
			}
		}
		return true, nil
	default:
		waits := v.case_(func(c Case) bool {
			at, result := v.n.appealOf(c)
			return c.State != Restored && !at.IsZero() && result == ""
		})
		if waits == nil {
			return false, nil
		}
		_, err := v.n.DecideAppeal(v.n.t.Context(), waits.Decision, e.Result == overturned, "x", "mgr9", Manager)
		if refusal(err) == ReasonNoAppeal { // too late to uphold it
			return true, nil
		}
		return true, err
	}
}

// case_ is the latest measure of the number that is as wanted, or nil.
func (v *lived) case_(wanted func(Case) bool) *Case {
	for _, c := range slices.Backward(v.n.casesOf(v.id)) {
		if c.State != Void && wanted(c) {
			return &c
		}
	}
	return nil
}

func (v *lived) differ(what string, engine, line any) error {
	word, _, _ := strings.Cut(fmt.Sprint(engine), ":2")
	v.compared[what+" "+word]++
	if engine != line {
		return fmt.Errorf("%s: the engine says %v, the line %v", what, engine, line)
	}
	return nil
}

func (v *lived) propose(e Event) (bool, error) {
	f := v.sim.matter(caller, e.At)
	f.proposal = &e
	want := v.sim.lacks(f, e.At)
	err := v.n.Propose(v.n.t.Context(), v.id, e.Clause, e.By)
	if err != nil && refusal(err) == ReasonNone {
		return false, err
	}
	return err == nil, v.differ("propose", want, refusal(err))
}

func (v *lived) approve(q Query) error {
	want := v.sim.Decide(q)
	c, err := v.n.Approve(v.n.t.Context(), v.id, q.By, q.Role, "x")
	switch {
	case err == nil:
		return v.differ("approve", want, suspend(&measure{level: c.Level, until: c.Until.In(q.At.Location())}))
	case errors.Is(err, ErrUnknown): // nothing was noted of the caller, whatever was decided elsewhere
		return v.differ("approve", strings.HasPrefix(string(want), "DENY:"), true)
	case refusal(err) == ReasonNone:
		return err
	}
	return v.differ("approve", want, deny(refusal(err)))
}

// decide sets a measure of which nothing more is known, within its term.
func (v *lived) decide(e *Event) (stays bool, err error) {
	e.Level = 1 + v.r.IntN(3)
	e.Until = earlier(e.Until, e.At.Add(v.n.policy.term(e.Level)))
	if !e.Until.After(e.At) {
		e.Until = e.At.Add(time.Second)
	}
	if err := v.n.lapse(v.n.t.Context(), e.At); err != nil {
		return false, err
	}
	_, err = v.n.SetMeasure(v.n.t.Context(), Measure{Number: v.number, Clause: e.Clause, Level: e.Level, Until: e.Until, Reason: "x"}, "sup9")
	if err != nil && !errors.Is(err, ErrRunning) {
		return false, err
	}
	runs := v.sim.matter(caller, e.At).running(v.n.policy, e.At, e.At) != nil
	return err == nil, v.differ("decide", runs, errors.Is(err, ErrRunning))
}

// count tells Redis of the calls that ended, as the line does when each one does.
func (v *lived) count() error {
	calls := pick(v.happened, func(e Event) bool { return e.Kind == EventCall })
	slices.SortFunc(calls, func(a, b Event) int { return a.Ended.Compare(b.Ended) })
	key := keyCounted(v.n.keys.counters(v.number.E164)[0])
	_, err := v.n.store.Client().Pipelined(v.n.t.Context(), func(p redis.Pipeliner) error {
		for _, c := range calls {
			o := session.CallOutcome{CallID: c.ID, Caller: v.number, Identity: c.Identity, Outcome: outcomeOf(c.Outcome), Started: c.At, Ended: c.Ended, Agent: c.Agent}
			if c.Agent != "" {
				o.Answered = c.Answered
			}
			if Counts(v.n.policy, o) {
				v.n.scripts.count.EvalSha(v.n.t.Context(), p, []string{key}, c.ID, countedText(v.n.callEvent(o, o.Ended)), v.n.policy.kept(), v.n.policy.Counters.Milliseconds())
			}
		}
		return nil
	})
	return err
}

// take gives the calls that are up their places, for as long as their leases still run.
func (v *lived) take() error {
	left, up := map[string]time.Duration{}, map[string]bool{}
	for _, e := range v.crowd {
		if e.Kind == EventCall {
			up[e.ID] = e.Identity == call.Verified && (e.Ended.IsZero() || e.Ended.After(v.at))
		}
		if left[e.ID] = 0; up[e.ID] && e.Kind != EventRelease {
			left[e.ID] = e.At.Add(v.n.policy.Concurrency.Lease).Sub(v.at)
		}
	}
	key := v.n.keys.counters(v.number.E164)[0]
	_, err := v.n.store.Client().Pipelined(v.n.t.Context(), func(p redis.Pipeliner) error {
		p.Del(v.n.t.Context(), keyLeases(key), keyLive(key))
		for _, e := range slices.SortedFunc(slices.Values(v.crowd), func(a, b Event) int { return int(left[a.ID] - left[b.ID]) }) {
			if rest := left[e.ID]; e.Kind == EventCall && rest > 0 { // the longest last: it says how long the key lives
				v.n.scripts.beat.EvalSha(v.n.t.Context(), p, []string{keyLeases(key), keyLive(key), keyCounted(key)}, e.ID+"@elsewhere",
					rest.Milliseconds(), "0 0 0", v.n.policy.Concurrency.Calls)
			}
		}
		return nil
	})
	return err
}

// ring asks both about an INVITE, now or later.
func (v *lived) ring(at time.Time, more ...Event) error {
	q := invite(at)
	q.Identity = one(v.r, call.Verified, call.Verified, call.Verified, call.Verified, call.Shared, call.Anonymous, call.Spoof)
	want := Simulate(v.n.policy, slices.Concat(v.happened, v.crowd, more), q)
	verdict := v.n.Screen(v.n.t.Context(), session.ScreenRequest{CallID: "q" + v.number.E164, Caller: v.number, Identity: q.Identity, At: at})
	if verdict.Lease != nil {
		verdict.Lease.Release()
	}
	what := "invite"
	if verdict.FailOpen {
		what = "invite without redis"
	}
	return v.differ(what, want, Answer(verdict.Decision))
}

// end asks both about the last moment.
func (v *lived) end() error {
	if err := v.count(); err != nil {
		return err
	}
	for began := time.Now(); ; began = time.Now() { // again, if a second passed meanwhile: Redis has a clock of its own
		before := *v.r.Rand
		if err := v.take(); err != nil {
			return err
		}
		err := v.ring(v.at)
		if time.Since(began) < 900*time.Millisecond {
			if err != nil {
				return err
			}
			break
		}
		*v.r.Rand = before
	}
	word := NoReferral
	if m, err := v.n.Matter(v.id); err == nil && m.Refer {
		word = ReferralCandidate
	}
	return v.differ("referral", Simulate(v.n.policy, v.happened, Query{At: v.at, Kind: QueryReferral, Caller: caller}), word)
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

// newcomer is a node with an empty Redis and an empty chain.
func newcomer(t *testing.T, s *store.Store, dir string) (n *node, end func() error) {
	t.Helper()
	if err := s.Client().FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	chain, err := audit.Open(audit.Defaults(), filepath.Join(dir, "audit"), "n1", time.Now, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{at: time.Now().Truncate(time.Second)}
	a, err := New(Defaults(), Deps{Store: s, Audit: chain, Data: dir, Now: c.now, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range []*redis.Script{a.scripts.beat, a.scripts.count} {
		if err := script.Load(context.Background(), s.Client()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	n = &node{Admission: a, t: t, data: dir, chain: chain, clock: c}
	n.sync()
	return n, func() error { return errors.Join(chain.Close(), os.RemoveAll(dir)) }
}

// batch lets some streams happen on one node, and with away rings again while Redis is so.
func batch(t *testing.T, s *store.Store, f *storetest.Fault, seeds []uint64, away time.Duration, compared map[string]int) {
	t.Helper()
	n, end := newcomer(t, s, filepath.Join(t.TempDir(), fmt.Sprint(seeds[0])))
	now := n.clock.now()
	var all []*lived
	for _, seed := range seeds {
		v := newLived(n, seed, now, compared)
		if err := errors.Join(v.run(), v.end()); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		all = append(all, v)
	}
	if away > 0 {
		n.sync()
		f.Fail(errFault)
		at := now.Add(away)
		n.clock.set(at)
		if err := n.lapse(t.Context(), at); err != nil {
			t.Error(err)
		}
		for i, v := range all {
			if err := v.ring(at, Event{Kind: EventSnapshot, At: now}, Event{Kind: EventRedis, At: now, State: "down"}); err != nil {
				t.Errorf("seed %d, away: %v", seeds[i], err)
			}
		}
		heal(t, s, f)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

// TestStreamsDecideAlikeOnTheLine: what is proposed, approved, set, and what a caller meets at the end is the same by
// the pure engine and by a node with a real Redis, over random streams: 100,000 with HOTLINE_SOAK=1.
func TestStreamsDecideAlikeOnTheLine(t *testing.T) {
	streams, size, workers := 20, 20, 1
	come := []string{"invite ADMIT", "invite ADMIT_WATCH", "invite IVR_ONLY", "invite QUEUE_LEASE", "invite without redis ADMIT",
		"invite without redis IVR_ONLY", "propose ", "approve DENY:no_proposal", "decide true"}
	if soaks() {
		streams, workers = 100_000, 2
		come = append(come, "approve SUSPEND:L1", "approve SUSPEND:L2", "approve SUSPEND:L3", "approve DENY:approver_role", "approve DENY:approver_conflict", "referral "+string(ReferralCandidate))
	}
	var next, sum sync.Mutex
	var begun int
	compared := map[string]int{}
	var all sync.WaitGroup
	for range workers {
		s, f := storetest.Open(t, storetest.Start(t, "--appendonly", "no").Addr), &storetest.Fault{}
		s.Client().AddHook(f)
		all.Go(func() {
			mine := map[string]int{}
			for {
				next.Lock()
				first := begun
				begun += size
				next.Unlock()
				if first > 0 && first%1000 == 0 {
					t.Logf("%d streams", first)
				}
				if first >= streams || t.Failed() {
					break
				}
				seeds := make([]uint64, size)
				for i := range seeds {
					seeds[i] = uint64(first + i)
				}
				var away time.Duration
				if k := first / size; k%20 == 0 {
					away = []time.Duration{time.Second, 299 * time.Second, 300 * time.Second, 301 * time.Second}[k/20%4]
				}
				batch(t, s, f, seeds, away, mine)
			}
			sum.Lock()
			defer sum.Unlock()
			for k, v := range mine {
				compared[k] += v
			}
		})
	}
	all.Wait()
	for _, k := range slices.Sorted(maps.Keys(compared)) {
		t.Logf("%7d  %s", compared[k], k)
	}
	for _, must := range come {
		if compared[must] == 0 {
			t.Errorf("never came: %s", must)
		}
	}
}
