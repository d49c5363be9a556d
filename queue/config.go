package queue

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Config is the queues and their rules.
type Config struct {
	Queues []QueueConfig `yaml:"queues"`
	// Strategy is how an agent is chosen; longest-idle, within the level, is the only one.
	Strategy string `yaml:"strategy"`
	// AutoPauseAfter is how many unanswered offers in a row pause an agent, 1 to 10; default 1. A phone that was out of
	// reach is tried once more, 2 s later, before that.
	AutoPauseAfter int `yaml:"auto_pause_after"`
	// RedialWindow is how long a caller who left regains the old place; 0 for never, default 120 s.
	RedialWindow time.Duration `yaml:"redial_window"`
	// ShortAbandon is the longest wait that counts as a short abandon; default 5 s.
	ShortAbandon time.Duration `yaml:"short_abandon"`
	// StoreTimeout is how long an operation waits for Redis before the node queues on its own; 10 ms to
	// 5 s, default 100 ms.
	StoreTimeout time.Duration `yaml:"store_timeout"`
	// DeadAfter is the silence after which a node is taken for dead; 2 s to 60 s, default 4 s: with a beat and a
	// sweep each half second its callers are in the ledger within 5 s.
	DeadAfter time.Duration  `yaml:"dead_after"`
	CallBack  CallBackConfig `yaml:"call_back"`
}

// CallBackConfig is the rules of the ledger of callers who are owed a call back.
type CallBackConfig struct {
	Attempts int           `yaml:"attempts"` // then the task is closed as unreached; 1 to 20, default 3
	Between  time.Duration `yaml:"between"`  // between two attempts, as advice on the page; 0 to 24 h, default 10 min
	Keep     time.Duration `yaml:"keep"`     // how long closed tasks stay visible; 1 h to 14 days, default 72 h
	Max      int           `yaml:"max"`      // open tasks, beyond which the oldest is dropped; 100 to 100000, default 20000
}

// QueueConfig is one queue.
type QueueConfig struct {
	Name       string        `yaml:"name"` // lower-case letters, digits, '-' and '_', at most 32
	Display    Display       `yaml:"display"`
	MaxWaiting int           `yaml:"max_waiting"` // 1 to 20000; the caller after them gets ErrQueueFull
	Ring       time.Duration `yaml:"ring"`        // how long a phone rings, 5 s to 120 s; default 20 s
	Wrapup     time.Duration `yaml:"wrapup"`      // after a talk, 0 to 30 min; default 60 s
	MaxWait    time.Duration `yaml:"max_wait"`    // then the caller overflows to OverflowTo; 0 for never
	OverflowTo string        `yaml:"overflow_to"`
}

// Display is a queue's name for people.
type Display struct {
	ZH string `yaml:"zh" json:"zh"`
	EN string `yaml:"en" json:"en"`
}

// StrategyLongestIdle offers a caller to the agent who has been idle longest, within the lowest level.
const StrategyLongestIdle = "longest-idle"

// Defaults is one queue for all.
func Defaults() Config {
	return Config{
		Queues:   []QueueConfig{DefaultQueue("default", "综合", "General")},
		Strategy: StrategyLongestIdle, AutoPauseAfter: 1, RedialWindow: 120 * time.Second,
		ShortAbandon: 5 * time.Second, StoreTimeout: 100 * time.Millisecond, DeadAfter: 4 * time.Second,
		CallBack: CallBackConfig{Attempts: 3, Between: 10 * time.Minute, Keep: 72 * time.Hour, Max: 20000},
	}
}

// DefaultQueue is a queue with the usual rules.
func DefaultQueue(name, zh, en string) QueueConfig {
	return QueueConfig{Name: name, Display: Display{ZH: zh, EN: en}, MaxWaiting: 2000,
		Ring: 20 * time.Second, Wrapup: 60 * time.Second}
}

var queueName = regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)

// maxQueues bounds the label of the metrics.
const maxQueues = 50

// Validate checks all and joins what is wrong.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	between := func(path string, d, low, high time.Duration) {
		if d < low || d > high {
			bad("%s: %v is out of range; write %v to %v", path, d, low, high)
		}
	}
	if len(c.Queues) == 0 || len(c.Queues) > maxQueues {
		bad("queues: %d queues; write 1 to %d", len(c.Queues), maxQueues)
	}
	names := make(map[string]bool)
	for _, q := range c.Queues {
		names[q.Name] = true
	}
	seen := make(map[string]bool)
	for i, q := range c.Queues {
		path := fmt.Sprintf("queues[%d]", i)
		if !queueName.MatchString(q.Name) {
			bad("%s.name: %q is no queue name; write lower-case letters, digits, - and _, at most 32", path, q.Name)
		}
		if seen[q.Name] {
			bad("%s.name: %q is there twice; give each queue a name of its own", path, q.Name)
		}
		seen[q.Name] = true
		if q.Display.ZH == "" || q.Display.EN == "" {
			bad("%s.display: a name is missing; write both zh and en", path)
		}
		if q.MaxWaiting < 1 || q.MaxWaiting > 20000 {
			bad("%s.max_waiting: %d is out of range; write 1 to 20000, e.g. 2000", path, q.MaxWaiting)
		}
		between(path+".ring", q.Ring, 5*time.Second, 2*time.Minute)
		between(path+".wrapup", q.Wrapup, 0, 30*time.Minute)
		between(path+".max_wait", q.MaxWait, 0, 24*time.Hour)
		if (q.MaxWait > 0) != (q.OverflowTo != "") {
			bad("%s.overflow_to: max_wait and overflow_to go together; write both or neither", path)
		} else if q.OverflowTo != "" && (!names[q.OverflowTo] || q.OverflowTo == q.Name) {
			bad("%s.overflow_to: %q is no other queue; write the name of one that is listed", path, q.OverflowTo)
		}
	}
	if c.Strategy != StrategyLongestIdle {
		bad("strategy: %q is no strategy; write %s", c.Strategy, StrategyLongestIdle)
	}
	if c.AutoPauseAfter < 1 || c.AutoPauseAfter > 10 {
		bad("auto_pause_after: %d is out of range; write 1 to 10", c.AutoPauseAfter)
	}
	between("redial_window", c.RedialWindow, 0, time.Hour)
	between("short_abandon", c.ShortAbandon, 0, time.Minute)
	between("store_timeout", c.StoreTimeout, 10*time.Millisecond, 5*time.Second)
	between("dead_after", c.DeadAfter, 2*time.Second, time.Minute)
	between("call_back.between", c.CallBack.Between, 0, 24*time.Hour)
	between("call_back.keep", c.CallBack.Keep, time.Hour, 14*24*time.Hour)
	if c.CallBack.Attempts < 1 || c.CallBack.Attempts > 20 {
		bad("call_back.attempts: %d is out of range; write 1 to 20, e.g. 3", c.CallBack.Attempts)
	}
	if c.CallBack.Max < 100 || c.CallBack.Max > 100000 {
		bad("call_back.max: %d is out of range; write 100 to 100000, e.g. 20000", c.CallBack.Max)
	}
	return errors.Join(errs...)
}
