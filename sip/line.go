package sip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/trunk"
)

// SignallingBuffer is the receive buffer, in bytes, that a SIP socket asks for: in a flood the datagrams
// of those who are let in would else be lost with the rest.
const SignallingBuffer = 4 << 20

// freeTries bounds how often a free port is sought that UDP and TCP both have.
const freeTries = 20

// place is a kind of peer, which has listeners of its own.
type place string

const (
	atCarriers place = "carriers"
	atPhones   place = "phones"
	atNodes    place = "nodes"
)

// line is one listener with its dialogs.
type line struct {
	at        place
	transport string // "udp", "tcp" or "tls"
	layer     *dialog.Layer
	gate      *trunk.Gate
	addr      netip.AddrPort
	advertise string
	packets   net.PacketConn // of a udp line
	stream    net.Listener   // of the others
}

// Open opens the sockets; Serve does so by itself when it was not called. A port in use is an error that
// names the setting and the mend. A second call does nothing.
func (s *Switch) Open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lines) > 0 {
		return nil
	}
	var opened []*line
	for _, at := range []place{atCarriers, atPhones, atNodes} {
		lines, err := s.openPlace(at)
		opened = append(opened, lines...)
		if err != nil {
			for _, l := range opened {
				_ = l.close()
			}
			return err
		}
	}
	s.lines = opened
	return nil
}

// Close closes the sockets of a switch that was opened and is not served.
func (s *Switch) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, l := range s.lines {
		errs = append(errs, l.close())
	}
	s.lines = nil
	return errors.Join(errs...)
}

// settings are how a place is served, and who may send to it.
func (s *Switch) settings(at place) (Place, func(netip.Addr) bool) {
	switch at {
	case atPhones:
		return s.cfg.Phones, s.phones
	case atNodes:
		n := s.cfg.Nodes
		return Place{Listen: n.Listen, Rate: n.Rate, Dialog: n.Dialog}, s.gateways
	default:
		return s.cfg.Carriers, s.trunks.Known
	}
}

// openPlace opens the listeners of a place; a place that is not configured has none.
func (s *Switch) openPlace(at place) ([]*line, error) {
	p, known := s.settings(at)
	if p.Listen == "" {
		return nil, nil
	}
	packets, stream, err := listen(p.Listen)
	if err != nil {
		return nil, fmt.Errorf("%s.listen: %w", at, err)
	}
	gate := trunk.NewGate(known, p.Rate, s.metrics.dropped.WithLabelValues(string(at), "unknown_source"),
		s.metrics.dropped.WithLabelValues(string(at), "rate"))
	udp := &line{at: at, transport: "udp", gate: gate, packets: packets, advertise: p.Dialog.Advertise}
	tcp := &line{at: at, transport: "tcp", gate: gate, stream: gate.Listener(stream), advertise: p.Dialog.Advertise}
	lines := []*line{udp, tcp}
	if at == atNodes && s.tls != nil { // what is not encrypted is not heard
		_ = packets.Close()
		tcp.transport, lines = "tls", []*line{tcp}
	}
	for _, l := range lines {
		if l.addr, err = netip.ParseAddrPort(stream.Addr().String()); err == nil {
			l.layer, err = dialog.New(p.Dialog, s.dialogDeps(l))
		}
		if err != nil {
			return lines, fmt.Errorf("%s.%w", at, err)
		}
	}
	return lines, nil
}

func (s *Switch) dialogDeps(l *line) dialog.Deps {
	deps := dialog.Deps{
		Log:        s.log,
		Registerer: s.deps.Registerer,
		Drop:       l.gate.Drop,
		Trace:      func(m dialog.Message) { s.trace(l, m) },
		Spool:      s.spool,
	}
	switch l.at {
	case atCarriers:
		deps.OnInvite = func(c *dialog.Call) { s.fromTrunk(l, c) }
	case atPhones:
		deps.OnInvite = func(c *dialog.Call) { s.fromPhone(l, c) }
		deps.OnRequest = map[sip.RequestMethod]func(*sip.Request, func(*sip.Response)){sip.REGISTER: s.registrar.Serve}
	case atNodes:
		deps.OnInvite = func(c *dialog.Call) { s.fromNode(l, c) }
		deps.TLS = s.tls
	}
	return deps
}

// listen opens UDP and TCP on one port.
func listen(at string) (net.PacketConn, net.Listener, error) {
	ap, err := netip.ParseAddrPort(at)
	if err != nil {
		return nil, nil, err
	}
	for try := 0; ; try++ {
		stream, err := net.Listen("tcp", at)
		if err != nil {
			return nil, nil, inUse(at, "TCP", err)
		}
		packets, err := net.ListenPacket("udp", stream.Addr().String())
		if err == nil {
			if udp, ok := packets.(*net.UDPConn); ok {
				_ = udp.SetReadBuffer(SignallingBuffer) // the system may allow less: the doctor tells
			}
			return packets, stream, nil
		}
		_ = stream.Close()
		if ap.Port() != 0 || try == freeTries {
			return nil, nil, inUse(at, "UDP", err)
		}
	}
}

func inUse(at, network string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s port %s is in use by another program; stop it, or write another port", network, at)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is no address of this machine; write one of its own", at)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s port %s is not allowed to this user; write a port of 1024 or above", network, at)
	}
	return err
}

// within tells whether an address lies in any of the networks.
func within(networks []string) func(netip.Addr) bool {
	var all []netip.Prefix
	for _, n := range networks {
		if p, err := netip.ParsePrefix(n); err == nil { // checked by Validate
			all = append(all, p.Masked())
		}
	}
	return func(a netip.Addr) bool {
		for _, p := range all {
			if p.Contains(a.Unmap()) {
				return true
			}
		}
		return false
	}
}

func (l *line) serve(ctx context.Context) error {
	switch l.transport {
	case "udp":
		return l.layer.ServeUDP(ctx, l.packets)
	case "tls":
		return l.layer.ServeTLS(ctx, l.stream)
	}
	return l.layer.ServeTCP(ctx, l.stream)
}

// ready waits until the line can send.
func (l *line) ready(ctx context.Context) error {
	select {
	case <-l.layer.Ready():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *line) close() error {
	var c io.Closer = l.stream
	if l.packets != nil {
		c = l.packets
	}
	return c.Close()
}
