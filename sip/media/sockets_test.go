package media

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"golang.org/x/net/ipv4"
)

// bothWays runs a test with the sockets read and written by io_uring, and by a call for each packet.
func bothWays(t *testing.T, test func(t *testing.T, cfg Config)) {
	for _, ring := range []bool{true, false} {
		t.Run(fmt.Sprintf("io_uring=%v", ring), func(t *testing.T) {
			cfg := testConfig()
			cfg.IOUring = ring
			e, err := New(cfg, Deps{})
			if err != nil {
				t.Fatal(err)
			}
			_, got := e.watchers[0].(*ringWatcher)
			for _, w := range e.watchers {
				w.close()
			}
			e.scatter()
			if got != ring {
				if os.Getenv("CI") == "true" {
					t.Fatal("this system gives no io_uring")
				}
				t.Skip("this system gives no io_uring")
			}
			test(t, cfg)
		})
	}
}

// Two phones hear one another whole and in order, whoever is closed meanwhile.
func TestTalkOnSockets(t *testing.T) {
	bothWays(t, func(t *testing.T, cfg Config) {
		e := run(t, cfg, Deps{})
		b := e.NewBridge("pair")
		var s [2]*Session
		var p [2]*phone
		for i := range s {
			s[i] = session(t, e, SessionOptions{ID: string(rune('a' + i))})
			p[i] = newPhone(t, listenAny(t))
			p[i].join(s[i])
			if err := b.Add(s[i], call.Member{Role: call.Talk}); err != nil {
				t.Fatal(err)
			}
		}
		const n = 20
		for i := range n {
			p[0].say(tone(aLaw, 440, i*frame, frame))
			other, err := e.NewSession(SessionOptions{ID: "other"})
			if err != nil {
				t.Fatal(err)
			}
			other.Close()
		}
		p[1].await("all", func(got []packet) bool { return len(said(got, aLaw)) >= n })
		p[1].mu.Lock()
		defer p[1].mu.Unlock()
		heard := said(p[1].heard, aLaw)
		for i := range heard[1:] {
			if seqDistance(heard[i+1].seq, heard[i].seq) != 1 {
				t.Errorf("packet %d follows %d", heard[i+1].seq, heard[i].seq)
			}
		}
	})
}

// A port is free when its session is closed: before the engine runs, while packets come, and after it has run.
func TestPortIsFreeAfterClose(t *testing.T) {
	bothWays(t, func(t *testing.T, cfg Config) {
		free := func(when string, port int) {
			t.Helper()
			c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, uint16(port))))
			if err != nil {
				t.Errorf("%s: %v", when, err)
				return
			}
			_ = c.Close()
		}
		e, err := New(cfg, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		early, err := e.NewSession(SessionOptions{ID: "early"})
		if err != nil {
			t.Fatal(err)
		}
		early.Close()
		free("before the engine ran", early.LocalPort())
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		late, err := e.NewSession(SessionOptions{ID: "late"})
		if err != nil {
			t.Fatal(err)
		}
		go func() { defer close(ended); _ = e.Run(ctx) }()
		src := listenAny(t)
		defer func() { _ = src.Close() }()
		for i := range 50 {
			s, err := e.NewSession(SessionOptions{ID: "busy"})
			if err != nil {
				t.Fatal(err)
			}
			var flood sync.WaitGroup
			done := make(chan struct{})
			flood.Go(func() {
				to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, uint16(s.LocalPort())))
				for pkt := make([]byte, headerBytes+frame); ; {
					select {
					case <-done:
						return
					default:
						_, _ = src.WriteTo(pkt, to)
					}
				}
			})
			time.Sleep(time.Duration(rand.Int64N(int64(2 * time.Millisecond)))) // at any moment of the watcher's
			s.Close()
			free(fmt.Sprintf("session %d", i), s.LocalPort())
			close(done)
			flood.Wait()
		}
		stop()
		<-ended
		free("after the engine ran", late.LocalPort())
		if _, err := e.NewSession(SessionOptions{ID: "too late"}); err == nil {
			t.Error("an engine that has ended opens a session")
		}
	})
}

// Sessions come and go by the hundred in the same moment while all are spoken to: none hears another's packets.
func TestSocketsComeAndGo(t *testing.T) {
	bothWays(t, func(t *testing.T, cfg Config) {
		e := run(t, cfg, Deps{})
		var all sync.WaitGroup
		var heard atomic.Int64
		for range 8 {
			all.Go(func() {
				for range 25 {
					s, err := e.NewSession(SessionOptions{ID: "x"})
					if err != nil {
						t.Error(err)
						return
					}
					p := newPhone(t, listenAny(t))
					p.join(s)
					p.say(tone(aLaw, 440, 0, frame))
					for deadline := time.Now().Add(10 * time.Second); s.Stats().Received == 0 && time.Now().Before(deadline); {
						time.Sleep(time.Millisecond)
					}
					heard.Add(int64(s.Stats().Received))
					s.Close()
					_ = p.conn.Close()
				}
			})
		}
		all.Wait()
		if heard.Load() != 200 {
			t.Errorf("%d packets were heard, want 200", heard.Load())
		}
	})
}

// BenchmarkTalksOnSockets is what a packet costs that is read, relayed and sent, in CPU time of the process, the
// sender's share included: a hundred talks, each party of which says one packet an op.
func BenchmarkTalksOnSockets(b *testing.B) {
	for _, ring := range []bool{true, false} {
		b.Run(fmt.Sprintf("io_uring=%v", ring), func(b *testing.B) {
			cfg := testConfig()
			cfg.IOUring = ring
			cfg.ComfortSilence = false
			talks(b, run(b, cfg, Deps{}), 100)
		})
	}
}

func talks(b *testing.B, e *Engine, n int) {
	conn := listenAny(b).(*net.UDPConn)
	defer func() { _ = conn.Close() }()
	from := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	legs := make([]*Session, 2*n)
	batch := make([]ipv4.Message, len(legs))
	for i := range legs {
		s := session(b, e, SessionOptions{ID: "x"})
		if err := s.Remote(Params{Addr: from, Codec: call.PCMA, PayloadType: 8, Send: true, Recv: true}); err != nil {
			b.Fatal(err)
		}
		legs[i] = s
		batch[i] = ipv4.Message{Buffers: [][]byte{make([]byte, headerBytes+frame)}, Addr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, uint16(s.LocalPort())))}
	}
	for i := 0; i < len(legs); i += 2 {
		bridge := e.NewBridge("pair")
		for _, s := range legs[i : i+2] {
			if err := bridge.Add(s, call.Member{Role: call.Talk}); err != nil {
				b.Fatal(err)
			}
		}
	}
	out := ipv4.NewPacketConn(conn)
	h := header{pt: 8, ssrc: 1}
	before := rusage(b)
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		h.seq++
		h.ts += frame
		for _, m := range batch {
			h.put(m.Buffers[0])
		}
		for rest := batch; len(rest) > 0; {
			k, err := out.WriteBatch(rest, 0)
			if err != nil {
				b.Fatal(err)
			}
			rest = rest[k:]
		}
		for arrived := false; !arrived; { // an op is over when all have arrived
			time.Sleep(2 * time.Millisecond)
			arrived = !slices.ContainsFunc(legs, func(s *Session) bool { return s.Stats().Received < uint64(i+1) })
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(rusage(b)-before)/float64(b.N*len(legs)), "cpu-ns/packet")
}

// rusage is the CPU time that the process has used.
func rusage(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
