package abuse

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// stream makes what may happen to a few callers, in the order of time, biased so that files come to a
// proposal often. No two events are at one time, unless same is set.
type stream struct {
	*rand.Rand
	now    time.Time
	events []Event
	same   bool
}

func one[T any](r *stream, of ...T) T { return of[r.IntN(len(of))] }

func (r *stream) add(e Event) {
	if !r.same || r.IntN(3) > 0 {
		r.now = r.now.Add(time.Duration(1+one(r, r.IntN(30), r.IntN(300), r.IntN(4000))) * time.Second)
	}
	e.At = r.now
	r.events = append(r.events, e)
}

// talk is a call with what an agent does in it.
func (r *stream) talk(who, id string) {
	r.add(Event{Kind: EventCall, Caller: who, ID: id, Identity: one(r, call.Verified, call.Verified, call.Verified, call.Verified, call.Shared),
		Outcome: one(r, "no_request", "no_request", "no_request", "silent", "oos_told", "abuse", "in_scope", "dropped_by_us"), Agent: one(r, "ag7", "ag7", "ag7", ""),
		Topic: one(r, "", "", "", "water"), Evidence: one(r, "", "", "", "", "none")})
	c := &r.events[len(r.events)-1]
	c.Answered, c.Ended = c.At, c.At.Add(time.Duration(r.IntN(3000))*time.Second)
	clause := one(r, Clause1, Clause2)
	for range r.IntN(4) {
		switch r.IntN(6) {
		case 0, 1:
			r.add(Event{Kind: EventRemind, Caller: who, Call: id, Staff: one(r, "ag7", "ag7", "sup2", ""), What: clause, Auto: r.IntN(4) == 0})
		case 2, 3, 4:
			r.add(Event{Kind: EventMark, Caller: who, Call: id, What: one(r, markNoRequest, markAbuse, markAbuse, markCriticism)})
		case 5:
			r.add(Event{Kind: EventRequest, Caller: who, Call: id, Scope: one(r, "in", "out", "out")})
		}
	}
	if r.IntN(2) == 0 {
		r.add(Event{Kind: EventPropose, Caller: who, Clause: clause, By: one(r, "ag7", "ag8")})
	}
}

func (r *stream) happen(i int, callers ...string) {
	who, id := one(r, callers...), fmt.Sprint("c", i)
	switch r.IntN(16) {
	case 0:
		r.add(Event{Kind: EventLoad, Waiting: r.IntN(3), Occupancy: r.Float64()})
	case 1, 2:
		r.add(Event{Kind: EventApprove, Caller: who, By: one(r, "ag7", "sup1", "sup2", "m1"), Role: one(r, Supervisor, Manager, "agent")})
	case 3:
		if r.IntN(2) == 0 {
			r.add(Event{Kind: EventDecision, Caller: who, Clause: Clause1, Level: 1})
			r.events[len(r.events)-1].Until = r.now.Add(time.Duration(r.IntN(1000)) * time.Hour)
		}
	case 4:
		r.add(Event{Kind: one(r, EventAppeal, EventAppealDecide), Caller: who, Result: one(r, overturned, "upheld")})
	case 5:
		switch r.IntN(5) {
		case 0:
			r.add(Event{Kind: one(r, EventAccessNeed, EventProtect), Caller: who})
		case 1:
			r.add(Event{Kind: EventSurge, Topic: "water", To: r.now.Add(time.Hour)})
		case 2:
			r.add(Event{Kind: EventRedis, State: one(r, "up", "up", "down")})
		case 3:
			r.add(Event{Kind: EventSnapshot})
		case 4:
			r.add(Event{Kind: EventCase, Caller: who, State: one(r, "open", "closed")})
		}
	case 6:
		r.add(Event{Kind: one(r, EventLease, EventLease, EventRelease), Caller: who, ID: fmt.Sprint("c", r.IntN(i+1))})
	default:
		r.talk(who, id)
	}
}

func newStream(seed uint64) *stream { return streamOf(seed, 40) }

