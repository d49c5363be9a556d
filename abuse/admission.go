package abuse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
)

// Admission screens calls and keeps the measures. Its methods may be called from any goroutine.
type Admission struct {
	policy  Policy
	store   *store.Store
	audit   *audit.Log
	keys    *keyring
	dir     string // of the sealed numbers
	skew    skew
	load    func(from, to time.Time) (int, float64)
	log     *slog.Logger
	metrics *metrics
	scripts scripts

	shadow *shadow // nil without another policy

	lists     atomic.Pointer[Lists]
	listsFile string
	parse     func(string) call.Number

	peers *peers

	syncing sync.Mutex // one Sync at a time; taken before mu
	build   build

	mu       sync.Mutex
	ledger   map[string]*Case // by decision: what the chains say
	dockets  dockets          // what they say of matters besides
	snapshot snapshot
	unsent   bool              // the stream lacks something that the ledger has
	held     []string          // the nodes whose chains measures wait for
	leases   map[string]*lease // by call
}

var _ session.Screener = (*Admission)(nil)

// Deps are what an Admission stands on.
type Deps struct {
	Store *store.Store
	Audit *audit.Log
	Data  string           // the data directory: keys in keys/, sealed numbers in measures/
	Now   func() time.Time // the node's clock; scores and leases have that of Redis
	// OneClock sets the node's clock right by that of Redis at each Sync, if they differ by a second and more.
	OneClock bool
	Log      *slog.Logger
	Reg      prometheus.Registerer // may be nil
	// Vault agrees the keys of several nodes; nil is a node that stands alone.
	Vault Vault
	// Peers names the living nodes, as their audit chains are named; this node may be among them. It is
	// called for each call, and must not block. nil is a node that stands alone.
	Peers func() []string
	// Parse makes a number of what people write; nil takes E.164 alone.
	Parse func(string) call.Number
	// Load is the heaviest load of the line between two times: callers who waited, and the share of the
	// agents who were busy, 0 to 1. It is the proof that others were hindered (29(1)); nil proves nothing.
	Load func(from, to time.Time) (waiting int, occupancy float64)
}

// New reads the policy, the keys and the measures of the node's chain. It asks nothing of Redis. A chain
// that does not verify imposes no measure; that is logged, and is no error: callers come first. With a
// vault no number is looked up in Redis before a Sync has agreed on the keys; callers are admitted.
func New(cfg Config, d Deps) (*Admission, error) {
	policy, err := cfg.Policy()
	if err != nil {
		return nil, err
	}
	other, err := cfg.Shadow()
	if err != nil {
		return nil, err
	}
	keys, err := openKeyring(filepath.Join(d.Data, "keys"), cfg.EpochLife, d.Vault, d.Now())
	if err != nil {
		return nil, err
	}
	a := &Admission{
		policy: policy, store: d.Store, audit: d.Audit, keys: keys, dir: filepath.Join(d.Data, "measures"),
		listsFile: cmp.Or(cfg.ListsFile, filepath.Join(d.Data, "lists.csv")), parse: d.Parse,
		shadow: newShadow(other, d.Now()),
		skew:   skew{wall: d.Now, heed: d.OneClock}, load: d.Load, log: d.Log, metrics: newMetrics(d.Reg), scripts: newScripts(d.Store),
		leases: make(map[string]*lease), peers: newPeers(d.Audit.Node(), d.Peers),
		build: build{seen: firstID, chains: make(map[string]time.Time)},
	}
	if err := a.LoadLists(); err != nil {
		return nil, fmt.Errorf("lists_file: %w", err)
	}
	if a.ledger, a.dockets, a.build.confirmed, err = replay(d.Audit); err != nil {
		d.Log.Error("the audit chain is broken; no measure is restored from it", "err", err)
		a.ledger, a.dockets = make(map[string]*Case), newDockets()
	}
	a.repseudonym(d.Now())
	return a, nil
}

