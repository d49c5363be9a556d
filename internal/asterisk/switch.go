package asterisk

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/CyCoreSystems/ari/v5"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/call"
)

// How a channel enters the application: the first argument of Stasis().
const (
	argTrunk = "trunk" // a carrier's call; then the dialled number, and the presentation of the caller's
	argPhone = "phone" // an agent's phone dials; then what it dials
	argOut   = "out"   // a call that this node placed was answered
)

// legVariable holds a leg's identity on its channel, so that the process after this one knows it.
const legVariable = "HOTLINE_LEG"

// Deps is what a switch needs of its owner.
type Deps struct {
	Log        *slog.Logger
	Registerer prometheus.Registerer // nil registers nothing
	Node       string
	// Parse reads a telephone number in whatever form it came.
	Parse func(raw string) call.Number
	// Own tells whether a number is one of the hotline's own.
	Own func(call.Number) bool
	// OnPhone is told when an extension's phone registered at Asterisk, or is there no more. It must not block,
	// and may be nil.
	OnPhone func(extension string, here bool)
	// Hold is what callers hear when this process has gone and nothing else is played to them; nil is silence.
	Hold func() []*call.Clip
}

// Switch is the backend. It implements [call.Switch] and [call.Rejoiner].
type Switch struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	app     string
	api     *api
	metrics *metrics
	sounds  *sounds

	restOnce sync.Once
	rest     []*call.Clip // see hold.go

	up     atomic.Bool   // the event connection stands
	failed atomic.Value  // the playback, by its identity, that failed last: not read, or its channel went
	ready  func()        // closes first
	first  chan struct{} // closed when the first connection stands
	swept  bool          // an earlier process's bridges are gone; the listener's alone

	looking  sync.Mutex // held while the endpoints are looked at
	mu       sync.Mutex
	handler  call.Handler
	load     func(legID string) (*call.Checkpoint, bool) // of a restart; nil when nothing is adopted
	draining bool
	phones   map[string]endpoint      // by name, as Asterisk listed them last
	legs     map[string]*leg          // by channel
	plays    map[string]chan struct{} // playbacks that run
	sides    map[string]chan struct{} // channels that are the side of another, or are to be; told when they are
	bridges  map[string]bool          // that are in use
	handlers sync.WaitGroup
	work     sync.WaitGroup
}

var _ call.Switch = (*Switch)(nil)

// New makes a switch. It connects to nothing, and makes the directory of the prompts.
func New(cfg Config, deps Deps) (*Switch, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.OnPhone == nil {
		deps.OnPhone = func(string, bool) {}
	}
	m := newMetrics(deps.Registerer)
	api, err := newAPI(cfg, m)
	if err != nil {
		return nil, err
	}
	sounds, err := newSounds(cfg.SoundsDir, cfg.SoundsPath)
	if err != nil {
		return nil, err
	}
	app := cfg.Application
	if app == "" {
		app = "hotline-" + deps.Node
	}
	first := make(chan struct{})
	return &Switch{cfg: cfg, deps: deps, log: deps.Log, app: app, api: api, metrics: m, sounds: sounds,
		first: first, ready: sync.OnceFunc(func() { close(first) }),
		legs: map[string]*leg{}, plays: map[string]chan struct{}{}, sides: map[string]chan struct{}{}, bridges: map[string]bool{}}, nil
}

// Serve takes the calls that the dialplan sends to the application, until ctx ends; then new ones are
// refused, and it returns when the handlers that run have returned. Asterisk may be away at any time.
func (s *Switch) Serve(ctx context.Context, h call.Handler) error {
	s.mu.Lock()
	s.handler, s.draining = h, false
	s.mu.Unlock()
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var beside sync.WaitGroup
	beside.Go(func() { s.listen(run) })
	beside.Go(func() { s.sample(run) })
	beside.Go(func() { s.follow(run) })
	beside.Go(func() { s.rewind(run) })
	<-ctx.Done()
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.handlers.Wait()
	s.work.Wait()
	stop()
	beside.Wait()
	s.api.http.CloseIdleConnections()
	return nil
}

// started is a channel that entered the application.
func (s *Switch) started(e *ari.StasisStart) {
	switch {
	case isSide(e.Channel.ID):
		s.mu.Lock()
		in := s.sides[e.Channel.ID]
		s.mu.Unlock()
		select {
		case in <- struct{}{}:
		default: // nobody waits for it
		}
	case len(e.Args) > 0 && e.Args[0] == argOut:
		s.with(e.Channel.ID, (*leg).pickedUp)
	default:
		s.incoming(told(e.Channel), e.Args)
	}
}

// channel is what is known of a channel when it enters the application.
type channel struct {
	id, name                 string
	up                       bool
	callerName, callerNumber string
	created                  time.Time
}

// told is a channel as an event tells of it.
func told(ch ari.ChannelData) channel {
	c := channel{id: ch.ID, name: ch.Name, up: ch.State == "Up", created: time.Now()}
	if ch.Caller != nil {
		c.callerName, c.callerNumber = ch.Caller.Name, ch.Caller.Number
	}
	return c
}

// incoming begins a call that the dialplan sent here, unless it has begun already.
func (s *Switch) incoming(ch channel, args []string) {
	info, ok := s.identify(ch, args)
	s.mu.Lock()
	_, known := s.legs[ch.id]
	full, draining := len(s.legs) >= s.cfg.MaxCalls, s.draining
	s.mu.Unlock()
	switch {
	case known:
	case !ok:
		s.refuse(ch.id, "endpoint", call.CauseUnallocated)
	case draining:
		s.refuse(ch.id, "draining", call.CauseCongestion)
	case full:
		s.refuse(ch.id, "full", call.CauseCongestion)
	default:
		l := s.newLeg(ch.id, info)
		l.answered = ch.up
		l.media = l.answered
		s.begin(l, nil)
	}
}

