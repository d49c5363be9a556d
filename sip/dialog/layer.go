package dialog

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/internal/call"
)

// The errors of a layer.
var (
	// ErrNotServing is returned by what needs the listener while nothing serves it.
	ErrNotServing = errors.New("dialog: the listener does not serve")
	// ErrFull is returned when as many calls are up as Config.MaxCalls allows.
	ErrFull = errors.New("dialog: as many calls are up as max_calls allows")
	// ErrGlare is returned when an offer of the other side stands in the way of ours.
	ErrGlare = errors.New("dialog: another offer is being answered")
	// ErrElsewhere is the cause to cancel an Invite's context with when another phone answered: the
	// CANCEL then says so (RFC 3326), and the phone shows no missed call.
	ErrElsewhere error = &call.Ended{Cause: call.CauseElsewhere}
)

// straggle is how long a message that was read may take to its transaction.
const straggle = 50 * time.Millisecond

// farewell is how long the end of Serve waits for the answers to its BYEs.
const farewell = 2 * time.Second

func init() {
	// Over loopback and inside a carrier's network datagrams of more than 1300 bytes pass in
	// fragments; refusing to send them (RFC 3261 section 18.1.1) would lose the call.
	sip.UDPMTUSize = 65535
	// The library's own connections log through a global logger, whole packets among it.
	sip.SetDefaultLogger(slog.New(slog.DiscardHandler))
}

// Deps is what a layer needs of its owner. Only Log and OnInvite must be set.
type Deps struct {
	Log        *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics are registered; layers may share one

	// Drop sees each datagram (and each piece of a TCP stream) before anything else; what it returns
	// true for is dropped silently. It must not keep data and must not block.
	Drop func(data []byte, from net.Addr, transport string) bool

	// OnInvite gets each new incoming call in a goroutine of its own. It sets the call's hooks
	// (OnOffer, OnInfo, OnRefer) before it responds. It may return before the call ends; a panic in it
	// ends the call.
	OnInvite func(*Call)

	// OnRequest answers requests outside a dialog by method (REGISTER, SUBSCRIBE, MESSAGE, ...), each
	// in a goroutine of its own. OPTIONS and CANCEL are the layer's. respond is called once with a
	// final response; when it was not called at the return, 500 is sent.
	OnRequest map[sip.RequestMethod]func(req *sip.Request, respond func(*sip.Response))

	// Trace sees each message that was kept or sent, but for what is sent on a TCP connection that the
	// gateway opened. It must not keep Raw and must not block.
	Trace func(Message)

	// Spool keeps confirmed dialogs over a kill of the process; nil keeps none.
	Spool Spool

	// TLS is what ServeTLS shows to those who connect, and to those whom it connects to.
	TLS *tls.Config
}

// Message is a message on the wire, for a ladder.
type Message struct {
	CallID string // "" when the message has none
	At     time.Time
	Sent   bool
	Peer   netip.AddrPort
	Raw    []byte
}

// key finds a dialog: the tag is ours (RFC 3261 section 12.2.2 routes by it first).
type key struct{ callID, tag string }

// Layer is the dialogs of one listener.
type Layer struct {
	cfg    Config
	deps   Deps
	log    *slog.Logger
	m      *metrics
	tpl    *sip.TransportLayer
	txl    *sip.TransactionLayer
	secret [32]byte // of the To-tags

	ready   chan struct{}
	done    chan struct{} // closed when Serve gives up waiting
	network string        // "UDP", "TCP" or "TLS"
	local   netip.AddrPort
	laddr   sip.Addr // what binds a request to the listener; empty on a stream
	host    string   // of Via and Contact
	port    int
	drain   atomic.Bool

	packets      *packetConn   // nil for a stream listener
	names        names         // of its sources
	streams      sync.Map      // the connections of a stream listener: *conn by the peer's address
	transactions atomic.Int64  // of requests that came
	pending      chan struct{} // requests that were read and are not handled yet
	overtakes    chan struct{} // CANCELs that wait for their INVITE

	mu      sync.Mutex
	serving bool
	closed  bool
	calls   map[key]*Call
	invites map[string]struct{}      // From-tag, Call-ID and CSeq of calls (merged requests)
	arrived map[string]chan struct{} // closed when the INVITE is handled that a CANCEL waits for, by our tag
	spawned sync.WaitGroup
}

