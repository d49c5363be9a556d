package media

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// memLegs are legs on a network in memory, each with its phone, and an empty bridge.
func memLegs(t *testing.T, e *Engine, n *memNet, count int, change ...func(*Params)) (*Bridge, []*Session, []*phone) {
	b := e.NewBridge("test")
	t.Cleanup(b.Close)
	s, p := make([]*Session, count), make([]*phone, count)
	for i := range s {
		s[i] = session(t, e, SessionOptions{ID: string(rune('a' + i)), RelayDTMF: i == 1})
		p[i] = n.phone(t)
		if i < len(change) {
			p[i].join(s[i], change[i])
		} else {
			p[i].join(s[i])
		}
	}
	return b, s, p
}

func join(t *testing.T, b *Bridge, s *Session, role call.Role, staff bool) {
	t.Helper()
	if err := b.Add(s, call.Member{Role: role, Staff: staff}); err != nil {
		t.Fatal(err)
	}
}

var tones = []float64{440, 700, 1000, 1500}

// speak lets every phone say its own tone for d, in packets of 20 ms.
func speakAll(p []*phone, d time.Duration) {
	for at := 0; at < int(samples(d)); at += frame {
		for i, x := range p {
			l := aLaw
			if x.h.pt == 0 {
				l = uLaw
			}
			x.say(tone(l, tones[i], at, frame))
		}
		time.Sleep(tickEvery)
	}
	synctest.Wait()
}

// hears checks which tones a phone hears, after the first 300 ms.
func hears(t *testing.T, who string, p *phone, l law, want ...float64) {
	t.Helper()
	got := p.take()
	if len(got) < 30 {
		t.Errorf("%s hears %d packets", who, len(got))
		return
	}
	wantOneStreamBut(t, got)
	all := map[float64]bool{}
	for _, hz := range tones {
		all[hz] = false
	}
	for _, hz := range want {
		all[hz] = true
	}
	wantLevels(t, who, decoded(got[15:], l), all)
}

func TestMixOfThree(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		b, s, p := memLegs(t, e, n, 3, func(*Params) {}, pcmu, func(p *Params) { p.Ptime = 30 * time.Millisecond })
		p[1].h.pt = 0
		for _, x := range s {
			join(t, b, x, call.Talk, false)
		}
		speakAll(p, 1500*time.Millisecond)
		hears(t, "a", p[0], aLaw, 700, 1000)
		hears(t, "b", p[1], uLaw, 440, 1000)
		hears(t, "c", p[2], aLaw, 440, 700)
		// One hangs up, and the two that are left have different packet times: they are still mixed.
		s[0].Close()
		speakAll(p[1:], time.Second)
		hears(t, "b", p[1], uLaw, 700)
		hears(t, "c", p[2], aLaw, 440)
		if s[0].bridge.Load() != nil || len(b.members) != 2 || b.wheel == nil {
			t.Error("the leg that ended is still in the bridge")
		}
		p[2].join(s[2]) // a new answer, with the same packet time: no mix any more
		if b.wheel != nil {
			t.Error("two legs that match are mixed")
		}
		speakAll(p[1:], time.Second)
		hears(t, "b, relayed", p[1], uLaw, 700)
		hears(t, "c, relayed", p[2], aLaw, 440)
	})
}

// A caller, an agent, a supervisor who whispers and a listener: the whisper reaches staff alone.
func TestRoles(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		b, s, p := memLegs(t, e, n, 4)
		join(t, b, s[0], call.Talk, false)
		join(t, b, s[1], call.Talk, true)
		join(t, b, s[2], call.Whisper, true)
		join(t, b, s[3], call.Listen, true)
		speakAll(p, 1500*time.Millisecond)
		hears(t, "caller", p[0], aLaw, 700)
		hears(t, "agent", p[1], aLaw, 440, 1000)
		hears(t, "supervisor", p[2], aLaw, 440, 700)
		hears(t, "listener", p[3], aLaw, 440, 700, 1000)
		// The supervisor steps in, the listener leaves.
		join(t, b, s[2], call.Talk, true)
		b.Remove(s[3])
		p[0].take()
		speakAll(p, 1500*time.Millisecond)
		hears(t, "caller", p[0], aLaw, 700, 1000)
		hears(t, "who left", p[3], aLaw)
	})
}

