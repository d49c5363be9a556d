package abuse

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOneNumberHasTwoCalls(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := start(t, s, "n1", t.TempDir())
		first := n.expect("c1", session.Admit)
		n.expect("c1", session.Admit) // screened again, it has one place still
		n.expect("c2", session.Admit)
		n.expect("c3", session.QueueLease)
		n.expect("c3", session.QueueLease)
		if got := testutil.ToFloat64(n.metrics.leases); got != 2 {
			t.Errorf("leases %v, want 2", got)
		}
		first.Lease.Release()
		first.Lease.Release()
		n.expect("c3", session.Admit)
		if got := testutil.ToFloat64(n.metrics.leases); got != 2 {
			t.Errorf("leases %v, want 2", got)
		}

		for i, identity := range []call.Identity{call.Shared, call.Anonymous, call.Spoof} {
			v := n.Screen(t.Context(), session.ScreenRequest{
				CallID: fmt.Sprint("other", i), Caller: call.Number{E164: mobile}, Identity: identity, At: n.clock.now(),
			})
			if v.Decision != session.Admit || v.Lease == nil {
				t.Errorf("%s: %+v", identity, v)
			}
			v.Lease.Release()
		}
		v := n.Screen(t.Context(), session.ScreenRequest{CallID: "own", OwnNumber: true, Caller: call.Number{E164: "+8657112345"}})
		if v.Decision != session.RejectNet || v.Lease != nil {
			t.Errorf("own number: %+v", v)
		}
		v = n.Screen(t.Context(), session.ScreenRequest{CallID: "odd", Identity: call.Verified, Caller: call.Number{Raw: "x"}})
		if v.Decision != session.Admit || v.FailOpen {
			t.Errorf("a verified number that is none: %+v", v)
		}
	})
}

func TestALeaseEndsByItselfAndIsTakenAgain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := start(t, s, "n1", t.TempDir())
		n.policy.Concurrency.Lease = time.Millisecond // as if its gateway had died
		n.expect("c1", session.Admit)
		n.expect("c2", session.Admit)
		await(t, func() bool { return n.screen("c3").Decision == session.Admit }) // the millisecond passes on Redis's clock

		n.policy.Concurrency.Lease = p0(t).Concurrency.Lease // the heartbeats come back, though late
		n.clock.turn(n.policy.Concurrency.Heartbeat)
		n.beatDue(t.Context())
		n.expect("c4", session.QueueLease)
		up, err := s.Client().ZCard(t.Context(), keyLeases(n.keys.counters(mobile)[0])).Result()
		if err != nil || up != 3 {
			t.Errorf("%d leases, %v; want the 3 calls that are up", up, err)
		}
	})
}

func TestHeartbeatAddsSecondsByPhase(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := start(t, s, "n1", t.TempDir())
		v := n.expect("c1", session.Admit)
		n.clock.turn(3 * time.Second)
		v.Lease.Phase(session.PhaseQueue)
		n.clock.turn(4 * time.Second)
		v.Lease.Phase(session.PhaseTalk)
		n.clock.turn(5 * time.Second)
		for range 2 { // a heartbeat that is repeated adds nothing
			n.beatAll(t.Context())
			n.leases["c1"].beaten = time.Time{}
		}
		live, err := s.Client().HGetAll(t.Context(), keyLive(n.keys.counters(mobile)[0])).Result()
		if diff := cmp.Diff(map[string]string{"c1@n1": "3000 4000 5000"}, live); err != nil || diff != "" {
			t.Errorf("live %v %s", err, diff)
		}
		v.Lease.Release()
		n.clock.turn(time.Hour)
		v.Lease.Phase(session.PhaseIVR) // after the end: nothing is occupied any more
		for phase, want := range map[session.Phase]float64{session.PhaseIVR: 3, session.PhaseQueue: 4, session.PhaseTalk: 5} {
			if got := testutil.ToFloat64(n.metrics.occupied.WithLabelValues(string(phase))); got != want {
				t.Errorf("%s: %v s, want %v", phase, got, want)
			}
		}
		if keys, err := s.Client().Keys(t.Context(), "hotline:abuse:*").Result(); err != nil || len(keys) != 0 {
			t.Errorf("left after the release: %v, %v", keys, err)
		}
	})
}

