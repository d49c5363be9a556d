package abuse

import (
	"flag"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "draw docs/art29-states.md anew")

func TestStatesPageIsFresh(t *testing.T) {
	const page = "../docs/art29-states.md"
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
		t.Errorf("%s is stale; go test ./abuse -update (-want +got):\n%s", page, diff)
	}
}

// TestEveryStageAndAct walks the whole table: what is in it leads to a stage that exists, what is not is
// refused and changes nothing, and the roads that the law closes are closed.
func TestEveryStageAndAct(t *testing.T) {
	byPeople := []stageAct{actApprove, actAdopt, actOverturn, actRefer, actPropose}
	for _, act := range slices.Sorted(maps.Keys(stageSteps)) {
		for _, from := range Stages() {
			f := matter{stage: from}
			want, allowed := stageSteps[act][from]
			if got := f.step(act); got != allowed || allowed && f.stage != want || !allowed && f.stage != from {
				t.Errorf("%s in %s: %v, then %s", act, from, got, f.stage)
			}
			if allowed && !slices.Contains(Stages(), want) {
				t.Errorf("%s in %s leads to %q", act, from, want)
			}
			machine := !slices.Contains(byPeople, act)
			switch {
			case machine && want == StageReferred, machine && want == StageSuspended && act != actFade:
				t.Errorf("%s, the act of a machine, leads to %s", act, want)
			case want == StageReferred && from != StageReferrable:
				t.Errorf("%s leads from %s to the police", act, from)
			case act == actApprove && from != StageProposed && allowed:
				t.Errorf("%s is approved in %s", act, from)
			case act == actPropose && allowed && from != StageReminded && from != StageGrace && from != StageProposed:
				t.Errorf("%s without a reminder, in %s", act, from)
			}
		}
	}
	if (&matter{stage: StageNormal}).step("") {
		t.Error("no act is a step")
	}
}

func TestStagesHaveNoTrap(t *testing.T) {
	for _, s := range Stages() {
		var in, out bool
		for _, step := range stageSteps {
			for from, to := range step {
				in = in || to == s && from != s
				out = out || from == s && to != s
			}
		}
		if !in || !out {
			t.Errorf("%s: reached %v, left %v", s, in, out)
		}
	}
}
