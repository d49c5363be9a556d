package sip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/media"
	"github.com/hotline12345/gateway/sip/registrar"
	"github.com/hotline12345/gateway/sip/trunk"
)

// goodbye bounds the end of one leg: the BYE and its answer.
const goodbye = 5 * time.Second

// Deps is what a switch needs of its owner. Log and Credentials must be set.
type Deps struct {
	Log         *slog.Logger
	Registerer  prometheus.Registerer
	Credentials registrar.Credentials
	// Bindings is where phones are; nil keeps them in this process.
	Bindings registrar.Bindings
	// Node is this node's name, kept with each phone.
	Node string
	// Phones is where the gateways of a cluster tell one another their phones; nil for one that stands
	// alone.
	Phones registrar.Remote
	// Peers tells where another gateway is reached ([Switch.NodeAddr] there), and whether it lives. It
	// must not block; nil for one that stands alone.
	Peers func(node string) (addr string, alive bool)
	// NodeSecret is what the gateways of a cluster prove themselves with to one another, 32 bytes. It must
	// be set when Config.Nodes listens.
	NodeSecret []byte
	// OnRegistered is told when an extension has a phone at this node again, OnExpired when it has none any
	// more at any node that lives. They must not block, and may be nil.
	OnRegistered, OnExpired func(extension string)
	// Trace gets each SIP message of a call, numbers and keys masked; callID is the leg's identity
	// (Info.ID). It must not block, and may be nil.
	Trace func(callID string, at time.Time, sent bool, peer, text string)
}

// Switch is the backend. It implements [call.Switch].
type Switch struct {
	cfg       Config
	deps      Deps
	log       *slog.Logger
	metrics   *metrics
	plan      *trunk.Plan
	trunks    *trunk.Set
	registrar *registrar.Registrar
	media     *media.Engine
	spool     dialog.Spool
	phones    func(netip.Addr) bool // where phones may come from
	gateways  func(netip.Addr) bool // where other gateways may
	shared    *registrar.Shared     // nil for a gateway that stands alone
	tls       *tls.Config           // of the node trunk; nil when it is not encrypted
	tokens    *tokens
	patience  time.Duration // see nodePatience
	cap       *trunk.Cap
	ids       *ids
	heard     *heard
	engaged   *engaged

	mu       sync.Mutex
	handler  call.Handler
	lines    []*line // empty before Open
	legs     map[string]*leg
	relays   map[*relay]struct{}
	draining bool
	gone     *sync.Cond // with mu: a leg has ended
	handlers sync.WaitGroup
	work     sync.WaitGroup // ends of legs, forks that lost
}

var _ call.Switch = (*Switch)(nil)

// New makes a switch. It opens nothing but the spool's directory.
func New(cfg Config, deps Deps) (*Switch, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	plan, err := trunk.NewPlan(cfg.AreaCode, cfg.OwnNumbers)
	if err != nil {
		return nil, err
	}
	if deps.Bindings == nil {
		if deps.Bindings, err = bindings(cfg, deps.Log); err != nil {
			return nil, err
		}
	}
	if cfg.Nodes.Listen != "" && (len(deps.NodeSecret) < minSecret || deps.Peers == nil) {
		return nil, errors.New("sip: NodeSecret and Peers must be set for nodes.listen")
	}
	s := &Switch{cfg: cfg, deps: deps, log: deps.Log, plan: plan, cap: trunk.NewCap(cfg.MaxCalls), ids: newIDs(), heard: newHeard(), engaged: newEngaged(),
		legs: map[string]*leg{}, relays: map[*relay]struct{}{}, phones: within(cfg.PhoneSources), gateways: within(cfg.Nodes.Sources),
		tokens: newTokens(deps.NodeSecret, deps.Node), patience: nodePatience}
	if deps.Phones != nil {
		s.shared = registrar.NewShared(deps.Bindings, deps.Phones, deps.Node, deps.Log)
		deps.Bindings = s.shared
	}
	if cfg.Nodes.TLS.on() {
		if s.tls, err = cfg.Nodes.TLS.load(); err != nil {
			return nil, fmt.Errorf("nodes.tls.%w", err)
		}
	}
	s.gone = sync.NewCond(&s.mu)
	names := make([]string, len(cfg.Trunks))
	for i, t := range cfg.Trunks {
		names[i] = t.Name
	}
	s.metrics = newMetrics(deps.Registerer, names)
	limit, kept := s.cap.Limit()
	s.metrics.limit.Set(float64(limit))
	s.metrics.kept.Set(float64(kept))
	if s.trunks, err = trunk.NewSet(cfg.Trunks, plan, deps.Log, deps.Registerer); err != nil {
		return nil, err
	}
	s.registrar, err = registrar.New(cfg.Registrar, registrar.Deps{Log: deps.Log, Registerer: deps.Registerer,
		Credentials: deps.Credentials, Bindings: deps.Bindings, Node: deps.Node,
		Alive: s.alive, OnRegistered: deps.OnRegistered, OnExpired: deps.OnExpired})
	if err != nil {
		return nil, fmt.Errorf("registrar.%w", err)
	}
	if s.media, err = media.New(cfg.Media, media.Deps{Log: deps.Log, Registerer: deps.Registerer}); err != nil {
		return nil, err
	}
	if cfg.SpoolDir != "" {
		if s.spool, err = dialog.NewFileSpool(filepath.Join(cfg.SpoolDir, "dialogs")); err != nil {
			return nil, fmt.Errorf("spool_dir: %w; write a directory that the gateway may write to", err)
		}
	}
	return s, nil
}