func TestABannerRisesInMidCall(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := start(t, s, "n1", t.TempDir())
		v := n.expect("c1", session.Admit)
		n.clock.turn(time.Hour) // in the IVR it is no long talk
		n.beatDue(t.Context())
		v.Lease.Phase(session.PhaseTalk)
		n.clock.turn(n.policy.Long.Call - time.Second)
		n.beatDue(t.Context())
		if len(v.Lease.Banners()) != 0 {
			t.Fatal("a banner before its time")
		}
		n.clock.turn(5 * time.Second)
		n.beatDue(t.Context())
		rose(t, v, session.BannerLong)
		n.clock.turn(5 * time.Second)
		n.beatDue(t.Context())
		if len(v.Lease.Banners()) != 0 {
			t.Error("the banner rose twice")
		}
	})
}

func TestTwoCallsTogetherAreLong(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := start(t, s, "n1", t.TempDir())
		for i := range 3 { // 45 minutes earlier today, no call of 20
			n.outcome(fmt.Sprint("old", i), time.Duration(i+1)*time.Hour, 15*time.Minute)
		}
		one, two := n.expect("c1", session.Admit), n.expect("c2", session.Admit)
		one.Lease.Phase(session.PhaseTalk)
		two.Lease.Phase(session.PhaseTalk)
		n.clock.turn(8 * time.Minute)
		n.beatDue(t.Context())
		n.clock.turn(5 * time.Second)
		n.beatDue(t.Context()) // by now each knows of the other
		for _, v := range []session.Verdict{one, two} {
			rose(t, v, session.BannerLong)
		}
	})
}

func TestCountingIsIdempotentAndBounded(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := start(t, s, "n1", t.TempDir())
		key := keyCounted(n.keys.counters(mobile)[0])
		size := func() int64 {
			size, err := s.Client().HLen(t.Context(), key).Result()
			if err != nil {
				t.Fatal(err)
			}
			return size
		}
		for i := range 5 {
			for range 3 { // the same script, again and again
				n.outcome(fmt.Sprint("c", i), time.Duration(i+1)*time.Minute, 30*time.Second)
			}
		}
		if size() != 5 {
			t.Fatalf("%d calls counted, want 5", size())
		}
		n.expect("a", session.Admit).Lease.Release()
		n.outcome("c5", 10*time.Minute, 30*time.Second)
		if v := n.expect("a", session.AdmitWatch); v.Banner != session.BannerRepeat {
			t.Errorf("banner %q", v.Banner)
		}

		for i := range 20 {
			n.outcome(fmt.Sprint("d", i), time.Duration(i)*time.Second, time.Second)
		}
		if size() != int64(n.policy.kept()) {
			t.Errorf("%d calls kept, want %d", size(), n.policy.kept())
		}
		n.outcome("ancient", 49*time.Hour, time.Second)
		if exists, err := s.Client().HExists(t.Context(), key, "ancient").Result(); err != nil || exists {
			t.Errorf("a call of 49 h ago is kept: %v", err)
		}
		ttl, err := s.Client().PTTL(t.Context(), key).Result()
		if err != nil || ttl <= 0 || ttl > n.policy.Counters {
			t.Errorf("counters live %v, %v", ttl, err)
		}
	})
}

func TestThePreviousEpochIsReadToo(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := start(t, s, "n1", t.TempDir())
		for i := range 6 {
			n.outcome(fmt.Sprint("c", i), time.Duration(i)*time.Minute, 30*time.Second)
		}
		if err := n.keys.turn(t.Context(), n.clock.now().Add(n.keys.life)); err != nil {
			t.Fatal(err)
		}
		n.expect("a", session.AdmitWatch)
	})
}

