package media

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// socket is what a session needs of a UDP socket: one of the system, or one in memory.
type socket interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	LocalAddr() net.Addr
	Close() error
}

// Listen opens a socket; nil in [Deps] means UDP of the system.
type Listen func(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error)

func listenUDP(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	var config net.ListenConfig
	return config.ListenPacket(ctx, network, addr.String())
}

// asSocket marks a UDP socket with the DSCP and sizes its buffer, as far as the system lets us, and takes
// it away from the runtime when watchers read it. It wraps any other kind of connection.
func (e *Engine) asSocket(c net.PacketConn) (socket, error) {
	udp, ok := c.(*net.UDPConn)
	if !ok {
		return &packetSocket{PacketConn: c}, nil
	}
	if e.cfg.ReceiveBuffer > 0 {
		_ = udp.SetReadBuffer(e.cfg.ReceiveBuffer) // a smaller buffer still works
	}
	if e.cfg.DSCP > 0 {
		if raw, err := udp.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { // unmarked packets still arrive
				if e.cfg.IP.Is4() {
					_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TOS, e.cfg.DSCP<<2)
				} else {
					_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_TCLASS, e.cfg.DSCP<<2)
				}
			})
		}
	}
	if len(e.watchers) == 0 {
		return udp, nil
	}
	return unwatched(udp)
}

// packetSocket makes a socket of any net.PacketConn, such as a network in memory.
type packetSocket struct{ net.PacketConn }

func (p *packetSocket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := p.ReadFrom(b)
	if err != nil {
		return n, netip.AddrPort{}, err
	}
	if u, ok := from.(*net.UDPAddr); ok {
		return n, u.AddrPort(), nil
	}
	addr, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return n, addr, fmt.Errorf("media: source %q: %w", from, err)
	}
	return n, addr, nil
}

func (p *packetSocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return p.WriteTo(b, net.UDPAddrFromAddrPort(to))
}

// localPort is the port of a socket, 0 when it has none.
func localPort(s interface{ LocalAddr() net.Addr }) int {
	if u, ok := s.LocalAddr().(*net.UDPAddr); ok {
		return u.Port
	}
	addr, err := netip.ParseAddrPort(s.LocalAddr().String())
	if err != nil {
		return 0
	}
	return int(addr.Port())
}

// openPair opens an RTP port and the RTCP port above it.
func (e *Engine) openPair(port int) (rtp, rtcp socket, err error) {
	rtp, err = e.openSocket(port)
	if err != nil {
		return nil, nil, fmt.Errorf("media: RTP port %d: %w", port, err)
	}
	port = localPort(rtp)
	if port&1 != 0 { // RFC 3550 section 11: RTP on the even port
		return nil, nil, errors.Join(errOddPort, rtp.Close())
	}
	rtcp, err = e.openSocket(port + 1)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("media: RTCP port %d: %w", port+1, err), rtp.Close())
	}
	return rtp, rtcp, nil
}

func (e *Engine) openSocket(port int) (socket, error) {
	c, err := e.listen(context.Background(), netip.AddrPortFrom(e.cfg.IP, uint16(port)))
	if err != nil {
		return nil, err
	}
	return e.asSocket(c)
}

var errOddPort = errors.New("media: the system chose an odd port")
