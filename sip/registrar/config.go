package registrar

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The algorithms of a digest, by their names on the wire (RFC 7616 section 6.1).
const (
	SHA256 = "SHA-256"
	MD5    = "MD5"
)

// Config bounds the registrar.
type Config struct {
	// Realm is the digest's realm. Stored passwords are bound to it.
	Realm string `yaml:"realm" json:"realm"`
	// Algorithms are offered in this order: SHA-256, MD5 or both.
	Algorithms []string `yaml:"algorithms" json:"algorithms"`
	// MD5Only are beginnings of User-Agent values, in any case, of phones that give up when they see a
	// challenge they do not know; they are offered MD5 alone, when it is among Algorithms.
	MD5Only []string `yaml:"md5_only" json:"md5_only"`
	// MinExpires and MaxExpires bound how long a binding lasts, 10s to 24h; a shorter one is refused
	// with 423, a longer one is shortened.
	MinExpires time.Duration `yaml:"min_expires" json:"min_expires"`
	MaxExpires time.Duration `yaml:"max_expires" json:"max_expires"`
	// MaxContacts is the phones of one extension, 1 to 16; one more takes the oldest's place.
	MaxContacts int `yaml:"max_contacts" json:"max_contacts"`
	// MaxBindings is the phones in all, 1 to 100000; one more is refused with 503.
	MaxBindings int `yaml:"max_bindings" json:"max_bindings"`
	// NonceLife is how long a nonce is good, 30s to 1h.
	NonceLife time.Duration `yaml:"nonce_life" json:"nonce_life"`
	// MaxFailures is the wrong passwords that one source may try for one extension, 3 to 1000; in all it
	// may try ten times as many. The next is refused with 403 until Lockout has passed.
	MaxFailures int `yaml:"max_failures" json:"max_failures"`
	// Lockout is how long a source is refused, and how long its failures are remembered, 10s to 24h.
	Lockout time.Duration `yaml:"lockout" json:"lockout"`
}

// Defaults suit desk phones.
func Defaults() Config {
	return Config{
		Realm:       "hotline",
		Algorithms:  []string{SHA256, MD5},
		MD5Only:     []string{"baresip v0.", "baresip v1.", "baresip v2."},
		MinExpires:  time.Minute,
		MaxExpires:  time.Hour,
		MaxContacts: 4,
		MaxBindings: 5000,
		NonceLife:   5 * time.Minute,
		MaxFailures: 10,
		Lockout:     5 * time.Minute,
	}
}

// Validate checks every setting and joins what it finds.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	number := func(path string, v, low, high int) {
		if v < low || v > high {
			bad("%s: %d is out of range; write %d to %d", path, v, low, high)
		}
	}
	lasting := func(path string, v, low, high time.Duration) {
		if v < low || v > high {
			bad("%s: %v is out of range; write %v to %v", path, v, low, high)
		}
	}
	if c.Realm == "" || len(c.Realm) > 64 || strings.ContainsAny(c.Realm, "\"\\\r\n") {
		bad("realm: %q is no realm; write 1 to 64 characters without quotes, e.g. hotline", c.Realm)
	}
	if len(c.Algorithms) == 0 {
		bad("algorithms: is empty; write [SHA-256, MD5]")
	}
	for i, a := range c.Algorithms {
		if a != SHA256 && a != MD5 {
			bad("algorithms[%d]: %q is unknown; write SHA-256 or MD5", i, a)
		}
	}
	for i, a := range c.MD5Only {
		if strings.TrimSpace(a) == "" {
			bad("md5_only[%d]: an empty name would mean every phone; remove it, or write algorithms: [MD5]", i)
		}
	}
	lasting("min_expires", c.MinExpires, 10*time.Second, 24*time.Hour)
	lasting("max_expires", c.MaxExpires, max(c.MinExpires, 10*time.Second), 24*time.Hour)
	number("max_contacts", c.MaxContacts, 1, 16)
	number("max_bindings", c.MaxBindings, 1, 100000)
	lasting("nonce_life", c.NonceLife, 30*time.Second, time.Hour)
	number("max_failures", c.MaxFailures, 3, 1000)
	lasting("lockout", c.Lockout, 10*time.Second, 24*time.Hour)
	return errors.Join(errs...)
}
