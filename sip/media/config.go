package media

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config is the section media.
type Config struct {
	// IP is the local address of every RTP socket.
	IP netip.Addr `yaml:"ip"`
	// AdvertiseIP is what session descriptions show, when it is not IP (a gateway behind NAT).
	AdvertiseIP netip.Addr `yaml:"advertise_ip"`
	// PortMin and PortMax bound the ports, ends included. A leg takes an even port for RTP and the
	// odd one above for RTCP. Both 0 lets the kernel choose, as tests do.
	PortMin int `yaml:"port_min"`
	PortMax int `yaml:"port_max"`
	// InitialTimeout ends a leg that never sent a packet since it was (re)answered, Timeout one that
	// fell silent later. 0 switches either off.
	InitialTimeout time.Duration `yaml:"initial_timeout"`
	Timeout        time.Duration `yaml:"timeout"`
	// ComfortSilence sends frames of silence when there is nothing to say: carriers tear down a leg
	// that is silent on the wire.
	ComfortSilence bool `yaml:"comfort_silence"`
	// DSCP marks the packets; 46 is EF (RFC 3246). 0 leaves them unmarked.
	DSCP int `yaml:"dscp"`
	// ReceiveBuffer is the kernel's receive buffer a socket, in bytes. 0 leaves the system's.
	ReceiveBuffer int `yaml:"receive_buffer"`
	// IOUring reads and sends many packets by one system call, where the system has io_uring(7) from Linux 6.1 on
	// and lets the gateway use it. Without it, or where it is refused, each packet takes a call.
	IOUring bool `yaml:"io_uring"`
}

// Defaults are the settings of a gateway on loopback.
func Defaults() Config {
	return Config{
		IP:             netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		PortMin:        20000,
		PortMax:        24999,
		InitialTimeout: 30 * time.Second,
		Timeout:        15 * time.Second,
		ComfortSilence: true,
		DSCP:           46,
		ReceiveBuffer:  64 << 10,
		IOUring:        true,
	}
}

// Validate names every setting that cannot work.
func (c *Config) Validate() error {
	var errs []error
	bad := func(path, format string, args ...any) {
		errs = append(errs, fmt.Errorf(path+": "+format, args...))
	}
	if !c.IP.IsValid() {
		bad("ip", "missing; write the local address of the RTP sockets, such as 127.0.0.1")
	}
	if c.AdvertiseIP.IsValid() && c.AdvertiseIP.IsUnspecified() {
		bad("advertise_ip", "%s is no address that a peer can send to; write the public one", c.AdvertiseIP)
	}
	if !c.AdvertiseIP.IsValid() && c.IP.IsValid() && c.IP.IsUnspecified() {
		bad("advertise_ip", "missing while ip is %s; write the address that peers send to", c.IP)
	}
	if c.PortMin != 0 || c.PortMax != 0 {
		switch {
		case c.PortMin < 1024 || c.PortMin > 65534:
			bad("port_min", "%d is outside 1024 to 65534; write for example 20000", c.PortMin)
		case c.PortMax > 65535 || c.PortMax < c.PortMin+c.PortMin&1+1:
			bad("port_max", "%d leaves no pair of ports above port_min %d; write for example %d",
				c.PortMax, c.PortMin, min(c.PortMin+4999, 65535))
		}
	}
	if c.InitialTimeout < 0 {
		bad("initial_timeout", "%s is negative; write 30s, or 0s for none", c.InitialTimeout)
	}
	if c.Timeout < 0 {
		bad("timeout", "%s is negative; write 15s, or 0s for none", c.Timeout)
	}
	if c.DSCP < 0 || c.DSCP > 63 {
		bad("dscp", "%d is outside 0 to 63; write 46 for EF", c.DSCP)
	}
	if c.ReceiveBuffer < 0 {
		bad("receive_buffer", "%d is negative; write bytes, such as 65536", c.ReceiveBuffer)
	}
	return errors.Join(errs...)
}

// Pairs is how many pairs of ports there are, and so how many legs; 0 is as many as the system has.
func (c *Config) Pairs() int {
	if c.PortMin == 0 {
		return 0
	}
	return (c.PortMax + 1 - (c.PortMin + c.PortMin&1)) / 2
}

// advertise is the address for session descriptions.
func (c *Config) advertise() netip.Addr {
	if c.AdvertiseIP.IsValid() {
		return c.AdvertiseIP
	}
	return c.IP
}
