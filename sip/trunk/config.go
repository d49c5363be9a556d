package trunk

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Identity says what makes a caller's number on a trunk believable.
type Identity string

// The identity settings.
const (
	ByPAI  Identity = "pai"  // P-Asserted-Identity alone; a number without it is a spoof
	ByFrom Identity = "from" // the carrier screens From
	ByNone Identity = "none" // nothing is believed: every caller is anonymous
)

// Transport is how requests are sent to a trunk.
type Transport string

// The transports.
const (
	UDP Transport = "udp"
	TCP Transport = "tcp"
)

// KeptAtLeast is the smallest number of legs of a cap that is kept for emergencies; MinCalls is the
// smallest cap that leaves one leg beside them.
const (
	KeptAtLeast = 4
	MinCalls    = KeptAtLeast + 1
)

// Config is one trunk.
type Config struct {
	// Name is the trunk's name in logs, metrics and call records: letters, digits, - and _, 1 to 32.
	Name string `yaml:"name" json:"name"`
	// Sources are the networks (CIDR) or addresses that the trunk's messages come from.
	Sources []string `yaml:"sources" json:"sources"`
	// Address is host:port to send calls to; "" makes the trunk incoming only. A name must resolve to
	// an address in Sources, or its answers are dropped as a stranger's.
	Address string `yaml:"address,omitempty" json:"address,omitempty"`
	// Transport is udp or tcp.
	Transport Transport `yaml:"transport,omitempty" json:"transport,omitempty"`
	// Identity is pai, from or none.
	Identity Identity `yaml:"identity" json:"identity"`
	// Carrier marks a public carrier: a caller there who claims one of the hotline's own numbers is
	// refused (Art. 28).
	Carrier bool `yaml:"carrier,omitempty" json:"carrier,omitempty"`
	// Shared are numbers of many people (a PBX, a payphone, a hospital); a final * stands for any end.
	Shared []string `yaml:"shared,omitempty" json:"shared,omitempty"`
	// Numbers are the called numbers that the trunk may reach; none means any.
	Numbers []string `yaml:"numbers,omitempty" json:"numbers,omitempty"`
	// MaxCalls is the trunk's cap, both directions together, MinCalls and up. A tenth of it, and four
	// at least, is kept for emergencies.
	MaxCalls int `yaml:"max_calls,omitempty" json:"max_calls,omitempty"`
	// Caller is the number that the carrier allotted for outgoing calls.
	Caller string `yaml:"caller,omitempty" json:"caller,omitempty"`
	// CallerStrip is a prefix that the carrier puts before a caller's number, such as a route code.
	CallerStrip string `yaml:"caller_strip,omitempty" json:"caller_strip,omitempty"`
	// Domain is the host of From and P-Asserted-Identity in outgoing calls; "" is the local address.
	Domain string `yaml:"domain,omitempty" json:"domain,omitempty"`
	// OptionsInterval is the time between two OPTIONS; 0 asks never. 5 s and up.
	OptionsInterval time.Duration `yaml:"options_interval,omitempty" json:"options_interval,omitempty"`
}

// withDefaults fills what may be left out.
func (c Config) withDefaults() Config {
	if c.Transport == "" {
		c.Transport = UDP
	}
	if c.MaxCalls == 0 {
		c.MaxCalls = 100
	}
	return c
}

// Loopback is the trunk of the embedded default: anything on this machine may call.
func Loopback() Config {
	return Config{Name: "loopback", Sources: []string{"127.0.0.0/8"}, Identity: ByFrom,
		Transport: UDP, MaxCalls: 200}
}

// Validate checks the trunk; the paths of its errors are relative to it.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(path, format string, a ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, a...)))
	}
	if !validName(c.Name) {
		bad("name", "%q is no name; write 1 to 32 letters, digits, - or _", c.Name)
	}
	if len(c.Sources) == 0 {
		bad("sources", "is empty; write the networks the carrier sends from, e.g. [203.0.113.0/24]")
	}
	for i, s := range c.Sources {
		if _, err := parsePrefix(s); err != nil {
			bad(fmt.Sprintf("sources[%d]", i), "%v", err)
		}
	}
	if c.Address != "" {
		if err := checkHostPort(c.Address); err != nil {
			bad("address", "%v", err)
		}
	}
	if c.Transport != UDP && c.Transport != TCP {
		bad("transport", "%q is unknown; write udp or tcp", c.Transport)
	}
	if c.Identity != ByPAI && c.Identity != ByFrom && c.Identity != ByNone {
		bad("identity", "%q is unknown; write pai, from or none", c.Identity)
	}
	if c.MaxCalls < MinCalls {
		bad("max_calls", "%d leaves no call beside the %d legs kept for emergencies; write %d or more",
			c.MaxCalls, KeptAtLeast, MinCalls)
	}
	if c.OptionsInterval != 0 && c.OptionsInterval < 5*time.Second {
		bad("options_interval", "%v is too short; write 5s or more, or 0 to ask never", c.OptionsInterval)
	}
	if c.OptionsInterval != 0 && c.Address == "" {
		bad("options_interval", "needs an address to ask; write address: host:port")
	}
	return errors.Join(errs...)
}

func validName(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
		return !plain
	}) < 0
}

// parsePrefix reads a CIDR or a bare address.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		host, _, _ := strings.Cut(s, "/")
		if a, aerr := netip.ParseAddr(host); aerr == nil && a.Is4() {
			b := a.As4()
			return netip.Prefix{}, fmt.Errorf("%q is not a CIDR; write it as %d.%d.%d.0/24", s, b[0], b[1], b[2])
		}
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR; write it as 203.0.113.0/24", s)
	}
	return p.Masked(), nil
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || host == "" || n < 1 || n > 65535 {
		return fmt.Errorf("%q is not host:port; write it as 203.0.113.10:5060", s)
	}
	return nil
}
