package abuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

func TestAMeasureFromSettingToRestoring(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := start(t, s, "n1", t.TempDir())
		n.sync()
		c := n.suspend()
		if want := c.From.Add(24 * time.Hour); !c.Until.Equal(want) || c.State != Running {
			t.Errorf("case %+v", c)
		}
		v := n.expect("c1", session.IVROnly)
		if diff := cmp.Diff(&session.Measure{Decision: c.Decision, Clause: "29-1", Level: 1, Until: c.Until}, v.Measure); diff != "" {
			t.Error(diff)
		}
		for i := range 3 { // none of its calls waits for a lease
			n.expect(fmt.Sprint("d", i), session.IVROnly)
		}
		if _, err := n.SetMeasure(t.Context(), Measure{Number: call.Number{E164: mobile}, Clause: "29-2", Level: 2, Reason: "again"}, "sup1"); !errors.Is(err, ErrRunning) {
			t.Errorf("a second measure: %v", err)
		}
		shown, err := n.Show(c.Decision)
		if err != nil || shown.Number.E164 != mobile || shown.Actor != "sup1" || shown.Reason != c.Reason {
			t.Errorf("Show = %+v, %v", shown, err)
		}

		if _, err := n.Restore(t.Context(), "20260101-0000", "", "mgr1"); !errors.Is(err, ErrUnknown) {
			t.Errorf("Restore of nothing: %v", err)
		}
		if _, err := n.Restore(t.Context(), c.Decision, "the reminder was not given", "mgr1"); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Restore(t.Context(), c.Decision, "twice", "mgr1"); !errors.Is(err, ErrOver) {
			t.Errorf("a second restoration: %v", err)
		}
		for _, l := range n.leases {
			l.Release()
		}
		n.expect("c2", session.Admit)
		n.suspend() // and another may be set
		var states []State
		for _, c := range n.List() {
			states = append(states, c.State)
		}
		if !cmp.Equal(states, []State{Running, Restored}, cmpopts.SortSlices(func(a, b State) bool { return a < b })) {
			t.Errorf("states %v", states)
		}
		if got := n.acts(); !cmp.Equal(got, []string{actSet, actRestored, actSet}) {
			t.Errorf("chain %v", got)
		}
	})
}

func TestAMeasureEndsByItself(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := start(t, s, "n1", t.TempDir())
		n.sync()
		c := n.suspend()
		n.clock.turn(c.Until.Sub(n.clock.now()) - time.Millisecond)
		n.expect("c1", session.IVROnly)
		n.clock.turn(time.Millisecond)
		n.expect("c2", session.Admit)
		if shown, err := n.Show(c.Decision); err != nil || shown.State != Expired {
			t.Errorf("Show = %+v, %v", shown, err)
		}
		n.sync()
		n.sync()
		if got := n.acts(); !cmp.Equal(got, []string{actSet, actExpired}) {
			t.Errorf("chain %v", got)
		}
		if left, err := s.Client().HLen(t.Context(), keyRunning).Result(); err != nil || left != 0 {
			t.Errorf("%d measures left in Redis, %v", left, err)
		}
	})
}

