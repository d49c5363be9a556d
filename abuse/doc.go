// Package abuse is admission and Article 29: who reaches an agent, who waits, and who takes the
// automatic path for a while.
//
// The rules are pure Go in one place: [Decide] takes the facts of an INVITE and rules, the clock among the
// facts, and a [Ledger] folds events (calls, marks, reminders, proposals, appeals) and answers from them
// who may be suspended, until when, and who is to be referred; it asks Decide of an INVITE. A matter goes
// through the stages of one table, drawn in docs/art29-states.md. Redis decides nothing: a script takes or
// refuses the lease and returns facts. No counter suspends anyone, every measure ends by itself, and none
// but a verified personal number can be under one. A suspended caller is answered all the same, by the automatic path; only a call that claims the hotline's own
// number is refused on the network (Art. 28).
//
// A call never waits for Redis longer than the store's time-out. When Redis is away the caller is
// admitted, and counted as such; the running measures of a copy that is at most 300 s old are applied.
//
// A measure is recorded before it takes effect: its entry is on disk in the node's own audit chain, then
// one script compares-and-sets it and puts it on a stream, which every node copies into its own chain.
// The chains are the system of record: when Redis comes back empty, each node imposes what its chain says
// runs, as soon as the chain of every living node was seen within 300 s or a manager has confirmed; a
// restoration in any chain wins over a measure in Redis.
//
// A call is beaten for every 5 s by its node and has its place for 15 s (the policy's numbers), so two lost
// heartbeats cost nothing. A dead node's places do not wait for that: a node that has not been among the living
// for two seconds (they are those with a heartbeat of their own within 4 s) has none any more at the next call
// of the number, 6 s after its death at most. A node that was only frozen takes the places of its calls again,
// over the limit if need be, since they are up; the number's next call waits for them. After an emptied or
// failed-over Redis every node tells its calls anew at once.
//
// A number is in Redis as HMAC-SHA-256(key, purpose ‖ E.164) and, with a measure, sealed. The keys lie in the
// data directory, and several nodes agree on them in a vault: epoch keys for counters and leases, 90 days
// each, current and previous read together; a case key for measures. A key that was not agreed is used for
// nothing. One that another displaced (two nodes stood alone before, or a new one was faster than the others
// after Redis was emptied) is read until what was counted under it has ended, and what it had sealed is sealed
// anew.
package abuse
