package registrar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/prometheus/client_golang/prometheus"
)

// storeTime bounds one use of the bindings' store.
const storeTime = 2 * time.Second

// Deps is what a registrar needs of its owner. Log, Credentials and Bindings must be set.
type Deps struct {
	Log         *slog.Logger
	Registerer  prometheus.Registerer
	Credentials Credentials
	Bindings    Bindings
	Node        string // the name of this node, kept with each binding
	// Alive tells whether another node lives; nil takes every node for living. It must not block.
	Alive func(node string) bool
	// OnRegistered is told when an extension has a phone at this node again, OnExpired when it has none any
	// more at any node (it took leave, or did not register in time). They must not block, and may be nil.
	OnRegistered func(extension string)
	OnExpired    func(extension string)
}

// Registrar is a registrar (RFC 3261 section 10.3) for the phones of one node.
type Registrar struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	creds    Credentials
	bindings Bindings
	nonces   *nonces
	guard    *guard
	metrics  *metrics

	// mu holds each REGISTER from its reading of the bindings to its writing.
	mu   sync.Mutex
	mine *mine
	// telling keeps what is told in the order in which it happened.
	telling sync.Mutex
}

// New makes a registrar.
func New(cfg Config, deps Deps) (*Registrar, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	none := func(string) {}
	if deps.OnRegistered == nil {
		deps.OnRegistered = none
	}
	if deps.OnExpired == nil {
		deps.OnExpired = none
	}
	if deps.Alive == nil {
		deps.Alive = func(string) bool { return true }
	}
	r := &Registrar{
		cfg: cfg, deps: deps, log: deps.Log, creds: deps.Credentials, bindings: deps.Bindings,
		nonces: newNonces(cfg.NonceLife), guard: newGuard(cfg.MaxFailures, cfg.Lockout),
		metrics: newMetrics(deps.Registerer), mine: newMine(),
	}
	r.resume()
	return r, nil
}

// resume watches over the phones of this node that the store has from the last process.
func (r *Registrar) resume() {
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	all, err := r.bindings.Mine(ctx)
	if err != nil {
		r.log.Warn("phones of the last process are not known yet", "err", err)
		return
	}
	for _, b := range all {
		if b.Node != r.deps.Node {
			continue
		}
		r.mine.set(phone{b.Extension, b.Key()}, b.Expires)
		r.metrics.bindings.Inc()
	}
}

// Lookup lists an extension's phones, the newest first.
func (r *Registrar) Lookup(ctx context.Context, extension string) ([]Binding, error) {
	return r.bindings.Get(ctx, extension)
}

// Own lists an extension's phones at this node, the newest first.
func (r *Registrar) Own(ctx context.Context, extension string) ([]Binding, error) {
	return r.bindings.Own(ctx, extension)
}

// Local tells whether an extension has a phone at this node. It asks memory alone, and never blocks.
func (r *Registrar) Local(extension string) bool { return r.mine.has(extension) }

// Owners lists the nodes that an extension's phones are registered at: this one first, then those with
// the newest phones.
func (r *Registrar) Owners(ctx context.Context, extension string) ([]string, error) {
	all, err := r.bindings.Get(ctx, extension)
	if err != nil {
		return nil, err
	}
	var nodes []string
	for _, b := range all {
		if !slices.Contains(nodes, b.Node) {
			nodes = append(nodes, b.Node)
		}
	}
	return nodes, nil
}

// Serve answers a REGISTER.
func (r *Registrar) Serve(req *sip.Request, respond func(*sip.Response)) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	ext, no := r.Authenticate(ctx, req)
	var contacts []sip.Header
	if no == nil {
		contacts, no = r.register(ctx, req, ext)
		if no != nil {
			r.metrics.count(no.result)
		}
	}
	status, headers := 200, contacts
	if no != nil {
		status, headers = no.Status, no.Headers
	}
	res := sip.NewResponseFromRequest(req, status, reason(status), nil)
	for _, h := range headers {
		res.AppendHeader(h)
	}
	respond(res)
}

func reason(status int) string {
	switch status {
	case 200:
		return "OK"
	case 400:
		return "Bad Request"
	case 401:
		return "Unauthorized"
	case 403:
		return "Forbidden"
	case 423:
		return "Interval Too Brief"
	default:
		return "Service Unavailable"
	}
}

// change is what a REGISTER asks for: bindings to set, each with its time, or to drop when it is 0.
type change struct {
	Binding
	lasts time.Duration
}

