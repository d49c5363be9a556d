package asterisk

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Config says where Asterisk is and what its endpoints mean.
type Config struct {
	// URL is the root of ARI, e.g. https://10.0.0.5:8089/ari.
	URL string `yaml:"url"`
	// CAFile holds the authority of Asterisk's certificate, in PEM; empty trusts the system's.
	CAFile string `yaml:"ca_file"`
	// Username and PasswordFile are a user of ari.conf.
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	// Application is the Stasis application's name, one a node; empty is "hotline-" and the node's name.
	Application string `yaml:"application"`
	// SoundsDir is where the gateway writes prompts, SoundsPath the same directory as Asterisk sees it;
	// empty is SoundsDir.
	SoundsDir  string `yaml:"sounds_dir"`
	SoundsPath string `yaml:"sounds_path"`
	// MediaAddr is the address of this machine to which Asterisk sends what is recorded.
	MediaAddr string `yaml:"media_addr"`
	// Trunks are the endpoints that carriers call from, and that numbers are called by.
	Trunks []Trunk `yaml:"trunks"`
	// Timeout bounds a request, 500 ms to 10 s; default 2 s.
	Timeout time.Duration `yaml:"timeout"`
	// LostAfter is how long Asterisk may be away before its calls are taken for ended, so that agents are free:
	// 5 s to 5 min; default 30 s.
	LostAfter time.Duration `yaml:"lost_after"`
	// RTPPorts is how many ports rtp.conf gives Asterisk, rtpend less rtpstart: 100 to 64000; default 10000, as in
	// Asterisk's own example. A recorded call takes eight, one that waits two.
	RTPPorts int `yaml:"rtp_ports"`
	// MaxCalls bounds the calls that are handled at once, 1 to 10000; one more is refused with congestion.
	MaxCalls int `yaml:"max_calls"`
}

// Trunk is what an endpoint of pjsip.conf means to the line.
type Trunk struct {
	Name     string `yaml:"name"`     // as flows and emergency routes name it
	Endpoint string `yaml:"endpoint"` // the endpoint in pjsip.conf
	// Trusted says that the carrier asserts its callers' numbers (trust_id_inbound in pjsip.conf); without
	// it nothing is believed, and every caller is anonymous.
	Trusted bool `yaml:"trusted"`
	// Carrier marks a trunk on which nobody may claim one of the hotline's own numbers (Art. 28).
	Carrier bool `yaml:"carrier"`
	// Caller is our own number on outgoing calls.
	Caller string `yaml:"caller"`
}

// Defaults is an Asterisk on this machine.
func Defaults() Config {
	return Config{URL: "http://127.0.0.1:8088/ari", Username: "hotline", MediaAddr: "127.0.0.1",
		Timeout: 2 * time.Second, LostAfter: 30 * time.Second, RTPPorts: 10000, MaxCalls: 1000}
}

// word is what may stand in a dial string: nothing in it ends a name or begins an option.
var word = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// Validate checks all and joins what is wrong.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if u, err := url.Parse(c.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		bad("url: %q is no address of ARI; write it as http://127.0.0.1:8088/ari", c.URL)
	}
	if c.Username == "" {
		bad("username: is empty; write a user of ari.conf")
	}
	if !filepath.IsAbs(c.SoundsDir) {
		bad("sounds_dir: %q is no absolute path; write a directory that both the gateway and Asterisk reach", c.SoundsDir)
	}
	if _, err := netip.ParseAddr(c.MediaAddr); err != nil {
		bad("media_addr: %q is no IP address; write this machine's, as Asterisk reaches it", c.MediaAddr)
	}
	seen := map[string]bool{}
	for i, t := range c.Trunks {
		if !word.MatchString(t.Name) || !word.MatchString(t.Endpoint) {
			bad("trunks[%d]: name %q and endpoint %q must be letters, digits, '.', '-' or '_'", i, t.Name, t.Endpoint)
		}
		if seen[t.Endpoint] {
			bad("trunks[%d].endpoint: %q is there twice; write each endpoint once", i, t.Endpoint)
		}
		seen[t.Endpoint] = true
	}
	if c.Timeout < 500*time.Millisecond || c.Timeout > 10*time.Second {
		bad("timeout: %v is out of range; write 500ms to 10s", c.Timeout)
	}
	if c.LostAfter < 5*time.Second || c.LostAfter > 5*time.Minute {
		bad("lost_after: %v is out of range; write 5s to 5m", c.LostAfter)
	}
	if c.RTPPorts < 100 || c.RTPPorts > 64000 {
		bad("rtp_ports: %d is out of range; write how many ports rtp.conf has, 100 to 64000", c.RTPPorts)
	}
	if c.MaxCalls < 1 || c.MaxCalls > 10000 {
		bad("max_calls: %d is out of range; write 1 to 10000", c.MaxCalls)
	}
	return errors.Join(errs...)
}

// password is the user's password.
func (c Config) password() (string, error) {
	if c.PasswordFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

func (c Config) trunkAt(endpoint string) (Trunk, bool) {
	for _, t := range c.Trunks {
		if t.Endpoint == endpoint {
			return t, true
		}
	}
	return Trunk{}, false
}

func (c Config) trunk(name string) (Trunk, bool) {
	for _, t := range c.Trunks {
		if t.Name == name {
			return t, true
		}
	}
	return Trunk{}, false
}
