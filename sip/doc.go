// Package sip is the gateway's own end of SIP: the backend of package call that brings calls in from
// trunks, rings agents' phones, and joins legs.
//
// A [Switch] has two places, each listening on UDP and TCP: one for carriers (package trunk), one for
// agents' phones (package registrar). Each listener has a dialog layer of its own (package dialog),
// so that everything leaves from the address that it came to. Sound is package media's.
//
// The way of an incoming call is: the gate drops strangers before the parser; the dialog layer keeps
// order and answers nonsense; incoming.go names the trunk, the called and the calling number, takes a
// place in the caps, and makes a [call.Leg]; the handler of Serve runs the leg until one of both ends.
// A call that finds only the kept places is marked Reserve; one that finds none is answered 503.
//
// What this backend cannot do is an error by name: a leg of another backend cannot join its bridge,
// and a phone registered at another node cannot be rung from this one.
package sip