// register does what a REGISTER of an authenticated phone asks for, and lists the bindings then in force
// (RFC 3261 section 10.3, steps 5 to 8).
func (r *Registrar) register(ctx context.Context, req *sip.Request, ext string) ([]sip.Header, *Refusal) {
	if to := req.To(); to == nil || to.Address.User != ext {
		return nil, &Refusal{Status: 403, result: denied}
	}
	had := false
	defer func() { r.tell(ctx, ext, had) }()
	r.mu.Lock()
	defer r.mu.Unlock()
	had = r.mine.has(ext)
	old, err := r.bindings.Own(ctx, ext)
	if err != nil {
		return nil, r.away(err)
	}
	changes, no := r.changes(req, ext, old)
	if no != nil {
		return nil, no
	}
	if err := r.apply(ctx, ext, changes, old); err != nil {
		return nil, r.away(err)
	}
	now, err := r.trim(ctx, ext)
	if err != nil {
		return nil, r.away(err)
	}
	return contactHeaders(now, time.Now()), nil
}

// away is the answer when the store fails: the phone tries again, there or elsewhere.
func (r *Registrar) away(err error) *Refusal {
	no := &Refusal{Status: 503, Headers: []sip.Header{retryAfter(5 * time.Second)}, result: unavailable}
	if errors.Is(err, ErrFull) {
		no.result = full
	}
	r.log.Warn("a phone could not register", "error", err)
	return no
}

// changes reads the Contacts of a REGISTER (RFC 3261 section 10.3, steps 6 and 7).
func (r *Registrar) changes(req *sip.Request, ext string, old []Binding) ([]change, *Refusal) {
	malformed := &Refusal{Status: 400, result: bad}
	source, err := netip.ParseAddrPort(req.Source())
	cseq, callID := req.CSeq(), req.CallID()
	if err != nil || cseq == nil || callID == nil {
		return nil, malformed
	}
	base := Binding{Extension: ext, Source: netip.AddrPortFrom(source.Addr().Unmap(), source.Port()),
		Transport: strings.ToLower(req.Transport()), Node: r.deps.Node, CallID: callID.Value(),
		CSeq: cseq.SeqNo, UserAgent: clip(header(req, "User-Agent")), Since: time.Now()}
	for _, o := range old {
		// An older REGISTER of the same phone that comes late must not undo a newer one.
		if o.CallID == base.CallID && base.CSeq <= o.CSeq {
			return nil, malformed
		}
	}
	headers := req.GetHeaders("Contact")
	if len(headers) > r.cfg.MaxContacts {
		return nil, malformed
	}
	var out []change
	for _, h := range headers {
		c, ok := h.(*sip.ContactHeader)
		if !ok {
			return nil, malformed
		}
		if c.Address.Wildcard {
			// "*" stands alone, and only with Expires: 0.
			if len(headers) != 1 || header(req, "Expires") != "0" {
				return nil, malformed
			}
			return everything(base, old), nil
		}
		lasts, no := r.lasts(req, c)
		if no != nil {
			return nil, no
		}
		b := base
		b.Contact = c.Address.String()
		b.Instance, _ = c.Params.Get("+sip.instance")
		b.Instance = clip(strings.Trim(b.Instance, `"`))
		b.Expires = time.Now().Add(lasts)
		if len(b.Contact) > 256 {
			return nil, malformed
		}
		out = append(out, change{b, lasts})
	}
	return out, nil
}

// everything drops all that is registered.
func everything(base Binding, old []Binding) []change {
	out := make([]change, 0, len(old))
	for _, o := range old {
		b := base
		b.Contact = o.Contact
		out = append(out, change{b, 0})
	}
	return out
}

// lasts is how long a Contact asks to be kept; 0 drops it.
func (r *Registrar) lasts(req *sip.Request, c *sip.ContactHeader) (time.Duration, *Refusal) {
	text, ok := c.Params.Get("expires")
	if !ok {
		text = header(req, "Expires")
	}
	n, err := strconv.ParseUint(text, 10, 32)
	switch d := time.Duration(n) * time.Second; {
	case text == "" || err != nil:
		return r.cfg.MaxExpires, nil // RFC 3261 section 20.19: a malformed value is 3600
	case d == 0:
		return 0, nil
	case d < r.cfg.MinExpires:
		least := strconv.Itoa(int(r.cfg.MinExpires.Seconds()))
		return 0, &Refusal{Status: 423, Headers: []sip.Header{sip.NewHeader("Min-Expires", least)}, result: brief}
	default:
		return min(d, r.cfg.MaxExpires), nil
	}
}