// streamOf is a stream of at least 5 happenings, and fewer than so many more.
func streamOf(seed uint64, more int) *stream {
	r := &stream{Rand: rand.New(rand.NewPCG(seed, 29)), now: at, same: seed%2 == 0}
	for i := range 5 + r.IntN(more) {
		r.happen(i, caller, caller, "caller-B")
	}
	switch seed % 8 { // what happens at random alone hardly ever comes so far
	case 1, 5:
		r.press(one(r, Clause1, Clause2))
	case 3:
		for range 1 + r.IntN(4) {
			r.add(Event{Kind: EventDecision, Caller: caller, Clause: Clause1, Level: 1})
			r.events[len(r.events)-1].Until = r.now.Add(time.Duration(r.IntN(100)) * time.Hour)
		}
	}
	return r
}

// press lets a caller go on after reminders until a measure is proposed.
func (r *stream) press(clause string) {
	for i := range 4 + r.IntN(10) {
		id := fmt.Sprint("p", i)
		r.add(Event{Kind: EventCall, Caller: caller, ID: id, Identity: call.Verified, Agent: "ag7",
			Outcome: map[string]string{Clause1: "no_request", Clause2: "abuse"}[clause]})
		c := &r.events[len(r.events)-1]
		c.Answered, c.Ended = c.At, c.At.Add(time.Duration(300+r.IntN(1500))*time.Second)
		if r.IntN(3) > 0 {
			r.add(Event{Kind: EventRemind, Caller: caller, Call: id, Staff: "ag7", What: clause})
		}
		if r.IntN(4) > 0 {
			r.add(Event{Kind: EventMark, Caller: caller, Call: id,
				What: map[string]string{Clause1: markNoRequest, Clause2: markAbuse}[clause]})
		}
		r.now = c.Ended
	}
	r.add(Event{Kind: EventLoad, Waiting: 1 + r.IntN(3), Occupancy: 1})
	r.add(Event{Kind: EventPropose, Caller: caller, Clause: clause, By: one(r, "ag7", "ag8")})
}

// queries asks every kind of thing at a time.
func (r *stream) queries() []Query {
	when := r.now.Add(time.Duration(r.IntN(3)*r.IntN(100_000)) * time.Second)
	q := []Query{invite(when), {At: when, Kind: QueryReferral, Caller: caller}}
	for range 4 {
		q = append(q, Query{At: when, Kind: QueryApprove, Caller: caller,
			By: one(r, "ag7", "sup1", "sup2", "m1"), Role: one(r, "agent", Supervisor, Manager, Manager)})
	}
	return q
}

// of are the events of a kind that concern the caller, or everybody, by a time.
func (r *stream) of(by time.Time, kinds ...EventKind) []Event {
	return pick(r.events, func(e Event) bool {
		return slices.Contains(kinds, e.Kind) && (e.Caller == caller || e.Caller == "") && !e.At.After(by)
	})
}

// TestTheLawHoldsWhateverHappens walks random streams of events, and holds every answer to the rules: of 60 streams,
// which come to each answer thrice at least, and with HOTLINE_SOAK=1 of 200.
func TestTheLawHoldsWhateverHappens(t *testing.T) {
	seeds := uint64(60) // the race detector makes half a second of one
	if os.Getenv("HOTLINE_SOAK") == "1" {
		seeds = 200
	}
	p, seen := p0(t), map[string]int{}
	for seed := range seeds {
		r := newStream(seed)
		for _, q := range r.queries() {
			got := Simulate(p, r.events, q)
			word, _, _ := strings.Cut(string(got), ":")
			seen[word]++
			if reason, denied := strings.CutPrefix(string(got), "DENY:"); denied && !slices.Contains(Reasons(), Reason(reason)) {
				t.Fatalf("seed %d: %s is no reason", seed, got)
			}
			if why := r.broken(p, q, got); why != "" {
				t.Fatalf("seed %d: %+v: %s: %s", seed, q, got, why)
			}
		}
	}
	t.Logf("answers of %d streams: %v", seeds, seen)
	for _, word := range []string{"ADMIT", "ADMIT_WATCH", "IVR_ONLY", "SUSPEND", "DENY", string(ReferralCandidate), string(NoReferral)} {
		if seen[word] < 3 {
			t.Errorf("%s came %d times; the streams prove nothing about it: %v", word, seen[word], seen)
		}
	}
}

