package abuse

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Stage is where a caller's matter stands under Article 29.
type Stage string

// The stages of a matter.
const (
	StageNormal     Stage = "NORMAL"
	StageWatch      Stage = "WATCH"     // by counters: the agent sees a banner, nothing else
	StageReminded   Stage = "REMINDED"  // by the staff
	StageGrace      Stage = "GRACE"     // 29(1): reasonable time runs
	StageProposed   Stage = "PROPOSED"  // waits for another person's approval
	StageSuspended  Stage = "SUSPENDED" // until the measure's end
	StageExpired    Stage = "EXPIRED"
	StageRestored   Stage = "RESTORED" // by an appeal
	StageReferrable Stage = "REFERRAL_CANDIDATE"
	StageReferred   Stage = "REFERRED"
)

// Stages lists every stage.
func Stages() []Stage {
	return []Stage{StageNormal, StageWatch, StageReminded, StageGrace, StageProposed,
		StageSuspended, StageExpired, StageRestored, StageReferrable, StageReferred}
}

// stageAct is what brings a matter from one stage to another.
type stageAct string

const (
	actWatch     stageAct = "watch"     // counted calls reached a number of the policy
	actCalm      stageAct = "calm"      // they no longer do
	actRemind    stageAct = "remind"    // a reminder of the staff stands
	actGrace     stageAct = "grace"     // it is one of 29(1)
	actLapse     stageAct = "lapse"     // it no longer stands: its time is over, or a request within scope came
	actPropose   stageAct = "propose"   // on a reminder that stands
	actApprove   stageAct = "approve"   // by another person of the right role, on a file that is complete
	actAdopt     stageAct = "adopt"     // a lawful decision made elsewhere
	actExpire    stageAct = "expire"    // its term is over, or its appeal was left undecided
	actOverturn  stageAct = "overturn"  // on appeal
	actCandidate stageAct = "candidate" // decisions in the look-back reached the policy's number
	actFade      stageAct = "fade"      // they no longer do: back to where the term runs, or has run out
	actRefer     stageAct = "refer"     // two persons refer the file to the police
)

// stageSteps says all that may happen: act, stage before, stage after. What is not in it is refused. No
// counter leads to SUSPENDED, and no machine to REFERRED. docs/art29-states.md is drawn from it.
var stageSteps = map[stageAct]map[Stage]Stage{
	actWatch: {StageNormal: StageWatch, StageExpired: StageWatch, StageRestored: StageWatch},
	actCalm:  {StageWatch: StageNormal},
	actRemind: {StageNormal: StageReminded, StageWatch: StageReminded, StageGrace: StageReminded,
		StageExpired: StageReminded, StageRestored: StageReminded, StageReferrable: StageReminded, StageReferred: StageReminded},
	actGrace:   {StageReminded: StageGrace},
	actLapse:   {StageReminded: StageNormal, StageGrace: StageNormal, StageProposed: StageNormal},
	actPropose: {StageReminded: StageProposed, StageGrace: StageProposed, StageProposed: StageProposed},
	actApprove: {StageProposed: StageSuspended},
	actAdopt: {StageNormal: StageSuspended, StageWatch: StageSuspended, StageReminded: StageSuspended, StageGrace: StageSuspended,
		StageProposed: StageSuspended, StageSuspended: StageSuspended, StageExpired: StageSuspended, StageRestored: StageSuspended,
		StageReferrable: StageSuspended, StageReferred: StageSuspended},
	actExpire:    {StageSuspended: StageExpired},
	actOverturn:  {StageSuspended: StageRestored, StageExpired: StageRestored, StageReferrable: StageRestored, StageReferred: StageRestored},
	actCandidate: {StageNormal: StageReferrable, StageSuspended: StageReferrable, StageExpired: StageReferrable, StageRestored: StageReferrable},
	actFade:      {StageReferrable: StageSuspended},
	actRefer:     {StageReferrable: StageReferred},
}

// StatesPage is docs/art29-states.md.
func StatesPage() string {
	arrows := make(map[string][]string)
	for _, act := range slices.Sorted(maps.Keys(stageSteps)) {
		for from, to := range stageSteps[act] {
			if from != to {
				arrow := fmt.Sprintf("%s --> %s", from, to)
				arrows[arrow] = append(arrows[arrow], string(act))
			}
		}
	}
	var b strings.Builder
	b.WriteString("# Article 29: the stages of a caller's matter\n\n" +
		"Drawn from the table in `abuse/stages.go`; `go test ./abuse -update` draws it anew.\n\n" +
		"A counter leads to WATCH and no further. SUSPENDED is reached by an approval, or by a lawful decision\n" +
		"that was made elsewhere; it ends by itself. A measure runs for its own term: a candidate for a referral is\n" +
		"suspended until then, and not a second longer.\n\n" +
		"```mermaid\nstateDiagram-v2\n    [*] --> NORMAL\n")
	for _, arrow := range slices.Sorted(maps.Keys(arrows)) {
		fmt.Fprintf(&b, "    %s: %s\n", arrow, strings.Join(arrows[arrow], ", "))
	}
	b.WriteString("```\n")
	return b.String()
}
