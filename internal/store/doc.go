// Package store is the connection to Redis: how it is reached, what happens when it is away, and its
// clock.
//
// A [Store] has two clients. [Store.Client] is for what a call waits for: 20 ms to answer, no retry
// (a retried script would count a caller twice), and a breaker, so that a Redis that hangs costs three
// time-outs and then nothing. [Store.Blocking] is for blocking reads and slow jobs: it is patient and has
// no breaker. Whoever uses either decides what an error means for the call; [Away] tells an
// unreachable Redis from one that refused.
//
// Without addresses the store runs a Redis of its own inside the process (miniredis, over socket
// pairs: no port is opened). It has scripts, streams and a clock, and keeps nothing over a restart.
package store
