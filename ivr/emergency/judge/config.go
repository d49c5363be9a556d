// Package judge asks a language model on the agency's own premises about words of which the detector is not
// sure: any endpoint that speaks OpenAI's chat completions.
//
// The judge is a second opinion. It may make a question of nothing, or nothing of a question that no rule
// asked; it never makes a transfer, and never undoes what rules, a caller's request or a key decided. Where
// it is away, slow, busy or garbled, the local verdict stands. Numbers are masked before words leave.
package judge

import (
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Config is the section emergency.judge.
type Config struct {
	// URL is the endpoint up to and with its version: http://10.0.0.5:8000/v1. Empty is no judge.
	URL string `yaml:"url"`
	// Model is the model's name at the endpoint.
	Model string `yaml:"model"`
	// KeyFile has the endpoint's key, on one line; empty is none.
	KeyFile string `yaml:"key_file"`
	// Timeout is how long a verdict may wait for the judge, 200 ms to 2 s.
	Timeout time.Duration `yaml:"timeout"`
	// Least is the probability of danger from which the judge is asked, 0.01 to 1.
	Least float64 `yaml:"least"`
	// AtOnce is how many questions may be open, 1 to 64; further ones stand as they are.
	AtOnce int `yaml:"at_once"`
	// Public lets the words leave the agency's own network. It is false without a reason in writing.
	Public bool `yaml:"public"`
}

// Defaults is no judge, and what it would be asked with.
func Defaults() Config {
	return Config{Timeout: time.Second, Least: 0.1, AtOnce: 8}
}

// Validate tells all that is wrong, joined.
func (c Config) Validate() error {
	if c.URL == "" {
		return nil
	}
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("emergency.judge."+format, a...)) }
	if u, err := url.Parse(c.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		bad("url: %q is no address of an endpoint; write one like http://10.0.0.5:8000/v1", c.URL)
	}
	if c.Model == "" {
		bad("model: is empty; write the model's name at the endpoint")
	}
	if c.Timeout < 200*time.Millisecond || c.Timeout > 2*time.Second {
		bad("timeout: %v is out of range; write a time from 200ms to 2s", c.Timeout)
	}
	if c.Least < 0.01 || c.Least > 1 {
		bad("least: %v is out of range; write a probability from 0.01 to 1", c.Least)
	}
	if c.AtOnce < 1 || c.AtOnce > 64 {
		bad("at_once: %d is out of range; write 1 to 64", c.AtOnce)
	}
	return errors.Join(errs...)
}
