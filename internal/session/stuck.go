package session

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What a stage may last beyond the times of its configuration.
const (
	answering = 40 * time.Second // an answer that waits for its ACK: 64 times T1 (RFC 3261 section 13.3.1.4), and admission
	speaking  = 20 * time.Second // a prompt
	settling  = 10 * time.Second // the end of a call: recording, hand-over, CDR
	grace     = 10 * time.Second // beyond all of it a call is stuck
)

// lasts says how long the stage may go on from now; 0 is a stage that others end.
func (s *story) lasts(most time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due = time.Time{}
	if most > 0 {
		s.due = time.Now().Add(most)
	}
}

// stuck tells whether the call is where it cannot be any more: its stage should be over, or its caller
// has gone. A caller may have gone in wrap-up alone.
func (s *story) stuck(now time.Time) (Stage, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	over := func(t time.Time) bool { return !t.IsZero() && now.Sub(t) > grace }
	return s.view.Stage, over(s.due) || s.view.Stage != StageWrapUp && over(s.gone)
}

// stuckCalls is the gauge of stuck calls. It looks when it is asked, so that a manager that hangs
// cannot hide what hangs.
type stuckCalls struct {
	m    *Manager
	desc *prometheus.Desc
}

func newStuckCalls(m *Manager) *stuckCalls {
	return &stuckCalls{m, prometheus.NewDesc("hotline_call_stuck",
		"Live calls that are in a stage for longer than it can last, or whose caller has gone.", []string{"stage"}, nil)}
}

// Describe implements [prometheus.Collector].
func (c *stuckCalls) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements [prometheus.Collector].
func (c *stuckCalls) Collect(ch chan<- prometheus.Metric) {
	stuck := map[Stage]int{}
	now := time.Now()
	for _, s := range c.m.stories() {
		if stage, is := s.stuck(now); is {
			stuck[stage]++
		}
	}
	for _, stage := range Stages() {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(stuck[stage]), string(stage))
	}
}
