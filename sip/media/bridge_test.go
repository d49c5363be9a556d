package media

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// udpPair is two legs on real sockets, in a bridge, each with its phone.
func udpPair(t testing.TB, change ...func(*Params)) (e *Engine, b *Bridge, s [2]*Session, p [2]*phone) {
	e = run(t, testConfig(), Deps{})
	b = e.NewBridge("pair")
	for i := range s {
		s[i] = session(t, e, SessionOptions{ID: string(rune('a' + i))})
		p[i] = newPhone(t, listenAny(t))
		if i == 1 {
			p[i].join(s[i], change...)
		} else {
			p[i].join(s[i])
		}
		if err := b.Add(s[i], call.Member{Role: call.Talk}); err != nil {
			t.Fatal(err)
		}
	}
	return e, b, s, p
}

// said are the packets among got that are no silence.
func said(got []packet, l law) (out []packet) {
	for _, p := range got {
		if len(bytes.Trim(p.body, string([]byte{l.silence()}))) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// Two legs on real sockets: a tone goes through both ways, in the law of each, in order and whole.
func TestRelay(t *testing.T) {
	for _, c := range []struct {
		name   string
		change []func(*Params)
		to     law
	}{
		{"same codec", nil, aLaw},
		{"A to µ", []func(*Params){pcmu}, uLaw},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, s, p := udpPair(t, c.change...)
			const packets = 50
			pt := map[law]uint8{aLaw: 8, uLaw: 0}[c.to]
			p[1].h.pt = pt
			for i := range packets { // in step: each arrives before the next leaves
				for from, to := range []int{1, 0} {
					l, hz := aLaw, 440.0
					if from == 1 {
						l, hz = c.to, 1000
					}
					p[from].say(tone(l, hz, i*frame, frame))
					hears := [2]law{aLaw, c.to}[to]
					p[to].await("relayed packet", func(got []packet) bool { return len(said(got, hears)) > i })
				}
			}
			a, b := said(p[0].take(), aLaw), said(p[1].take(), c.to)
			wantOneStreamBut(t, a)
			wantOneStreamBut(t, b)
			wantLevels(t, "a", decoded(a, aLaw), map[float64]bool{440: false, 1000: true})
			wantLevels(t, "b", decoded(b, c.to), map[float64]bool{440: true, 1000: false})
			if b[0].pt != pt || a[0].pt != 8 {
				t.Errorf("payload types %d and %d", a[0].pt, b[0].pt)
			}
			if c.to == aLaw {
				if !bytes.Equal(b[3].body, tone(aLaw, 440, 3*frame, frame)) {
					t.Error("the payload was touched")
				}
				if st := s[1].Stats(); st.RelayedUndecoded != packets {
					t.Errorf("stats %+v", st)
				}
			}
		})
	}
}

// wantOneStreamBut is wantOneStream for what is left after silence was taken out: silence that stood
// in between may leave holes, but nothing may go back or be another source.
func wantOneStreamBut(t *testing.T, got []packet) {
	t.Helper()
	for i := 1; i < len(got); i++ {
		a, b := got[i-1], got[i]
		if b.ssrc != a.ssrc || seqDistance(b.seq, a.seq) <= 0 || distance(b.ts, a.ts) < int32(len(a.body)) {
			t.Fatalf("packet %d: %+v follows %+v", i, b.header, a.header)
		}
	}
}

