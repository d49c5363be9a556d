package nodes

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/internal/store"
)

// The rhythm of the heartbeat, and what bounds one.
const (
	beatEvery = time.Second
	beatFor   = 2 * time.Second
	// aliveFor is how long the store calls a gateway alive that says nothing.
	aliveFor = 4 * time.Second
)

// schema is the form of what the gateways keep in Redis and ask one another. A version that changes it so that
// an older one would misread it counts it up.
const schema = 1

// Registry is where the gateways of a cluster meet: a *store.Nodes.
type Registry interface {
	Beat(ctx context.Context, self store.Node) ([]store.Node, error)
	List(ctx context.Context) ([]store.Node, error)
	Forget(ctx context.Context, name string) error
}

// Deps is what a Cluster needs of the rest.
type Deps struct {
	Registry Registry // not used by a gateway that stands alone
	Keys     Keys
	// Self is what this gateway says of itself: its name, and what changes. Where it is reached, its version
	// of what is shared, and the moments are the cluster's affair.
	Self func() store.Node
	// Handler answers the other gateways; see [From].
	Handler http.Handler
	// Errors are those that gateways know by name.
	Errors map[string]error
	Log    *slog.Logger
	Reg    prometheus.Registerer // nil registers nothing
}

// Cluster is the gateways, this one among them.
type Cluster struct {
	cfg     Config
	deps    Deps
	name    string
	started time.Time
	prover  *prover
	client  *http.Client
	metrics *metrics
	listen  net.Listener // nil for a gateway that stands alone
	now     chan struct{}

	looking sync.Mutex // one Look at a time: what it learns is never older than what was known
	mu      sync.Mutex
	members []store.Node
	silent  map[string]error
	watch   map[chan struct{}]struct{}
}

// New makes a cluster. Nothing is opened yet.
func New(cfg Config, deps Deps) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, deps: deps, name: deps.Self().Name, started: time.Now().UTC(), metrics: newMetrics(deps.Reg),
		now: make(chan struct{}, 1), silent: map[string]error{}, watch: map[chan struct{}]struct{}{}}
	c.prover = newProver(deps.Keys, c.name)
	c.learn([]store.Node{c.self()})
	return c, c.newClient()
}

// Open takes the address that the others are told.
func (c *Cluster) Open(ctx context.Context) error {
	if !c.cfg.Clustered() {
		return nil
	}
	conf, _, err := c.cfg.TLS.load()
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	if c.listen, err = lc.Listen(ctx, "tcp", c.cfg.Listen); err != nil {
		return fmt.Errorf("nodes.listen: %w; stop what holds the port, or write another", err)
	}
	if conf != nil {
		c.listen = tls.NewListener(c.listen, conf)
	}
	return nil
}

// Close gives the address back when Run was never called; after Run it does nothing.
func (c *Cluster) Close() error {
	if c.listen == nil {
		return nil
	}
	if err := c.listen.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Name is this gateway's.
func (c *Cluster) Name() string { return c.name }

// Alone tells whether this gateway has no cluster.
func (c *Cluster) Alone() bool { return !c.cfg.Clustered() }

// self is what this gateway says of itself now.
func (c *Cluster) self() store.Node {
	n := c.deps.Self()
	n.Schema, n.Started, n.Seen, n.Alive = schema, c.started, time.Now(), true
	if c.listen != nil {
		scheme, addr := "http://", c.cfg.Advertise
		if c.cfg.TLS.CertFile != "" {
			scheme = "https://"
		}
		if addr == "" {
			addr = c.listen.Addr().String()
		}
		n.API = scheme + addr
	}
	return n
}

// Join says for the first time that this gateway lives, unless another of its name does, or one that shares
// in another form. It waits for a name's former holder to be seen as gone. With Redis away there is nobody to
// be asked, and it succeeds.
func (c *Cluster) Join(ctx context.Context) error {
	if c.Alone() {
		return nil
	}
	all, err := c.deps.Registry.List(ctx)
	if err != nil {
		c.deps.Log.Warn("the other gateways are not known yet", "err", err)
		return nil
	}
	for _, n := range all {
		if n.Alive && n.Name != c.name && n.Schema != schema {
			return fmt.Errorf("nodes: gateway %s (version %s) keeps what is shared in form %d, this one in form %d: they cannot stand side by side; end that one first, or run its version here",
				n.Name, n.Version, n.Schema, schema)
		}
	}
	if err := c.unique(ctx, all); err != nil {
		return err
	}
	c.Look(ctx)
	return nil
}

// unique waits out a namesake that was killed, and refuses to stand beside one that lives.
func (c *Cluster) unique(ctx context.Context, all []store.Node) error {
	former, found := find(all, c.name)
	if !found || !former.Alive || former.API == c.self().API { // at the same address it can only be our own last process
		return nil
	}
	wait := time.NewTimer(aliveFor)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-wait.C:
	}
	all, err := c.deps.Registry.List(ctx)
	if err != nil {
		return nil //nolint:nilerr // Redis went away meanwhile: nobody can be asked
	}
	if now, found := find(all, c.name); found && now.Seen.After(former.Seen) {
		return fmt.Errorf("session.node: another gateway is called %q (at %s) and lives; give this one a name of its own", c.name, now.API)
	}
	return nil
}

