// Package demo plays the world around the gateway over real SIP and RTP on loopback: a carrier, its
// callers, the emergency services, agents with their phones, and case intake.
//
// Each call is a scenario with an expectation, and the expectation is checked from outside: by what was
// heard at both ends, by the call's record, by what case intake received. [Run] plays them once and
// judges, or round and round so that somebody who looks at the console sees a line at work.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/internal/asterisk/instance"
	"github.com/hotline12345/gateway/ivr/prompt"
	"github.com/hotline12345/gateway/sip/media"
)

// Options say what is played.
type Options struct {
	Calls   int    // with Once: how many; spread over the scenarios
	Once    bool   // play Calls calls, judge them and end; else go on until the context ends
	JSON    bool   // print the report of Once as one JSON document
	Backend string // "sip" or "asterisk"
	// Asterisk is ARI's root of an Asterisk that runs on this host, with the configuration that the documentation
	// tells to paste; empty starts one.
	Asterisk string
	// AsteriskSetup is the script deploy/asterisk/setup, by which an Asterisk of the demo's own is started.
	AsteriskSetup string
	Target        string // host:port of a gateway that is somebody else's: only callers are played; needs Once
	// Break names a scenario whose expectation is falsified, so that a test sees it fail.
	Break string

	Load    func(sets ...string) (config.Config, error)    // reads the configuration, with settings on top
	Welcome func(out io.Writer, gateway *app.App, at Line) // without Once: shows where the gateway is and who may log in
	Out     io.Writer
	Log     *slog.Logger

	only []string // the scenarios that a test plays; none means all
}

// The errors of a demo.
var (
	ErrBackend = errors.New("demo: there is no such backend; write --backend sip or --backend asterisk")
	ErrBroken  = errors.New("demo: not every call met its expectation")
	ErrLive    = errors.New("demo: an emergency call could leave this host, and the demo makes emergency calls; give it a configuration without such routes")
	ErrUsage   = errors.New("demo: the options do not go together")
)

// demo is a run.
type demo struct {
	opts    Options
	cfg     config.Config
	log     *slog.Logger
	pace    pace
	engine  *media.Engine
	carrier *carrier
	prompts *prompt.Catalogue

	gateway  *app.App         // nil with a target
	asterisk *instance.Server // the carrier side with the backend asterisk; else nil
	intake   *intake
	agents   []*agent

	mu      sync.Mutex
	players map[*player]struct{}
	claimed map[string]bool // gateway call identities that have a player
	serial  int             // of callers' numbers
}

// Line is where the demo's calls come in.
type Line struct {
	Carriers, Phones netip.AddrPort
	Secret           string // of every phone; "" is what the gateway gave each
}

// pace is how fast people act.
type pace struct {
	think time.Duration // before a key
	talk  time.Duration // how long a talk lasts once both were heard
	gap   time.Duration // between two calls of a demo that goes on
}

// The paces: a run that judges, and one that is looked at.
var (
	brisk = pace{think: 200 * time.Millisecond, talk: 1500 * time.Millisecond}
	calm  = pace{think: 3 * time.Second, talk: 25 * time.Second, gap: 8 * time.Second}
)

// Run plays. With Once it returns [ErrBroken] when a call did not meet its expectation.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	d := &demo{opts: o, log: o.Log, pace: calm, players: map[*player]struct{}{}, claimed: map[string]bool{}}
	if o.Once {
		d.pace = brisk
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	closeAll, err := d.open(ctx)
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	// The gateway outlives the last call, and the world around it outlives the gateway.
	run, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	world, run := errgroup.WithContext(run)
	line, hangUp := context.WithCancel(run)
	defer hangUp()
	d.start(run, world)
	if d.gateway != nil {
		world.Go(func() error { defer end(); return d.gateway.Run(line) })
	}
	world.Go(func() error {
		defer hangUp()
		if d.gateway == nil {
			defer end()
		}
		return d.perform(ctx, run)
	})
	return world.Wait()
}

func (o Options) onAsterisk() bool { return o.Backend == string(config.Asterisk) }

