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
// The chains are the system of record: when Redis comes back empty, measures come from there, and a
// restoration in any chain wins over a measure in Redis.
//
// A number is in Redis as HMAC-SHA-256(key, purpose ‖ E.164) and, with a measure, sealed. The keys lie in
// the data directory: epoch keys for counters and leases, 90 days each, current and previous read
// together; a case key for measures.
package abuse
