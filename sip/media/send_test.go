package media

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// bubble runs f with an engine on a network in memory, in a time of its own.
func bubble(t *testing.T, cfg Config, f func(*testing.T, *Engine, *memNet)) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		f(t, run(t, cfg, Deps{Listen: n.listen}), n)
	})
}

// wantOneStream checks that packets are one stream without a break: one source, each sequence number,
// and a clock that never stops.
func wantOneStream(t *testing.T, got []packet) {
	t.Helper()
	for i := 1; i < len(got); i++ {
		a, b := got[i-1], got[i]
		if b.ssrc != a.ssrc || b.seq != a.seq+1 || b.ts != a.ts+uint32(len(a.body)) {
			t.Fatalf("packet %d: %+v follows %+v", i, b.header, a.header)
		}
	}
}

func TestPromptIsContinuous(t *testing.T) {
	for _, ptime := range []time.Duration{10, 20, 30, 40, 60} {
		t.Run(fmt.Sprintf("%dms", ptime), func(t *testing.T) {
			bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
				s := session(t, e, SessionOptions{ID: "a"})
				p := n.phone(t).join(s, func(p *Params) { p.Ptime = ptime * time.Millisecond })
				time.Sleep(200 * time.Millisecond) // silence at first
				one, two := clip("one", 440, 130*time.Millisecond), clip("two", 880, 500*time.Millisecond)
				begun := time.Now()
				if err := s.Play(t.Context(), one, two); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begun); took < 630*time.Millisecond || took > 680*time.Millisecond {
					t.Errorf("630 ms of prompt took %s", took)
				}
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				got := p.take()
				wantOneStream(t, got)
				var all []byte
				markers := 0
				for _, p := range got {
					if len(p.body) != int(samples(ptime*time.Millisecond)) {
						t.Fatalf("a packet of %d bytes", len(p.body))
					}
					all = append(all, p.body...)
					if p.marker {
						markers++
					}
				}
				speech := append(append([]byte(nil), one.PCMA...), two.PCMA...)
				at := bytes.Index(all, speech)
				if at <= 0 {
					t.Fatal("the clips are not heard as one")
				}
				if bytes.Trim(all[:at], "\xD5") != nil && len(bytes.Trim(all[:at], "\xD5")) > 0 {
					t.Error("no silence before the prompt")
				}
				if rest := bytes.Trim(all[at+len(speech):], "\xD5"); len(rest) > 0 {
					t.Error("no silence after the prompt")
				}
				if markers != 1 {
					t.Errorf("%d markers, want one at the talkspurt's start", markers)
				}
			})
		})
	}
}

func TestPlayEnds(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		s := session(t, e, SessionOptions{ID: "a"})
		long := clip("long", 440, time.Minute)
		if err := s.Play(t.Context(), long); !errors.Is(err, call.ErrNotAnswered) {
			t.Errorf("before the answer: %v", err)
		}
		n.phone(t).join(s)
		play := func(ctx context.Context, f func(context.Context, ...*call.Clip) error, clips ...*call.Clip) chan error {
			done := make(chan error, 1)
			go func() { done <- f(ctx, clips...) }()
			synctest.Wait()
			return done
		}
		first := play(t.Context(), s.Play, long)
		second := play(t.Context(), s.Loop, clip("short", 440, 100*time.Millisecond))
		if err := <-first; !errors.Is(err, call.ErrReplaced) {
			t.Errorf("replaced: %v", err)
		}
		time.Sleep(5 * time.Second) // round and round
		if err := s.Play(t.Context()); err != nil {
			t.Errorf("silencing: %v", err)
		}
		if err := <-second; !errors.Is(err, call.ErrReplaced) {
			t.Errorf("silenced: %v", err)
		}
		why := errors.New("a key")
		ctx, cancel := context.WithCancelCause(t.Context())
		third := play(ctx, s.Play, long)
		cancel(why)
		if err := <-third; !errors.Is(err, why) {
			t.Errorf("cancelled: %v", err)
		}
		if err := s.Play(ctx, long); !errors.Is(err, why) {
			t.Errorf("cancelled before: %v", err)
		}
		if err := s.Loop(t.Context(), &call.Clip{}); err == nil {
			t.Error("a loop of nothing was taken")
		}
		fourth := play(t.Context(), s.Play, long)
		s.Close()
		if err := <-fourth; !errors.Is(err, ErrClosed) || !errors.Is(err, call.ErrLegGone) {
			t.Errorf("closed: %v", err)
		}
		if err := s.Play(t.Context(), long); !errors.Is(err, ErrClosed) {
			t.Errorf("after the close: %v", err)
		}
		if err := s.Remote(Params{Codec: call.PCMA}); !errors.Is(err, ErrClosed) {
			t.Errorf("Remote after the close: %v", err)
		}
	})
}