// bindings keeps where phones are in the spool, or in memory without one.
func bindings(cfg Config, log *slog.Logger) (registrar.Bindings, error) {
	if cfg.SpoolDir == "" {
		return registrar.NewMemory(cfg.Registrar.MaxBindings), nil
	}
	files, err := registrar.NewFiles(filepath.Join(cfg.SpoolDir, "phones"), cfg.Registrar.MaxBindings, log)
	if err != nil {
		return nil, fmt.Errorf("spool_dir: %w; write a directory that the gateway may write to", err)
	}
	return files, nil
}

// Trunks are the carriers, with their health and their calls.
func (s *Switch) Trunks() *trunk.Set { return s.trunks }

// Registrar is where agents' phones are.
func (s *Switch) Registrar() *registrar.Registrar { return s.registrar }

// Calls is the number of incoming calls that are counted against the cap, the cap, and how many of it
// are kept for emergencies.
func (s *Switch) Calls() (n, limit, kept int) {
	limit, kept = s.cap.Limit()
	return s.cap.InUse(), limit, kept
}

// Serve takes calls until ctx ends, then refuses new ones with 503 and returns when the handlers that run have
// returned and every leg has ended. Calls of a killed process that the spool kept are ended first. It returns an error
// when a listener failed; every leg has then been ended.
func (s *Switch) Serve(ctx context.Context, h call.Handler) error {
	if err := s.Open(); err != nil {
		return err
	}
	s.mu.Lock()
	s.handler, s.draining = h, false
	s.mu.Unlock()
	// What serves outlives ctx until the last handler has returned.
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, run := errgroup.WithContext(run)
	sound, mute := context.WithCancel(context.WithoutCancel(ctx))
	defer mute()
	var silent sync.WaitGroup
	silent.Go(func() { _ = s.media.Run(sound) }) // nil, by its contract
	for _, l := range s.lines {
		g.Go(func() error { return l.serve(run) })
	}
	g.Go(func() error { return s.registrar.Run(run) })
	if s.shared != nil {
		g.Go(func() error { return s.shared.Run(run) })
	}
	if s.cfg.Nodes.Listen != "" {
		g.Go(func() error { return s.watchNodes(run) })
	}
	g.Go(func() error { return s.endStale(run) })
	g.Go(func() error { return s.trunks.Run(run, s.ping) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-run.Done():
		}
		s.drain()
		s.handlers.Wait()
		s.empty(run)
		stop()
		return nil
	})
	err := g.Wait()
	s.mu.Lock()
	s.lines = nil
	s.mu.Unlock()
	s.work.Wait()
	mute()
	silent.Wait()
	return err
}

// Drain refuses the carriers' new calls, and their OPTIONS, with 503 and Retry-After, or takes them again:
// they then choose another gateway. The calls that there are go on, and so do the phones and what other
// gateways send to them.
func (s *Switch) Drain(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if l.at == atCarriers {
			l.layer.Drain(on || s.draining)
		}
	}
}

// drain refuses what is new from now on.
func (s *Switch) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for _, l := range s.lines {
		l.layer.Drain(true)
	}
}

