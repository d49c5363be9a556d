package trunk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/internal/call"
)

// Trunk is one carrier.
type Trunk struct {
	Config

	plan     *Plan
	prefixes []netip.Prefix
	shared   []string          // E.164; a final * stands for any end
	numbers  map[string]string // E.164, to the form it was written in
	cap      *Cap
	metrics  *metrics

	mu     sync.Mutex
	health Health
	missed int
}

// Set is every trunk of a gateway.
type Set struct {
	trunks []*Trunk
	routes []route             // longest prefix first
	far    map[netip.Addr]bool // addresses that calls are sent to: their answers come from there
	log    *slog.Logger
}

type route struct {
	prefix netip.Prefix
	trunk  *Trunk
}

// Validate checks trunks together; its paths begin with trunks[i].
func Validate(cfgs []Config) error {
	var errs []error
	names := map[string]int{}
	owner := map[netip.Prefix]string{}
	for i, c := range cfgs {
		at := fmt.Sprintf("trunks[%d].", i)
		for _, err := range flatten(c.Validate()) {
			errs = append(errs, fmt.Errorf("%s%w", at, err))
		}
		if j, ok := names[c.Name]; ok {
			errs = append(errs, fmt.Errorf("%sname: %q is the name of trunks[%d] too; give each its own", at, c.Name, j))
		}
		names[c.Name] = i
		for k, s := range c.Sources {
			p, err := parsePrefix(s)
			if err != nil {
				continue
			}
			if o, ok := owner[p]; ok && o != c.Name {
				errs = append(errs, fmt.Errorf("%ssources[%d]: %s belongs to trunk %q already; "+
					"write the narrower network of each", at, k, p, o))
			}
			owner[p] = c.Name
		}
	}
	return errors.Join(errs...)
}