// New makes a layer. It serves nothing before ServeUDP or ServeTCP.
func New(cfg Config, deps Deps) (*Layer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil || deps.OnInvite == nil {
		return nil, errors.New("dialog: Log and OnInvite must be set")
	}
	l := &Layer{
		cfg: cfg, deps: deps, log: deps.Log, m: newMetrics(deps.Registerer),
		ready: make(chan struct{}), done: make(chan struct{}),
		calls: make(map[key]*Call), invites: make(map[string]struct{}), pending: make(chan struct{}, maxPending),
		overtakes: make(chan struct{}, maxOvertakes), arrived: make(map[string]chan struct{}),
	}
	if _, err := rand.Read(l.secret[:]); err != nil {
		return nil, fmt.Errorf("dialog: %w", err)
	}
	quiet := slog.New(&libraryLog{l: l})
	stream := func() *sip.TransportTCP {
		return &sip.TransportTCP{ReadTimeout: cfg.IdleConn, WriteTimeout: 5 * time.Second}
	}
	l.tpl = sip.NewTransportLayer(net.DefaultResolver, sip.NewParser(), deps.TLS,
		sip.WithTransportLayerLogger(quiet),
		sip.WithTransportLayerReadFilter(l.readFilter),
		sip.WithTransportLayerTransports(sip.TransportsConfig{
			TCP: stream(),
			TLS: &sip.TransportTLS{TransportTCP: stream()},
		}))
	// Before the transaction layer, which handles each message in a goroutine of its own: only here is
	// the order of arrival known, and only here may a message still be changed.
	l.tpl.OnMessage(l.arrive)
	l.txl = sip.NewTransactionLayer(l.tpl,
		sip.WithTransactionLayerLogger(quiet),
		sip.WithTransactionLayerUnhandledResponseHandler(func(*sip.Response) { l.m.event("stray_response") }))
	l.txl.OnRequest(l.handle)
	return l, nil
}

// ServeUDP serves conn until ctx ends; it then closes conn, ends every call that is left with BYE, and
// returns nil. It returns an error when the listener fails. One Serve a layer.
func (l *Layer) ServeUDP(ctx context.Context, conn net.PacketConn) error {
	local, err := l.open("UDP", conn.LocalAddr())
	if err != nil {
		return err
	}
	l.laddr = sip.Addr{IP: local.Addr().AsSlice(), Port: int(local.Port())}
	l.packets = &packetConn{PacketConn: conn, l: l, from: masked{name: conn.LocalAddr().String()}}
	return l.serve(ctx, conn.Close, func() error { return l.tpl.ServeUDP(l.packets) })
}

// ServeTCP is ServeUDP for a stream listener. Requests to a party without a connection open one.
func (l *Layer) ServeTCP(ctx context.Context, ln net.Listener) error {
	if _, err := l.open("TCP", ln.Addr()); err != nil {
		return err
	}
	return l.serve(ctx, ln.Close, func() error { return l.tpl.ServeTCP(&listener{Listener: ln, l: l}) })
}

// ServeTLS is ServeTCP over TLS, with the configuration of Deps.TLS for both directions.
func (l *Layer) ServeTLS(ctx context.Context, ln net.Listener) error {
	if l.deps.TLS == nil {
		return errors.New("dialog: TLS must be set")
	}
	if _, err := l.open("TLS", ln.Addr()); err != nil {
		return err
	}
	secure := &listener{Listener: tls.NewListener(ln, l.deps.TLS), l: l}
	return l.serve(ctx, ln.Close, func() error { return l.tpl.ServeTLS(secure) })
}

