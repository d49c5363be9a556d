package app

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/ivr"
	"github.com/hotline12345/gateway/ivr/prompt"
	"github.com/hotline12345/gateway/ivr/speech"
)

// spoken is what callers hear, flows and prompts, as of the last good configuration. A reload puts a
// new edition in its place; calls in a flow go on in the edition that they began with.
type spoken struct {
	edition atomic.Pointer[edition]
	speech  *speech.Recogniser // nil where nobody is listened to
	reloads *prometheus.CounterVec
}

// edition is one reading of the flows and prompts. Its metrics are its own, so their counters begin
// anew with it.
type edition struct {
	flows   *ivr.Engine
	prompts *prompt.Catalogue
	reg     *prometheus.Registry
}

func newSpoken(cfg config.Config, hears *speech.Recogniser, log *slog.Logger, reg prometheus.Registerer) (*spoken, error) {
	first, err := read(cfg, hears, log)
	if err != nil {
		return nil, err
	}
	s := &spoken{speech: hears, reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hotline_config_reloads_total",
		Help: "Reloads of flows and prompts (SIGHUP), by result; a failed one keeps the last good."}, []string{"result"})}
	s.reloads.WithLabelValues("ok")
	s.reloads.WithLabelValues("failed")
	reg.MustRegister(s.reloads)
	s.edition.Store(first)
	return s, nil
}

func read(cfg config.Config, hears *speech.Recogniser, log *slog.Logger) (*edition, error) {
	e := &edition{reg: prometheus.NewRegistry()}
	var err error
	if e.prompts, err = prompt.New(cfg.Prompts, e.reg); err != nil {
		return nil, err
	}
	var queues []string
	for _, q := range cfg.Queue.Queues {
		queues = append(queues, q.Name)
	}
	var prompts ivr.Prompts = e.prompts
	if hears != nil {
		prompts = listening{e.prompts, hears}
	}
	e.flows, err = ivr.New(cfg.IVR, prompts, queues, log.With("room", "ivr"), e.reg)
	return e, err
}

// reload takes a new edition, or keeps the old one and says why.
func (s *spoken) reload(cfg config.Config, log *slog.Logger) error {
	e, err := read(cfg, s.speech, log)
	if err != nil {
		s.reloads.WithLabelValues("failed").Inc()
		return err
	}
	s.edition.Store(e)
	s.reloads.WithLabelValues("ok").Inc()
	return nil
}

// Run implements session.Flow.
func (s *spoken) Run(ctx context.Context, v session.Voice, at session.FlowPoint) (session.FlowExit, error) {
	return s.edition.Load().flows.Run(ctx, v, at)
}

// Say and Music implement session.Prompts.
func (s *spoken) Say(language string, parts ...string) []*call.Clip {
	return s.edition.Load().prompts.Say(language, parts...)
}

// Music is what a waiting caller hears.
func (s *spoken) Music() []*call.Clip { return s.edition.Load().prompts.Music() }

// Gather implements prometheus.Gatherer: the metrics of the edition in force.
func (s *spoken) Gather() ([]*dto.MetricFamily, error) { return s.edition.Load().reg.Gather() }

// Reload reads flows and prompts anew, as cfg names them, and the lists of Article 29, for the calls from now on.
// Every other setting needs a restart. On an error the last good ones stay.
func (a *App) Reload(cfg config.Config) error {
	return errors.Join(a.spoken.reload(cfg, a.log), a.admission.LoadLists())
}
