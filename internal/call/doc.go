// Package call is the shared vocabulary of the line: leg, bridge, number, digit, cause, tap, event.
//
// Every room speaks it and none owns it, so it imports the standard library alone. A backend
// (the package sip, or internal/asterisk) implements [Switch], [Leg] and [Bridge]; the suite in
// calltest holds each of them to the same behaviour. A call itself is one goroutine of
// straight-line code that a [Handler] runs; it ends when the leg's context ends, and
// [context.Cause] of that context says why, as an [*Ended].
package call
