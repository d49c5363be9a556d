package abuse

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// The gate of a decision with three keys beside plain SET, from many callers at once.
const (
	leastThroughput = 0.45
	mostCPU         = 2.5
)

// work is what a round measures.
type work struct {
	name  string
	do    func(ctx context.Context, i int) error
	rates []float64 // per second, by round
	cpu   []float64 // us of Redis an operation, by round
	waits []time.Duration
}

// info is a number of what the server says of itself.
func info(t *testing.T, s *store.Store, section, field string) float64 {
	t.Helper()
	text, err := s.Client().Info(t.Context(), section).Result()
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + field + `:([0-9.]+)`).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("no %s in %s", field, text)
	}
	v, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// round lets fifty do a work for a while.
func (w *work) round(t *testing.T, s *store.Store, length time.Duration) {
	t.Helper()
	cpu := func() float64 { return info(t, s, "cpu", "used_cpu_user") + info(t, s, "cpu", "used_cpu_sys") }
	var mu sync.Mutex
	var all sync.WaitGroup
	before, began, done := cpu(), time.Now(), 0
	for g := range 50 {
		all.Go(func() {
			var waits []time.Duration
			for i := g; time.Since(began) < length; i += 50 {
				asked := time.Now()
				if err := w.do(t.Context(), i); err != nil {
					t.Error(err)
					return
				}
				waits = append(waits, time.Since(asked))
			}
			mu.Lock()
			defer mu.Unlock()
			w.waits, done = append(w.waits, waits...), done+len(waits)
		})
	}
	all.Wait()
	took := time.Since(began)
	w.rates = append(w.rates, float64(done)/took.Seconds())
	w.cpu = append(w.cpu, (cpu()-before)*1e6/float64(done))
}

// quantile of a list, which it sorts.
func quantile[T int64 | float64 | time.Duration](q float64, list []T) T {
	slices.Sort(list)
	return list[min(int(q*float64(len(list))), len(list)-1)]
}

// know tells Redis of six counted calls of each number.
func (n *node) know(from, to int) {
	n.t.Helper()
	start := n.clock.now().Add(-time.Hour).UnixMilli()
	for begin := from; begin < to; begin += 500 {
		_, err := n.store.Blocking().Pipelined(n.t.Context(), func(p redis.Pipeliner) error {
			for i := begin; i < min(begin+500, to); i++ {
				key, fields := keyCounted(n.keys.counters(gateNumber(i))[0]), []any{}
				for c := range 6 {
					fields = append(fields, fmt.Sprintf("01JD%08d%d", i, c), fmt.Sprintf("%d %d %d no_request 1001 - 1 0.900", start+int64(c), start+int64(c), start+60_000))
				}
				p.HSet(n.t.Context(), key, fields...)
				p.PExpire(n.t.Context(), key, n.policy.Counters)
			}
			return nil
		})
		if err != nil {
			n.t.Fatal(err)
		}
	}
}

func gateNumber(i int) string { return fmt.Sprintf("+86138%08d", i) }

// TestTheGate measures a decision on the line beside plain SET, in turns, with more and more callers known. Its
// ratios are judged, the rest is told.
func TestTheGate(t *testing.T) {
	if os.Getenv("HOTLINE_BENCH") != "1" {
		t.Skip("a measurement; HOTLINE_BENCH=1 runs it")
	}
	s := storetest.Open(t, storetest.Start(t, "--appendonly", "no").Addr)
	n, end := newcomer(t, s, filepath.Join(t.TempDir(), "n"))
	defer func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	}()
	known, empty, value := 0, info(t, s, "memory", "used_memory"), fmt.Sprintf("%064d", 0)
	for _, callers := range []int{1, 10_000, 1_000_000} {
		n.know(known, callers)
		known = callers
		memory := (info(t, s, "memory", "used_memory") - empty) / float64(callers)
		set := &work{name: "SET", do: func(ctx context.Context, i int) error {
			return s.Client().Set(ctx, "gate:"+strconv.Itoa(i%callers), value, time.Minute).Err()
		}}
		decide := &work{name: "decision", do: func(ctx context.Context, i int) error {
			f := Facts{Identity: call.Verified}
			r := session.ScreenRequest{CallID: strconv.Itoa(i), Caller: call.Number{E164: gateNumber(i * 7919 % callers)}, Identity: call.Verified}
			if err := n.ask(ctx, r, &f); err != nil {
				return err
			}
			if f.Place == NotAsked || len(f.Counted) != 6 {
				return fmt.Errorf("%+v", f)
			}
			return nil
		}}
		for range 8 {
			set.round(t, s, 250*time.Millisecond)
			decide.round(t, s, 250*time.Millisecond)
		}
		ratio := func(a, b []float64) float64 {
			var r []float64
			for i := range a {
				r = append(r, a[i]/b[i])
			}
			return quantile(0.5, r)
		}
		throughput, cpu := ratio(decide.rates, set.rates), ratio(decide.cpu, set.cpu)
		t.Logf("%d callers known, %.0f bytes each; a decision has %.2f of SET's throughput and %.2f times its CPU", callers, memory, throughput, cpu)
		for _, w := range []*work{set, decide} {
			t.Logf("  %-8s %6.0f/s, p50 %v, p99 %v, %.1f us of Redis", w.name, quantile(0.5, w.rates), quantile(0.5, w.waits), quantile(0.99, w.waits), quantile(0.5, w.cpu))
		}
		if throughput < leastThroughput || cpu > mostCPU {
			t.Errorf("%d callers: the gate is %.2f of the throughput and %.1f times the CPU", callers, leastThroughput, mostCPU)
		}
	}
}
