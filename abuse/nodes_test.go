package abuse

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// town is several nodes on one Redis, and who of them lives.
type town struct {
	t     *testing.T
	clock *clock

	mu     sync.Mutex
	living []string
}

func newTown(t *testing.T) *town {
	return &town{t: t, clock: &clock{at: time.Now().Truncate(time.Millisecond)}}
}

func (w *town) peers() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.living)
}

// join starts a node over a connection of its own, and lets it agree on the keys.
func (w *town) join(name, data string, s *store.Store) *node {
	w.t.Helper()
	v, err := store.NewVault(s, []byte("the secret that all nodes share!"))
	if err != nil {
		w.t.Fatal(err)
	}
	n := startWith(w.t, name, data, w.clock, Deps{Store: s, Vault: v, Peers: w.peers})
	w.mu.Lock()
	w.living = append(w.living, name)
	w.mu.Unlock()
	n.sync()
	return n
}

// die takes a node from among the living. Its leases stay as they are: it ended by kill -9.
func (w *town) die(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.living = slices.DeleteFunc(w.living, func(l string) bool { return l == n.chain.Node() })
}

func (w *town) live(n *node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.living = append(w.living, n.chain.Node())
}

// look lets nodes look for so many seconds.
func look(seconds int, nodes ...*node) {
	for range seconds {
		for _, n := range nodes {
			n.peers.look()
		}
	}
}

// pair is two nodes on one real Redis.
func pair(t *testing.T) (w *town, r *storetest.Redis, a, b *node) {
	t.Helper()
	w, r = newTown(t), storetest.Start(t)
	a = w.join("a", t.TempDir(), storetest.Open(t, r.Addr))
	b = w.join("b", t.TempDir(), storetest.Open(t, r.Addr))
	return w, r, a, b
}

