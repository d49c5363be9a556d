// Package app wires the gateway and runs it: the only place that knows everything.
//
// [New] makes every part and starts none; what can fail, fails there or in opening the sockets.
// [App.Run] starts them from the ground up, drains when its context ends, and stops them in the
// opposite order.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/abuse"
	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/cmd/hotline/internal/console"
	"github.com/hotline12345/gateway/cmd/hotline/internal/nodes"
	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/asterisk"
	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/intake"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/recording"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/ivr/emergency"
	"github.com/hotline12345/gateway/ivr/speech"
	"github.com/hotline12345/gateway/queue"
	"github.com/hotline12345/gateway/sip"
	"github.com/hotline12345/gateway/sip/trunk"
)

// App is a gateway.
type App struct {
	cfg config.Config
	log *slog.Logger
	reg *prometheus.Registry

	audit     *audit.Log
	staff     *staff.Directory
	store     *store.Store
	keys      nodes.Keys
	vault     *store.Vault // nil for a gateway that stands alone
	same      store.Node   // what this gateway says of itself that does not change
	cluster   *nodes.Cluster
	mirror    *nodes.Mirror
	feed      *nodes.Feed
	others    *others
	journal   *journal.Journal
	recorder  *recording.Recorder
	outbox    *intake.Outbox
	speech    *speech.Recogniser // nil without one
	hearing   session.Hearing    // nil where nobody is listened to
	spoken    *spoken
	queue     *queue.Queue
	admission *abuse.Admission
	line      line
	calls     *session.Manager
	desk      *desk
	queues    *queuesView
	plan      *trunk.Plan
	health    *ops.Health
	console   *console.Console
	http      *ops.Server
	control   *control
	mux       *http.ServeMux
	peers     http.Handler

	// Newcomers are the people of a first start, to be shown once.
	Newcomers []staff.Credential

	closers  []func() error // last in, first out
	draining chan struct{}  // closed at the end of the process
	drained  atomic.Bool    // by order
	last     chan struct{}  // the second signal
	endOnce  sync.Once
}

