package abuse

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/hotline12345/gateway/internal/session"
)

// Policy is the agency's numbers under Art. 31, as configs/policy/art29.yaml explains them.
type Policy struct {
	Version string `yaml:"version"`
	Repeat  struct {
		Short Rate `yaml:"short"`
		Day   Rate `yaml:"day"`
	} `yaml:"repeat"`
	Long struct {
		Call   time.Duration `yaml:"call"`
		Total  time.Duration `yaml:"total"`
		Within time.Duration `yaml:"within"`
	} `yaml:"long"`
	Counted   []session.Outcome `yaml:"counted"`
	Hindrance struct {
		Waiting   int     `yaml:"waiting"`
		Occupancy float64 `yaml:"occupancy"`
	} `yaml:"hindrance"`
	Reminder struct {
		Valid     time.Duration `yaml:"valid"`
		Recording bool          `yaml:"recording"`
	} `yaml:"reminder"`
	Grace struct {
		Time       time.Duration `yaml:"time"`
		AccessNeed time.Duration `yaml:"access_need"`
	} `yaml:"grace"`
	Continuation time.Duration `yaml:"continuation"`
	Measure      struct {
		Terms    []time.Duration `yaml:"terms"`
		Longest  time.Duration   `yaml:"longest"`
		LookBack time.Duration   `yaml:"look_back"`
	} `yaml:"measure"`
	Approvers [][]Role `yaml:"approvers"` // by level
	Appeal    struct {
		Lapse time.Duration `yaml:"lapse"`
	} `yaml:"appeal"`
	Referral struct {
		Decisions int `yaml:"decisions"`
	} `yaml:"referral"`
	Protected struct {
		AccessNeed bool `yaml:"access_need"`
	} `yaml:"protected"`
	Concurrency struct {
		Calls     int           `yaml:"calls"`
		Lease     time.Duration `yaml:"lease"`
		Heartbeat time.Duration `yaml:"heartbeat"`
	} `yaml:"concurrency"`
	Snapshot time.Duration `yaml:"snapshot"`
	Counters time.Duration `yaml:"counters"`
}

// Role is what a person on the staff may decide as.
type Role string

// The roles that may approve a measure.
const (
	Supervisor Role = "supervisor"
	Manager    Role = "manager"
)

// Rate is a number of calls in a window.
type Rate struct {
	Calls  int           `yaml:"calls"`
	Within time.Duration `yaml:"within"`
}

// ParsePolicy reads a policy file. An unknown key is an error that shows its place.
func ParsePolicy(b []byte) (Policy, error) {
	var p Policy
	if err := yaml.UnmarshalWithOptions(b, &p, yaml.Strict()); err != nil {
		return Policy{}, fmt.Errorf("abuse: policy: %w", err)
	}
	if err := p.Validate(); err != nil {
		return Policy{}, fmt.Errorf("abuse: policy: %w", err)
	}
	return p, nil
}

