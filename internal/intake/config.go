package intake

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"time"
)

// Config is the section `intake`.
type Config struct {
	// Dir holds the spool, the dead, the receipts and the key of the audio grants.
	Dir string `yaml:"dir"`
	// Source names this hotline in every event: a URI reference (CloudEvents 1.0, source).
	Source string `yaml:"source"`
	// Targets are where events go, at most 5; each gets every event.
	Targets []Target `yaml:"targets"`
	// AudioURL is where receivers reach AudioHandler; the recording's identity is added to it.
	AudioURL string `yaml:"audio_url"`
	// GrantFor is how long a receiver may fetch the audio after a delivery. 1m to 168h.
	GrantFor time.Duration `yaml:"grant_for"`
	// BackoffMin and BackoffMax bound the wait before another try; it doubles, with jitter.
	BackoffMin time.Duration `yaml:"backoff_min"`
	BackoffMax time.Duration `yaml:"backoff_max"`
	// GiveUp is the age at which an event is dead.
	GiveUp time.Duration `yaml:"give_up"`
	// MaxSpool bounds the events that wait for a target. 1 to 1,000,000.
	MaxSpool int `yaml:"max_spool"`
	// MaxEvent bounds an event, in bytes. 1024 to 16,777,216.
	MaxEvent int `yaml:"max_event"`
}

// The kinds of target.
const (
	Directory = "directory"
	Webhook   = "webhook"
)

// Target is where events go.
type Target struct {
	Name string `yaml:"name"` // a label: a-z, 0-9 and -, at most 32
	Kind string `yaml:"kind"` // directory or webhook
	// Dir is where a directory target gets <id>.json and the sealed recording.
	Dir string `yaml:"dir"`
	// URL is a webhook's: https, or http to a loopback address.
	URL string `yaml:"url"`
	// SecretFile holds the webhook's secret, whsec_ and base64 (Standard Webhooks).
	SecretFile string `yaml:"secret_file"`
	// CAFile holds the certificates that a webhook's server may be signed by; "" takes the system's.
	CAFile string `yaml:"ca_file"`
	// Networks are the CIDRs that the webhook's host may resolve to; none means public addresses.
	Networks []string `yaml:"networks"`
	// Timeout bounds a delivery, the receiver's fetch of the audio included. 1s to 10m; 0 is 30s.
	Timeout time.Duration `yaml:"timeout"`
	// Parallel is how many deliveries run at once. 1 to 64; 0 is 4.
	Parallel int `yaml:"parallel"`
}

// Defaults is the section's default: a directory.
func Defaults() Config {
	return Config{
		Dir:        "data/intake",
		Source:     "urn:hotline:12345",
		Targets:    []Target{{Name: "directory", Kind: Directory, Dir: "data/handover"}},
		AudioURL:   "http://127.0.0.1:8080/intake/audio",
		GrantFor:   24 * time.Hour,
		BackoffMin: 2 * time.Second,
		BackoffMax: 30 * time.Minute,
		GiveUp:     24 * time.Hour,
		MaxSpool:   100_000,
		MaxEvent:   1 << 20,
	}
}

const maxTargets = 5

var targetName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// Validate tells everything that is wrong with the section.
func (c Config) Validate() error {
	var errs []error
	bad := func(path, format string, args ...any) {
		errs = append(errs, fmt.Errorf(path+": "+format, args...))
	}
	if c.Dir == "" {
		bad("dir", "is empty; write a directory, e.g. /var/lib/hotline/intake")
	}
	if c.Source == "" {
		bad("source", "is empty; write a URI that names this hotline, e.g. urn:hotline:hangzhou")
	}
	if len(c.Targets) > maxTargets {
		bad("targets", "%d are too many; write at most %d", len(c.Targets), maxTargets)
	}
	if u, err := url.Parse(c.AudioURL); err != nil || u.Host == "" || u.RawQuery != "" || u.Scheme != "http" && u.Scheme != "https" {
		bad("audio_url", "%q is not a plain http or https address; write one, e.g. https://hotline.example/intake/audio", c.AudioURL)
	}
	if c.GrantFor < time.Minute || c.GrantFor > 168*time.Hour {
		bad("grant_for", "%v is out of range; write 1m to 168h", c.GrantFor)
	}
	if c.BackoffMin <= 0 || c.BackoffMax < c.BackoffMin || c.GiveUp < c.BackoffMax {
		bad("backoff_min", "is out of order; write 0 < backoff_min <= backoff_max <= give_up, e.g. 2s, 30m, 24h")
	}
	if c.MaxSpool < 1 || c.MaxSpool > 1_000_000 {
		bad("max_spool", "%d is out of range; write 1 to 1000000", c.MaxSpool)
	}
	if c.MaxEvent < 1<<10 || c.MaxEvent > 16<<20 {
		bad("max_event", "%d is out of range; write 1024 to 16777216", c.MaxEvent)
	}
	seen := map[string]bool{}
	for i, t := range c.Targets {
		t.validate(func(field, format string, args ...any) {
			bad(fmt.Sprintf("targets[%d].%s", i, field), format, args...)
		})
		if seen[t.Name] {
			bad(fmt.Sprintf("targets[%d].name", i), "%q is taken; write another", t.Name)
		}
		seen[t.Name] = true
	}
	return errors.Join(errs...)
}

func (t Target) validate(bad func(field, format string, args ...any)) {
	if !targetName.MatchString(t.Name) {
		bad("name", "%q is not a label; write a-z, 0-9 and -, at most 32", t.Name)
	}
	if t.Timeout != 0 && (t.Timeout < time.Second || t.Timeout > 10*time.Minute) {
		bad("timeout", "%v is out of range; write 1s to 10m", t.Timeout)
	}
	if t.Parallel < 0 || t.Parallel > 64 {
		bad("parallel", "%d is out of range; write 1 to 64", t.Parallel)
	}
	networks, err := t.networks()
	if err != nil {
		bad("networks", "%v; write CIDRs, e.g. 10.20.0.0/16", err)
	}
	switch t.Kind {
	case Directory:
		if t.Dir == "" {
			bad("dir", "is empty; write the directory that case intake reads")
		}
	case Webhook:
		if t.SecretFile == "" {
			bad("secret_file", "is empty; write the file that holds whsec_ and the base64 secret")
		}
		t.validateURL(networks, bad)
	default:
		bad("kind", "%q is unknown; write directory or webhook", t.Kind)
	}
}

func (t Target) validateURL(networks []netip.Prefix, bad func(field, format string, args ...any)) {
	u, err := url.Parse(t.URL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		bad("url", "is not a plain address; write one, e.g. https://intake.example/hotline")
	case u.Scheme == "https":
	case u.Scheme != "http":
		bad("url", "has the scheme %q; write https", u.Scheme)
	case !loopbackOnly(networks):
		bad("url", "is http, which is for loopback alone; write https, or networks: [127.0.0.0/8]")
	}
}

func (t Target) networks() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range t.Networks {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not a CIDR", s)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

func loopbackOnly(networks []netip.Prefix) bool {
	for _, p := range networks {
		if !p.Addr().IsLoopback() || p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 128 {
			return false
		}
	}
	return len(networks) > 0
}

func (t Target) withDefaults() Target {
	if t.Timeout == 0 {
		t.Timeout = 30 * time.Second
	}
	if t.Parallel == 0 {
		t.Parallel = 4
	}
	return t
}
