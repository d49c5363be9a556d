package abuse

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// TestNoNumberInClearAfterADay: a day of callers, good and bad ones, with measures, appeals and a Redis that fails for a
// while. Then no number is in the log (all of it, debugging included), the metrics, Redis, the files, or what pages and
// interface show of matters. HOTLINE_SOAK=1 has ten times as many calls.
func TestNoNumberInClearAfterADay(t *testing.T) {
	calls := 100
	if soaks() {
		calls = 1000
	}
	f, s, c := &storetest.Fault{}, storetest.Open(t, storetest.Start(t).Addr), &clock{at: time.Now().Truncate(time.Millisecond)}
	s.Client().AddHook(f)
	var written bytes.Buffer
	log, reg, data := slog.New(slog.NewTextHandler(&written, &slog.HandlerOptions{Level: slog.LevelDebug})), prometheus.NewPedanticRegistry(), t.TempDir()
	chain, err := audit.Open(audit.Defaults(), filepath.Join(data, "audit"), "n1", c.now, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer chain.Close()
	a, err := New(Defaults(), Deps{Store: s, Audit: chain, Data: data, Now: c.now, Log: log, Reg: reg, Load: busy})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Admission: a, t: t, data: data, chain: chain, clock: c}
	n.sync()
	numbers := make([]string, calls/5)
	for i := range numbers {
		numbers[i] = fmt.Sprintf("+861%d%08d", 30+i%70, 10_203_040+7919*i)
	}
	n.aDay(rand.New(rand.NewPCG(29, 8)), calls, numbers, s, f)
	n.sync()
	places := map[string]string{"log": written.String(), "redis": dump(t, s), "metrics": exposed(t, reg), "files": files(t, data), "pages": n.shown()}
	for place, text := range places {
		t.Logf("%s: %d bytes", place, len(text))
		if len(text) < 1000 {
			t.Errorf("%s has %d bytes; it proves nothing", place, len(text))
		}
		for _, number := range numbers {
			if strings.Contains(text, number[3:]) { // however it is written: +86, 0086, or alone
				t.Errorf("%s has %s in clear", place, number)
			}
		}
	}
	if len(n.List()) == 0 || len(n.Appeals()) == 0 {
		t.Errorf("%d measures and %d appeals: the day was too quiet", len(n.List()), len(n.Appeals()))
	}
}

// aDay has calls of some numbers over a day. Every tenth caller insults, is suspended, calls again and appeals.
func (n *node) aDay(r *rand.Rand, calls int, numbers []string, s *store.Store, f *storetest.Fault) {
	for i := range calls {
		number := numbers[i%len(numbers)]
		if i == calls/2 {
			f.Fail(errFault)
		}
		if i == calls/2+calls/20 {
			heal(n.t, s, f)
		}
		v := n.Screen(n.t.Context(), session.ScreenRequest{CallID: fmt.Sprint("c", i), Caller: call.Number{E164: number}, Identity: call.Verified, At: n.clock.now()})
		if v.Lease != nil {
			v.Lease.Phase(session.PhaseTalk)
		}
		if v.Decision == session.IVROnly && v.Measure.Decision != "" {
			if err := n.Appeal(n.t.Context(), v.Measure.Decision, fmt.Sprint("c", i)); err != nil {
				n.t.Error(err)
			}
		}
		n.clock.turn(time.Duration(1+r.IntN(int(24*time.Hour/time.Second)/calls)) * time.Second)
		n.beatAll(n.t.Context())
		if v.Decision == session.Admit && !v.FailOpen && i%10 == 0 {
			if _, err := n.Approve(n.t.Context(), n.insultsBy(number), "sup1", Supervisor, "insults went on"); err != nil {
				n.t.Error(err)
			}
		}
		o := n.talking(fmt.Sprint("c", i))
		o.Caller.E164 = number
		n.ends(o, []session.Outcome{session.OutcomeNoRequest, session.OutcomeRegistered, session.OutcomeAbuse}[r.IntN(3)])
		if v.Lease != nil {
			v.Lease.Release()
		}
	}
}

// dump is all that Redis holds.
func dump(t *testing.T, s *store.Store) string {
	t.Helper()
	var b strings.Builder
	keys, err := s.Client().Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		fmt.Fprintln(&b, key, s.Client().HGetAll(t.Context(), key), s.Client().ZRange(t.Context(), key, 0, -1),
			s.Client().XRange(t.Context(), key, "-", "+"), s.Client().Get(t.Context(), key), s.Client().SMembers(t.Context(), key))
	}
	return b.String()
}

// exposed is what a registry exposes.
func exposed(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(families)
}

// files are all files below a directory, with their names.
func files(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		fmt.Fprintln(&b, path, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// shown is what pages and interface have of matters, measures and appeals.
func (n *node) shown() string {
	all := []any{n.Matters(), n.List(), n.Appeals()}
	text, err := json.Marshal(all)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text) + fmt.Sprint(all...)
}