// flush empties Redis, as a restart without its files does.
func flush(t *testing.T, n *node) {
	t.Helper()
	if err := n.store.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

// up is how many places the mobile number has in Redis.
func (n *node) up() int64 {
	n.t.Helper()
	count, err := n.store.Client().ZCard(n.t.Context(), keyLeases(n.keys.counters(mobile)[0])).Result()
	if err != nil {
		n.t.Fatal(err)
	}
	return count
}

func TestANumberHasTwoPlacesOverAllNodes(t *testing.T) {
	_, _, a, b := pair(t)
	first := a.expect("c1", session.Admit)
	b.expect("c2", session.Admit)
	b.expect("c3", session.QueueLease)
	a.expect("c4", session.QueueLease)
	first.Lease.Release()
	b.expect("c3", session.Admit)
	a.expect("c4", session.QueueLease)

	for i := range 6 { // and it is counted over all nodes
		[]*node{a, b}[i%2].outcome(fmt.Sprint("o", i), time.Duration(i+1)*time.Minute, time.Second)
	}
	b.leases["c3"].Release()
	if v := a.expect("c4", session.AdmitWatch); v.Banner != session.BannerRepeat {
		t.Errorf("banner %q", v.Banner)
	}
}

// TestWaitIsMeasuredOnce: from the INVITE to the lease, however often the call was screened meanwhile.
func TestWaitIsMeasuredOnce(t *testing.T) {
	w, _, a, b := pair(t)
	invite := session.ScreenRequest{CallID: "c3", Caller: call.Number{E164: mobile}, Identity: call.Verified, At: w.clock.now()}
	first := a.expect("c1", session.Admit)
	a.expect("c2", session.Admit)
	for range 4 {
		if v := b.Screen(t.Context(), invite); v.Decision != session.QueueLease {
			t.Fatalf("%+v", v)
		}
		w.clock.turn(2 * time.Second)
	}
	first.Lease.Release()
	for range 3 {
		if v := b.Screen(t.Context(), invite); v.Decision != session.Admit {
			t.Fatalf("%+v", v)
		}
		w.clock.turn(time.Second)
	}
	var m dto.Metric
	if err := b.metrics.wait.Write(&m); err != nil {
		t.Fatal(err)
	}
	if h := m.GetHistogram(); h.GetSampleCount() != 1 || h.GetSampleSum() != 8 {
		t.Errorf("%d waits of %v s together, want one of 8", h.GetSampleCount(), h.GetSampleSum())
	}
}

func TestTheBannerRisesOnAnyNode(t *testing.T) {
	w, _, a, b := pair(t)
	for i := range 3 { // 45 minutes earlier today, on another node
		a.outcome(fmt.Sprint("old", i), time.Duration(i+1)*time.Hour, 15*time.Minute)
	}
	one, two := a.expect("c1", session.Admit), b.expect("c2", session.Admit)
	one.Lease.Phase(session.PhaseTalk)
	two.Lease.Phase(session.PhaseTalk)
	for range 2 {
		w.clock.turn(5*time.Minute - 10*time.Second)
		for range 2 { // by the second heartbeat each knows of the other
			w.clock.turn(5 * time.Second)
			a.beatDue(t.Context())
			b.beatDue(t.Context())
		}
	}
	rose(t, one, session.BannerLong)
	rose(t, two, session.BannerLong)
}

func TestADeadNodesLeasesEndSoon(t *testing.T) {
	w, _, a, b := pair(t)
	look(1, b)
	a.expect("c1", session.Admit)
	a.expect("c2", session.Admit)
	b.expect("c3", session.QueueLease)
	w.die(a)
	look(1, b)
	b.expect("c3", session.QueueLease) // one look may be wrong
	look(1, b)
	b.expect("c3", session.Admit)
	if up := b.up(); up != 1 {
		t.Errorf("%d places taken, want that of c3", up)
	}
	look(forgottenAfter, b)
	if gone := b.peers.gone(); len(gone) != 0 {
		t.Errorf("still remembered: %v", gone)
	}
}

// TestAFrozenNodeComesBack: its calls are up and are counted, over the limit if need be; what it gives back is
// its own.
func TestAFrozenNodeComesBack(t *testing.T) {
	w, _, a, b := pair(t)
	look(1, b)
	frozen := []session.Verdict{a.expect("c1", session.Admit), a.expect("c2", session.Admit)}
	w.die(a)
	look(2, b)
	v := b.expect("c3", session.Admit)
	w.live(a) // 20 s later
	w.clock.turn(20 * time.Second)
	a.beatDue(t.Context())
	b.beatDue(t.Context())
	if up := b.up(); up != 3 {
		t.Errorf("%d places taken, want 3: so many calls are up", up)
	}
	for room, want := range map[string]float64{"yes": 1, "no": 1} {
		if got := testutil.ToFloat64(a.metrics.told.WithLabelValues(room)); got != want {
			t.Errorf("taken again with room=%s: %v, want %v", room, got, want)
		}
	}
	b.expect("c4", session.QueueLease)
	for range 2 {
		frozen[0].Lease.Release()
	}
	b.expect("c4", session.QueueLease) // two are up still
	v.Lease.Release()
	b.expect("c4", session.Admit)
	frozen[1].Lease.Release()
	if up := b.up(); up != 1 {
		t.Errorf("%d places taken, want that of c4", up)
	}
}

func TestALeaseMovesIntoTheNewEpoch(t *testing.T) {
	w, _, a, b := pair(t)
	v := a.expect("c1", session.Admit)
	a.expect("c2", session.Admit)
	old := keyLeases(a.keys.counters(mobile)[0])
	w.clock.turn(a.keys.life)
	a.sync()
	b.sync()
	a.beatDue(t.Context())
	b.expect("c3", session.QueueLease)
	if left, err := a.store.Client().Exists(t.Context(), old).Result(); err != nil || left != 0 {
		t.Errorf("places left under the old key: %d, %v", left, err)
	}
	v.Lease.Release()
	b.expect("c3", session.Admit)
}

func TestAMeasureHoldsOnEveryNodeAndAfterRedisWasEmptied(t *testing.T) {
	_, _, a, b := pair(t)
	c := a.suspend()
	if v := b.expect("c1", session.IVROnly); v.Measure.Decision != c.Decision {
		t.Errorf("measure %+v", v.Measure)
	}
	b.leases["c1"].Release()
	b.sync()
	a.sync()
	for _, first := range []*node{a, b} { // each from its own chain
		flush(t, a)
		a.expect("c2", session.Admit).Lease.Release()
		first.sync()
		for _, n := range []*node{a, b} {
			n.expect("c3", session.IVROnly).Lease.Release()
		}
		if held, missing := first.Rebuilding(); held {
			t.Errorf("held back for %v, whose chain was seen a moment ago", missing)
		}
		a.sync()
		b.sync()
	}
	flush(t, a)
	if _, err := b.Restore(t.Context(), c.Decision, "in error", "mgr1"); err != nil {
		t.Fatal(err)
	}
	a.sync() // rebuilds it from its own chain
	b.sync() // and the restoration, which no script could put into effect, wins
	a.sync()
	for _, n := range []*node{a, b} {
		n.expect("c4", session.Admit).Lease.Release()
		if shown, err := n.Show(c.Decision); err != nil || shown.State != Restored {
			t.Errorf("Show on %s = %+v, %v", n.chain.Node(), shown, err)
		}
	}
	if left, err := a.store.Client().HLen(t.Context(), keyRunning).Result(); err != nil || left != 0 {
		t.Errorf("%d measures left, %v", left, err)
	}
	for _, n := range []*node{a, b} {
		if got := n.acts(); !cmp.Equal(got, []string{actSet, actRestored}) {
			t.Errorf("chain of %s: %v", n.chain.Node(), got)
		}
	}
}

// TestAnUnseenChainHoldsMeasuresBack: it may hold a restoration.
func TestAnUnseenChainHoldsMeasuresBack(t *testing.T) {
	w, _, a, b := pair(t)
	c := a.suspend()
	b.sync()
	a.sync()
	// Redis is away for ten minutes, and meanwhile b restores; then it comes back empty.
	w.clock.turn(10 * time.Minute)
	flush(t, a)
	a.sync()
	if waits, missing := a.Rebuilding(); !waits || !cmp.Equal(missing, []string{"b"}) {
		t.Errorf("waits %v for %v", waits, missing)
	}
	if got := testutil.ToFloat64(a.metrics.held); got != 1 {
		t.Errorf("held %v", got)
	}
	a.expect("c1", session.Admit).Lease.Release()
	if _, err := b.Restore(t.Context(), c.Decision, "in error", "mgr1"); err != nil {
		t.Fatal(err)
	}
	b.sync()
	a.sync()
	a.expect("c2", session.Admit).Lease.Release()
	if waits, missing := a.Rebuilding(); waits {
		t.Errorf("still waits for %v", missing)
	}
	if shown, err := a.Show(c.Decision); err != nil || shown.State != Restored {
		t.Errorf("Show = %+v, %v", shown, err)
	}

	// Another one comes into force as soon as the chain was seen, without b's having anything to say.
	c = a.suspend()
	w.clock.turn(10 * time.Minute)
	flush(t, a)
	a.sync()
	a.expect("c3", session.Admit).Lease.Release()
	b.sync()
	a.sync()
	if v := a.expect("c4", session.IVROnly); v.Measure.Decision != c.Decision {
		t.Errorf("measure %+v", v.Measure)
	}
}

func TestAManagerConfirmsWithoutAChain(t *testing.T) {
	w, _, a, b := pair(t)
	c := a.suspend()
	if err := a.ConfirmRebuild(t.Context(), "mgr1"); !errors.Is(err, ErrNotHeld) {
		t.Errorf("nothing waits: %v", err)
	}
	b.sync()
	data := t.TempDir()
	third := w.join("c", data, a.store)
	w.clock.turn(10 * time.Minute)
	w.live(&node{chain: third.chain}) // c lives, and none hears of its chain any more
	flush(t, a)
	a.sync()
	b.sync()
	a.sync()
	for _, n := range []*node{a, b} {
		if waits, missing := n.Rebuilding(); !waits || !cmp.Equal(slices.Compact(missing), []string{"c"}) {
			t.Fatalf("%s waits %v for %v", n.chain.Node(), waits, missing)
		}
	}
	a.expect("c1", session.Admit).Lease.Release()
	if err := b.ConfirmRebuild(t.Context(), "mgr1"); err != nil {
		t.Fatal(err)
	}
	a.expect("c2", session.IVROnly).Lease.Release()
	a.sync()
	if waits, _ := a.Rebuilding(); waits {
		t.Error("a waits though a manager has confirmed on b")
	}
	for _, n := range []*node{a, b} {
		if got := n.acts(); !slices.Contains(got, actConfirmed) {
			t.Errorf("chain of %s: %v", n.chain.Node(), got)
		}
	}
	// The third has restored it while nobody heard.
	if _, err := third.Restore(t.Context(), c.Decision, "in error", "mgr2"); err != nil {
		t.Fatal(err)
	}
	third.sync()
	a.sync()
	a.expect("c3", session.Admit).Lease.Release()
	if _, _, confirmed, err := replay(b.chain); err != nil || confirmed != b.build.generation {
		t.Errorf("replay: confirmed %q, %v", confirmed, err)
	}
}

// TestAPeerOfAMomentAgoIsWaitedFor: an emptied Redis has not heard of the others yet.
func TestAPeerOfAMomentAgoIsWaitedFor(t *testing.T) {
	w, _, a, b := pair(t)
	a.suspend()
	look(1, a, b)
	w.clock.turn(10 * time.Minute)
	w.die(b) // as far as the emptied Redis knows
	flush(t, a)
	a.sync()
	if waits, missing := a.Rebuilding(); !waits || !cmp.Equal(missing, []string{"b"}) {
		t.Errorf("waits %v for %v", waits, missing)
	}
	look(mournedFor, a)
	a.sync()
	a.expect("c1", session.IVROnly)
}

// TestANodeThatStoodAloneJoins: its key is displaced, and what it counted, sealed and decided keeps its meaning.
func TestANodeThatStoodAloneJoins(t *testing.T) {
	data, w, r := t.TempDir(), newTown(t), storetest.Start(t)
	s := storetest.Open(t, r.Addr)
	alone := startAt(t, s, "alone", data, w.clock)
	alone.sync()
	c := alone.suspend()
	for i := range 6 {
		alone.outcome(fmt.Sprint("o", i), time.Duration(i+1)*time.Minute, time.Second)
	}
	alone.chain.Close()

	b := w.join("b", t.TempDir(), storetest.Open(t, r.Addr)) // the first with a secret
	a := w.join("alone", data, s)
	b.sync()
	if a.keys.measure(mobile) != b.keys.measure(mobile) || a.keys.displacing() {
		t.Fatal("the keys differ")
	}
	for _, n := range []*node{a, b} {
		if v := n.expect("c1-"+n.chain.Node(), session.IVROnly); v.Measure.Decision != c.Decision {
			t.Errorf("measure %+v", v.Measure)
		}
		if shown, err := n.Show(c.Decision); err != nil || shown.Number.E164 != mobile {
			t.Errorf("Show = %+v, %v", shown, err)
		}
	}
	if _, err := b.Restore(t.Context(), c.Decision, "in error", "mgr1"); err != nil {
		t.Fatal(err)
	}
	for _, l := range append(a.all(), b.all()...) {
		l.Release()
	}
	if v := a.expect("c2", session.AdmitWatch); v.Banner != session.BannerRepeat {
		t.Errorf("what it counted is lost: %+v", v)
	}
	b.expect("c3", session.Admit)
	a.expect("c4", session.QueueLease)
}

// TestNoKeyIsUsedBeforeItIsAgreed: a node that starts while Redis is away admits, and counts nothing under a
// key of its own.
func TestNoKeyIsUsedBeforeItIsAgreed(t *testing.T) {
	w, r := newTown(t), storetest.Start(t)
	s := storetest.Open(t, r.Addr)
	v := &vault{away: errors.New("away")}
	n := startWith(t, "n", t.TempDir(), w.clock, Deps{Store: s, Vault: v, Peers: w.peers})
	if err := n.Sync(t.Context()); !errors.Is(err, v.away) {
		t.Errorf("Sync = %v", err)
	}
	for i := range 3 {
		if got := n.expect(fmt.Sprint("c", i), session.Admit); !got.FailOpen {
			t.Errorf("verdict %+v", got)
		}
	}
	n.outcome("c0", time.Minute, time.Second)
	n.beatAll(t.Context())
	if _, err := n.SetMeasure(t.Context(), Measure{Number: call.Number{E164: mobile}, Clause: "29-1", Level: 1, Reason: "x"}, "sup1"); !errors.Is(err, ErrAway) {
		t.Errorf("SetMeasure = %v", err)
	}
	if keys, err := s.Client().Keys(t.Context(), "hotline:abuse:*").Result(); err != nil || len(keys) != 0 {
		t.Errorf("in Redis: %v, %v", keys, err)
	}
	v.away = nil
	n.sync()
	n.beatDue(t.Context()) // its calls take their places
	n.expect("c4", session.QueueLease)
	if up := n.up(); up != 3 {
		t.Errorf("%d places taken, want 3", up)
	}
}

// TestANewNodeIsFasterThanTheOthers: Redis was emptied, and a new node's key came before the copies of the others.
func TestANewNodeIsFasterThanTheOthers(t *testing.T) {
	w, r, a, b := pair(t)
	c := a.suspend()
	b.sync()
	a.expect("c1", session.IVROnly)
	flush(t, a)
	fresh := w.join("c", t.TempDir(), storetest.Open(t, r.Addr))
	for range 2 {
		for _, n := range []*node{a, b, fresh} {
			n.sync()
		}
	}
	a.beatAll(t.Context())
	for _, n := range []*node{a, b, fresh} {
		if n.keys.measure(mobile) != fresh.keys.measure(mobile) || n.keys.displacing() {
			t.Errorf("%s has another key", n.chain.Node())
		}
		if shown, err := n.Show(c.Decision); err != nil || shown.Number.E164 != mobile {
			t.Errorf("Show on %s = %+v, %v", n.chain.Node(), shown, err)
		}
		n.expect("c2", session.IVROnly).Lease.Release()
	}
	if up := fresh.up(); up != 1 {
		t.Errorf("%d places taken, want that of c1", up)
	}
}

// TestNothingIsImposedBehindARestoration that came after the stream was read.
func TestNothingIsImposedBehindARestoration(t *testing.T) {
	_, _, a, b := pair(t)
	c := a.suspend()
	b.sync()
	a.sync()
	if err := a.store.Client().Del(t.Context(), keyBuilt).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Restore(t.Context(), c.Decision, "in error", "mgr1"); err != nil {
		t.Fatal(err)
	}
	if err := a.impose(t.Context(), a.clock.now()); err != nil {
		t.Fatal(err)
	}
	b.expect("c1", session.Admit)
	if left, err := a.store.Client().HLen(t.Context(), keyRunning).Result(); err != nil || left != 0 {
		t.Errorf("%d measures imposed, %v", left, err)
	}
}