func (o Options) check() error {
	switch {
	case o.Backend != string(config.SIP) && !o.onAsterisk():
		return fmt.Errorf("%w (backend %q)", ErrBackend, o.Backend)
	case o.Asterisk != "" && !o.onAsterisk():
		return fmt.Errorf("%w: --asterisk names the Asterisk of the backend asterisk; add --backend asterisk", ErrUsage)
	case o.Target != "" && o.Backend != string(config.SIP):
		return fmt.Errorf("%w: --target names whom callers call, whatever its backend; leave --backend out", ErrUsage)
	case o.Target != "" && !o.Once:
		return fmt.Errorf("%w: --target plays callers at a gateway that is somebody else's; add --once", ErrUsage)
	case o.Once && (o.Calls < 1 || o.Calls > 1000):
		return fmt.Errorf("%w: --calls %d is out of range; write 1 to 1000", ErrUsage, o.Calls)
	case o.Break != "" && find(o.Break) == nil:
		return fmt.Errorf("%w: there is no scenario %q", ErrUsage, o.Break)
	}
	return nil
}

// open makes the carrier and, unless there is a target, the gateway with its intake and its agents.
func (d *demo) open(ctx context.Context) (closeAll func() error, err error) {
	var closers []func() error
	closeAll = func() error {
		var errs []error
		for _, closer := range slices.Backward(closers) {
			errs = append(errs, closer())
		}
		return errors.Join(errs...)
	}
	sets := []string{"drain_for=5s"}
	if d.opts.Once {
		dir, err := os.MkdirTemp("", "hotline-demo-")
		if err != nil {
			return closeAll, err
		}
		closers = append(closers, func() error { return os.RemoveAll(dir) })
		sets = once(dir)
	}
	if d.opts.onAsterisk() {
		more, end, err := d.prepareAsterisk()
		closers = append(closers, end)
		if err != nil {
			return closeAll, err
		}
		sets = append(sets, more...)
	}
	if d.cfg, err = d.opts.Load(sets...); err != nil {
		return closeAll, err
	}
	here, err := d.here(ctx)
	if err != nil {
		return closeAll, err
	}
	sound := media.Defaults()
	sound.IP, sound.PortMin, sound.PortMax, sound.DSCP = here.Addr(), 0, 0, 0
	if d.engine, err = media.New(sound, media.Deps{Log: d.log}); err != nil {
		return closeAll, err
	}
	if d.prompts, err = prompt.New(d.cfg.Prompts, nil); err != nil {
		return closeAll, err
	}
	if d.carrier, err = newCarrier(d, here); err != nil {
		return closeAll, err
	}
	if d.opts.Target != "" {
		peer, err := net.ResolveUDPAddr("udp", d.opts.Target)
		if err != nil {
			return closeAll, fmt.Errorf("%w: --target: %w", ErrUsage, err)
		}
		at := peer.AddrPort()
		d.carrier.aim(netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
		return closeAll, nil
	}
	return closeAll, d.openGateway(ctx)
}

// here is where the carrier listens; port 0 is any.
func (d *demo) here(ctx context.Context) (netip.AddrPort, error) {
	switch {
	case d.opts.Target != "":
		return towards(d.opts.Target)
	case d.opts.onAsterisk():
		return d.beforeAsterisk(ctx)
	}
	return netip.AddrPortFrom(loopback, 0), nil
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// towards is the address of this host that a target sees, and any port.
func towards(target string) (netip.AddrPort, error) {
	conn, err := net.Dial("udp", target) //nolint:noctx // UDP waits for nobody
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: --target %s: %w; write it as host:port", ErrUsage, target, err)
	}
	defer func() { _ = conn.Close() }()
	return netip.AddrPortFrom(conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), 0), nil
}

// start runs the world.
func (d *demo) start(ctx context.Context, world *errgroup.Group) {
	world.Go(func() error { return d.engine.Run(ctx) })
	d.carrier.start(ctx, world)
	if d.gateway == nil {
		return
	}
	if d.asterisk != nil {
		world.Go(func() error { return d.watchAsterisk(ctx) })
	}
	world.Go(func() error { return d.intake.run(ctx) })
	for _, a := range d.agents {
		world.Go(func() error { return a.phone.Run(ctx) })
		world.Go(func() error { return a.stay(ctx) })
	}
}

// perform plays the calls. ctx ends the play, and world is how long the world goes on.
func (d *demo) perform(ctx, world context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(world, func() { cancel(context.Cause(world)) })() // a part failed
	if err := d.carrier.ready(ctx); err != nil {
		return err
	}
	if d.opts.onAsterisk() {
		if err := d.connected(ctx); err != nil {
			return err
		}
	}
	err := d.everyAgent(func(a *agent) error { return a.arrive(ctx) })
	if err != nil {
		return err
	}
	if !d.opts.Once {
		return d.playOn(ctx)
	}
	began := time.Now()
	results := d.playOnce(ctx)
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return d.report(results, time.Since(began))
}
