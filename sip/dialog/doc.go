// Package dialog is the call actor over sipgo's transactions: it keeps the order of a dialog's
// requests, its timers, its races and its end.
//
// A [Layer] stands on one listener, so that everything it sends leaves from the address that it
// listens on. A [Call] is one INVITE dialog (RFC 3261 section 12), incoming or outgoing. Requests of
// its party are handled one after the other, in the order of CSeq, by the call's own goroutine; the
// methods of Call may be used from any goroutine.
//
// Deviations from the RFCs, each on purpose:
//   - A gap in CSeq is waited for 30 ms at the most, then passed over: carriers skip numbers.
//   - Require: 100rel is answered 420 (RFC 3262 makes it optional for the UAS), and Supported never
//     names it, so no peer needs to send it.
//   - An UPDATE in an early dialog is answered 500 with Retry-After when it has an offer: the early
//     offer is always unanswered there (RFC 3311 section 5.2). In a confirmed dialog it is a re-INVITE.
//   - A To-tag is known before the transaction is made: it is derived from Call-ID, From-tag and
//     branch, so that 487 and the 200 to a CANCEL carry it (RFC 3261 section 9.2).
//   - A CANCEL that comes before its INVITE is held for a second, since the two may be handed over in any
//     order; RFC 3261 section 9.2 answers it 481 at once.
//   - An offer before our ACK came, or before [Call.OnOffer] was set, is answered 491: ask again.
//   - A REFER's subscription begins with the NOTIFY that ends it (RFC 3515 section 2.4.4 wants one at
//     once as well; phones do without).
//   - 421 is never sent: no extension is needed here. A malformed datagram is dropped and counted.
//   - An ACK to a non-2xx that was lost is repeated by sipgo after T2, not at once.
package dialog
