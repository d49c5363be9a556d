package dialog

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/siptest"
)

// stream is a phone on a TCP connection, as simple as it can be.
type stream struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func (s *stream) send(text string) {
	if _, err := io.WriteString(s.conn, text); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stream) next() siptest.Message {
	s.t.Helper()
	var head strings.Builder
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		line, err := s.r.ReadString('\n')
		if err != nil {
			s.t.Fatal(err)
		}
		head.WriteString(line)
	}
	var length int
	fmt.Sscan(siptest.ParseMessage(head.String()).Get("Content-Length"), &length)
	body := make([]byte, length)
	if _, err := io.ReadFull(s.r, body); err != nil {
		s.t.Fatal(err)
	}
	return siptest.ParseMessage(head.String() + string(body))
}

func TestTCP(t *testing.T) {
	calls := make(chan *Call, 1)
	l, err := New(Defaults(), Deps{Log: slog.New(slog.DiscardHandler), OnInvite: func(c *Call) {
		calls <- c
		c.Answer(c.Context(), []byte(sdpAnswer))
	}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- l.ServeTCP(ctx, ln) }()
	<-l.Ready()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := &stream{t: t, conn: conn, r: bufio.NewReader(conn)}
	self := conn.LocalAddr().String()
	request := func(method, tail, to string, seq int) string {
		return fmt.Sprintf("%s sip:12345@%s SIP/2.0\r\nVia: SIP/2.0/TCP %s;branch=z9hG4bK%s%d\r\nFrom: <sip:a@x>;tag=1\r\nTo: %s\r\nCall-ID: tcp\r\nCSeq: %d %s\r\nContact: <sip:a@%s;transport=tcp>\r\n%s",
			method, ln.Addr(), self, method, seq, to, seq, method, self, tail)
	}
	sdp := fmt.Sprintf("Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s", len(sdpOffer), sdpOffer)
	p.send("\r\n\r\n") // a keep-alive before the first message
	p.send(request("INVITE", sdp, "<sip:b@y>", 1))
	ok := p.next()
	for ok.Status() != 200 {
		if ok = p.next(); ok.Status() >= 300 {
			t.Fatal(ok.Raw)
		}
	}
	if !strings.Contains(ok.Contact(), "transport=tcp") {
		t.Errorf("Contact %s", ok.Contact())
	}
	p.send(request("ACK", "Content-Length: 0\r\n\r\n", ok.Get("To"), 1))
	c := <-calls
	done := make(chan error, 1)
	go func() { done <- c.Bye(ctx, call.CauseNormal) }() // it waits for the ACK by itself
	bye := p.next()
	if bye.Method() != "BYE" || !strings.Contains(bye.Get("Via"), "SIP/2.0/TCP") {
		t.Fatalf("got\n%s", bye.Raw)
	}
	p.send(fmt.Sprintf("SIP/2.0 200 OK\r\nVia: %s\r\nFrom: %s\r\nTo: %s\r\nCall-ID: tcp\r\nCSeq: %s\r\nContent-Length: 0\r\n\r\n",
		bye.Get("Via"), bye.Get("From"), bye.Get("To"), bye.Get("CSeq")))
	if err := <-done; err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	conn.Close()
}
