package queue

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "draw docs/queue-states.md anew")

func TestStatesPageIsFresh(t *testing.T) {
	const page = "../docs/queue-states.md"
	if *update {
		if err := os.WriteFile(page, []byte(StatesPage()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(StatesPage(), string(got)); diff != "" {
		t.Errorf("%s is stale; go test ./queue -update (-want +got):\n%s", page, diff)
	}
}

// Every state must be reachable and must be left again: the tables have no trap.
func TestTablesHaveNoTrap(t *testing.T) {
	for _, s := range AgentStates() {
		checkNoTrap(t, agentSteps, s)
	}
	for _, s := range EntryStates() {
		checkNoTrap(t, entrySteps, s)
	}
	for _, s := range TaskStates() {
		checkNoTrap(t, taskSteps, s)
	}
}

func checkNoTrap[S ~string](t *testing.T, table steps[S], s S) {
	t.Helper()
	var in, out bool
	for _, step := range table {
		for from, to := range step {
			in = in || to == s && from != s
			out = out || from == s && to != s
		}
	}
	if !in || !out {
		t.Errorf("state %s: reached %v, left %v", s, in, out)
	}
}
