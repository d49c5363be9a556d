package ivr

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// step is a line of a simulation's script.
type step struct {
	line  int
	verb  string
	words []string // expect, call
	keys  string   // press
	span  time.Duration
	at    time.Time // call
}

// unmet is the error of an expectation.
func (s *step) unmet(instead string) error {
	return fmt.Errorf("line %d: expect %s; %s", s.line, strings.Join(s.words, " "), instead)
}

// longest bounds a wait of a script.
const longest = time.Hour

func parseSteps(data []byte, line int) ([]step, error) {
	var steps []step
	for text := range strings.Lines(string(data)) {
		line++
		text, _, _ = strings.Cut(text, " #")
		words := strings.Fields(text)
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		s := step{line: line, verb: words[0], words: words[1:]}
		if err := s.check(len(steps) == 0); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// expectable are the words after expect, with how many must follow: at least, at most.
var expectable = map[string][2]int{
	"say": {1, 100}, "node": {1, 1}, "queue": {1, 1}, "transfer": {1, 1}, "hangup": {0, 0}, "message": {0, 0},
	"emergency": {0, 1}, "ended": {0, 0}, "language": {1, 1}, "data": {1, 1},
}

func (s *step) check(first bool) (err error) {
	switch s.verb {
	case "call":
		if !first || len(s.words) != 2 {
			return errors.New("call comes first, with a number and a time: call 12345 2026-03-03T09:00:00+08:00")
		}
		s.at, err = time.Parse(time.RFC3339, s.words[1])
		return err
	case "press":
		s.keys = strings.Join(s.words, "")
		for i := range len(s.keys) {
			if !call.ValidDigit(s.keys[i]) {
				return fmt.Errorf("%q is no key", s.keys[i])
			}
		}
		if s.keys == "" {
			return errors.New("press what? write keys, such as press 2")
		}
		return nil
	case "wait", "speak":
		if len(s.words) == 1 {
			s.span, err = time.ParseDuration(s.words[0])
		}
		if err != nil || s.span <= 0 || s.span > longest {
			return fmt.Errorf("%s how long? write it as 5s, at most %s", s.verb, longest)
		}
		return nil
	case "hangup":
		return nil
	case "expect":
		if len(s.words) > 0 {
			if n, ok := expectable[s.words[0]]; ok && len(s.words)-1 >= n[0] && len(s.words)-1 <= n[1] {
				return nil
			}
		}
		return errors.New("expect what? write say ID..., node NAME, queue NAME, transfer NAME, hangup, message, emergency [SERVICE], ended, language L or data NAME=VALUE")
	}
	return fmt.Errorf("%q is no step; write call, press, wait, speak, hangup or expect", s.verb)
}

// finish meets the expectations of the end.
func (c *caller) finish(x session.FlowExit, err error, cfg Config) error {
	switch {
	case errors.Is(err, errEmergencyKey):
		x = session.FlowExit{Kind: session.ExitEmergency, Language: c.language}
	case errors.Is(err, errHungUp):
		x = session.FlowExit{Kind: "ended", Language: c.language}
	case err != nil:
		return err
	}
	c.log("%s", outcome(x))
	for c.expectations(); len(c.steps) > 0; c.expectations() {
		s := c.next()
		c.drop()
		switch {
		case s.verb == "wait": // whoever has left the flow may wait as long as they like
		case s.verb != "expect":
			return fmt.Errorf("line %d: %s comes too late: the flow has ended: %s", s.line, s.verb, outcome(x))
		case s.words[0] == "say":
			return s.unmet("heard: " + strings.Join(c.heard, " "))
		case s.words[0] == "node":
			return s.unmet("came to: " + strings.Join(c.nodes, " "))
		case !s.fits(x, cfg):
			return s.unmet(outcome(x))
		}
	}
	return nil
}

func (s *step) fits(x session.FlowExit, cfg Config) bool {
	value := ""
	if len(s.words) > 1 {
		value = s.words[1]
	}
	switch s.words[0] {
	case "language":
		return x.Language == value
	case "data":
		name, want, _ := strings.Cut(value, "=")
		got, ok := x.Data[name]
		return ok && got == want
	case "queue":
		return x.Kind == session.ExitQueue && x.Queue == value
	case "transfer":
		return x.Kind == session.ExitTransfer && x.Endpoint == cfg.Targets[value].endpoint()
	case "emergency":
		return x.Kind == session.ExitEmergency && (value == "" || string(x.Service) == value)
	default:
		return string(x.Kind) == s.words[0]
	}
}

// outcome is an exit in words.
func outcome(x session.FlowExit) string {
	words := []string{"the end:", string(x.Kind)}
	switch x.Kind {
	case session.ExitQueue:
		words = append(words, x.Queue)
	case session.ExitTransfer:
		words = append(words, x.Endpoint.Name)
	case session.ExitEmergency:
		words = append(words, string(x.Service))
	default: // the others have no name
	}
	return strings.TrimSpace(strings.Join(words, " "))
}