func (l *Layer) open(network string, addr net.Addr) (netip.AddrPort, error) {
	local, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return local, fmt.Errorf("dialog: listener: %w", err)
	}
	host, port, err := l.cfg.advertised(local)
	if err != nil {
		return local, err
	}
	if local.Addr().IsUnspecified() && l.cfg.Advertise == "" {
		return local, fmt.Errorf("dialog: advertise: a listener on %v does not know its own address; write the host that peers reach it by", local)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.serving {
		return local, errors.New("dialog: the layer serves a listener already")
	}
	l.serving, l.network, l.local, l.host, l.port = true, network, local, host, port
	return local, nil
}

// serve joins everything that it and the calls started before it returns.
func (l *Layer) serve(ctx context.Context, closeListener func() error, listen func() error) error {
	failed := make(chan error, 1)
	go func() { failed <- listen() }()
	var err error
	select {
	case err = <-failed:
		// The library returns nil for a socket that failed; without it nothing is heard any more.
		err = fmt.Errorf("dialog: listener %s %v stopped: %w", l.network, l.local, errors.Join(err, net.ErrClosed))
		close(l.done)
		_ = closeListener() // it has failed already
	case <-ctx.Done():
		l.drain.Store(true)
		l.endAll()
		// From here on nothing is read or sent. The library's goroutines cannot be joined, and one that
		// finds its listener gone opens a socket of its own: those that run get the time to end.
		close(l.done)
		time.Sleep(straggle)
		if cerr := closeListener(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
			err = fmt.Errorf("dialog: close listener: %w", cerr)
		}
		<-failed //nolint:errcheck // that the listener was closed
	}
	l.mu.Lock()
	l.closed = true
	left := l.live()
	l.mu.Unlock()
	for _, c := range left {
		c.finish(&call.Ended{Cause: call.CauseFailure, Reason: call.EndSignalling})
	}
	l.txl.Close()
	l.spawned.Wait()
	l.txl.Close() // what a last goroutine began
	l.tpl.Close()
	return err
}

// endAll ends what is left with BYE and waits for the answers, for a while.
func (l *Layer) endAll() {
	l.mu.Lock()
	left := l.live()
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	var g errgroup.Group
	for _, c := range left {
		g.Go(func() error {
			return c.End(ctx, call.Ended{Cause: call.CauseTempUnavailable, Reason: call.EndDrained})
		})
	}
	if err := g.Wait(); err != nil {
		l.log.Warn("a call did not confirm its end", "error", err)
	}
}

// live is the calls that are up; l.mu is held.
func (l *Layer) live() []*Call {
	all := make([]*Call, 0, len(l.calls))
	for _, c := range l.calls {
		all = append(all, c)
	}
	return all
}

// Ready is closed when the listener takes requests.
func (l *Layer) Ready() <-chan struct{} { return l.ready }

// Addr is the listener's address; it is valid when Ready is closed.
func (l *Layer) Addr() netip.AddrPort { return l.local }

// Drain refuses new calls and OPTIONS with 503 and Retry-After, or takes them again.
func (l *Layer) Drain(on bool) { l.drain.Store(on) }

// Calls is the number of calls that have not ended.
func (l *Layer) Calls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.calls)
}

// up tells whether the listener can send.
func (l *Layer) up() bool {
	select {
	case <-l.done:
		return false
	default:
	}
	select {
	case <-l.ready:
		return true
	default:
		return false
	}
}

// spawn runs f in a goroutine that Serve waits for. A panic in it ends c, which may be nil.
func (l *Layer) spawn(c *Call, f func()) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.spawned.Add(1)
	l.mu.Unlock()
	go func() {
		defer l.spawned.Done()
		defer l.rescue(c)
		f()
	}()
}

// rescue is deferred wherever a stranger's message or a hook may panic: it ends one call, no more.
func (l *Layer) rescue(c *Call) {
	v := recover()
	if v == nil {
		return
	}
	l.m.panics.Inc()
	log := l.log
	if c != nil {
		log = log.With("call", c.id.callID)
	}
	log.Error("a panic ended a call", "panic", v, "stack", string(debug.Stack()))
	if c != nil {
		c.fault()
	}
}
