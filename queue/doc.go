// Package queue is agents and waiting callers.
//
// All state is in Redis under one hash tag, and each change is one script that also writes the event
// it made, so screens, reports and calls cannot disagree. An agent is claimed together with the caller,
// under a token of 128 random bits; whoever comes late with another token is fenced. The clock of every
// score and deadline is Redis' own. What may happen to a caller and to an agent stands in two tables
// (states.go); the scripts are given the same tables.
//
// A node reads the stream of events with one blocking read and keeps a mirror of its own calls and
// agents. While Redis is away the node goes on with the mirror: it queues its callers and offers them the
// agents whose phones it owns. When Redis returns the node tells it what it has, by token.
//
// A caller's old place holds through a declined offer, an agent's failure and a redial. A miss pauses
// the agent at once by default (auto_pause_after: 1), since an unanswered phone is an empty chair and
// the next caller should not ring it too.
package queue