// flatten lists the errors that errors.Join joined.
func flatten(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// NewSet makes the trunks. reg may be nil.
func NewSet(cfgs []Config, plan *Plan, log *slog.Logger, reg prometheus.Registerer) (*Set, error) {
	if err := Validate(cfgs); err != nil {
		return nil, err
	}
	names := make([]string, len(cfgs))
	for i, c := range cfgs {
		names[i] = c.Name
	}
	m := newMetrics(reg, names)
	s := &Set{log: log, far: map[netip.Addr]bool{}}
	for i, c := range cfgs {
		t, err := newTrunk(c.withDefaults(), plan, m)
		if err != nil {
			return nil, fmt.Errorf("trunks[%d].%w", i, err)
		}
		s.trunks = append(s.trunks, t)
		for _, p := range t.prefixes {
			s.routes = append(s.routes, route{p, t})
		}
		if ap, err := netip.ParseAddrPort(c.Address); err == nil {
			s.far[ap.Addr().Unmap()] = true
		}
	}
	slices.SortStableFunc(s.routes, func(a, b route) int { return b.prefix.Bits() - a.prefix.Bits() })
	return s, nil
}

func newTrunk(c Config, plan *Plan, m *metrics) (*Trunk, error) {
	t := &Trunk{Config: c, plan: plan, cap: NewCap(c.MaxCalls), metrics: m, numbers: map[string]string{}}
	for _, s := range c.Sources {
		p, err := parsePrefix(s)
		if err != nil {
			return nil, err
		}
		t.prefixes = append(t.prefixes, p)
	}
	for i, s := range c.Shared {
		e, err := sharedPattern(plan, s)
		if err != nil {
			return nil, fmt.Errorf("shared[%d]: %w", i, err)
		}
		t.shared = append(t.shared, e)
	}
	for i, s := range c.Numbers {
		n := plan.Parse(s)
		if n.E164 == "" {
			return nil, fmt.Errorf("numbers[%d]: %q is no number; write it as 12345 or 0571-12345", i, s)
		}
		t.numbers[n.E164] = s
	}
	limit, _ := t.cap.Limit()
	m.limit.WithLabelValues(c.Name).Set(float64(limit))
	return t, nil
}

// sharedPattern is the E.164 form of a shared number. Of a pattern such as 0571-8888* only the
// country is made explicit.
func sharedPattern(plan *Plan, s string) (string, error) {
	head, star := strings.CutSuffix(s, "*")
	if !star {
		if n := plan.Parse(s); n.E164 != "" {
			return n.E164, nil
		}
		return "", fmt.Errorf("%q is no number; write it as 0571-88880000, or 0571-8888* for a range", s)
	}
	d, plus, ok := plain(head)
	switch {
	case !ok || len(d) < 5:
		return "", fmt.Errorf("%q is too wide; write 5 digits or more before the *", s)
	case plus:
		return "+" + d + "*", nil
	default:
		return "+86" + strings.TrimPrefix(d, "0") + "*", nil
	}
}

func (t *Trunk) isShared(n call.Number) bool {
	return slices.ContainsFunc(t.shared, func(s string) bool {
		head, star := strings.CutSuffix(s, "*")
		return s == n.E164 || star && strings.HasPrefix(n.E164, head)
	})
}

// Route tells whether the trunk may reach a called number, and its name inside the gateway: the form
// it has in the trunk's numbers, or among the hotline's own, or as it was dialled.
func (t *Trunk) Route(user string) (called string, ok bool) {
	n := t.plan.Parse(user)
	if len(t.numbers) > 0 {
		called, ok = t.numbers[n.E164]
		return called, ok && n.E164 != ""
	}
	if name, own := t.plan.name[n.E164]; own {
		return name, true
	}
	return n.Raw, n.Raw != ""
}

// Contains tells whether a media source lies in the trunk's networks.
func (t *Trunk) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(t.prefixes, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// Take counts one more call of a direction; with force it passes the cap. The caller must call
// release once when the grant is not Refused; release is never nil.
func (t *Trunk) Take(d call.Direction, force bool) (g Grant, release func()) {
	g = t.cap.Take(force)
	if g == Refused {
		return g, func() {}
	}
	gauge := t.metrics.channels.WithLabelValues(t.Name, string(d))
	gauge.Inc()
	return g, sync.OnceFunc(func() { gauge.Dec(); t.cap.Release() })
}

// InUse is the number of calls on the trunk now.
func (t *Trunk) InUse() int { return t.cap.InUse() }

// Match finds the trunk of a source; the longest prefix wins.
func (s *Set) Match(a netip.Addr) (*Trunk, bool) {
	a = a.Unmap()
	for _, r := range s.routes {
		if r.prefix.Contains(a) {
			return r.trunk, true
		}
	}
	return nil, false
}

// Known tells whether a source belongs to any trunk, or is where a trunk's calls are sent to. The latter
// may answer, but an INVITE from there has no trunk.
func (s *Set) Known(a netip.Addr) bool {
	_, ok := s.Match(a)
	return ok || s.far[a.Unmap()]
}

// Get finds a trunk by name.
func (s *Set) Get(name string) (*Trunk, bool) {
	i := slices.IndexFunc(s.trunks, func(t *Trunk) bool { return t.Name == name })
	if i < 0 {
		return nil, false
	}
	return s.trunks[i], true
}

// All lists the trunks in the order of the configuration.
func (s *Set) All() []*Trunk { return slices.Clone(s.trunks) }

// Pinger asks a trunk with OPTIONS and returns the status of its final answer.
type Pinger func(ctx context.Context, t *Trunk) (status int, err error)

// Run asks each trunk that has an OptionsInterval, until ctx ends.
func (s *Set) Run(ctx context.Context, ping Pinger) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range s.trunks {
		if t.OptionsInterval > 0 {
			g.Go(func() error { s.watch(ctx, t, ping); return nil })
		}
	}
	return g.Wait()
}

func (s *Set) watch(ctx context.Context, t *Trunk, ping Pinger) {
	for {
		started := time.Now()
		// One slow answer must not delay the next question.
		pctx, cancel := context.WithTimeout(ctx, min(t.OptionsInterval, pingTimeout))
		status, err := ping(pctx, t)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if was, is := t.pinged(status, err, started, time.Since(started)); was != is {
			s.log.Warn("trunk changed state", "trunk", t.Name, "was", was, "is", is, "status", status, "error", err)
		}
		// A tenth of jitter keeps the gateway's nodes from asking in step.
		wait := t.OptionsInterval - time.Duration(rand.Int64N(int64(t.OptionsInterval)/10))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