func TestHoldAndReturn(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		b, s, p := memLegs(t, e, n, 2)
		join(t, b, s[0], call.Talk, false)
		join(t, b, s[1], call.Talk, true)
		speakAll(p, time.Second)
		hears(t, "caller", p[0], aLaw, 700)
		music := clip("music", 1500, 330*time.Millisecond)
		if err := b.Hold(s[0], music); err != nil {
			t.Fatal(err)
		}
		speakAll(p, time.Second)
		hears(t, "caller on hold", p[0], aLaw, 1500)
		p[1].take() // of before the hold
		speakAll(p, time.Second)
		hears(t, "agent", p[1], aLaw)
		p[0].take()
		// An announcement takes the place of the music, and the music comes back.
		if err := s[0].Play(t.Context(), clip("news", 1000, time.Second)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		hears(t, "caller", p[0], aLaw, 1000)
		time.Sleep(time.Second)
		synctest.Wait()
		hears(t, "caller", p[0], aLaw, 1500)
		join(t, b, s[0], call.Talk, false)
		speakAll(p, time.Second)
		hears(t, "caller is back", p[0], aLaw, 700)
		p[1].take()
		// A prompt to one of two takes the place of the other's voice, for him alone.
		go func() { _ = s[0].Play(t.Context(), clip("news", 1000, 800*time.Millisecond)) }()
		speakAll(p, 800*time.Millisecond)
		time.Sleep(40 * time.Millisecond)
		hears(t, "caller", p[0], aLaw, 1000)
		hears(t, "agent", p[1], aLaw, 440)
		b.Close()
		p[0].take()
		speakAll(p, time.Second)
		hears(t, "caller, alone", p[0], aLaw)
		if err := b.Add(s[0], call.Member{}); !errors.Is(err, ErrBridgeClosed) {
			t.Errorf("a closed bridge: %v", err)
		}
	})
}

func TestBridgeRefuses(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		b, s, _ := memLegs(t, e, n, maxMembers+1)
		other := e.NewBridge("other")
		if err := b.Hold(s[0]); err == nil {
			t.Error("a stranger was put on hold")
		}
		for _, x := range s[:maxMembers] {
			join(t, b, x, call.Talk, false)
		}
		if err := b.Add(s[maxMembers], call.Member{}); !errors.Is(err, ErrBridgeFull) {
			t.Errorf("a full bridge: %v", err)
		}
		if err := other.Add(s[0], call.Member{}); !errors.Is(err, ErrOtherBridge) {
			t.Errorf("two bridges: %v", err)
		}
		other.Remove(s[0])
		b.Remove(s[0])
		s[0].Close()
		if err := other.Add(s[0], call.Member{}); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed session: %v", err)
		}
	})
}

// Keys go on to a leg that wants them, under its own payload type, and to no other.
func TestRelayOfKeys(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		b, s, p := memLegs(t, e, n, 2, func(*Params) {}, func(p *Params) { p.DTMFType = 96 }) // b wants keys
		join(t, b, s[0], call.Talk, false)
		join(t, b, s[1], call.Talk, false)
		for from, to := range []int{1, 0} {
			p[to].take()
			p[from].say(tone(aLaw, 440, 0, frame))
			start := p[from].h.ts
			for i := range 10 {
				p[from].key(5, start, uint16(i+1)*160, i > 7, i == 0)
				time.Sleep(tickEvery)
			}
			p[from].h.ts += 10 * frame
			p[from].say(tone(aLaw, 440, 0, frame))
			synctest.Wait()
			var events, audio []packet
			for _, g := range p[to].take() {
				if len(g.body) == eventBytes {
					events = append(events, g)
				} else if len(said([]packet{g}, aLaw)) > 0 {
					audio = append(audio, g)
				}
			}
			if len(audio) != 2 {
				t.Fatalf("%d packets of sound to %d", len(audio), to)
			}
			if to == 0 {
				if len(events) > 0 {
					t.Errorf("%d events reached a leg that wants none", len(events))
				}
				continue
			}
			if len(events) != 10 || events[0].pt != 96 || events[9].ts != events[0].ts || !events[0].marker {
				t.Errorf("events %v", events)
			}
			if audio[1].seq != audio[0].seq+11 || audio[1].ts != audio[0].ts+11*frame {
				t.Errorf("sound %+v follows %+v", audio[1].header, audio[0].header)
			}
		}
	})
}

