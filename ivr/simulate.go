package ivr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// Simulation is what one call of a script came to.
type Simulation struct {
	Name  string
	Trace string // what the caller heard and did, a line each, with the time into the call
	Err   error  // the first expectation that was not met, with its line in the script; nil when all were
}

// Simulate plays the calls of a script through a flow, on a clock of its own. The script is a txtar
// archive: each file is a call, each line a step, '#' begins a comment:
//
//	-- a caller who wants English --
//	call 12345 2026-03-03T09:00:00+08:00   who is called, and when; optional, the first line
//	expect say welcome rec_notice          waits until these were heard, one after the other
//	expect node english                    waits until the call comes to this node
//	press 2                                keys; 0 is the emergency key
//	wait 5s                                nothing is pressed for so long
//	speak 20s                              the message that is left
//	hangup                                 the caller hangs up
//	expect queue default                   the end: queue NAME, transfer NAME, hangup, message,
//	                                       emergency [SERVICE], or ended after hangup
//	expect language en                     at the end
//	expect data case=12345                 what was collected
//
// files holds the announcements of the flow; nil announces nothing. Only what is wrong with the script
// itself, or with cfg, is an error.
func Simulate(f *Flow, cfg Config, prompts Prompts, files fs.FS, script []byte) ([]Simulation, error) {
	archive := txtar.Parse(script)
	if len(archive.Files) == 0 {
		return nil, errors.New("the script has no calls; begin one with a line such as: -- a caller who waits --")
	}
	if files == nil {
		files = nowhere{}
	}
	line := 1 + strings.Count(string(archive.Comment), "\n")
	var results []Simulation
	for _, file := range archive.Files {
		steps, err := parseSteps(file.Data, line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name, err)
		}
		line += 1 + strings.Count(string(file.Data), "\n")
		results = append(results, simulate(f, cfg, prompts, files, file.Name, steps))
	}
	return results, nil
}

// nowhere is a folder without files.
type nowhere struct{}

func (nowhere) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func simulate(f *Flow, cfg Config, prompts Prompts, files fs.FS, name string, steps []step) Simulation {
	ctx, end := context.WithCancelCause(context.Background())
	defer end(nil)
	c := &caller{steps: steps, end: end, prompts: prompts}
	e := &Engine{cfg: cfg, flows: map[string]*Flow{f.Name: f}, files: files, prompts: prompts,
		metrics: newMetrics(nil), log: slog.New(slog.DiscardHandler), within: c.within}
	at := session.FlowPoint{Flow: f.Name, Called: "12345", Now: time.Now()}
	if len(steps) > 0 && steps[0].verb == "call" {
		at.Called, at.Now = steps[0].words[0], steps[0].at
		c.steps = steps[1:]
	}
	exit, err := e.Run(ctx, c, at)
	err = c.finish(exit, err, cfg)
	return Simulation{Name: name, Trace: c.trace.String(), Err: err}
}

// The ends that are no exits of a flow.
var (
	errEmergencyKey = errors.New("the emergency key")
	errHungUp       = errors.New("the caller hung up")
)

// caller is a [session.Voice] that does what its script says. Everything runs in one goroutine.
type caller struct {
	steps   []step
	end     context.CancelCauseFunc
	prompts Prompts

	clock     time.Duration
	heard     []string // since the last expectation of words
	nodes     []string // since the last expectation of a node
	language  string
	deadlines []alarm
	trace     strings.Builder
}

type alarm struct {
	at   time.Duration
	ring func()
}

// within is the deadline of a walk, on the caller's clock.
func (c *caller) within(ctx context.Context, d time.Duration, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	c.deadlines = []alarm{{c.clock + d, func() { cancel(cause) }}} // a walk has one at a time
	return ctx, func() { cancel(nil) }
}

func (c *caller) log(format string, args ...any) {
	fmt.Fprintf(&c.trace, "%7.1fs  %s\n", c.clock.Seconds(), fmt.Sprintf(format, args...))
}

// pass lets time go by, and with it the deadlines.
func (c *caller) pass(d time.Duration) {
	c.clock += d
	for _, a := range c.deadlines {
		if c.clock >= a.at {
			a.ring()
		}
	}
}

// Node implements [session.Voice].
func (c *caller) Node(node, language string) {
	c.log("node %s (%s)", node, language)
	c.nodes, c.language = append(c.nodes, node), language
}