// apply writes the changes; r.mu is held.
func (r *Registrar) apply(ctx context.Context, ext string, changes []change, old []Binding) error {
	kind := queried
	for _, c := range changes {
		if err := r.replace(ctx, c, old); err != nil {
			return err
		}
		if c.lasts == 0 {
			kind = removed
			if err := r.forget(ctx, ext, c.Key()); err != nil {
				return err
			}
			continue
		}
		if err := r.bindings.Put(ctx, c.Binding); err != nil {
			return err
		}
		kind = refreshed
		if r.mine.set(phone{ext, c.Key()}, c.Expires) {
			kind = registered
			r.metrics.bindings.Inc()
		}
	}
	r.metrics.count(kind)
	return nil
}

// tell tells that an extension's first phone came to this node, or that the last one left and none is at
// another node that lives. It may wait for the other nodes' phones to be read, so r.mu is not held.
func (r *Registrar) tell(ctx context.Context, ext string, had bool) {
	has, elsewhere := r.mine.has(ext), false
	if had && !has {
		all, err := r.bindings.Get(ctx, ext)
		elsewhere = err == nil && slices.ContainsFunc(all, func(b Binding) bool { return r.deps.Alive(b.Node) })
	}
	r.telling.Lock()
	defer r.telling.Unlock()
	switch now := r.mine.has(ext); { // another REGISTER may have come meanwhile, and tells for itself
	case !had && has && now:
		r.deps.OnRegistered(ext)
	case had && !has && !now && !elsewhere:
		r.deps.OnExpired(ext)
	}
}

// replace drops the former contact of the phone that a change is of (the same instance, RFC 5626
// section 6).
func (r *Registrar) replace(ctx context.Context, c change, old []Binding) error {
	for _, o := range old {
		if c.lasts > 0 && o.Instance != "" && o.Instance == c.Instance && o.Key() != c.Key() {
			if err := r.forget(ctx, c.Extension, o.Key()); err != nil {
				return err
			}
		}
	}
	return nil
}

// trim lists an extension's bindings after it dropped the oldest beyond MaxContacts.
func (r *Registrar) trim(ctx context.Context, ext string) ([]Binding, error) {
	all, err := r.bindings.Own(ctx, ext)
	if err != nil {
		return nil, err
	}
	for len(all) > r.cfg.MaxContacts {
		last := len(all) - 1
		if err := r.forget(ctx, ext, all[last].Key()); err != nil {
			return nil, err
		}
		r.metrics.evicted.Inc()
		all = all[:last]
	}
	return all, nil
}

// forget drops one binding; r.mu is held.
func (r *Registrar) forget(ctx context.Context, ext, key string) error {
	if err := r.bindings.Remove(ctx, ext, key); err != nil {
		return fmt.Errorf("remove a binding: %w", err)
	}
	if r.mine.drop(phone{ext, key}) {
		r.metrics.bindings.Dec()
	}
	return nil
}

// Run drops the phones that did not register again in time, until ctx ends.
func (r *Registrar) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			r.expire(ctx, now)
		}
	}
}

// expire drops the phones whose time is over.
func (r *Registrar) expire(ctx context.Context, now time.Time) {
	lost := map[string]bool{}
	r.mu.Lock()
	for _, p := range r.mine.due(now) {
		if err := r.forget(ctx, p.extension, p.key); err != nil {
			r.log.Warn("an expired phone stays in the store", "error", err)
			continue
		}
		r.metrics.expired.Inc()
		lost[p.extension] = true
	}
	r.mu.Unlock()
	for ext := range lost {
		r.tell(ctx, ext, true)
	}
}

// contactHeaders lists bindings as a 200 does, each with the seconds that are left.
func contactHeaders(all []Binding, now time.Time) []sip.Header {
	var out []sip.Header
	for _, b := range all {
		left := int(b.Expires.Sub(now).Round(time.Second).Seconds())
		out = append(out, sip.NewHeader("Contact", fmt.Sprintf("<%s>;expires=%d", b.Contact, left)))
	}
	return out
}

// clip bounds a text of a phone that is kept.
func clip(s string) string { return s[:min(len(s), 128)] }
