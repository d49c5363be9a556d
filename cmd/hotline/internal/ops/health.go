package ops

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Check is one thing that can be wrong with a running node.
type Check struct {
	Code  string // stable, such as "redis-away"
	Title string // what is wrong, when it is
	Mend  string // what to do
	// Blocks says that the node must get no new calls while this is wrong; otherwise it is a warning.
	Blocks bool
	// Test is nil when all is well. It must end with its context.
	Test func(context.Context) error
}

// Warning is a thing that is wrong now.
type Warning struct {
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
	Mend   string `json:"mend"`
}

// State is how a check came out.
type State struct {
	Warning
	OK     bool `json:"ok"`
	Blocks bool `json:"blocks"`
}

// healthFresh is how long an answer of the checks is used again: whoever asks often must not wear
// out what is asked about.
const (
	healthFresh   = 500 * time.Millisecond
	healthTimeout = 2 * time.Second
)

// Health is the checks of a node.
type Health struct {
	checks []Check

	mu   sync.Mutex
	at   time.Time
	last []State
}

// NewHealth makes the health of a node out of its checks.
func NewHealth(checks ...Check) *Health { return &Health{checks: checks} }

// States runs the checks side by side, in their order, unless they have just been run.
func (h *Health) States(ctx context.Context) []State {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.at) < healthFresh {
		return slices.Clone(h.last)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthTimeout)
	defer cancel()
	states := make([]State, len(h.checks))
	var wg sync.WaitGroup
	for i, c := range h.checks {
		wg.Go(func() {
			states[i] = State{Warning: Warning{Code: c.Code, Title: c.Title, Mend: c.Mend}, Blocks: c.Blocks}
			err := c.Test(ctx)
			if states[i].OK = err == nil; err != nil {
				states[i].Detail = err.Error()
			}
		})
	}
	wg.Wait()
	h.last, h.at = states, time.Now()
	return slices.Clone(states)
}

// Warnings is what is wrong now.
func (h *Health) Warnings(ctx context.Context) []Warning {
	var out []Warning
	for _, s := range h.States(ctx) {
		if !s.OK {
			out = append(out, s.Warning)
		}
	}
	return out
}

// Healthz answers that the process is alive. It asks nothing else: a restart mends only a process.
func Healthz() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n")) // who asked has gone
	})
}

// Readyz answers 200 when the node may get calls and 503 when it may not, with each check's state.
func (h *Health) Readyz() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := struct {
			Ready  bool    `json:"ready"`
			Checks []State `json:"checks"`
		}{Ready: true, Checks: h.States(r.Context())}
		for _, s := range answer.Checks {
			answer.Ready = answer.Ready && (s.OK || !s.Blocks)
		}
		w.Header().Set("Content-Type", "application/json")
		if !answer.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(answer) // who asked has gone
	})
}
