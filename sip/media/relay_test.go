package media

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/pion/rtp"
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
		s.receive(pkt, peer, now, nil)
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
				s[0].tx.tick(due, nil)
				s[0].bridge.Load().tick(due, nil)
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
		s[0].tx.pace(fromSilence, due, nil, nil)
		s[0].tx.mu.Unlock()
	}
}

// A header extension, contributing sources and padding are the source's own affair: what goes on is
// plain.
func TestRelayIsPlain(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		b, s, p := memLegs(t, e, n, 2)
		join(t, b, s[0], call.Talk, false)
		join(t, b, s[1], call.Talk, false)
		body := tone(aLaw, 440, 0, frame)
		raw, err := (&rtp.Packet{
			Header: rtp.Header{Version: 2, PayloadType: 8, SSRC: 7, CSRC: []uint32{1, 2}, Padding: true, PaddingSize: 4,
				Extension: true, ExtensionProfile: rtp.ExtensionProfileOneByte,
				Extensions: []rtp.Extension{}},
			Payload: body,
		}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = p[0].conn.WriteTo(raw, p[0].to)
		synctest.Wait()
		got := said(p[1].take(), aLaw)
		if len(got) != 1 || got[0].payload != headerBytes || !bytes.Equal(got[0].body, body) {
			t.Errorf("relayed %v", got)
		}
		for _, bad := range [][]byte{raw[:11], raw[:30], append(bytes.Clone(raw[:len(raw)-1]), 0), append(bytes.Clone(raw[:len(raw)-1]), 255)} {
			if _, ok := parseHeader(bad); ok {
				t.Errorf("%d bytes were taken for a packet: %x", len(bad), bad[:min(len(bad), 32)])
			}
		}
	})
}
