package queue

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The events of a caller, as the stream names them. Every one carries the call's state after it.
const (
	EnterQueue      = "ENTERQUEUE"
	OfferMade       = "OFFER"
	Connect         = "CONNECT"
	RingNoAnswer    = "RINGNOANSWER"
	RingCanceled    = "RINGCANCELED"
	Abandon         = "ABANDON"
	ExitWithTimeout = "EXITWITHTIMEOUT"
	ExitWithKey     = "EXITWITHKEY" // the emergency key
	CompleteAgent   = "COMPLETEAGENT"
	CompleteCaller  = "COMPLETECALLER"

	agentEvent = "AGENT"    // an agent's state, whole
	taskEvent  = "CALLBACK" // a call back, whole
)

// event is what happened to a call.
type event struct {
	name, call, queue, node      string
	agent, token, ext, phoneNode string
	reason, task                 string
	state                        EntryState
	version, score, elapsed      int64
	numbered                     bool // the caller can be called back
}

// agent is an agent as a node knows one. Times are milliseconds of Redis' clock.
type agent struct {
	ID, Extension, Node   string
	Queues                map[string]int // level by queue
	State                 AgentState
	Since, Idle, Deadline int64
	Reason, Call, Token   string
	Next                  string // a wish that waits for idle: "logout" or "pause:reason"
	Misses                int
	Last                  string // the queue of the last talk
	Version               int64

	changed bool // while Redis was away
	stuck   bool // in a state that nothing will end; seen in snapshots alone
}

// fields reads a hash, or an entry of the stream.
type fields map[string]string

func (f fields) number(name string) int64 {
	n, err := strconv.ParseInt(f[name], 10, 64)
	if err != nil {
		return 0 // absent
	}
	return n
}

func (f fields) event() event {
	return event{
		name: f["ev"], call: f["call"], queue: f["queue"], node: f["node"], agent: f["agent"], token: f["token"],
		ext: f["ext"], phoneNode: f["anode"], reason: f["reason"], task: f["task"], state: EntryState(f["state"]),
		version: f.number("v"), score: f.number("score"), elapsed: f.number("ms"),
		numbered: f["num"] == "1",
	}
}

func (f fields) agent(id string) agent {
	return agent{
		ID: id, Extension: f["ext"], Node: f["node"], Queues: parseQueues(f["queues"]), State: AgentState(f["state"]),
		Since: f.number("since"), Idle: f.number("idle"), Deadline: f.number("deadline"), Reason: f["reason"],
		Call: f["call"], Token: f["token"], Next: f["next"], Misses: int(f.number("misses")), Last: f["last"], Version: f.number("v"),
		stuck: f["stuck"] == "1",
	}
}

// flat makes fields of a reply's list of names and values.
func flat(reply any) fields {
	list, _ := reply.([]any)
	f := make(fields, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		f[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
	}
	return f
}

// formatQueues writes an agent's queues as the scripts read them: "city:1 road:2".
func formatQueues(queues map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		parts = append(parts, fmt.Sprintf("%s:%d", name, queues[name]))
	}
	return strings.Join(parts, " ")
}

func parseQueues(s string) map[string]int {
	queues := make(map[string]int)
	for part := range strings.FieldsSeq(s) {
		name, level, _ := strings.Cut(part, ":")
		n, err := strconv.Atoi(level)
		if err != nil {
			continue // formatQueues writes no such part
		}
		queues[name] = n
	}
	return queues
}