func TestNoNumberIsInRedisOrInTheChainInClear(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := start(t, s, "n1", t.TempDir())
		n.sync()
		n.suspend()
		n.outcome("c0", time.Minute, time.Second)
		n.screen("c1")
		n.clock.turn(5 * time.Second)
		n.beatDue(t.Context())
		var dump strings.Builder
		keys, err := s.Client().Keys(t.Context(), "*").Result()
		if err != nil || len(keys) < 5 {
			t.Fatalf("keys %v, %v", keys, err)
		}
		for _, key := range keys {
			fmt.Fprintln(&dump, key, s.Client().HGetAll(t.Context(), key), s.Client().ZRange(t.Context(), key, 0, -1),
				s.Client().XRange(t.Context(), key, "-", "+"), s.Client().Get(t.Context(), key))
		}
		for _, dir := range []string{"audit", "measures"} {
			err := filepath.Walk(filepath.Join(n.data, dir), func(path string, info os.FileInfo, err error) error {
				if err == nil && !info.IsDir() {
					b, _ := os.ReadFile(path)
					fmt.Fprintln(&dump, path, string(b))
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if strings.Contains(dump.String(), mobile[3:]) {
			t.Error("a number lies in clear")
		}
		if !strings.Contains(dump.String(), "29-1") || !strings.Contains(dump.String(), "hmac-sha256:") {
			t.Error("the dump is not what it should be")
		}
	})
}

// TestEmbeddedRestart: the embedded Redis keeps nothing; the chain restores what runs.
func TestEmbeddedRestart(t *testing.T) {
	data := t.TempDir()
	var c, lifted Case
	t.Run("before", func(t *testing.T) {
		n := start(t, storetest.Open(t, ""), "n1", data)
		n.sync()
		lifted = n.suspend()
		if _, err := n.Restore(t.Context(), lifted.Decision, "in error", "mgr1"); err != nil {
			t.Fatal(err)
		}
		c = n.suspend()
	})
	t.Run("after", func(t *testing.T) {
		n := start(t, storetest.Open(t, ""), "n1", data)
		n.sync()
		if v := n.expect("c1", session.IVROnly); v.Measure.Decision != c.Decision {
			t.Errorf("measure %+v", v.Measure)
		}
		if _, err := n.Restore(t.Context(), c.Decision, "the term is long enough", "mgr1"); err != nil {
			t.Fatal(err)
		}
		n.expect("c2", session.Admit)
	})
	t.Run("after the term", func(t *testing.T) {
		n := startAt(t, storetest.Open(t, ""), "n1", data, &clock{at: c.Until})
		n.sync()
		n.expect("c1", session.Admit)
	})
}

func TestAnEmptiedRedisIsRebuiltOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := start(t, s, "n1", t.TempDir())
		n.sync()
		n.suspend()
		if err := s.Client().FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		n.expect("c1", session.Admit)
		n.sync()
		n.expect("c2", session.IVROnly)
		// Where only the measure is gone, Redis is believed: it may have been restored elsewhere.
		if err := s.Client().Del(t.Context(), keyRunning).Err(); err != nil {
			t.Fatal(err)
		}
		n.sync()
		n.expect("c2", session.Admit)
	})
}

func TestARestorationInTheChainWins(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n := start(t, s, "n1", t.TempDir())
		n.sync()
		c := n.suspend()
		if _, err := n.Restore(t.Context(), c.Decision, "in error", "mgr1"); err != nil {
			t.Fatal(err)
		}
		if err := s.Client().HSet(t.Context(), keyRunning, c.pseudonym, c.stored()).Err(); err != nil { // an old copy of Redis
			t.Fatal(err)
		}
		n.expect("c1", session.Admit)
		n.sync()
		if left, err := s.Client().HLen(t.Context(), keyRunning).Result(); err != nil || left != 0 {
			t.Errorf("%d measures left, %v", left, err)
		}
		if err := s.Client().HSet(t.Context(), keyRunning, c.pseudonym, "{").Err(); err != nil { // and nonsense
			t.Fatal(err)
		}
		if v := n.expect("c2", session.Admit); !v.FailOpen {
			t.Error("nonsense was not counted")
		}
		n.sync()
		if v := n.expect("c3", session.QueueLease); v.FailOpen { // c1 and c2 are up
			t.Errorf("verdict %+v", v)
		}
	})
}