// Say implements [session.Voice].
func (c *caller) Say(ctx context.Context, barge bool, clips ...*call.Clip) error {
	if len(clips) == 0 || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ids []string
	var length time.Duration
	for _, clip := range clips {
		id := clip.ID[strings.IndexByte(clip.ID, '/')+1:]
		ids = append(ids, id)
		length += clip.Duration()
	}
	c.heard = append(c.heard, ids...)
	c.log("say %s", strings.Join(ids, " "))
	c.expectations()
	if s := c.next(); s != nil && s.verb == "press" && barge {
		return context.Cause(ctx) // the key ends it at once
	}
	c.pass(length)
	return context.Cause(ctx)
}

// Key implements [session.Voice].
func (c *caller) Key(ctx context.Context, timeout time.Duration) (byte, error) {
	return c.key(ctx, timeout, false)
}

func (c *caller) key(ctx context.Context, timeout time.Duration, digits bool) (byte, error) {
	c.expectations()
	s := c.next()
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case s == nil || s.verb == "speak" || s.verb == "expect": // what time will bring
		c.pass(timeout)
	case s.verb == "hangup":
		c.drop()
		c.log("hangs up")
		c.end(errHungUp)
	case s.verb == "wait" && s.span > timeout:
		s.span -= timeout
		c.pass(timeout)
	case s.verb == "wait":
		span := s.span
		c.drop()
		c.pass(span)
		if ctx.Err() == nil && span < timeout {
			return c.key(ctx, timeout-span, digits)
		}
	default: // press
		k := s.keys[0]
		if s.keys = s.keys[1:]; s.keys == "" {
			c.drop()
		}
		c.log("press %c", k)
		if k == '0' && !digits {
			c.end(errEmergencyKey)
			return 0, errEmergencyKey
		}
		return k, nil
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return 0, session.ErrNoKey
}

// Collect implements [session.Voice].
func (c *caller) Collect(ctx context.Context, bounds session.Collect) (string, error) {
	if err := bounds.Ask(ctx); err != nil {
		return "", err
	}
	var run []byte
	for wait := bounds.First; len(run) < bounds.Max; wait = bounds.Next {
		k, err := c.key(ctx, wait, true)
		switch {
		case errors.Is(err, session.ErrNoKey) && len(run) > 0:
			return string(run), nil
		case err != nil:
			return "", err
		case k == bounds.Terminator:
			return string(run), nil
		case k == '0' && len(run) > 0 && run[len(run)-1] == '*':
			c.end(errEmergencyKey)
			return "", errEmergencyKey
		}
		run = append(run, k)
	}
	return string(run), nil
}

// Message implements [session.Voice].
func (c *caller) Message(ctx context.Context, limit time.Duration) (time.Duration, error) {
	c.expectations()
	s := c.next()
	if s == nil || s.verb != "speak" {
		return 0, context.Cause(ctx)
	}
	length := min(s.span, limit)
	c.drop()
	c.pass(length)
	c.log("leaves a message of %s", length)
	return length, context.Cause(ctx)
}

func (c *caller) next() *step {
	if len(c.steps) == 0 {
		return nil
	}
	return &c.steps[0]
}

func (c *caller) drop() { c.steps = c.steps[1:] }

// expectations meets those that stand next in the script, as far as they are about the way and not
// about its end. For one that is not met yet the caller waits, until the flow ends.
func (c *caller) expectations() {
	for s := c.next(); s != nil && s.verb == "expect" && c.meets(s); s = c.next() {
		c.drop()
	}
}

func (c *caller) meets(s *step) bool {
	switch s.words[0] {
	case "say":
		return c.hears(s.words[1:])
	case "node":
		return c.came(s.words[1])
	}
	return false
}

// hears tells whether the words follow each other in what was heard since, and forgets all up to them.
func (c *caller) hears(words []string) bool {
	for i := 0; i+len(words) <= len(c.heard); i++ {
		if slices.Equal(c.heard[i:i+len(words)], words) {
			c.heard = c.heard[i+len(words):]
			return true
		}
	}
	return false
}

func (c *caller) came(name string) bool {
	i := slices.Index(c.nodes, name)
	if i >= 0 {
		c.nodes = c.nodes[i+1:]
	}
	return i >= 0
}
