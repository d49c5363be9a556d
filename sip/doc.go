// Package sip is the gateway's own end of SIP: the backend of package call that brings calls in from
// trunks, rings agents' phones, and joins legs.
//
// A [Switch] has three places, each with listeners of its own: one for carriers (package trunk), one for
// agents' phones (package registrar), and one for the other gateways of a cluster. Each listener has a
// dialog layer of its own (package dialog), so that everything leaves from the address that it came to.
// Sound is package media's.
//
// The way of an incoming call is: the gate drops strangers before the parser; the dialog layer keeps
// order and answers nonsense; incoming.go names the trunk, the called and the calling number, takes a
// place in the caps, and makes a [call.Leg]; the handler of Serve runs the leg until one of both ends.
// A call that finds only the kept places is marked Reserve; one that finds none is answered 503.
//
// # The node trunk
//
// A phone is registered at one gateway, its owner, or at two. When a call at another gateway is for it,
// phones.go sends an INVITE to the owner, which rings the phone and joins the two (relay.go): tones, keys,
// holds, transfers, refusals and ends pass both ways, and the owner knows nothing of the call's story. What
// crosses is what phones get: a masked number, a display name and the call's token. The next owner of the
// phone is tried when one says nothing for a second, or takes no call. A phone rings once, by this gateway
// before any other.
//
// The gateways prove themselves by a token in each INVITE, an HMAC of the cluster's secret over who calls,
// who is called, the Call-ID, the extension, the phone and the time (token.go); when certificates are set,
// by mutual TLS as well (node.go). A request in a dialog is known by the dialog's tags. A gateway that the
// cluster misses and that does not answer OPTIONS for ten seconds is dead, and its legs are ended; one
// that comes back ends the calls of its last process by what its spool kept.
//
// # What this backend cannot do
//
// A leg of another backend cannot join its bridge: that is an error by name. What a phone plays before it
// answers is heard by nobody. A phone whose packets are longer than 20 ms is mixed by its owner, not
// relayed.
package sip
