package dialog

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/prometheus/client_golang/prometheus"
)

// ErrNotServing is returned by what needs the listener before ServeUDP or ServeTCP has it.
var ErrNotServing = errors.New("dialog: the listener does not serve")

// Deps is what a layer needs of its owner. Only Log and OnInvite must be set.
type Deps struct {
	Log        *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics are registered; layers may share one

	// Drop sees each datagram (and each piece of a TCP stream) before anything else; what it returns
	// true for is dropped silently. It must not keep data and must not block.
	Drop func(data []byte, from net.Addr, transport string) bool

	// OnInvite gets each new incoming call in a goroutine of its own. It may return before the call
	// ends; a panic in it ends the call.
	OnInvite func(*Call)

	// OnRequest answers requests outside a dialog by method (REGISTER, SUBSCRIBE, MESSAGE, ...), each
	// in a goroutine of its own. OPTIONS and CANCEL are the layer's. respond may be called once for a
	// final response; when it was not called at the return, 500 is sent.
	OnRequest map[sip.RequestMethod]func(req *sip.Request, respond func(*sip.Response))

	// Trace sees each message that was kept or sent. It must not keep Raw and must not block.
	Trace func(Message)

	// Spool keeps confirmed dialogs over a kill of the process; nil keeps none.
	Spool Spool
}

// Message is a message on the wire, for a ladder.
type Message struct {
	CallID string // "" when the message has none
	At     time.Time
	Sent   bool
	Peer   netip.AddrPort
	Raw    []byte
}

// Layer is the dialogs of one listener.
type Layer struct {
	cfg  Config
	deps Deps
}

// New makes a layer. It serves nothing before ServeUDP or ServeTCP.
func New(cfg Config, deps Deps) (*Layer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Layer{cfg: cfg, deps: deps}, nil
}

// ServeUDP serves conn until ctx ends; it closes conn, ends every call that is left with BYE, and
// then returns nil. It returns an error when the listener fails. One Serve a layer.
func (l *Layer) ServeUDP(ctx context.Context, conn net.PacketConn) error { return ErrNotServing }

// ServeTCP is ServeUDP for a stream listener.
func (l *Layer) ServeTCP(ctx context.Context, ln net.Listener) error { return ErrNotServing }

// Ready is closed when the listener takes requests.
func (l *Layer) Ready() <-chan struct{} { return nil }

// Addr is the listener's address; it is valid when Ready is closed.
func (l *Layer) Addr() netip.AddrPort { return netip.AddrPort{} }

// Drain refuses new calls and OPTIONS with 503 and Retry-After, or takes them again.
func (l *Layer) Drain(on bool) {}

// Calls is the number of calls that have not ended.
func (l *Layer) Calls() int { return 0 }

// Invite places a call and blocks until it is answered, refused, or ctx ends. A refusal is a
// *call.DialError. When ctx ends the attempt is cancelled; a 200 that crosses the CANCEL is
// acknowledged and ended by BYE. The call returned is confirmed: the ACK was sent.
func (l *Layer) Invite(ctx context.Context, inv Invite) (*Call, error) { return nil, ErrNotServing }

// Request sends a request outside a dialog (OPTIONS, REGISTER) and returns its final response. Missing
// Via, From, To, Call-ID, CSeq, Max-Forwards and Contact are filled in. It goes to the request's
// Destination when that is set, or to its Request-URI.
func (l *Layer) Request(ctx context.Context, req *sip.Request) (*sip.Response, error) {
	return nil, ErrNotServing
}

// EndStale sends BYE for each dialog that the spool kept of this listener, and forgets it. It returns
// the number of dialogs ended.
func (l *Layer) EndStale(ctx context.Context) (int, error) { return 0, ErrNotServing }
