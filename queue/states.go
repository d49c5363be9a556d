package queue

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// AgentState is what an agent is doing.
type AgentState string

// The states of an agent.
const (
	LoggedOut AgentState = "loggedout"
	Idle      AgentState = "idle"    // ready for a call
	Offered   AgentState = "offered" // the phone rings
	Talk      AgentState = "talk"
	Wrapup    AgentState = "wrapup" // after a talk, until a deadline or "ready"
	Paused    AgentState = "paused"
)

// AgentStates lists every state.
func AgentStates() []AgentState { return []AgentState{LoggedOut, Idle, Offered, Talk, Wrapup, Paused} }

// EntryState is where a caller stands.
type EntryState string

// The states of a queue entry.
const (
	EntryWaiting EntryState = "waiting"
	EntryOffered EntryState = "offered"
	EntryTalk    EntryState = "talk"
	EntryGone    EntryState = "gone" // before and after
)

// EntryStates lists every state.
func EntryStates() []EntryState {
	return []EntryState{EntryGone, EntryWaiting, EntryOffered, EntryTalk}
}

// TaskState is where a caller who is owed a call back stands.
type TaskState string

// The states of a task in the ledger.
const (
	TaskNone   TaskState = "none" // before and after
	TaskOpen   TaskState = "open"
	TaskTaken  TaskState = "taken" // an agent is calling back
	TaskClosed TaskState = "closed"
)

// TaskStates lists every state.
func TaskStates() []TaskState { return []TaskState{TaskNone, TaskOpen, TaskTaken, TaskClosed} }

// The tables say all that may happen: event, state before, state after. What is not in them
// is refused. The scripts get them as Lua tables, and docs/queue-states.md is drawn from them.
//
// A pause or a log-out in mid-call keeps the state and waits for idle; that wish is granted then. So does a pause
// that a call back interrupts. When a call's node dies the agent who talked gets the wrap-up: the caller is gone and
// the case has still to be written up.
var agentSteps = steps[AgentState]{
	"login":    {LoggedOut: Idle, Idle: Idle, Offered: Offered, Talk: Talk, Wrapup: Wrapup, Paused: Paused},
	"logout":   {Idle: LoggedOut, Wrapup: LoggedOut, Paused: LoggedOut, Offered: Offered, Talk: Talk},
	"ready":    {Idle: Idle, Wrapup: Idle, Paused: Idle, Offered: Offered, Talk: Talk},
	"pause":    {Idle: Paused, Wrapup: Paused, Paused: Paused, Offered: Offered, Talk: Talk},
	"offer":    {Idle: Offered},
	"take":     {Idle: Offered, Wrapup: Offered, Paused: Offered}, // a call back that the agent asked for
	"accept":   {Offered: Talk},
	"cancel":   {Offered: Idle},               // idle since as long as before
	"miss":     {Offered: Idle},               // idle since now
	"missout":  {Offered: Paused},             // the last miss that is borne
	"engaged":  {Offered: Wrapup},             // the phone is in a call that is not the queue's, or was out of reach once
	"complete": {Talk: Wrapup},                //
	"wrapped":  {Wrapup: Idle},                // by the deadline, or early by the agent
	"lost":     {Offered: Idle, Talk: Wrapup}, // the call's node died
	"nodelost": {Idle: Paused, Wrapup: Paused, // the phone's node died
		Paused: Paused, Offered: Offered, Talk: Talk},
}

var entrySteps = steps[EntryState]{
	"enter":    {EntryGone: EntryWaiting},
	"offer":    {EntryWaiting: EntryOffered},
	"take":     {EntryGone: EntryOffered}, // a call back: nobody waits on the line
	"accept":   {EntryOffered: EntryTalk},
	"decline":  {EntryOffered: EntryWaiting},
	"overflow": {EntryWaiting: EntryWaiting},
	"leave":    {EntryWaiting: EntryGone, EntryOffered: EntryGone},
	"complete": {EntryTalk: EntryGone},
	"lost":     {EntryWaiting: EntryGone, EntryOffered: EntryGone, EntryTalk: EntryGone},
	"void":     {EntryOffered: EntryWaiting, EntryTalk: EntryWaiting}, // after a time without Redis
}

var taskSteps = steps[TaskState]{
	"miss":      {TaskNone: TaskOpen, TaskOpen: TaskOpen, TaskTaken: TaskTaken, TaskClosed: TaskOpen},
	"recall":    {TaskOpen: TaskNone}, // the call was only thought to be lost: its node is back
	"take":      {TaskOpen: TaskTaken},
	"release":   {TaskTaken: TaskOpen},                         // the call that paid it is over
	"tried":     {TaskOpen: TaskOpen, TaskTaken: TaskOpen},     // without an answer
	"answered":  {TaskOpen: TaskClosed, TaskTaken: TaskClosed}, // by this call or any other
	"unreached": {TaskOpen: TaskClosed, TaskTaken: TaskClosed}, // the attempts are used up
	"dismissed": {TaskOpen: TaskClosed, TaskTaken: TaskClosed}, // by a person
	"dropped":   {TaskOpen: TaskClosed},                        // too many
	"expired":   {TaskClosed: TaskNone},
}

// steps is a transition table: event, state before, state after.
type steps[S ~string] map[string]map[S]S

// next is the state after an event; false when the table has no such step.
func (t steps[S]) next(event string, from S) (S, bool) {
	to, ok := t[event][from]
	return to, ok
}

// lua writes the table for the scripts.
func (t steps[S]) lua(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "local %s = {", name)
	for _, event := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(&b, "%s={", event)
		for _, from := range slices.Sorted(maps.Keys(t[event])) {
			fmt.Fprintf(&b, "%s='%s',", from, t[event][from])
		}
		b.WriteString("},")
	}
	b.WriteString("}\n")
	return b.String()
}

// mermaid draws the table, steps that keep the state left out.
func (t steps[S]) mermaid() string {
	arrows := make(map[string][]string)
	for _, event := range slices.Sorted(maps.Keys(t)) {
		for from, to := range t[event] {
			if from != to {
				arrow := fmt.Sprintf("%s --> %s", from, to)
				arrows[arrow] = append(arrows[arrow], event)
			}
		}
	}
	var b strings.Builder
	b.WriteString("```mermaid\nstateDiagram-v2\n")
	for _, arrow := range slices.Sorted(maps.Keys(arrows)) {
		fmt.Fprintf(&b, "    %s: %s\n", arrow, strings.Join(arrows[arrow], ", "))
	}
	b.WriteString("```\n")
	return b.String()
}

// StatesPage is docs/queue-states.md.
func StatesPage() string {
	return "# Queue states\n\n" +
		"Drawn from the tables in `queue/states.go`; `go test ./queue -update` draws it anew.\n\n" +
		"## A caller\n\n" + entrySteps.mermaid() +
		"\n## An agent\n\nA pause or a log-out asked for while a phone rings or a talk goes on waits for its end; `take` is a " +
		"call back that the agent asked for.\n\n" +
		agentSteps.mermaid() +
		"\n## A call back\n\nOne task a number. A missed call of a number that has one is noted in it.\n\n" +
		taskSteps.mermaid()
}
