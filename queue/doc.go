// Package queue is agents and waiting callers.
//
// All state is in Redis under one hash tag, and each change is one script that also writes the event
// it made, so screens, reports and calls cannot disagree. An agent is claimed together with the caller,
// under a token of 128 random bits; whoever comes late with another token is fenced. The clock of every
// score and deadline is Redis' own. What may happen to a caller and to an agent stands in two tables
// (states.go), and to a task of the ledger in a third; the scripts are given the same tables.
//
// Who left without an agent is owed a call back: package queue keeps the ledger of them, one task a number, written
// in the script of the event that made it and closed by any later answer. A number is in Redis as a pseudonym and
// sealed. An agent who takes a task is reserved in the same script, and the call that pays it is an offer like any
// other but that nobody waits behind it.
//
// A node that is silent for dead_after is dead: whoever waited or talked there is in the ledger, the agents who rang
// are idle, and those who talked get a wrap-up, since the case has still to be written up. Should the node only have
// been frozen, its late answers are fenced, and what it still has it tells anew: its word on its own calls holds, and
// they leave the ledger again.
//
// A Redis that lost what it was told last, or all, is told it by the nodes: their calls, agents, the latest ends, and
// their copies of the ledger. For two seconds nobody is matched meanwhile. What does not fit together even so is
// mended by a check each five seconds, counted, and a state that stays odd for ten seconds is shown as stuck.
//
// A node reads the stream of events with one blocking read and keeps a mirror of its own calls and
// agents. While Redis is away the node goes on with the mirror: it queues its callers and offers them the
// agents whose phones it owns. When Redis returns the node tells it what it has, by token.
//
// A caller's old place holds through a declined offer, an agent's failure and a redial. A miss pauses
// the agent at once by default (auto_pause_after: 1), since an unanswered phone is an empty chair and
// the next caller should not ring it too.
package queue
