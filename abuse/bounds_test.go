package abuse

import (
	"strings"
	"testing"
	"time"
)

// bounded is a number of the policy at the edges of what an agency may write.
type bounded struct {
	path string
	set  func(p *Policy)
	want bool // whether the number is within
}

// edges are a number's lowest and highest values, each with its neighbour outside.
func edges[T int | float64 | time.Duration](path string, field func(*Policy) *T, low, high, step T, before ...func(*Policy)) (list []bounded) {
	for _, v := range []struct {
		value T
		want  bool
	}{{low, true}, {low - step, false}, {high, true}, {high + step, false}} {
		list = append(list, bounded{path, func(p *Policy) {
			for _, b := range before {
				b(p)
			}
			*field(p) = v.value
		}, v.want})
	}
	return list
}

// TestEveryBoundOfThePolicy holds each number to its bounds, and to those that follow from its neighbours.
func TestEveryBoundOfThePolicy(t *testing.T) {
	const m, h = time.Minute, time.Hour
	for _, list := range [][]bounded{
		edges("repeat.short.calls", func(p *Policy) *int { return &p.Repeat.Short.Calls }, 2, 100, 1),
		edges("repeat.short.within", func(p *Policy) *time.Duration { return &p.Repeat.Short.Within }, 10*m, 6*h, 1),
		edges("repeat.day.calls", func(p *Policy) *int { return &p.Repeat.Day.Calls }, 6, 100, 1),
		edges("repeat.day.calls", func(p *Policy) *int { return &p.Repeat.Day.Calls }, 2, 100, 1, func(p *Policy) { p.Repeat.Short.Calls = 0 }),
		edges("repeat.day.within", func(p *Policy) *time.Duration { return &p.Repeat.Day.Within }, 2*h, 24*h, 1, func(p *Policy) { p.Repeat.Short.Within = 2 * h }),
		edges("repeat.day.within", func(p *Policy) *time.Duration { return &p.Repeat.Day.Within }, h, 24*h, 1, func(p *Policy) { p.Repeat.Short.Within = 0 }),
		edges("long.call", func(p *Policy) *time.Duration { return &p.Long.Call }, 5*m, 6*h, 1),
		edges("long.total", func(p *Policy) *time.Duration { return &p.Long.Total }, 20*m, 12*h, 1),
		edges("long.total", func(p *Policy) *time.Duration { return &p.Long.Total }, 5*m, 12*h, 1, func(p *Policy) { p.Long.Call = 0 }),
		edges("long.within", func(p *Policy) *time.Duration { return &p.Long.Within }, 2*h, 24*h, 1, func(p *Policy) { p.Long.Total = 2 * h }),
		edges("long.within", func(p *Policy) *time.Duration { return &p.Long.Within }, h, 24*h, 1, func(p *Policy) { p.Long.Total = 0 }),
		edges("hindrance.waiting", func(p *Policy) *int { return &p.Hindrance.Waiting }, 1, 100, 1),
		edges("hindrance.occupancy", func(p *Policy) *float64 { return &p.Hindrance.Occupancy }, 0.5, 1, 0.001),
		edges("reminder.valid", func(p *Policy) *time.Duration { return &p.Reminder.Valid }, h, 24*h, 1),
		edges("grace.time", func(p *Policy) *time.Duration { return &p.Grace.Time }, m, h, 1),
		edges("grace.access_need", func(p *Policy) *time.Duration { return &p.Grace.AccessNeed }, 2*m, 2*h, 1),
		edges("grace.access_need", func(p *Policy) *time.Duration { return &p.Grace.AccessNeed }, m, 2*h, 1, func(p *Policy) { p.Grace.Time = 0 }),
		edges("continuation", func(p *Policy) *time.Duration { return &p.Continuation }, m, 2*h, 1),
		edges("measure.terms[0]", func(p *Policy) *time.Duration { return &p.Measure.Terms[0] }, h, 720*h, 1),
		edges("measure.terms[1]", func(p *Policy) *time.Duration { return &p.Measure.Terms[1] }, 24*h+1, 720*h, 1),
		edges("measure.terms[2]", func(p *Policy) *time.Duration { return &p.Measure.Terms[2] }, 72*h+1, 720*h, 1),
		edges("measure.terms[1]", func(p *Policy) *time.Duration { return &p.Measure.Terms[1] }, h, 720*h, 1, func(p *Policy) { p.Measure.Terms[0] = 0 }),
		edges("measure.longest", func(p *Policy) *time.Duration { return &p.Measure.Longest }, 168*h, 720*h, 1),
		edges("measure.look_back", func(p *Policy) *time.Duration { return &p.Measure.LookBack }, 24*h, 4320*h, 1),
		edges("appeal.lapse", func(p *Policy) *time.Duration { return &p.Appeal.Lapse }, h, 24*h, 1),
		edges("referral.decisions", func(p *Policy) *int { return &p.Referral.Decisions }, 3, 100, 1),
		edges("concurrency.calls", func(p *Policy) *int { return &p.Concurrency.Calls }, 1, 10, 1),
		edges("concurrency.lease", func(p *Policy) *time.Duration { return &p.Concurrency.Lease }, 5*time.Second, m, 1),
		edges("concurrency.heartbeat", func(p *Policy) *time.Duration { return &p.Concurrency.Heartbeat }, time.Second, 5*time.Second, 1),
		edges("concurrency.heartbeat", func(p *Policy) *time.Duration { return &p.Concurrency.Heartbeat }, time.Second, time.Second, 1, func(p *Policy) { p.Concurrency.Lease = 0 }),
		edges("snapshot", func(p *Policy) *time.Duration { return &p.Snapshot }, 0, 300*time.Second, 1),
		edges("counters", func(p *Policy) *time.Duration { return &p.Counters }, 24*h, 48*h, 1),
		edges("counters", func(p *Policy) *time.Duration { return &p.Counters }, h, 48*h, 1, func(p *Policy) { p.Repeat.Day.Within, p.Long.Within = 0, 0 }),
		edges("counters", func(p *Policy) *time.Duration { return &p.Counters }, 23*h, 48*h, 1, func(p *Policy) { p.Repeat.Day.Within, p.Long.Within = 23*h, 0 }),
		edges("counters", func(p *Policy) *time.Duration { return &p.Counters }, 23*h, 48*h, 1, func(p *Policy) { p.Repeat.Day.Within, p.Long.Within = 0, 23*h }),
	} {
		for i, b := range list {
			p := p0(t)
			b.set(&p)
			err := p.Validate()
			told := err != nil && strings.Contains("\n"+err.Error(), "\n"+b.path+": ")
			if told == b.want {
				t.Errorf("%s, edge %d: %v; within its bounds: %v", b.path, i, err, b.want)
			}
		}
	}
}

// TestWhatIsKeptOfCalls: the calls that are kept are as many as the larger of the two numbers asks for.
func TestWhatIsKeptOfCalls(t *testing.T) {
	p := p0(t)
	if got := p.kept(); got != 10 {
		t.Errorf("%d calls are kept, want the day's 10", got)
	}
	p.Repeat.Short.Calls, p.Repeat.Day.Calls = 12, 11
	if got := p.kept(); got != 12 {
		t.Errorf("%d calls are kept, want the 12 of the shorter window", got)
	}
}
