// Package media carries the sound of a call: RTP legs for G.711 on UDP, prompts, digits, relay,
// mixing and taps.
//
// An [Engine] owns a range of ports and the timer wheels. A [Session] is one leg's media: an even
// RTP port, the RTCP port above it, and a single outgoing RTP stream that never breaks, whatever
// feeds it: a prompt, hold music, another leg's packets, a mix, or silence. A [Bridge] joins
// sessions. Two talking legs of one packet time are relayed without decoding (RFC 3550 section 7.1,
// as a translator would, but with a source of our own); more legs, or roles, are mixed at 20 ms.
//
// A session has two locks and no more: rx for what arrives, tx for what leaves. rx is never taken
// while tx is held, and no two sessions' tx locks are held together. tx is held while a packet is
// written, so that the order on the wire is the order of the sequence numbers; a UDP write does not
// wait for the peer. Where many packets go by one system call, tx is held while one is put with the
// others; a wheel and a watcher send within a millisecond or two of that, so that two packets may change
// places where a relay takes over from a prompt, and nowhere else.
//
// Deviations: comfort noise (RFC 3389) is accepted and not relayed, since the outgoing stream fills
// every pause with silence by itself. RTCP from the locked peer counts as a sign of life beside
// RTP, so a phone that is muted and sends nothing is not cut off. An RTCP BYE is no hang-up. Of several
// events packed into one packet (RFC 4733 section 2.5.1.5) the first counts.
package media