func TestScriptsThatRedisForgot(t *testing.T) {
	s := storetest.Open(t, storetest.Start(t).Addr)
	n := start(t, s, "n1", t.TempDir())
	flush := func() {
		if err := s.Client().ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	flush()
	if v := n.expect("c1", session.Admit); v.FailOpen {
		t.Error("a flushed script was taken for a Redis that is away")
	}
	flush()
	for range 2 { // the first finds it missing, the second runs it
		n.clock.turn(5 * time.Second)
		n.beatDue(t.Context())
	}
	if live, err := s.Client().HLen(t.Context(), keyLive(n.keys.counters(mobile)[0])).Result(); err != nil || live != 1 {
		t.Errorf("live %d, %v", live, err)
	}
}

// failedOpen is how many callers were admitted without Redis, whatever the reason.
func (n *node) failedOpen() (all float64) {
	for _, r := range []string{"breaker", "timeout", "connection", "answer", "keys"} {
		all += testutil.ToFloat64(n.metrics.failOpen.WithLabelValues(r))
	}
	return all
}

// heal ends a fault, and waits until the store knows.
func heal(t *testing.T, s *store.Store, f *storetest.Fault) {
	t.Helper()
	f.Fail(nil)
	await(t, func() bool { return s.Client().Ping(t.Context()).Err() == nil })
}

// fault makes a node whose fast client fails on demand.
func fault(t *testing.T, s *store.Store) (*node, *storetest.Fault) {
	t.Helper()
	f := &storetest.Fault{}
	s.Client().AddHook(f)
	return start(t, s, "n1", t.TempDir()), f
}

func TestSnapshotIsAppliedFor300s(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n, f := fault(t, s)
		c := n.suspend()
		n.sync()
		f.Fail(errFault)
		n.clock.turn(299 * time.Second)
		v := n.expect("c1", session.IVROnly)
		if !v.FailOpen || v.Measure == nil || v.Measure.Decision != c.Decision || !v.Measure.Until.Equal(c.Until) {
			t.Errorf("verdict %+v", v)
		}
		n.clock.turn(time.Second)
		n.expect("c2", session.IVROnly)
		n.clock.turn(time.Second)
		if v := n.expect("c3", session.Admit); !v.FailOpen {
			t.Errorf("verdict %+v", v)
		}
		n.outcome("c3", time.Minute, time.Second)
		if got := n.failedOpen(); got != 3 {
			t.Errorf("failopen %v, want 3", got)
		}
		if got := testutil.ToFloat64(n.metrics.counted.WithLabelValues("lost")); got != 1 {
			t.Errorf("lost counts %v, want 1", got)
		}
		heal(t, s, f)
		n.expect("c4", session.IVROnly)
		for _, l := range n.leases {
			l.Release()
		}
	})
}

func TestAThirdCallIsAdmittedWhileRedisIsAway(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n, f := fault(t, s)
		n.expect("c1", session.Admit)
		n.expect("c2", session.Admit)
		f.Fail(errFault)
		v := n.expect("c3", session.Admit)
		v.Lease.Phase(session.PhaseTalk)
		n.clock.turn(n.policy.Long.Call)
		n.beatDue(t.Context()) // the call knows its own time
		rose(t, v, session.BannerLong)
		heal(t, s, f)
		n.clock.turn(5 * time.Second)
		n.beatDue(t.Context()) // and takes its place when Redis is back
		n.expect("c4", session.QueueLease)
		f.Fail(errFault)
		v.Lease.Release() // ends by itself in Redis
		f.Fail(nil)
		if len(n.leases) != 2 {
			t.Errorf("%d leases on this node", len(n.leases))
		}
	})
}

// TestAStalledRedis: SIGSTOP leaves the connections open and answers nothing.
func TestAStalledRedis(t *testing.T) {
	redis := storetest.Start(t)
	cfg := store.Defaults() // the time-outs of production
	cfg.Addrs = []string{redis.Addr}
	s := storetest.Run(t, cfg)
	n := start(t, s, "n1", t.TempDir())
	n.sync()
	redis.Pause(t)
	for i := range 8 {
		began := time.Now()
		v := n.expect(fmt.Sprint("c", i), session.Admit)
		took := time.Since(began)
		if !v.FailOpen {
			t.Errorf("call %d: %+v", i, v)
		}
		t.Logf("admitted in %v", took)
		if took > time.Second { // 100 ms on a machine that has nothing else to do
			t.Errorf("call %d was admitted after %v", i, took)
		}
	}
	storetest.Await(t, s, false)
	if _, err := n.SetMeasure(t.Context(), Measure{Number: call.Number{E164: mobile}, Clause: "29-1", Level: 1, Reason: "x"}, "sup1"); !errors.Is(err, ErrAway) {
		t.Errorf("a decision while Redis is away: %v", err)
	}
	redis.Resume(t)
	storetest.Await(t, s, true)
	await(t, func() bool { return !n.screen("back").FailOpen }) // the breaker lets the next call through
	if got := n.acts(); len(got) != 0 {
		t.Errorf("the chain holds %v", got)
	}
}

func TestRun(t *testing.T) {
	s := storetest.Open(t, "")
	n := start(t, s, "n1", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	await(t, func() bool { return testutil.ToFloat64(n.metrics.age) > 0 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n.Policy().Version != "P0" {
		t.Errorf("policy %q", n.Policy().Version)
	}
}
