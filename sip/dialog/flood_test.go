package dialog

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// horde is a socket on which each datagram comes from another address.
type horde struct {
	method   string
	total    int
	come     int
	gone     chan struct{}
	answered atomic.Int64
	all      chan struct{} // closed when each has its answer
}

func newHorde(method string, total int) *horde {
	return &horde{method: method, total: total, gone: make(chan struct{}), all: make(chan struct{})}
}

func (h *horde) LocalAddr() net.Addr {
	return &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 5060}
}

func (h *horde) ReadFrom(b []byte) (int, net.Addr, error) {
	if h.come == h.total {
		<-h.gone
		return 0, nil, net.ErrClosed
	}
	h.come++
	from := &net.UDPAddr{IP: net.IPv4(10, 1, byte(h.come>>8), byte(h.come)), Port: 1024 + h.come%60000}
	n := copy(b, fmt.Sprintf("%[1]s sip:12345@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP %[2]s;branch=z9hG4bK%[3]d;rport\r\nMax-Forwards: 70\r\n"+
		"From: <sip:a@x>;tag=%[3]d\r\nTo: <sip:12345@x>\r\nCall-ID: %[3]d@x\r\nCSeq: 1 %[1]s\r\nContact: <sip:a@%[2]s>\r\nContent-Length: 0\r\n\r\n",
		h.method, from, h.come))
	return n, from, nil
}

func (h *horde) WriteTo(b []byte, to net.Addr) (int, error) {
	final := strings.HasPrefix(string(b), "SIP/2.0 200 ") || strings.HasPrefix(string(b), "SIP/2.0 503 ")
	if final && h.answered.Add(1) == int64(h.total) {
		close(h.all)
	}
	return len(b), nil
}

func (h *horde) Close() error                     { close(h.gone); return nil }
func (h *horde) SetDeadline(time.Time) error      { return nil }
func (h *horde) SetReadDeadline(time.Time) error  { return nil }
func (h *horde) SetWriteDeadline(time.Time) error { return nil }

// Every source gets its answer, and none stays in the memory: neither its name nor its transaction.
func TestFloodOfSources(t *testing.T) {
	for method, sources := range map[string]int{"OPTIONS": 2*maxNames + 1000, "INVITE": maxTransactions + 2000} {
		t.Run(method, func(t *testing.T) {
			cfg := Defaults()
			cfg.MaxCalls = 200
			l, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler), OnInvite: func(c *Call) {
				_ = c.Reject(c.Context(), 503, "") // the horde counts the answers
			}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			h := newHorde(method, sources)
			served := make(chan error, 1)
			go func() { served <- l.ServeUDP(ctx, h) }()
			select {
			case <-h.all:
			case <-time.After(time.Minute):
				t.Fatalf("%d of %d got an answer", h.answered.Load(), sources)
			}
			if n := l.tpl.Pool("udp").Size(); n > 2*maxNames+1 {
				t.Errorf("the library keeps %d sources", n)
			}
			if n := l.transactions.Load(); n > maxTransactions+maxPending+200 {
				t.Errorf("%d transactions live", n)
			}
			if n := l.Calls(); n > cfg.MaxCalls {
				t.Errorf("%d calls live", n)
			}
			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// A stream that brings nothing, or half a message, is closed; one that has brought a whole one stays.
func TestHalfOpenStreams(t *testing.T) {
	cfg := Defaults()
	cfg.MessageTimeout, cfg.MaxConns = time.Second, 3
	reg := prometheus.NewRegistry()
	l, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler), Registerer: reg, OnInvite: func(*Call) {}})
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
	const head = "OPTIONS sip:12345@x SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n"
	dial := func(text string) net.Conn {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		return c
	}
	good := dial(head + "Content-Length: 0\r\n\r\n")
	if n, err := good.Read(make([]byte, 4096)); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	silent, half := dial(""), dial(head)
	full := dial("") // one too many
	for _, c := range []net.Conn{full, silent, half} {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("the connection stays open: %v", err)
		}
	}
	if n := testutil.ToFloat64(l.m.refused.WithLabelValues("connections_full")); n != 1 {
		t.Errorf("%v were one too many, want 1", n)
	}
	if n := testutil.ToFloat64(l.m.refused.WithLabelValues("half_message")); n != 2 {
		t.Errorf("%v half messages, want 2", n)
	}
	if _, err := io.WriteString(good, strings.ReplaceAll(head, "bK1", "bK2")+"Content-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = good.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := good.Read(make([]byte, 4096)); err != nil {
		t.Errorf("the good connection: %v", err)
	}
	huge := dial(head + "X: " + strings.Repeat("x", 200_000))
	_ = huge.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadAll(huge); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("a header without an end keeps its connection: %v", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