// Three on real sockets, in real time: each hears both others and not himself.
func TestMixOnSockets(t *testing.T) {
	e := run(t, testConfig(), Deps{})
	b := e.NewBridge("three")
	defer b.Close()
	var p [3]*phone
	var talk sync.WaitGroup
	stop := make(chan struct{})
	for i := range p {
		s := session(t, e, SessionOptions{ID: string(rune('a' + i))})
		p[i] = newPhone(t, listenAny(t)).join(s)
		join(t, b, s, call.Talk, false)
		talk.Go(func() {
			pace := time.NewTicker(tickEvery)
			defer pace.Stop()
			for at := 0; ; at += frame {
				p[i].say(tone(aLaw, tones[i], at, frame))
				select {
				case <-pace.C:
				case <-stop:
					return
				}
			}
		})
	}
	for i, x := range p {
		got := x.await("second of mix", func(got []packet) bool { return len(said(got, aLaw)) >= 60 })
		pcm := decoded(said(got, aLaw), aLaw)
		for j, hz := range tones[:3] {
			if got := level(pcm, hz); (got > 1000) != (i != j) {
				t.Errorf("phone %d hears %.0f Hz at %.0f", i, hz, got)
			}
		}
	}
	close(stop)
	talk.Wait()
}

// The media moves behind a NAT: the described address is dead, the leg finds the true one.
func TestLatchOnSockets(t *testing.T) {
	e := run(t, testConfig(), Deps{})
	s := session(t, e, SessionOptions{ID: "a"})
	p := newPhone(t, listenAny(t))
	p.join(s, func(p *Params) { p.Addr = netip.MustParseAddrPort("127.0.0.1:9") })
	for range 3 {
		p.say(tone(aLaw, 440, 0, frame))
	}
	p.await("silence", func(got []packet) bool { return len(got) > 0 })
	if _, ok := s.rtp.(*udpSocket); !ok {
		t.Error("no real socket")
	}
}

// Whatever is done at once, in whatever order, nothing hangs, nothing panics, and no stream breaks.
func TestEverythingAtOnce(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		const legs = 6
		one, s, p := memLegs(t, e, n, legs, pcmu, func(p *Params) { p.Ptime = 30 * time.Millisecond })
		two := e.NewBridge("two")
		defer two.Close()
		music := clip("music", 1500, 250*time.Millisecond)
		roles := []call.Role{call.Talk, call.Talk, call.Whisper, call.Listen}
		var work sync.WaitGroup
		for i := range legs {
			act := rand.New(rand.NewPCG(uint64(i), 7))
			work.Go(func() {
				for range 250 {
					b, x := []*Bridge{one, two}[act.IntN(2)], s[act.IntN(legs)]
					switch act.IntN(8) {
					case 0, 1, 2:
						_ = b.Add(x, call.Member{Role: roles[act.IntN(len(roles))], Staff: act.IntN(2) == 0})
					case 3:
						b.Remove(x)
					case 4:
						_ = b.Hold(x, music)
					case 5:
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(act.IntN(200))*time.Millisecond)
						_ = x.Play(ctx, music)
						cancel()
					case 6:
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(act.IntN(200))*time.Millisecond)
						_ = x.SendDigits(ctx, "1#")
						cancel()
					case 7:
						if detach, err := x.Tap(deafEar{}); err == nil {
							time.Sleep(time.Duration(act.IntN(30)) * time.Millisecond)
							detach()
						}
					}
					p[i].say(tone(aLaw, tones[i%4], 0, frame))
					time.Sleep(tickEvery)
				}
			})
		}
		work.Wait()
		synctest.Wait()
		for i, x := range p {
			got := x.take()
			var order []packet
			for _, g := range got {
				if len(g.body) != eventBytes {
					order = append(order, g)
				}
			}
			wantOneStreamBut(t, order)
			if len(order) < 100 {
				t.Errorf("leg %d heard %d packets", i, len(order))
			}
		}
		if v := testutil.ToFloat64(e.metrics.panics); v > 0 {
			t.Errorf("%v panics", v)
		}
		for _, x := range s {
			work.Go(x.Close)
		}
		work.Wait()
		if len(one.members)+len(two.members) > 0 {
			t.Error("closed legs are in a bridge still")
		}
	})
}