// EndAll hangs up every leg with a cause, as a node does past its deadline; the reason is
// [call.EndDrained]. It returns when the parties have confirmed it, 5 s later at most.
func (s *Switch) EndAll(cause call.Cause) {
	s.mu.Lock()
	all := make([]*leg, 0, len(s.legs))
	for _, l := range s.legs {
		all = append(all, l)
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range all {
		wg.Go(func() { l.end(call.Ended{Cause: cause, Reason: call.EndDrained}) })
	}
	wg.Wait()
}

// begin lets a leg in, unless the switch drains. A leg with a handler is waited for by Serve.
func (s *Switch) begin(l *leg, handled bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if handled && s.draining {
		return false
	}
	if handled {
		s.handlers.Add(1)
	}
	s.work.Add(1)
	s.legs[l.info.ID] = l
	return true
}

// enter holds the switch open for a dial; the caller calls work.Done. It is false when nothing serves.
func (s *Switch) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lines) == 0 {
		return false
	}
	s.work.Add(1)
	return true
}

// forget takes an ended leg out.
func (s *Switch) forget(l *leg) {
	s.mu.Lock()
	delete(s.legs, l.info.ID)
	s.gone.Broadcast()
	s.mu.Unlock()
	s.work.Done()
}

// empty waits for the legs that have no handler here, such as those of a call back, unless a listener failed.
func (s *Switch) empty(run context.Context) {
	defer context.AfterFunc(run, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.gone.Broadcast()
	})()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.legs) > 0 && run.Err() == nil {
		s.gone.Wait()
	}
}

// handle runs a handler of a leg, and ends the leg when it returned or panicked.
func (s *Switch) handle(l *leg, h call.Handler) {
	defer s.handlers.Done()
	ended := call.Ended{Cause: call.CauseNormal}
	defer func() {
		if v := recover(); v != nil {
			s.metrics.panics.Inc()
			l.log.Error("a panic ended a call", "panic", v, "stack", string(debug.Stack()))
			ended = call.Ended{Cause: call.CauseFailure, Reason: call.EndFault}
		}
		l.end(ended)
	}()
	h(context.WithoutCancel(l.Context()), l, nil)
}

// endStale ends the dialogs that a killed process left, listener by listener.
func (s *Switch) endStale(ctx context.Context) error {
	if s.spool == nil {
		return nil
	}
	for _, l := range s.lines {
		if l.ready(ctx) != nil {
			return nil //nolint:nilerr // the listener tells its own failure
		}
		n, err := l.layer.EndStale(ctx)
		s.metrics.stale.Add(float64(n))
		if err != nil {
			s.log.Warn("calls of the last process may still be up", "error", err)
		}
	}
	return nil
}

// ping asks a trunk whether it is there.
func (s *Switch) ping(ctx context.Context, t *trunk.Trunk) (int, error) {
	l, err := s.lineOf(atCarriers, string(t.Transport))
	if err != nil {
		return 0, err
	}
	return l.options(ctx, t.Ping(), t.Address)
}

// options sends OPTIONS and returns the status of the answer.
func (l *line) options(ctx context.Context, to sip.Uri, at string) (int, error) {
	if err := l.ready(ctx); err != nil {
		return 0, err
	}
	req := sip.NewRequest(sip.OPTIONS, to)
	req.SetDestination(at)
	res, err := l.layer.Request(ctx, req, nil)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, nil
}

// newID is a leg's identity, unique over nodes and restarts.
func newID() string { return ulid.Make().String() }

// errClosed is what needs a listener gets before Open and after Serve.
var errClosed = errors.New("sip: the switch does not serve")

// lineOf is the listener of a place and a transport.
func (s *Switch) lineOf(at place, transport string) (*line, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if l.at == at && l.transport == transport {
			return l, nil
		}
	}
	return nil, errClosed
}

// NodeAddr is host:port that other gateways reach this one at; "" when they do not, and before Open.
func (s *Switch) NodeAddr() string {
	l, err := s.nodeLine()
	if err != nil {
		return ""
	}
	if _, _, err := net.SplitHostPort(l.advertise); err == nil {
		return l.advertise
	}
	return net.JoinHostPort(strings.Trim(l.host(), "[]"), strconv.Itoa(int(l.addr.Port())))
}

// Addr is where carriers, or phones, are served; the zero value before Open.
func (s *Switch) Addr(phones bool) netip.AddrPort {
	at := atCarriers
	if phones {
		at = atPhones
	}
	l, err := s.lineOf(at, "udp")
	if err != nil {
		return netip.AddrPort{}
	}
	return l.addr
}
