package ivr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/configs"
	"github.com/hotline12345/gateway/internal/session"
)

// Prompts is the prompt catalogue as flows need it (package ivr/prompt).
type Prompts interface {
	session.Prompts
	Catalogue
	// Barge tells whether a key may end a part early.
	Barge(part string) bool
}

// Engine walks calls through flows.
type Engine struct {
	cfg     Config
	flows   map[string]*Flow
	files   fs.FS
	prompts Prompts
	metrics *metrics
	log     *slog.Logger
	within  deadline
}

var _ session.Flow = (*Engine)(nil)

// deadline is a context that ends with cause after d. The simulation has a clock of its own.
type deadline func(ctx context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc)

// New loads and checks every flow. queues are the names that queue nodes may use; nil checks none.
// It fails with every fault at once, each a [Problem]; warnings are logged. reg may be nil.
func New(cfg Config, prompts Prompts, queues []string, log *slog.Logger, reg prometheus.Registerer) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	files, err := source(cfg.Flows)
	if err != nil {
		return nil, err
	}
	known := Known{Prompts: prompts, Queues: queues, Targets: append([]string{}, slices.Sorted(maps.Keys(cfg.Targets))...)}
	flows, warnings, err := load(files, cfg.Flows, known)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		log.Warn("flow", "file", w.File, "line", w.Line, "problem", w.Message, "mend", w.Mend)
	}
	e := &Engine{cfg: cfg, flows: flows, files: files, prompts: prompts, metrics: newMetrics(reg), log: log, within: context.WithTimeoutCause}
	e.news()
	return e, e.routed()
}

// news tells at the start which announcements callers will not hear, and why.
func (e *Engine) news() {
	for _, name := range e.Flows() {
		for _, n := range e.flows[name].Nodes {
			if n.Kind != Announce {
				continue
			}
			if _, err := readAnnouncements(e.files, n.File, e.prompts); err != nil {
				e.log.Warn("announcements are skipped", "flow", name, "file", n.File, "error", err)
			}
		}
	}
}

func source(dir string) (fs.FS, error) {
	if dir != "" {
		return os.DirFS(dir), nil
	}
	return fs.Sub(configs.Flows, "flows")
}

// events marks the files of announcements, which lie beside the flows: events.yaml, events-flood.yaml.
const events = "events"

func load(files fs.FS, dir string, known Known) (map[string]*Flow, []Problem, error) {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, nil, err
	}
	flows := map[string]*Flow{}
	var warnings []Problem
	var faults []error
	for _, name := range names {
		if strings.HasPrefix(name, events) {
			continue
		}
		src, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, nil, err
		}
		flow, problems := Check(path.Join(dir, name), src, known)
		for _, p := range problems {
			if p.Warning {
				warnings = append(warnings, p)
			} else {
				faults = append(faults, p)
			}
		}
		if flow != nil {
			flows[flow.Name] = flow
		}
	}
	return flows, warnings, errors.Join(faults...)
}

// routed checks that every route leads to a flow.
func (e *Engine) routed() error {
	names := e.Flows()
	var faults []error
	check := func(key, flow string) {
		if e.flows[flow] == nil {
			faults = append(faults, fmt.Errorf("%s: no flow is named %q; %s", key, flow, choose(flow, names)))
		}
	}
	check("default", e.cfg.Default)
	for i, r := range e.cfg.Routes {
		check(fmt.Sprintf("routes[%d].flow", i), r.Flow)
	}
	return errors.Join(faults...)
}

// Flows lists the names of the flows, sorted.
func (e *Engine) Flows() []string { return slices.Sorted(maps.Keys(e.flows)) }

// Flow is a flow by its name, or nil.
func (e *Engine) Flow(name string) *Flow { return e.flows[name] }

// pick is the flow of a call.
func (e *Engine) pick(at session.FlowPoint) *Flow {
	if f := e.flows[at.Flow]; f != nil {
		return f
	}
	for _, r := range e.cfg.Routes {
		if (r.Called == "" || r.Called == at.Called) && (r.Trunk == "" || r.Trunk == at.Trunk) {
			return e.flows[r.Flow]
		}
	}
	return e.flows[e.cfg.Default]
}

// Run implements [session.Flow]. A caller who comes to no new node for StuckAfter, or whose flow
// changed under a checkpoint, is led to the flow's person.
func (e *Engine) Run(ctx context.Context, v session.Voice, at session.FlowPoint) (session.FlowExit, error) {
	began := time.Now()
	exit, err := e.walk(e.pick(at), v, at).run(ctx)
	e.metrics.seconds.Observe(time.Since(began).Seconds())
	if err != nil {
		e.metrics.exits.WithLabelValues("broken").Inc()
		return exit, err
	}
	e.metrics.exits.WithLabelValues(string(exit.Kind)).Inc()
	return exit, nil
}

func (e *Engine) walk(f *Flow, v session.Voice, at session.FlowPoint) *walk {
	w := &walk{engine: e, flow: f, voice: v, at: at, node: f.Node(f.Start), data: map[string]string{}}
	w.language = cmp.Or(f.Language, at.Language, e.cfg.Language)
	if at.Node == "" {
		return w
	}
	w.language = cmp.Or(at.Language, w.language) // going on: as the caller chose
	if w.node = f.Node(at.Node); w.node == nil {
		e.metrics.faults.WithLabelValues(faultNode).Inc()
		w.node = f.Node(f.Person)
	}
	return w
}