// Policy is the policy in force.
func (a *Admission) Policy() Policy { return a.policy }

// Screen implements [session.Screener].
func (a *Admission) Screen(ctx context.Context, r session.ScreenRequest) session.Verdict {
	f := Facts{At: a.skew.right(r.At), OwnNumber: r.OwnNumber, Identity: a.identity(r.Identity, r.Caller.E164), Exempt: a.exempt(r.Caller.E164)}
	if f.At.IsZero() {
		f.At = a.now()
	}
	if r.Caller.E164 == "" && f.Identity == call.Verified {
		f.Identity = call.Anonymous // there is no number to verify
	}
	if f.OwnNumber || f.Identity != call.Verified {
		return a.verdict(r, f, nil)
	}
	err := a.ask(ctx, r, &f)
	if err != nil {
		a.recall(r.Caller.E164, &f)
		a.metrics.failOpen.WithLabelValues(reason(err)).Inc()
		a.log.Warn("admitted without redis", "call", r.CallID, "err", err)
	}
	return a.verdict(r, f, err)
}

// verdict decides, and gives the call its lease.
func (a *Admission) verdict(r session.ScreenRequest, f Facts, away error) session.Verdict {
	ruling := Decide(a.policy, f)
	a.shadowInvite(f, ruling.Decision)
	a.metrics.decisions.WithLabelValues(string(ruling.Rule), string(ruling.Decision)).Inc()
	v := session.Verdict{Decision: ruling.Decision, FailOpen: away != nil, Banner: ruling.Banner}
	switch ruling.Decision {
	case session.RejectNet, session.QueueLease:
		return v
	case session.IVROnly:
		v.Measure = f.Measure
	case session.Admit, session.AdmitWatch:
	}
	shared := f.Place == Taken || away != nil // a lease that could not be asked for is taken by the heartbeat
	lease, fresh := a.newLease(r, f, shared, ruling.Banner)
	v.Lease = lease
	if fresh && f.Place == Taken {
		a.metrics.wait.Observe(max(0, a.now().Sub(f.At)).Seconds())
	}
	return v
}

// ask takes the lease and gathers the facts of a verified number, in one round trip: the script under
// the current epoch, what was counted under the ones before, and the measure.
func (a *Admission) ask(ctx context.Context, r session.ScreenRequest, f *Facts) error {
	names := a.keys.counters(r.Caller.E164)
	if len(names) == 0 {
		return errKeys
	}
	keys := []string{keyLeases(names[0]), keyLive(names[0]), keyCounted(names[0])}
	args := []any{a.member(r.CallID), a.policy.Concurrency.Lease.Milliseconds(), a.policy.Concurrency.Calls}
	for _, node := range a.peers.gone() {
		args = append(args, node)
	}
	var admit *redis.Cmd
	var earlier []*redis.StringSliceCmd
	var measure *redis.StringCmd
	// The pipeline's own error is that of one of its commands, which are each looked at below.
	_, _ = a.store.Client().Pipelined(ctx, func(p redis.Pipeliner) error {
		admit = a.scripts.admit.EvalSha(ctx, p, keys, args...)
		for _, name := range names[1:] {
			earlier = append(earlier, p.HVals(ctx, keyCounted(name)))
		}
		measure = p.HGet(ctx, keyRunning, a.keys.measure(r.Caller.E164))
		return nil
	})
	if redis.HasErrorPrefix(admit.Err(), "NOSCRIPT") { // not run: a server that was flushed has lost it
		admit = a.scripts.admit.Eval(ctx, a.store.Client(), keys, args...)
	}
	answer, err := admit.Slice()
	if err != nil {
		return err
	}
	if f.Place, f.Counted, err = readAdmit(answer); err != nil {
		return err
	}
	for _, cmd := range earlier {
		more, err := cmd.Result()
		if err != nil {
			return err
		}
		f.Counted = append(f.Counted, readCounted(more)...)
	}
	return a.readMeasure(measure, f)
}

