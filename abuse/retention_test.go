package abuse

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// sealedNumbers are what is left of callers' numbers.
func (n *node) sealedNumbers() (names []string) {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(n.data, "measures", "*"))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".sealed"))
	}
	return names
}

// TestNumbersGoOnTime: who was only watched is forgotten after a week, who was suspended 180 days after the
// measure's end, not a second sooner; each destruction is in the chain, once.
func TestNumbersGoOnTime(t *testing.T) {
	r := storetest.Start(t)
	n := startWith(t, "n1", t.TempDir(), &clock{at: time.Now().Truncate(time.Millisecond)}, Deps{Store: storetest.Open(t, r.Addr), Load: busy})
	n.sync()
	other := n.talking("w1")
	other.Caller.E164 = "+8613700137000"
	n.notes(other, session.MarkAbuse, "", ReasonNone)
	watched, noted := n.keys.measure(other.Caller.E164), n.clock.now()
	id := n.proposed()
	c, err := n.Approve(t.Context(), id, "sup1", Supervisor, "no request")
	if err != nil {
		t.Fatal(err)
	}
	at := func(when time.Time, want ...string) {
		t.Helper()
		n.clock.turn(when.Sub(n.clock.now()))
		n.sync()
		slices.Sort(want)
		if got := n.sealedNumbers(); !cmp.Equal(got, want) {
			t.Errorf("at %v: %v are kept, want %v", when, got, want)
		}
	}
	at(noted.Add(7*24*time.Hour-time.Millisecond), c.Decision, callerFile(id), callerFile(watched))
	at(noted.Add(7*24*time.Hour), c.Decision, callerFile(id))
	at(c.Until.Add(180*24*time.Hour-time.Millisecond), c.Decision, callerFile(id))
	at(c.Until.Add(180 * 24 * time.Hour))
	n.sync()
	deleted := 0
	for rec, err := range audit.Records(n.chain.Dir(), "n1") {
		if err != nil {
			t.Fatal(err)
		}
		if rec.Act == actDeleted {
			deleted++
		}
	}
	if deleted != 3 {
		t.Errorf("%d destructions are recorded, want 3", deleted)
	}
	if _, err := n.Matter(id); err == nil {
		t.Error("the matter is still there")
	}
	if shown, err := n.Show(c.Decision); err != nil || shown.Number.E164 != "" {
		t.Errorf("the decision shows %v, %v", shown.Number, err)
	}
}