// Validate names each number that is out of bounds, and what to write instead.
func (p Policy) Validate() error {
	var version error
	if p.Version == "" {
		version = errors.New("version: it is empty; write a name that decisions can cite, e.g. P0")
	}
	return errors.Join(version,
		within("repeat.short.calls", p.Repeat.Short.Calls, 2, 100),
		within("repeat.short.within", p.Repeat.Short.Within, 10*time.Minute, 6*time.Hour),
		within("repeat.day.calls", p.Repeat.Day.Calls, max(p.Repeat.Short.Calls, 2), 100),
		within("repeat.day.within", p.Repeat.Day.Within, max(p.Repeat.Short.Within, time.Hour), 24*time.Hour),
		within("long.call", p.Long.Call, 5*time.Minute, 6*time.Hour),
		within("long.total", p.Long.Total, max(p.Long.Call, 5*time.Minute), 12*time.Hour),
		within("long.within", p.Long.Within, max(p.Long.Total, time.Hour), 24*time.Hour),
		p.validCounted(),
		within("hindrance.waiting", p.Hindrance.Waiting, 1, 100),
		within("hindrance.occupancy", p.Hindrance.Occupancy, 0.5, 1),
		within("reminder.valid", p.Reminder.Valid, time.Hour, 24*time.Hour),
		within("grace.time", p.Grace.Time, time.Minute, time.Hour),
		within("grace.access_need", p.Grace.AccessNeed, max(p.Grace.Time, time.Minute), 2*time.Hour),
		within("continuation", p.Continuation, time.Minute, 2*time.Hour),
		p.validTerms(),
		within("measure.look_back", p.Measure.LookBack, 24*time.Hour, 4320*time.Hour),
		p.validApprovers(),
		within("appeal.lapse", p.Appeal.Lapse, time.Hour, 24*time.Hour),
		within("referral.decisions", p.Referral.Decisions, 3, 100),
		within("concurrency.calls", p.Concurrency.Calls, 1, 10),
		within("concurrency.lease", p.Concurrency.Lease, 5*time.Second, time.Minute),
		within("concurrency.heartbeat", p.Concurrency.Heartbeat, time.Second, max(p.Concurrency.Lease/3, time.Second)),
		within("snapshot", p.Snapshot, 0, 300*time.Second),
		within("counters", p.Counters, max(p.Repeat.Day.Within, p.Long.Within, time.Hour), 48*time.Hour),
	)
}

// countable are the outcomes that can count at all; the rules forbid the others, whatever an agency writes.
var countable = []session.Outcome{session.OutcomeNoRequest, session.OutcomeSilent, session.OutcomeOOSTold, session.OutcomeAbuse}

func (p Policy) validCounted() error {
	var errs []error
	for i, o := range p.Counted {
		if !slices.Contains(countable, o) {
			errs = append(errs, fmt.Errorf("counted[%d]: %q may never count against a caller; write some of %v", i, o, countable))
		}
	}
	return errors.Join(errs...)
}

func (p Policy) validTerms() error {
	terms, longest := p.Measure.Terms, p.Measure.Longest
	if len(terms) != 3 {
		return fmt.Errorf("measure.terms: there are %d; write three, for levels 1 to 3, e.g. [24h, 72h, 168h]", len(terms))
	}
	var errs []error
	least := time.Hour
	for i, term := range terms {
		errs = append(errs, within(fmt.Sprintf("measure.terms[%d]", i), term, least, 720*time.Hour))
		least = max(least, term+1)
	}
	return errors.Join(append(errs, within("measure.longest", longest, terms[2], 720*time.Hour))...)
}

// validApprovers holds to the law: the agency decides, so an agent never does.
func (p Policy) validApprovers() error {
	if len(p.Approvers) != 3 {
		return fmt.Errorf("approvers: there are %d lists; write three, for levels 1 to 3, e.g. [[supervisor, manager], [manager], [manager]]", len(p.Approvers))
	}
	var errs []error
	for i, roles := range p.Approvers {
		if len(roles) == 0 {
			errs = append(errs, fmt.Errorf("approvers[%d]: it is empty; write some of [supervisor, manager]", i))
		}
		for _, r := range roles {
			if r != Supervisor && r != Manager {
				errs = append(errs, fmt.Errorf("approvers[%d]: %q may not approve; write some of [supervisor, manager]", i, r))
			}
		}
	}
	return errors.Join(errs...)
}

// kept is how many counted calls say all that the rules ask: if fewer lie in the day's window, these
// are all of them; if as many do, the day's number is reached.
func (p Policy) kept() int { return max(p.Repeat.Short.Calls, p.Repeat.Day.Calls) }

func within[T cmp.Ordered](path string, v, low, high T) error {
	if cmp.Less(v, low) || cmp.Less(high, v) { // NaN is less than any
		return fmt.Errorf("%s: %v is out of bounds; write a value from %v to %v", path, v, low, high)
	}
	return nil
}