// broken says which rule an answer breaks.
func (r *stream) broken(p Policy, q Query, got Answer) string {
	word, _, _ := strings.Cut(string(got), ":")
	without := func(kinds ...EventKind) Answer {
		return Simulate(p, pick(r.events, func(e Event) bool { return !slices.Contains(kinds, e.Kind) }), q)
	}
	switch {
	case word == "SUSPEND":
		return r.unlawful(p, q, without)
	case q.Kind == QueryInvite:
		if why := r.blocked(p, q, got); why != "" {
			return why
		}
		if without(EventApprove, EventDecision) == "IVR_ONLY" {
			return "suspended, and nobody has decided so"
		}
		if without(EventRemind, EventDecision) == "IVR_ONLY" {
			return "suspended without a reminder"
		}
	}
	if again := Simulate(p, r.events, q); again != got {
		return fmt.Sprint("then ", again)
	}
	if !r.same {
		shuffled := slices.Clone(r.events)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if other := Simulate(p, shuffled, q); other != got {
			return fmt.Sprint("in another order ", other)
		}
	}
	strangers := newStream(r.Uint64())
	for i, e := range strangers.events {
		if e.Caller != "" {
			e.Caller, e.ID, e.Call = "stranger-"+e.Caller, "s"+e.ID, "s"+e.Call
			strangers.events[i] = e
		}
	}
	more := append(pick(strangers.events, func(e Event) bool { return e.Caller != "" }), r.events...)
	if other := Simulate(p, more, q); other != got {
		return fmt.Sprint("with strangers' events ", other)
	}
	return ""
}

// unlawful says what a suspension lacks.
func (r *stream) unlawful(p Policy, q Query, without func(...EventKind) Answer) string {
	proposals := r.of(q.At, EventPropose)
	if len(proposals) == 0 {
		return "nobody has proposed it"
	}
	last := proposals[len(proposals)-1]
	fitting := pick(r.of(last.At, EventRemind), func(e Event) bool { return e.Staff != "" && !e.Auto && e.What == last.Clause })
	l := NewLedger(p)
	for _, e := range r.events {
		l.Apply(e)
	}
	switch {
	case len(fitting) == 0:
		return "no fitting reminder of the staff"
	case q.By == last.By, !slices.ContainsFunc(fitting, func(e Event) bool { return e.Staff != q.By }):
		return "by one person"
	case q.Role != Supervisor && q.Role != Manager:
		return "by an agent"
	case len(r.of(q.At, EventProtect, EventAccessNeed)) > 0:
		return "of a protected person"
	case len(r.of(last.At, EventMark)) == 0:
		return "by counters alone"
	case last.Clause == Clause1 && without(EventLoad) != deny(ReasonNoHindrance):
		return "hindrance was not needed"
	case strings.HasPrefix(string(without(EventMark)), "SUSPEND"), strings.HasPrefix(string(without(EventRemind)), "SUSPEND"):
		return "without a mark or a reminder too"
	case l.Stage(caller, q.At) != StageProposed:
		return "in stage " + string(l.Stage(caller, q.At))
	}
	return ""
}

// blocked says whether a caller is held back that may not be.
func (r *stream) blocked(p Policy, q Query, got Answer) string {
	danger := q
	danger.Keys = "0"
	for _, danger.Identity = range identities {
		if a := Simulate(p, r.events, danger); a != "ADMIT_EMERGENCY" {
			return fmt.Sprintf("in danger, %s: %s", danger.Identity, a)
		}
	}
	stranger := q
	for _, stranger.Identity = range []call.Identity{call.Shared, call.Anonymous, call.Spoof} {
		if a := Simulate(p, r.events, stranger); a != "ADMIT" {
			return fmt.Sprintf("%s: %s", stranger.Identity, a)
		}
	}
	if got != "IVR_ONLY" {
		return ""
	}
	runs := slices.ContainsFunc(r.of(q.At, EventApprove, EventDecision), func(e Event) bool {
		return q.At.Before(e.At.Add(p.Measure.Longest)) && (e.Until.IsZero() || q.At.Before(e.Until))
	})
	if !runs {
		return "beyond the end of every measure"
	}
	restored := slices.Clone(r.events)
	for range r.of(q.At, EventApprove, EventDecision) {
		restored = append(restored, Event{Kind: EventAppealDecide, At: q.At, Caller: caller, Result: overturned})
	}
	if a := Simulate(p, restored, q); a == "IVR_ONLY" {
		return "all is overturned, and the caller is not restored"
	}
	return ""
}