func TestARestorationHoldsWhileRedisIsAway(t *testing.T) {
	s := storetest.Open(t, "")
	n, f := fault(t, s)
	s.Blocking().AddHook(f)
	n.sync()
	c := n.suspend()
	n.sync()
	f.Fail(errFault)
	n.expect("c1", session.IVROnly)
	if _, err := n.Restore(t.Context(), c.Decision, "in error", "mgr1"); err != nil {
		t.Fatal(err)
	}
	n.expect("c2", session.Admit)
	if err := n.Sync(t.Context()); !errors.Is(err, errFault) {
		t.Errorf("Sync = %v", err)
	}
	heal(t, s, f)
	n.expect("c3", session.Admit)
	n.sync()
	if left, err := s.Client().HLen(t.Context(), keyRunning).Result(); err != nil || left != 0 {
		t.Errorf("%d measures left, %v", left, err)
	}
}

func TestWithoutARecordThereIsNoMeasure(t *testing.T) {
	s := storetest.Open(t, "")
	n := start(t, s, "n1", t.TempDir())
	n.sync()
	n.chain.Close()
	_, err := n.SetMeasure(t.Context(), Measure{Number: call.Number{E164: mobile}, Clause: "29-1", Level: 1, Reason: "x"}, "sup1")
	if !errors.Is(err, audit.ErrBroken) {
		t.Errorf("SetMeasure = %v", err)
	}
	n.expect("c1", session.Admit)
	if files, _ := filepath.Glob(filepath.Join(n.data, "measures", "*")); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
}

// unsure lets a script run and then says that it did not answer, as a lost connection does.
type unsure struct{ on atomic.Bool }

func (u *unsure) DialHook(next redis.DialHook) redis.DialHook { return next }
func (u *unsure) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (u *unsure) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if err == nil && u.on.Load() && strings.HasPrefix(cmd.Name(), "eval") {
			cmd.SetErr(errFault)
			return errFault
		}
		return err
	}
}

func TestAMeasureOfUnsureEffectIsVoid(t *testing.T) {
	s := storetest.Open(t, "")
	u := &unsure{}
	s.Blocking().AddHook(u)
	n := start(t, s, "n1", t.TempDir())
	n.sync()
	u.on.Store(true)
	_, err := n.SetMeasure(t.Context(), Measure{Number: call.Number{E164: mobile}, Clause: "29-1", Level: 1, Reason: "x"}, "sup1")
	if !errors.Is(err, ErrAway) {
		t.Errorf("SetMeasure = %v", err)
	}
	u.on.Store(false)
	if left, err := s.Client().HLen(t.Context(), keyRunning).Result(); err != nil || left != 1 {
		t.Fatalf("%d measures, %v: the script should have run", left, err)
	}
	n.expect("c1", session.Admit)
	n.sync()
	if left, err := s.Client().HLen(t.Context(), keyRunning).Result(); err != nil || left != 0 {
		t.Errorf("%d measures left, %v", left, err)
	}
	if got := n.acts(); !cmp.Equal(got, []string{actSet, actVoid}) {
		t.Errorf("chain %v", got)
	}
}

func TestNodesCopyEachOther(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		one := start(t, s, "n1", t.TempDir())
		dir := t.TempDir()
		copyKeys(t, one.data, dir)
		two := start(t, s, "n2", dir)
		one.sync()
		two.sync()
		c := one.suspend()
		two.expect("c1", session.IVROnly)
		two.sync()
		if shown, err := two.Show(c.Decision); err != nil || shown.Number.E164 != mobile || shown.Node != "n1" {
			t.Errorf("Show = %+v, %v", shown, err)
		}
		if _, err := two.Restore(t.Context(), c.Decision, "in error", "mgr1"); err != nil {
			t.Fatal(err)
		}
		one.expect("c2", session.Admit)
		one.sync()
		if shown, err := one.Show(c.Decision); err != nil || shown.State != Restored {
			t.Errorf("Show = %+v, %v", shown, err)
		}
		for _, n := range []*node{one, two} {
			n.sync()
			if got := n.acts(); !cmp.Equal(got, []string{actSet, actRestored}) {
				t.Errorf("chain of %s: %v", n.chain.Node(), got)
			}
		}
		ledger, _, _, err := replay(two.chain)
		if err != nil || ledger[c.Decision].State != Restored {
			t.Errorf("replay: %+v, %v", ledger[c.Decision], err)
		}
		// What makes no sense in the stream is passed over.
		for _, text := range []string{"{", `{"node":"n3","entry":{"actor":"x","act":"measure.set","detail":{"decision":"../../x"}},"sealed":"x"}`} {
			if err := s.Client().XAdd(t.Context(), &redis.XAddArgs{Stream: keyStream, Values: []any{"e", text}}).Err(); err != nil {
				t.Fatal(err)
			}
		}
		one.sync()
	})
}