// readMeasure takes the measure as Redis has it, unless a restoration in the chain says otherwise.
func (a *Admission) readMeasure(cmd *redis.StringCmd, f *Facts) error {
	text, err := cmd.Result()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := readStored(text)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.ledger[m.Decision]; c != nil && c.State.over() {
		return nil
	}
	f.Measure, f.From = m.told(), m.From
	return nil
}

// recall takes what is known without Redis: the measure of the copy. A refusal of the lease that came
// before the failure is forgotten: who cannot be asked admits.
func (a *Admission) recall(e164 string, f *Facts) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f.Place == Refused {
		f.Place = NotAsked
	}
	f.Measure, f.Copy, f.CopyAge = nil, true, a.now().Sub(a.snapshot.at)
	if m, ok := a.snapshot.running[a.keys.measure(e164)]; ok {
		f.Measure, f.From = m.told(), m.From
	}
}

// readAdmit reads what the script admit returns.
func readAdmit(answer []any) (Place, []Counted, error) {
	if len(answer) != 2 {
		return NotAsked, nil, fmt.Errorf("abuse: admit answered %d values", len(answer))
	}
	counted, err := texts(answer[1])
	if err != nil {
		return NotAsked, nil, err
	}
	if answer[0] == int64(1) {
		return Taken, readCounted(counted), nil
	}
	return Refused, readCounted(counted), nil
}

// texts makes strings of a list in a script's answer.
func texts(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("abuse: a script answered %T where a list belongs", v)
	}
	out := make([]string, len(list))
	for i, e := range list {
		if out[i], ok = e.(string); !ok {
			return nil, fmt.Errorf("abuse: a script answered %T where a text belongs", e)
		}
	}
	return out, nil
}

// readCounted reads "start answered ended" in ms, and what stands behind. What is not three numbers counts
// as nothing.
func readCounted(values []string) []Counted {
	out := make([]Counted, 0, len(values))
	for _, v := range values {
		if ms, ok := numbers(v); ok {
			out = append(out, Counted{time.UnixMilli(ms[0]), time.UnixMilli(ms[1]), time.UnixMilli(ms[2])})
		}
	}
	return out
}

// numbers reads the three integers, with blanks between them, that a text begins with.
func numbers(s string) (n [3]int64, ok bool) {
	fields := strings.Fields(s)
	if len(fields) < len(n) {
		return n, false
	}
	for i, f := range fields[:len(n)] {
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return n, false
		}
		n[i] = v
	}
	return n, true
}

// Count implements [session.Screener]. A call whose count Redis did not take is not counted later:
// what is uncertain is never held against a caller.
func (a *Admission) Count(ctx context.Context, o session.CallOutcome) {
	o.Identity = a.identity(o.Identity, o.Caller.E164)
	a.noteEnded(ctx, o)
	if !Counts(a.policy, o) {
		return
	}
	if err := a.count(ctx, o); err != nil {
		a.metrics.counted.WithLabelValues("lost").Inc()
		a.log.Warn("a call was not counted", "call", o.CallID, "err", err)
		return
	}
	a.metrics.counted.WithLabelValues("counted").Inc()
}

// kept is how many counted calls tell the policy in force, and its shadow, all that they ask.
func (a *Admission) kept() int {
	if a.shadow == nil {
		return a.policy.kept()
	}
	return max(a.policy.kept(), a.shadow.policy.kept())
}

func (a *Admission) count(ctx context.Context, o session.CallOutcome) error {
	names := a.keys.counters(o.Caller.E164)
	if len(names) == 0 {
		return errKeys
	}
	return a.scripts.count.Run(ctx, a.store.Client(), []string{keyCounted(names[0])},
		o.CallID, countedText(a.callEvent(o, o.Ended)), a.kept(), a.policy.Counters.Milliseconds()).Err()
}
