package queue

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/store"
)

//go:embed lua/*.lua lua/lib/*.lua
var lua embed.FS

// prefix of all keys; the hash tag keeps them in one slot of a cluster.
const prefix = "acd:{h}"

// scripts are the operations on Redis, each one atomic. The head of its file in lua/ says what it takes
// and returns.
type scripts struct {
	client redis.UniversalClient

	enqueue, accept, decline, complete, leave *redis.Script
	agent, beat, line, snapshot               *redis.Script
	take, settle, dismiss, owe                *redis.Script
	syncBegin                                 *redis.Script
	syncAgent, syncCall, syncDone, syncTask   *redis.Script
	check                                     *redis.Script
}

// library is what every script begins with, in this order.
func library() (string, error) {
	text := agentSteps.lua("AGENT") + entrySteps.lua("ENTRY") + taskSteps.lua("TASK")
	for _, name := range []string{"base", "ledger", "states", "line"} {
		part, err := lua.ReadFile("lua/lib/" + name + ".lua")
		if err != nil {
			return "", fmt.Errorf("queue: %w", err)
		}
		text += string(part)
	}
	return text, nil
}

func newScripts(s *store.Store) (*scripts, error) {
	head, err := library()
	if err != nil {
		return nil, err
	}
	out := &scripts{client: s.Blocking()}
	for name, script := range map[string]**redis.Script{
		"enqueue": &out.enqueue, "accept": &out.accept, "decline": &out.decline, "complete": &out.complete,
		"leave": &out.leave, "agent": &out.agent, "beat": &out.beat, "line": &out.line, "snapshot": &out.snapshot,
		"sync_begin": &out.syncBegin, "sync_agent": &out.syncAgent, "sync_call": &out.syncCall, "sync_done": &out.syncDone,
		"take": &out.take, "settle": &out.settle, "dismiss": &out.dismiss, "owe": &out.owe, "sync_task": &out.syncTask,
		"check": &out.check,
	} {
		body, err := lua.ReadFile("lua/" + name + ".lua")
		if err != nil {
			return nil, fmt.Errorf("queue: %w", err)
		}
		*script = s.Script("queue_"+name, head+string(body))
	}
	return out, nil
}

func (s *scripts) run(ctx context.Context, script *redis.Script, args ...any) *redis.Cmd {
	return script.Run(ctx, s.client, []string{prefix}, args...)
}

// record is a call as the scripts are told of it. Times are milliseconds.
type record struct {
	ID     string `json:"id"`
	Queue  string `json:"queue"`
	Node   string `json:"node"`
	Credit int64  `json:"credit"`
	Waited int64  `json:"waited"`
	Front  bool   `json:"front"`
	Score  int64  `json:"score"` // the place it had; 0 when Redis gave it none yet
	Max    int    `json:"max"`
	Ring   int64  `json:"ring"`
	Wrap   int64  `json:"wrap"`
	Miss   int    `json:"miss"`
	OverMS int64  `json:"over_ms"`
	OverTo string `json:"over_to"`
	Redial string `json:"redial"` // a pseudonym, never a number
	Caller string `json:"caller"` // masked
	Sealed string `json:"sealed"` // the number, for a call back
	Task   string `json:"task"`   // that the call pays
	Lang   string `json:"lang"`
	Why    string `json:"why"`
	V      int64  `json:"v"`

	Agent  string `json:"agent"`  // for take and sync_call
	Reason string `json:"reason"` // for owe
	Left   int64  `json:"left"`   // for owe and sync_call: how long ago the call left

	// For sync_call alone.
	State   EntryState `json:"state,omitempty"`
	Token   string     `json:"token"`
	Ext     string     `json:"ext"`
	ANode   string     `json:"anode"`
	Dropped string     `json:"dropped"`
	Talked  bool       `json:"talked"`
	Name    string     `json:"name"`
	Window  int64      `json:"window"`
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // the records hold strings and numbers alone
	}
	return string(b)
}

func millis(d time.Duration) int64 { return d.Milliseconds() }

// moment is a time of Redis; zero stays zero.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
