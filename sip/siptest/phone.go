package siptest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// T is what a phone needs of a test; *testing.T is one.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Patience is how long a phone waits for what it expects.
const Patience = 10 * time.Second

// Phone speaks raw SIP over a packet connection, in memory or real. It answers nothing by itself.
type Phone struct {
	t    T
	conn net.PacketConn
	user string
	peer netip.AddrPort
	got  int // branches, tags and Call-IDs made so far

	put []Message // read, but left for later by Await
}

// NewPhone makes a phone that sends to peer. The test closes conn.
func NewPhone(t T, conn net.PacketConn, user string, peer netip.AddrPort) *Phone {
	return &Phone{t: t, conn: conn, user: user, peer: peer}
}

// Addr is the phone's own address.
func (p *Phone) Addr() netip.AddrPort {
	ap := p.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Peer is where the phone sends to.
func (p *Phone) Peer() netip.AddrPort { return p.peer }

// Contact is the phone's own URI.
func (p *Phone) Contact() string { return fmt.Sprintf("sip:%s@%s", p.user, p.Addr()) }

// Send sends text as it stands; a line feed alone is sent as CRLF.
func (p *Phone) Send(text string) {
	p.t.Helper()
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
	if _, err := p.conn.WriteTo([]byte(text), net.UDPAddrFromAddrPort(p.peer)); err != nil {
		p.t.Fatalf("%s: send: %v", p.user, err)
	}
}

// Next is the next message; the test fails when none comes within Patience.
func (p *Phone) Next() Message {
	p.t.Helper()
	m, ok := p.read(Patience)
	if !ok {
		p.t.Fatalf("%s: nothing came in %v", p.user, Patience)
	}
	return m
}

// Expect is the next message, which must be what ("BYE", "200", "200 INVITE").
func (p *Phone) Expect(what string) Message {
	p.t.Helper()
	m := p.Next()
	if !m.Is(what) {
		p.t.Fatalf("%s: got %s, want %s:\n%s", p.user, m, what, m.Raw)
	}
	return m
}

// Await is the next message of a kind; what comes before it is kept for later.
func (p *Phone) Await(what string) Message {
	p.t.Helper()
	return p.AwaitFor(Patience, what)
}

// AwaitFor is Await with a patience of its own.
func (p *Phone) AwaitFor(patience time.Duration, what string) Message {
	p.t.Helper()
	for i, m := range p.put {
		if m.Is(what) {
			p.put = slices.Delete(p.put, i, i+1)
			return m
		}
	}
	end := time.Now().Add(patience)
	for {
		m, ok := p.wire(time.Until(end))
		if !ok {
			p.t.Fatalf("%s: no %s in %v; got %v", p.user, what, patience, p.put)
		}
		if m.Is(what) {
			return m
		}
		p.put = append(p.put, m)
	}
}

// Quiet fails the test when anything comes within d.
func (p *Phone) Quiet(d time.Duration) {
	p.t.Helper()
	if m, ok := p.read(d); ok {
		p.t.Fatalf("%s: got %s, want nothing:\n%s", p.user, m, m.Raw)
	}
}

// Collect is everything that comes within d.
func (p *Phone) Collect(d time.Duration) []Message {
	p.t.Helper()
	end := time.Now().Add(d)
	var all []Message
	for {
		m, ok := p.read(time.Until(end))
		if !ok {
			return all
		}
		all = append(all, m)
	}
}

// Forget drops what came and was not looked at.
func (p *Phone) Forget() { p.put = nil }

func (p *Phone) read(d time.Duration) (Message, bool) {
	p.t.Helper()
	if len(p.put) > 0 {
		m := p.put[0]
		p.put = p.put[1:]
		return m, true
	}
	return p.wire(d)
}

func (p *Phone) wire(d time.Duration) (Message, bool) {
	p.t.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		p.t.Fatalf("%s: %v", p.user, err)
	}
	buf := make([]byte, 65535)
	n, from, err := p.conn.ReadFrom(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Message{}, false
	}
	if err != nil {
		p.t.Fatalf("%s: read: %v", p.user, err)
	}
	m := ParseMessage(string(buf[:n]))
	ap := from.(*net.UDPAddr).AddrPort()
	m.From, m.At = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), time.Now()
	return m, true
}

// Name makes a word that this phone has not used: a tag, a branch, a Call-ID.
func (p *Phone) Name(kind string) string {
	p.got++
	return fmt.Sprintf("%s%s%d-%d", kind, p.user, p.Addr().Port(), p.got)
}

// Respond answers a request; extra are header lines, and a body is SDP.
func (p *Phone) Respond(req Message, status int, toTag, body string, extra ...string) {
	p.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "SIP/2.0 %d Test\n", status)
	for _, h := range []string{"Via", "Record-Route"} {
		for _, v := range req.All(h) {
			fmt.Fprintf(&b, "%s: %s\n", h, v)
		}
	}
	to := req.Get("To")
	if req.Tag("To") == "" && toTag != "" {
		to += ";tag=" + toTag
	}
	fmt.Fprintf(&b, "From: %s\nTo: %s\nCall-ID: %s\nCSeq: %s\nContact: <%s>\n",
		req.Get("From"), to, req.Get("Call-ID"), req.Get("CSeq"), p.Contact())
	writeTail(&b, body, extra)
	p.Send(b.String())
}

func writeTail(b *strings.Builder, body string, extra []string) {
	for _, h := range extra {
		b.WriteString(h + "\n")
	}
	body = strings.ReplaceAll(strings.ReplaceAll(body, "\r\n", "\n"), "\n", "\r\n")
	if body != "" && !slices.ContainsFunc(extra, func(h string) bool { return strings.HasPrefix(h, "Content-Type:") }) {
		b.WriteString("Content-Type: application/sdp\n")
	}
	fmt.Fprintf(b, "Content-Length: %d\n\n%s", len(body), body)
}
