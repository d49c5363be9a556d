package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

// together is how many calls are played at a time.
const together = 5

// Result is one call and what became of it.
type Result struct {
	Number      int               `json:"number"`
	Call        string            `json:"call"` // the gateway's name of it
	Scenario    string            `json:"scenario"`
	Expectation string            `json:"expectation"`
	Outcome     string            `json:"outcome"`
	OK          bool              `json:"ok"`
	Fault       string            `json:"fault,omitempty"`
	Seconds     float64           `json:"seconds"`
	Seen        map[string]string `json:"seen,omitempty"`

	service session.Service
}

// note keeps something that was seen.
func (r *Result) note(what string, v any) {
	if r.Seen == nil {
		r.Seen = map[string]string{}
	}
	r.Seen[what] = fmt.Sprint(v)
}

// fit are the scenarios that can be played here, and the names of those that cannot.
func (d *demo) fit() (fit []*scenario, left []string) {
	for i := range scenarios {
		switch s := &scenarios[i]; {
		case d.gateway == nil && !s.outside:
			left = append(left, s.name)
		case len(d.opts.only) == 0 || slices.Contains(d.opts.only, s.name):
			fit = append(fit, s)
		}
	}
	return fit, left
}

// cast spreads n calls over the scenarios, and the services over the emergencies.
func (d *demo) cast(n int) []*Result {
	fit, _ := d.fit()
	results := make([]*Result, n)
	emergencies := 0
	for i := range results {
		s := fit[i%len(fit)]
		r := &Result{Number: i + 1, Scenario: s.name, Expectation: s.expects}
		if isEmergency(s) {
			r.service = session.Services()[emergencies%len(session.Services())]
			emergencies++
		}
		results[i] = r
	}
	return results
}

func isEmergency(s *scenario) bool {
	return s.name == "emergency-prompt" || s.name == "emergency-queue" || s.name == "emergency-suspended"
}

// playOnce plays all calls, phase by phase, several at a time where nobody needs the agents alone.
func (d *demo) playOnce(ctx context.Context) []*Result {
	results := d.cast(d.opts.Calls)
	paused := false
	for _, ph := range phases {
		in := slices.DeleteFunc(slices.Clone(results), func(r *Result) bool { return find(r.Scenario).phase != ph })
		if d.gateway != nil && ph != open && len(in) > 0 && !paused {
			paused = true
			if err := d.pauseAll(ctx); err != nil {
				fail(in, fmt.Errorf("the agents could not be paused: %w", err))
				continue
			}
		}
		if ph != alone {
			d.playAll(ctx, in, together)
			continue
		}
		for _, r := range in {
			d.play(ctx, r)
			if err := d.pauseAll(ctx); err != nil {
				d.log.Warn("the agents could not be paused again", "err", err)
			}
		}
	}
	if d.intake != nil {
		for _, r := range results {
			if err := d.intake.once(r.Call); err != nil && r.OK {
				r.OK, r.Fault = false, err.Error()
			}
		}
	}
	return results
}

func fail(results []*Result, err error) {
	for _, r := range results {
		r.Fault = err.Error()
	}
}

// playAll plays calls, so many at a time.
func (d *demo) playAll(ctx context.Context, results []*Result, atOnce int) {
	var wg sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for _, r := range results {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			d.play(ctx, r)
		})
	}
	wg.Wait()
}

// play plays one call and judges it.
func (d *demo) play(ctx context.Context, r *Result) {
	s := find(r.Scenario)
	p := d.newPlayer(r, "")
	p.service, p.broken = r.service, d.opts.Break == s.name
	began := time.Now()
	err := s.run(ctx, p)
	if errors.Is(err, errGuest) {
		p.withGuest(ctx, err)
		err = nil
	}
	p.leave()
	r.Seconds = time.Since(began).Seconds()
	r.OK = err == nil
	if err != nil {
		r.Fault = err.Error()
	}
}

// playOn plays round and round at a calm pace until ctx ends, and tells of each call.
func (d *demo) playOn(ctx context.Context) error {
	fit, _ := d.fit()
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, together)
	emergencies := 0
	for i := 0; ; i++ {
		s := fit[i%len(fit)]
		r := &Result{Number: i + 1, Scenario: s.name, Expectation: s.expects}
		if isEmergency(s) {
			r.service = session.Services()[emergencies%len(session.Services())]
			emergencies++
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		wg.Go(func() {
			defer func() { <-places }()
			d.play(ctx, r)
			if ctx.Err() == nil {
				d.tell(r)
			}
		})
		if wait(ctx, d.pace.gap) != nil {
			return nil
		}
	}
}
