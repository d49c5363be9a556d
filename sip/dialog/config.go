package dialog

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Config bounds a listener and says how it names itself.
type Config struct {
	// Advertise is "host" or "host:port" for Via and Contact; empty is the listener's own address.
	Advertise string `yaml:"advertise"`
	// UserAgent is the Server and User-Agent value.
	UserAgent string `yaml:"user_agent"`
	// MaxCalls is the most calls at once, 1 to 100000. One more is answered 503 with Retry-After.
	MaxCalls int `yaml:"max_calls"`
	// MaxQueued is the most requests that wait in one call, 4 to 1024. One more is answered 500 with
	// Retry-After, a digit too.
	MaxQueued int `yaml:"max_queued"`
	// MaxConns is the most TCP connections at once, 1 to 100000. One more is closed.
	MaxConns int `yaml:"max_conns"`
	// IdleConn closes a TCP connection on which nothing came, 1m to 24h.
	IdleConn time.Duration `yaml:"idle_conn"`
	// MessageTimeout closes a TCP connection that brought no message, or half of one, for so long; 1s to 5m.
	MessageTimeout time.Duration `yaml:"message_timeout"`
	// RetryAfter is told with each 503, 1s to 1h, in whole seconds.
	RetryAfter time.Duration `yaml:"retry_after"`
	// Symmetric sends a dialog's requests to where its INVITE came from or went to, not to the Contact:
	// for phones behind NAT.
	Symmetric bool `yaml:"symmetric"`
	// Scanners are beginnings of User-Agent values (any case) whose requests are dropped silently.
	Scanners []string `yaml:"scanners"`
}

// Defaults is a listener that suits a trunk.
func Defaults() Config {
	return Config{
		UserAgent:      "hotline",
		MaxCalls:       4000,
		MaxQueued:      64,
		MaxConns:       1000,
		IdleConn:       10 * time.Minute,
		MessageTimeout: 30 * time.Second,
		RetryAfter:     10 * time.Second,
		Scanners: []string{"friendly-scanner", "friendly-request", "sipvicious", "sipsak", "sundayddr",
			"pplsip", "sipcli", "iwar", "sip-scan", "vaxsipuseragent", "eyebeam-scan"},
	}
}

// Validate checks every setting and joins what it finds.
func (c Config) Validate() error {
	var errs []error
	between := func(path string, v, low, high int) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("%s: %d is out of range; write %d to %d", path, v, low, high))
		}
	}
	lasting := func(path string, v, low, high time.Duration) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("%s: %v is out of range; write %v to %v", path, v, low, high))
		}
	}
	between("max_calls", c.MaxCalls, 1, 100000)
	between("max_queued", c.MaxQueued, 4, 1024)
	between("max_conns", c.MaxConns, 1, 100000)
	lasting("idle_conn", c.IdleConn, time.Minute, 24*time.Hour)
	lasting("message_timeout", c.MessageTimeout, time.Second, 5*time.Minute)
	lasting("retry_after", c.RetryAfter, time.Second, time.Hour)
	if strings.ContainsAny(c.UserAgent, "\r\n") {
		errs = append(errs, fmt.Errorf("user_agent: %q has a line break; write it on one line", c.UserAgent))
	}
	for i, s := range c.Scanners {
		if strings.TrimSpace(s) == "" {
			errs = append(errs, fmt.Errorf("scanners[%d]: an empty name would drop everyone; remove it", i))
		}
	}
	if _, _, err := c.advertised(netip.AddrPort{}); err != nil {
		errs = append(errs, fmt.Errorf("advertise: %w; write it as host or host:port", err))
	}
	return errors.Join(errs...)
}

// advertised is the host and port of Via and Contact, for a listener at local.
func (c Config) advertised(local netip.AddrPort) (host string, port int, err error) {
	host, port = local.Addr().Unmap().String(), int(local.Port())
	if c.Advertise == "" {
		return host, port, nil
	}
	h, p, err := net.SplitHostPort(c.Advertise)
	if err != nil {
		if h = strings.Trim(c.Advertise, "[]"); strings.ContainsAny(h, " \t\r\n/@;") {
			return "", 0, fmt.Errorf("%q is not a host", c.Advertise)
		}
		return h, port, nil
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 || h == "" {
		return "", 0, fmt.Errorf("%q is not host:port", c.Advertise)
	}
	return h, int(n), nil
}
