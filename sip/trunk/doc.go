// Package trunk knows the carriers: who they are, what their numbers mean, how many calls they may
// bring, and whether they are there.
//
// A trunk is recognised by the address a message came from (longest prefix wins); whatever comes
// from elsewhere is dropped without an answer, before it is parsed. What makes a caller's number
// believable is the trunk's identity setting: a P-Asserted-Identity (RFC 3325), the From of a
// carrier that screens it, or nothing.
//
// One deviation from RFC 3325 section 9.1: more than one SIP or more than one tel identity in
// P-Asserted-Identity is not refused but classed as [call.Spoof], so that the caller still hears
// the line and the emergency exit.
package trunk