func find(all []store.Node, name string) (store.Node, bool) {
	i := slices.IndexFunc(all, func(n store.Node) bool { return n.Name == name })
	if i < 0 {
		return store.Node{}, false
	}
	return all[i], true
}

// While says that this gateway lives for as long as f takes, which may be longer than the others wait: before Run nobody
// else says it.
func (c *Cluster) While(ctx context.Context, f func(context.Context) error) error {
	beating, stop := context.WithCancel(ctx)
	var g sync.WaitGroup
	g.Go(func() { c.beats(beating) })
	defer g.Wait()
	defer stop()
	return f(ctx)
}

// Run says every second that this gateway lives, and answers the others, until ctx ends.
func (c *Cluster) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { c.beats(ctx); return nil })
	if c.listen != nil {
		s := &server{prover: c.prover, handler: c.deps.Handler, log: c.deps.Log, metrics: c.metrics, now: time.Now}
		g.Go(func() error { return s.serve(ctx, c.listen) })
	}
	err := g.Wait()
	c.client.CloseIdleConnections()
	return err
}

func (c *Cluster) beats(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		c.Look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.now:
		}
	}
}

// Tell says at once what changed of this gateway.
func (c *Cluster) Tell() {
	select {
	case c.now <- struct{}{}:
	default:
	}
}

// Look says that this gateway lives, and learns who else does; seen is false while Redis is away. The others are then as
// they were last known: it is asking them that shows who answers.
func (c *Cluster) Look(ctx context.Context) (seen bool) {
	if c.Alone() {
		c.learn([]store.Node{c.self()})
		return true
	}
	c.looking.Lock()
	defer c.looking.Unlock()
	ctx, cancel := context.WithTimeout(ctx, beatFor)
	defer cancel()
	all, err := c.deps.Registry.Beat(ctx, c.self())
	if err != nil {
		c.metrics.beats.WithLabelValues("failed").Inc()
		return false // that Redis is away is a warning of its own
	}
	c.metrics.beats.WithLabelValues("ok").Inc()
	c.learn(all)
	return true
}

// learn takes the list and tells of it.
func (c *Cluster) learn(all []store.Node) {
	count := map[string]int{}
	for _, n := range all {
		switch {
		case !n.Alive:
			count["absent"]++
		case n.Draining:
			count["draining"]++
		default:
			count["alive"]++
		}
	}
	for _, state := range []string{"alive", "draining", "absent"} {
		c.metrics.nodes.WithLabelValues(state).Set(float64(count[state]))
	}
	self, _ := find(all, c.name)
	for what, of := range compared {
		n := 0
		for _, other := range all {
			if other.Alive && of(other) != of(self) {
				n++
			}
		}
		c.metrics.differ.WithLabelValues(what).Set(float64(n))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = all
	for ch := range c.watch {
		select {
		case ch <- struct{}{}:
		default: // a notice waits already
		}
	}
}

// Watch tells that the gateways were looked at anew; several looks may share a notice.
func (c *Cluster) Watch() (looked <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch[ch] = struct{}{}
	return ch, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watch, ch)
	}
}

// Members is every gateway, present or absent, by name, and this one among them.
func (c *Cluster) Members() []store.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.members)
}

// Member is one gateway.
func (c *Cluster) Member(name string) (store.Node, bool) { return find(c.Members(), name) }

// Peers are the names of the other gateways that live.
func (c *Cluster) Peers() []string {
	var names []string
	for _, n := range c.Members() {
		if n.Alive && n.Name != c.name {
			names = append(names, n.Name)
		}
	}
	return names
}

// SIP is where a living gateway takes calls to the phones that it owns.
func (c *Cluster) SIP(name string) (addr string, ok bool) {
	n, found := c.Member(name)
	return n.SIP, found && n.Alive && n.SIP != ""
}

// Forget takes an absent gateway off the list; store.ErrNodeAlive when it is not.
func (c *Cluster) Forget(ctx context.Context, name string) error {
	if c.Alone() || name == c.name {
		return fmt.Errorf("forget %s: %w", name, store.ErrNodeAlive)
	}
	if err := c.deps.Registry.Forget(ctx, name); err != nil {
		return err
	}
	c.Tell()
	return nil
}