// A hold stops the packets and not the clock: the sequence goes on, the timestamp counts the pause.
func TestHoldKeepsTheClock(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		s := session(t, e, SessionOptions{ID: "a"})
		p := n.phone(t).join(s)
		time.Sleep(time.Second)
		p.join(s, func(p *Params) { p.Send = false })
		synctest.Wait()
		before := p.take()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := p.take(); len(got) > 0 {
			t.Fatalf("%d packets on hold", len(got))
		}
		p.join(s)
		time.Sleep(time.Second)
		synctest.Wait()
		after := p.take()
		wantOneStream(t, before)
		wantOneStream(t, after)
		a, b := before[len(before)-1], after[0]
		pause := duration(b.ts - a.ts)
		if b.seq != a.seq+1 || b.ssrc != a.ssrc || pause < 10*time.Second || pause > 10100*time.Millisecond {
			t.Errorf("%+v follows %+v: a pause of %s", b.header, a.header, pause)
		}
	})
}

func TestNoComfortSilence(t *testing.T) {
	cfg := testConfig()
	cfg.ComfortSilence = false
	bubble(t, cfg, func(t *testing.T, e *Engine, n *memNet) {
		s := session(t, e, SessionOptions{ID: "a"})
		p := n.phone(t).join(s)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := p.take(); len(got) > 0 {
			t.Errorf("%d packets of nothing", len(got))
		}
	})
}

func TestParams(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		s := session(t, e, SessionOptions{ID: "a"})
		at := netip.AddrPortFrom(loopback, 4000)
		for _, p := range []Params{
			{Addr: at, Codec: "G729"},
			{Codec: call.PCMA, Send: true},
			{Addr: at, Codec: call.PCMA, Ptime: 25 * time.Millisecond},
			{Addr: at, Codec: call.PCMA, Ptime: 80 * time.Millisecond},
		} {
			if err := s.Remote(p); err == nil {
				t.Errorf("%+v was taken", p)
			}
		}
		// An old hold: 0.0.0.0 is no place to send to.
		if err := s.Remote(Params{Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), 4000), Codec: call.PCMA, Send: true}); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if sent := s.Stats().Sent; sent != 0 {
			t.Errorf("%d packets to 0.0.0.0", sent)
		}
	})
}

func TestSendDigits(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		a, b := session(t, e, SessionOptions{ID: "a"}), session(t, e, SessionOptions{ID: "b"})
		// Two sessions face each other: what one sends as keys, the other must tell as keys.
		face := func(s, other *Session) {
			if err := s.Remote(Params{Addr: netip.AddrPortFrom(loopback, uint16(other.LocalPort())), Codec: call.PCMA,
				PayloadType: 8, DTMFType: 96, RecvDTMFType: 96, Send: true, Recv: true}); err != nil {
				t.Fatal(err)
			}
		}
		face(a, b)
		face(b, a)
		var got []byte
		b.OnDigit(func(d call.Digit) { got = append(got, d.Key) })
		if err := a.SendDigits(t.Context(), "1123*#0A"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if string(got) != "1123*#0A" {
			t.Errorf("heard %q", got)
		}
		if st := b.Stats(); st.Lost != 0 || st.Received == 0 {
			t.Errorf("stats %+v", st)
		}
		if err := a.SendDigits(t.Context(), "x"); err == nil {
			t.Error("x was taken for a key")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.SendDigits(ctx, "1"); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 350*time.Millisecond)
		defer cancel()
		if err := a.SendDigits(ctx, "12345"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled in the middle: %v", err)
		}
		if synctest.Wait(); string(got) != "1123*#0A12" {
			t.Errorf("heard %q", got)
		}
		if err := a.SendDigits(t.Context(), strings.Repeat("1", maxKeys+1)); err == nil {
			t.Error("too many keys were taken")
		}
		p := n.phone(t).join(a, func(p *Params) { p.DTMFType = -1 })
		if err := a.SendDigits(t.Context(), "1"); !errors.Is(err, ErrNoDTMF) {
			t.Errorf("no telephone-event: %v", err)
		}
		p.join(a)
		done := make(chan error, 1)
		go func() { done <- a.SendDigits(context.Background(), "111111") }()
		time.Sleep(100 * time.Millisecond)
		a.Close()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}