// identify reads who calls, and where to.
func (s *Switch) identify(ch channel, args []string) (call.Info, bool) {
	info := call.Info{ID: ulid.Make().String(), Direction: call.Incoming, Identity: call.Verified, WireID: ch.id,
		Codec: call.PCMA, At: ch.created, Display: ch.callerName, Caller: s.deps.Parse(ch.callerNumber)}
	if len(args) > 1 {
		info.Called = args[1]
	}
	if len(args) > 0 && args[0] == argPhone {
		info.Extension = endpointOf(ch.name)
		return info, word.MatchString(info.Extension)
	}
	t, ok := s.cfg.trunkAt(endpointOf(ch.name))
	info.Trunk = t.Name
	info.Withheld = len(args) > 2 && strings.HasPrefix(args[2], "prohib")
	if !t.Trusted || info.Caller.E164 == "" {
		info.Identity = call.Anonymous
	}
	info.OwnNumber = t.Carrier && s.deps.Own(info.Caller)
	return info, ok
}

// endpointOf is the endpoint in a channel's name, such as PJSIP/carrier-00000001.
func endpointOf(name string) string {
	_, rest, _ := strings.Cut(name, "/")
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		return rest[:i]
	}
	return rest
}

func (s *Switch) refuse(channel, why string, cause call.Cause) {
	s.metrics.refused.WithLabelValues(why).Inc()
	s.work.Go(func() {
		if err := s.hangup(context.Background(), channel, cause); err != nil {
			s.log.Warn("asterisk: a refusal was not sent", "err", err)
		}
	})
}

// begin runs a leg's handler.
func (s *Switch) begin(l *leg, from *call.Checkpoint) {
	l.asked.Store(true)
	s.mu.Lock()
	s.legs[l.channel] = l
	h := s.handler
	s.handlers.Add(1)
	s.metrics.legs.Set(float64(len(s.legs)))
	s.mu.Unlock()
	go s.handle(l, h, from)
}

// handle runs the handler of a leg, and ends the leg when it returned or panicked.
func (s *Switch) handle(l *leg, h call.Handler, from *call.Checkpoint) {
	defer s.handlers.Done()
	ended := call.Ended{Cause: call.CauseNormal}
	defer func() {
		if v := recover(); v != nil {
			s.metrics.panics.Inc()
			l.log.Error("a panic ended a call", "panic", v, "stack", string(debug.Stack()))
			ended = call.Ended{Cause: call.CauseFailure, Reason: call.EndFault}
		}
		l.end(context.Background(), ended)
		l.partAll()
	}()
	if l.adopted {
		l.quiet(l.ctx)
	}
	if err := s.mark(l); err != nil && l.ctx.Err() == nil {
		l.log.Warn("asterisk: a call is not marked, so a restart could not take it up", "err", err)
	}
	h(context.WithoutCancel(l.ctx), l, from)
}

// mark writes a leg's identity on its channel.
func (s *Switch) mark(l *leg) error {
	return s.api.post(l.ctx, "/channels/"+l.channel+"/variable", query{"variable": legVariable, "value": l.info.ID}, nil)
}

// with runs f on a channel's leg, if it has one here.
func (s *Switch) with(channel string, f func(*leg)) {
	s.mu.Lock()
	l := s.legs[channel]
	s.mu.Unlock()
	if l != nil {
		f(l)
	}
}

// left forgets a channel that is gone.
func (s *Switch) left(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.legs, channel)
	s.metrics.legs.Set(float64(len(s.legs)))
}

// played is a playback that is over.
func (s *Switch) played(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if over := s.plays[id]; over != nil {
		close(over)
		delete(s.plays, id)
	}
}

// sampleEvery is how often the quality of the legs is read: Asterisk forgets it with the channel.
const sampleEvery = 5 * time.Second

// sample reads the quality of each leg now and then, one after the other.
func (s *Switch) sample(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, l := range s.all() {
			if s.up.Load() && l.ctx.Err() == nil {
				l.count(ctx)
			}
		}
	}
}

// all are the legs of this moment.
func (s *Switch) all() []*leg {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.legs))
}

// EndAll hangs up every leg with a cause, as a node does that leaves for good; the reason is
// [call.EndDrained].
func (s *Switch) EndAll(cause call.Cause) {
	var wg sync.WaitGroup
	for _, l := range s.all() {
		wg.Go(func() { l.end(context.Background(), call.Ended{Cause: cause, Reason: call.EndDrained}) })
	}
	wg.Wait()
}

// hangup ends a channel with a cause.
func (s *Switch) hangup(ctx context.Context, channel string, cause call.Cause) error {
	return s.api.del(ctx, "/channels/"+channel, query{"reason_code": fmt.Sprint(hangupCause(cause))})
}

// hangupCause is the cause that makes Asterisk's PJSIP answer with the status that ours means.
func hangupCause(c call.Cause) int {
	switch c {
	case call.CauseForbidden:
		return int(call.CauseRejected) // 403
	case call.CauseCodec:
		return 58 // 488
	case call.CauseTempUnavailable:
		return int(call.CauseNoAnswer) // 480
	default:
		return int(c)
	}
}

// Drain refuses new calls of carriers and phones with congestion, or takes them again.
func (s *Switch) Drain(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = on
}

// Calls is how many legs are here, and how many may be. None are kept.
func (s *Switch) Calls() (n, limit, kept int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.legs), s.cfg.MaxCalls, 0
}
