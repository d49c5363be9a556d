package dialog

import (
	"context"
	"net/netip"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
)

// Call is one INVITE dialog. Its methods may be called from any goroutine.
type Call struct{}

// Context ends with the call; context.Cause of it is a *call.Ended.
func (c *Call) Context() context.Context { return nil }

// ID is the Call-ID.
func (c *Call) ID() string { return "" }

// Incoming tells whether the party placed the call.
func (c *Call) Incoming() bool { return false }

// Request is the INVITE that made the call. It must not be changed.
func (c *Call) Request() *sip.Request { return nil }

// Response is the 2xx of an outgoing call: its body is the SDP answer. It is nil on an incoming one.
func (c *Call) Response() *sip.Response { return nil }

// Peer is where the party's signalling came from at first, or where the INVITE was sent.
func (c *Call) Peer() netip.AddrPort { return netip.AddrPort{} }

// Provisional sends a 101 to 199 on an unanswered incoming call. A body is sent as application/sdp.
func (c *Call) Provisional(ctx context.Context, status int, body []byte, headers ...sip.Header) error {
	return ErrNotServing
}

// Answer sends 200 with the SDP and returns after the ACK. The 200 is repeated from T1, doubling, up to
// T2; without an ACK at 64*T1 the call is ended by BYE and its cause has the reason
// call.EndSignalling. For an INVITE without an offer sdp is ours, and the ACK's answer is what
// AckBody returns.
func (c *Call) Answer(ctx context.Context, sdp []byte, headers ...sip.Header) error {
	return ErrNotServing
}

// AckBody is the body of the ACK to our 200: the answer to a delayed offer. nil before the ACK.
func (c *Call) AckBody() []byte { return nil }

// Reject refuses an unanswered incoming call with a status of 300 to 699; reason "" is the usual one.
func (c *Call) Reject(ctx context.Context, status int, reason string, headers ...sip.Header) error {
	return ErrNotServing
}

// ReInvite sends an offer in a confirmed call and returns the answer. A refusal is a *call.DialError;
// the session then stays as it was. 491 is waited out as RFC 3261 section 14.1 says, once.
func (c *Call) ReInvite(ctx context.Context, offer []byte) (answer []byte, err error) {
	return nil, ErrNotServing
}

// Bye ends a call: BYE when answered, the cause's status when incoming and unanswered. A second call
// does nothing. It returns when the BYE was answered, timed out, or ctx ended; the call's context has
// ended before the BYE leaves.
func (c *Call) Bye(ctx context.Context, cause call.Cause) error { return ErrNotServing }

// End is Bye with a reason for the call's cause and further headers on the BYE.
func (c *Call) End(ctx context.Context, ended call.Ended, headers ...sip.Header) error {
	return ErrNotServing
}

// OnOffer is asked for the answer to each offer in mid-call (re-INVITE or UPDATE). A status of 300 and
// above refuses. offer is nil for a re-INVITE without SDP: the bytes returned are then our offer, and
// f is called again with the ACK's answer (its result is ignored). Without f an offer is refused 488.
func (c *Call) OnOffer(f func(offer []byte) (answer []byte, status int)) {}

// OnInfo is told each INFO with a body, in the order of CSeq; those that came before OnInfo was called
// are told then. It answers 200 by itself, or 415 when f returns false.
func (c *Call) OnInfo(f func(contentType string, body []byte) bool) {}

// OnRefer is told each REFER's target; true accepts (202, and NOTIFY 200 at once: the far side may let
// go), false refuses (603). Without f every REFER is refused 603.
func (c *Call) OnRefer(f func(target sip.Uri, req *sip.Request) bool) {}
