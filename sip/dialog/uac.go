package dialog

import (
	"github.com/emiago/sipgo/sip"
)

// Credentials answer a 401 or 407.
type Credentials struct {
	Username, Password string
}

// Invite is a call to be placed.
type Invite struct {
	RequestURI sip.Uri
	Dest       string         // "host:port" of the next hop; "" is the Request-URI's
	From       sip.FromHeader // the tag is the layer's
	To         sip.ToHeader   // the zero value is the Request-URI
	Headers    []sip.Header   // further headers, e.g. P-Asserted-Identity
	Body       []byte         // the SDP offer; nil asks the far side to offer, see Ack
	// Ack makes the ACK's body when Body is nil: the answer to the offer of the 200.
	Ack  func(offer []byte) []byte
	Auth *Credentials
	// CallID is set by the caller to know it in advance; "" makes one.
	CallID string
	// OnProvisional is told each provisional response but for repeated ones, in order, from the
	// goroutine of Invite. It must not block.
	OnProvisional func(*sip.Response)
}
