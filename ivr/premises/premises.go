// Package premises keeps what callers say on the agency's own network: recognisers and judges are reached there, unless an
// operator decides otherwise in writing.
package premises

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Dialer connects to private and loopback addresses alone (RFC 1918, RFC 4193), after a name has been resolved. With
// public it connects anywhere.
func Dialer(timeout time.Duration, public bool) *net.Dialer {
	d := &net.Dialer{Timeout: timeout}
	if !public {
		d.Control = private
	}
	return d
}

func private(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("premises: %w", err)
	}
	if ip := at.Addr().Unmap(); !ip.IsPrivate() && !ip.IsLoopback() {
		return fmt.Errorf("premises: %s is no private address; set public: true there to let callers' words leave the network", ip)
	}
	return nil
}