// New makes a gateway. Nothing runs yet; on an error everything is closed again.
func New(ctx context.Context, cfg config.Config, log *slog.Logger) (_ *App, err error) {
	a := &App{cfg: cfg, log: log, reg: ops.NewRegistry(), draining: make(chan struct{}), last: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	for _, step := range []func(context.Context) error{
		a.makeData, a.makePeople, a.makeStore, a.makeCluster, a.makeBooks, a.makeHearing, a.makeFlows, a.makeSwitch, a.makeRooms, a.makePages,
		a.join, // last: who people log in with is shown once, and a start that fails shows nothing
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *App) closing(f func() error) { a.closers = append(a.closers, f) }

func (a *App) close() error {
	var errs []error
	for _, closer := range slices.Backward(a.closers) {
		errs = append(errs, closer())
	}
	a.closers = nil
	return errors.Join(errs...)
}

func (a *App) makeData(context.Context) error {
	if err := os.MkdirAll(filepath.Join(a.cfg.Data, "keys"), 0o700); err != nil {
		return fmt.Errorf("data: %w; let the gateway's user write there, or set data: to another directory", err)
	}
	log, err := audit.Open(a.cfg.Audit, a.cfg.AuditDir(), a.cfg.Session.Node, time.Now, a.log.With("room", "audit"), a.reg)
	if errors.Is(err, audit.ErrInUse) {
		return fmt.Errorf("data: another gateway runs in %s; stop it, or give this one a directory of its own with --set data=DIR", a.cfg.Data)
	}
	if err != nil {
		return err
	}
	a.audit = log
	a.closing(log.Close)
	return nil
}

func (a *App) makePeople(ctx context.Context) (err error) {
	a.staff, err = staff.Open(ctx, a.cfg.Staff, a.cfg.Data, a.audit, time.Now, a.reg)
	if err != nil {
		return err
	}
	a.closing(a.staff.Close)
	return nil
}

func (a *App) makeStore(context.Context) (err error) {
	a.store, err = store.New(a.cfg.Store, a.log.With("room", "store"), a.reg)
	return err
}

// makeBooks makes what is kept of calls: recordings, journal, outbox.
func (a *App) makeBooks(context.Context) (err error) {
	if len(a.cfg.Recording.Recipients) == 0 {
		recipient, err := recording.EnsureKey(a.cfg.AgencyKey())
		if err != nil {
			return err
		}
		a.cfg.Recording.Recipients = []string{recipient}
		if a.cfg.Recording.ListeningKeyFile == "" {
			a.cfg.Recording.ListeningKeyFile = a.cfg.AgencyKey()
		}
		a.log.Warn("recordings are sealed to a key in the data directory: fit for a trial, not for service; set recording.recipients",
			"key", a.cfg.AgencyKey())
	}
	if a.recorder, err = recording.New(a.cfg.Recording, recording.Deps{Log: a.log.With("room", "recording"), Reg: a.reg}); err != nil {
		return err
	}
	a.journal, err = journal.New(a.cfg.Journal, journal.Deps{Log: a.log.With("room", "journal"), Reg: a.reg,
		Seal:   func(n call.Number) ([]byte, error) { return a.recorder.SealFacts([]byte(n.E164 + "\n" + n.Raw)) },
		Closed: a.recorder.SettleCall})
	if err != nil {
		return err
	}
	a.closing(a.journal.Close)
	if a.http, err = ops.NewServer(a.cfg.HTTP, http.HandlerFunc(a.serveHTTP), a.log.With("room", "http"), a.reg); err != nil {
		return err
	}
	if err := a.http.Listen(context.Background()); errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("http.listen: TCP port %s is in use by another program; stop it, or write another port", a.cfg.HTTP.Listen)
	} else if err != nil {
		return fmt.Errorf("http.listen: %w", err)
	}
	a.closing(a.http.Close)
	if a.cfg.Intake.AudioURL == intake.Defaults().AudioURL {
		a.cfg.Intake.AudioURL = "http://" + a.http.Addr().String() + "/intake/audio"
	}
	a.outbox, err = intake.New(a.cfg.Intake, intake.Deps{Log: a.log.With("room", "intake"), Reg: a.reg, Recordings: a.recorder})
	return err
}

func (a *App) makeFlows(context.Context) (err error) {
	a.spoken, err = newSpoken(a.cfg, a.speech, a.log, a.reg)
	return err
}

func (a *App) makeSwitch(context.Context) (err error) {
	if a.plan, err = trunk.NewPlan(a.cfg.SIP.AreaCode, a.cfg.SIP.OwnNumbers); err != nil {
		return err
	}
	a.desk = &desk{app: a, phones: make(chan struct{}, 1), unseated: map[string]time.Time{}}
	if a.cfg.Backend == config.Asterisk {
		return a.makeAsterisk()
	}
	deps := sip.Deps{Log: a.log.With("room", "sip"), Registerer: a.reg, Credentials: a.staff, Node: a.cfg.Session.Node,
		OnRegistered: a.desk.told, OnExpired: a.desk.told, Trace: a.trace}
	if !a.cluster.Alone() {
		deps.Phones, deps.Peers, deps.NodeSecret = store.NewPhones(a.store), a.cluster.SIP, a.keys.For(nodes.Calls)
	}
	sw, err := sip.New(a.cfg.SIP, deps)
	if err != nil {
		return err
	}
	if err := sw.Open(); err != nil {
		return fmt.Errorf("sip.%w", err)
	}
	a.closing(sw.Close)
	a.line = sipLine{sw}
	return nil
}

func (a *App) makeAsterisk() error {
	sw, err := asterisk.New(a.cfg.Asterisk, asterisk.Deps{Log: a.log.With("room", "asterisk"), Registerer: a.reg, Node: a.cfg.Session.Node,
		Parse: a.plan.Parse, Own: a.plan.Own, OnPhone: func(extension string, _ bool) { a.desk.told(extension) }, Hold: a.spoken.Music})
	if err != nil {
		return fmt.Errorf("asterisk.%w", err)
	}
	a.line = asteriskLine{sw, a.cfg.Session.Node, a.cfg.Asterisk.URL}
	return nil
}

// trace keeps a call's SIP messages on its timeline: the ladder of `hotline call show`.
func (a *App) trace(callID string, at time.Time, sent bool, peer, text string) {
	way := "received"
	if sent {
		way = "sent"
	}
	a.journal.Append(journal.Entry{CallID: callID, At: at, Kind: "sip", Text: text, Attrs: map[string]string{"way": way, "peer": peer}})
}

// makeRooms makes admission, the queue, and the calls that walk through them.
func (a *App) makeRooms(context.Context) (err error) {
	judging := abuse.Deps{Store: a.store, Audit: a.audit, Data: a.cfg.Data, Now: time.Now, OneClock: true, Load: a.heaviest, Parse: a.plan.Parse,
		Log: a.log.With("room", "abuse"), Reg: a.reg}
	if !a.cluster.Alone() {
		judging.Vault, judging.Peers = a.vault, a.cluster.Peers
	}
	if a.admission, err = abuse.New(a.cfg.Abuse, judging); err != nil {
		return err
	}
	seal, open := a.keys.Sealer()
	a.queue, err = queue.New(a.cfg.Queue, queue.Deps{Node: a.cfg.Session.Node, Store: a.store, Owns: a.desk.owns, Levels: a.levels,
		Pseudonym: a.keys.Place(), Seal: seal, Open: open, Ledger: a.journal, Log: a.log.With("room", "queue"), Registerer: a.reg})
	if err != nil {
		return err
	}
	cfg := a.cfg.Session
	cfg.Emergency, cfg.FlowStuck = a.cfg.Emergency.EmergencyConfig, a.cfg.IVR.StuckAfter
	a.calls, err = session.New(cfg, session.Deps{Log: a.log.With("room", "session"), Registerer: a.reg, Switch: a.line,
		Screener: a.admission, Flow: a.spoken, Prompts: a.spoken, Queue: a.queue, Recorder: a.recorder,
		Intake: a.outbox, Journal: a.journal, Desk: phoneDesk{a.desk}, Hearing: a.hearing, Conduct: a.admission, CallBacks: a.queue, Seal: seal, Open: open,
		KeyWatch: func() session.KeyWatch { return &emergency.KeyWatch{} }})
	return err
}

// levels are an agent's queues.
func (a *App) levels(ctx context.Context, agent string) (map[string]int, error) {
	p, err := a.staff.Person(ctx, agent)
	return p.Queues, err
}

func (a *App) makePages(context.Context) (err error) {
	a.queues, a.health, a.feed, a.peers = &queuesView{a: a}, ops.NewHealth(a.checks()...), nodes.NewFeed(a.calls), a.peerRoutes()
	deps := console.Deps{Calls: a.everyCall(), Desk: everyDesk{callDesk{a.calls, a.queue}, a}, Agents: pageDesk{a.desk},
		Queues: a.queues, Trunks: everyTrunk{a}, Journal: everyJournal{a}, Staff: a.staff, Audit: a.audit, Health: everyHealth{a},
		Article29: a.admission, Recordings: a.recorder}
	if a.cfg.Session.CallBack.Trunk != "" {
		deps.CallBacks = callBacks{a}
	}
	if !a.cluster.Alone() {
		deps.Nodes = everyNode{a}
	}
	if a.console, err = console.New(a.cfg.Console, deps, a.log.With("room", "console"), a.reg); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/", a.console.Handler())
	mux.Handle("GET /metrics", ops.Metrics(a.reg, a.spoken))
	mux.Handle("GET /healthz", ops.Healthz())
	mux.Handle("GET /readyz", a.health.Readyz())
	mux.Handle("/intake/audio/", a.outbox.AudioHandler())
	a.mux = mux
	if a.control, err = newControl(a); err != nil {
		return err
	}
	a.closing(a.control.close)
	return nil
}

// serveHTTP is the way to the pages, which are made after the server has its address.
func (a *App) serveHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// Addrs are where the gateway can be reached, for those who start it on free ports.
func (a *App) Addrs() (carriers, phones, pages string) {
	carriers, phones = a.line.Addrs()
	return carriers, phones, a.http.Addr().String()
}