func TestEndsComeBeforeBegins(t *testing.T) {
	ledger := make(map[string]*Case)
	c := Case{Decision: "20260302-0001", Clause: "29-1", Level: 1, From: at, Until: at.Add(time.Hour), State: Restored, pseudonym: "p"}
	restored := c.entry("mgr1", "in error")
	c.State = Running
	apply(ledger, restored, "n2")
	apply(ledger, c.entry("sup1", "facts"), "n1")
	c.State = Expired
	apply(ledger, c.entry("node", "over"), "n1")
	apply(ledger, audit.Entry{Act: "staff.login", Detail: map[string]string{"decision": "x"}}, "n1")
	apply(ledger, audit.Entry{Act: actSet}, "n1")
	if got := ledger[c.Decision]; len(ledger) != 1 || got.State != Restored || got.Level != 1 || !got.From.Equal(at) || got.Node != "n1" {
		t.Errorf("ledger %+v", got)
	}
}

func TestABrokenChainImposesNothing(t *testing.T) {
	s := storetest.Open(t, "")
	data := t.TempDir()
	n := start(t, s, "n1", data)
	n.sync()
	if _, err := n.Restore(t.Context(), n.suspend().Decision, "in error", "mgr1"); err != nil {
		t.Fatal(err)
	}
	n.clock.turn(48 * time.Hour) // into a second file, so that the first is not read at the opening
	n.suspend()
	n.chain.Close()
	files, _ := filepath.Glob(filepath.Join(data, "audit", "n1-*.jsonl"))
	b, _ := os.ReadFile(files[0])
	os.WriteFile(files[0], []byte(strings.Replace(string(b), "six calls", "ten calls", 1)), 0o600)
	again := startAt(t, storetest.Open(t, ""), "n1", data, n.clock)
	again.sync()
	again.expect("c1", session.Admit)
}

func TestSetMeasureNamesWhatIsWrong(t *testing.T) {
	n := start(t, storetest.Open(t, ""), "n1", t.TempDir())
	good := Measure{Number: call.Number{E164: mobile}, Clause: "29-2", Level: 3, Reason: "insults after a reminder"}
	for name, harm := range map[string]func(*Measure){
		"number": func(m *Measure) { m.Number = call.Number{Raw: "anonymous"} },
		"clause": func(m *Measure) { m.Clause = "29-3" },
		"level":  func(m *Measure) { m.Level = 4 },
		"reason": func(m *Measure) { m.Reason = "" },
		"ends":   func(m *Measure) { m.Until = n.clock.now().Add(169 * time.Hour) },
		"after":  func(m *Measure) { m.Until = n.clock.now() },
	} {
		m := good
		harm(&m)
		if _, err := n.SetMeasure(t.Context(), m, "mgr1"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good.Reason = "called as " + mobile
	if _, err := n.SetMeasure(t.Context(), good, "mgr1"); !errors.Is(err, audit.ErrClearNumber) {
		t.Errorf("a number in the reason: %v", err)
	}
	good.Reason, good.Until = "insults after a reminder", n.clock.now().Add(time.Hour)
	if c, err := n.SetMeasure(t.Context(), good, "mgr1"); err != nil || c.Until.Sub(c.From) > time.Hour {
		t.Errorf("a shorter term: %+v, %v", c, err)
	}
}
