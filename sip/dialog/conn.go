package dialog

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
)

// packetConn tells the layer that its reader is up, and traces what is sent.
type packetConn struct {
	net.PacketConn
	l    *Layer
	once sync.Once
	from masked // the reader's alone
}

// masked is a source that gives the listener's name for its own. The library keeps every name of a
// source until the listener closes, so a source with many ports would fill the memory; arrive puts
// the right name back.
type masked struct {
	net.Addr
	name string
}

func (m *masked) String() string { return m.name }

// unmask is the address that a message came from.
func unmask(a net.Addr) net.Addr {
	if m, ok := a.(*masked); ok {
		return m.Addr
	}
	return a
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	// The library adds the listener to its pool before the first read: from here on requests leave
	// from this socket.
	c.once.Do(func() { close(c.l.ready) })
	n, from, err := c.PacketConn.ReadFrom(b)
	if err != nil {
		return n, from, err
	}
	c.from.Addr = from
	return n, &c.from, nil
}

func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.l.trace(true, to, b)
	return c.PacketConn.WriteTo(b, to)
}

// listener bounds the connections of a stream listener, and traces what is sent on them.
type listener struct {
	net.Listener
	l    *Layer
	once sync.Once
	open atomic.Int64
}

func (s *listener) Accept() (net.Conn, error) {
	s.once.Do(func() { close(s.l.ready) })
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if s.open.Add(1) <= int64(s.l.cfg.MaxConns) {
			kept := &conn{Conn: c, s: s, since: time.Now()}
			s.l.streams.Store(c.RemoteAddr().String(), kept)
			return kept, nil
		}
		s.open.Add(-1)
		s.l.m.refuse("connections_full")
		c.Close()
	}
}

// conn is a stream. Who connects and sends nothing, or half a message and no more, gives its place back
// after message_timeout.
type conn struct {
	net.Conn
	s    *listener
	once sync.Once
	// since is when the connection, or the message that comes, began; zero between messages. The
	// reader's goroutine alone uses it.
	since time.Time
}

// SetReadDeadline is the library's, before each read: idle_conn from now.
func (c *conn) SetReadDeadline(t time.Time) error {
	if !c.since.IsZero() {
		if by := c.since.Add(c.s.l.cfg.MessageTimeout); by.Before(t) {
			t = by
		}
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	switch {
	case err != nil && c.shaking():
		c.s.l.m.refuse("handshake")
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.since.IsZero():
		c.s.l.m.refuse("half_message")
	case c.since.IsZero() && len(bytes.Trim(b[:n], "\r\n")) > 0: // line breaks keep alive (RFC 5626 section 3.5.1)
		c.since = time.Now()
	}
	return n, err
}

// shaking tells whether the peer is still to prove itself by its certificate.
func (c *conn) shaking() bool {
	secure, ok := c.Conn.(*tls.Conn)
	return ok && !secure.ConnectionState().HandshakeComplete
}

// whole notes that a message is complete.
func (c *conn) whole() { c.since = time.Time{} }

func (c *conn) Write(b []byte) (int, error) {
	c.s.l.trace(true, c.RemoteAddr(), b)
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	c.once.Do(func() {
		c.s.open.Add(-1)
		c.s.l.streams.CompareAndDelete(c.RemoteAddr().String(), c)
	})
	return c.Conn.Close()
}

// readFilter sees what came before it is parsed. It returns nothing for what is dropped and never an
// error, which would end the listener.
func (l *Layer) readFilter(info sip.TransportReadProps, data []byte) ([]byte, error) {
	if !l.up() {
		return nil, nil
	}
	from := unmask(info.RemoteAddr)
	if l.deps.Drop != nil && l.deps.Drop(data, from, info.Transport) {
		l.m.refuse("filter")
		return nil, nil
	}
	if l.scanner(data) {
		l.m.refuse("scanner")
		return nil, nil
	}
	l.trace(false, from, data)
	return data, nil
}

// scanner tells whether the message names a scanner as its User-Agent. No answer is the only answer
// that teaches it nothing.
func (l *Layer) scanner(data []byte) bool {
	agent := bytes.ToLower(field(data, "user-agent"))
	if len(agent) == 0 {
		return false
	}
	for _, s := range l.cfg.Scanners {
		if bytes.HasPrefix(agent, []byte(strings.ToLower(s))) {
			return true
		}
	}
	return false
}

// field is the value of the first header of a name (lower case) in a raw message.
func field(data []byte, names ...string) []byte {
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return nil
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		for _, n := range names {
			if bytes.EqualFold(bytes.TrimSpace(name), []byte(n)) {
				return bytes.TrimSpace(value)
			}
		}
	}
	return nil
}

func (l *Layer) trace(sent bool, peer net.Addr, data []byte) {
	if l.deps.Trace == nil || len(data) <= 4 {
		return
	}
	ap, err := netip.ParseAddrPort(peer.String())
	if err != nil {
		return
	}
	l.deps.Trace(Message{
		CallID: string(field(data, "call-id", "i")), At: time.Now(), Sent: sent,
		Peer: netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), Raw: data,
	})
}

// libraryLog takes the library's log: it logs a whole packet, numbers and all, at Error for each that
// it cannot parse, so a scanner could fill the disk. Parse failures are counted, the rest is kept at
// debug level with its error alone.
type libraryLog struct{ l *Layer }

func (h *libraryLog) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn
}

func (h *libraryLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "failed to parse" {
		h.l.m.refuse("malformed")
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			h.l.log.DebugContext(ctx, "sip library: "+r.Message, "error", a.Value)
		}
		return true
	})
	return nil
}

func (h *libraryLog) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *libraryLog) WithGroup(string) slog.Handler      { return h }