// Loss, order and pauses of the source stay visible; a double and a straggler from before go no further.
func TestRelayKeepsLossAndOrder(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		b, s, p := memLegs(t, e, n, 2)
		join(t, b, s[0], call.Talk, false)
		join(t, b, s[1], call.Talk, false)
		body := tone(aLaw, 440, 0, frame)
		base := p[0].h
		send := func(seq uint16) {
			h := base
			h.seq += seq
			h.ts += uint32(seq) * frame
			p[0].put(h, body)
		}
		synctest.Wait()
		p[1].take()
		for _, seq := range []uint16{10, 11, 13, 12, 13, 16, 9, 17} {
			send(seq)
		}
		synctest.Wait()
		got := said(p[1].take(), aLaw)
		var seqs []int16
		for _, g := range got {
			seqs = append(seqs, seqDistance(g.seq, got[0].seq))
			if distance(g.ts, got[0].ts) != int32(seqDistance(g.seq, got[0].seq))*frame {
				t.Errorf("timestamp of %+v", g.header)
			}
		}
		want := []int16{0, 1, 3, 2, 6, 7}
		if len(seqs) != len(want) {
			t.Fatalf("relayed %v, want %v", seqs, want)
		}
		for i := range want {
			if seqs[i] != want[i] {
				t.Fatalf("relayed %v, want %v", seqs, want)
			}
		}
		last := got[len(got)-1]
		time.Sleep(time.Second) // a pause: silence stands in
		synctest.Wait()
		base.ssrc++ // and another source goes on in the same stream
		send(40000)
		synctest.Wait()
		after := p[1].take()
		again := after[len(after)-1]
		if again.ssrc != last.ssrc || !again.marker || len(after) < 40 {
			t.Errorf("%d packets, at last %+v", len(after), again.header)
		}
		for i := 1; i < len(after); i++ {
			if after[i].seq != after[i-1].seq+1 || distance(after[i].ts, after[i-1].ts) < frame {
				t.Errorf("%+v follows %+v", after[i].header, after[i-1].header)
			}
		}
	})
}

// deafPair is two legs in a bridge whose peers read nothing, so that what is measured is ours.
func deafPair(t testing.TB, change ...func(*Params)) (s [2]*Session, peer netip.AddrPort) {
	e := run(t, testConfig(), Deps{})
	b := e.NewBridge("pair")
	for i := range s {
		s[i] = session(t, e, SessionOptions{ID: "deaf"})
		conn := listenAny(t)
		t.Cleanup(func() { conn.Close() })
		peer = conn.LocalAddr().(*net.UDPAddr).AddrPort()
		par := Params{Addr: peer, Codec: call.PCMA, PayloadType: 8, Send: true, Recv: true}
		for _, f := range change[:i*len(change)] {
			f(&par)
		}
		if err := s[i].Remote(par); err != nil {
			t.Fatal(err)
		}
		if err := b.Add(s[i], call.Member{Role: call.Talk}); err != nil {
			t.Fatal(err)
		}
	}
	return s, peer
}

// relayOnce gives s one packet from its peer after the other.
func relayOnce(s *Session, peer netip.AddrPort) func() {
	pkt := make([]byte, headerBytes+frame)
	h, now := header{pt: 0, ssrc: 1}, time.Now()
	return func() {
		h.seq++
		h.ts += frame
		h.put(pkt)
		s.receive(pkt, peer, now)
	}
}

// The path of a packet allocates nothing: relayed, transcoded, mixed, tapped or paced.
func TestPacketsAllocateNothing(t *testing.T) {
	for name, change := range map[string]func(*Params){
		"relayed":    pcmu,
		"transcoded": func(*Params) {},
		"mixed":      func(p *Params) { p.Ptime = 40 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			s, peer := deafPair(t, change)
			detach, err := s[1].Tap(new(deafEar))
			if err != nil {
				t.Fatal(err)
			}
			defer detach()
			if n := testing.AllocsPerRun(2000, relayOnce(s[1], peer)); n != 0 {
				t.Errorf("%v allocations a packet", n)
			}
			due := time.Now()
			if n := testing.AllocsPerRun(2000, func() {
				due = due.Add(tickEvery)
				s[0].tx.tick(due)
				s[0].bridge.Load().tick(due)
			}); n != 0 {
				t.Errorf("%v allocations a tick", n)
			}
		})
	}
}

// deafEar is a sink that does nothing.
type deafEar struct{}

func (deafEar) Write(call.Track, uint32, []byte) {}
func (deafEar) Gap(call.Track)                   {}
func (deafEar) Close()                           {}

// The benchmarks report the time beside the allocations.
func BenchmarkRelay(b *testing.B) {
	s, peer := deafPair(b)
	b.ReportAllocs()
	for once := relayOnce(s[1], peer); b.Loop(); {
		once()
	}
}

func BenchmarkPace(b *testing.B) {
	s, _ := deafPair(b)
	due := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		due = due.Add(tickEvery)
		s[0].tx.mu.Lock()
		s[0].tx.pace(fromSilence, due, nil)
		s[0].tx.mu.Unlock()
	}
}

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
	if _, ok := s.rtp.(*net.UDPConn); !ok {
		t.Error("no real socket")
	}
}
