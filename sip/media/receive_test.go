package media

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestDigits(t *testing.T) {
	type step struct {
		code        byte
		ts          uint32
		dur         uint16
		end, marker bool
		after       time.Duration
		info        byte // a key by INFO instead
	}
	press := func(code byte, ts uint32) []step { // as a good phone does it
		return []step{{code: code, ts: ts, dur: 160, marker: true}, {code: code, ts: ts, dur: 320}, {code: code, ts: ts, dur: 480},
			{code: code, ts: ts, dur: 640, end: true}, {code: code, ts: ts, dur: 640, end: true}, {code: code, ts: ts, dur: 640, end: true}}
	}
	for _, c := range []struct {
		name  string
		steps []step
		want  string
	}{
		{"whole", append(press(1, 1000), press(1, 3000)...), "11"},
		{"all ends lost", append(press(1, 1000)[:3], press(2, 3000)[:3]...), "12"},
		{"only ends", append(press(1, 1000)[3:], press(1, 3000)[3:]...), "11"},
		{"one end alone", press(5, 1000)[5:], "5"},
		{"one middle alone", press(5, 1000)[1:2], "5"},
		{"no marker", append(press(1, 1000)[1:], press(1, 3000)[1:]...), "11"},
		{"same key, ends and markers lost", []step{{code: 7, ts: 1000, dur: 640}, {code: 7, ts: 2600, dur: 160}}, "77"},
		{"each packet twice", slices.Concat(press(9, 1000), press(9, 1000)), "9"},
		{"an end of the last key after the next began", []step{{code: 1, ts: 1000, dur: 640}, {code: 2, ts: 3000, dur: 160, marker: true},
			{code: 1, ts: 1000, dur: 640, end: true}, {code: 2, ts: 3000, dur: 320}}, "12"},
		{"a long press in segments", []step{{code: 3, ts: 0, dur: 65535}, {code: 3, ts: 65535, dur: 160}, {code: 3, ts: 65535, dur: 320, end: true}}, "3"},
		{"a timestamp that moves with each packet", []step{{code: 4, ts: 160, dur: 160, marker: true}, {code: 4, ts: 320, dur: 320}, {code: 4, ts: 480, dur: 480, end: true}}, "4"},
		{"flash is no key", []step{{code: 16, ts: 1000, dur: 640, end: true}}, ""},
		{"stars", []step{{code: 10, ts: 1000, end: true}, {code: 11, ts: 2000, end: true}, {code: 15, ts: 3000, end: true}}, "*#D"},
		{"a clock set back after a pause", []step{{code: 1, ts: 90000, dur: 640, end: true}, {code: 1, ts: 1000, dur: 160, marker: true, after: 2 * time.Second}}, "11"},
		{"rfc4733, then INFO", append(press(6, 1000), step{info: '6', after: 300 * time.Millisecond}), "6"},
		{"INFO, then rfc4733", append([]step{{info: '6'}}, press(6, 1000)...), "6"},
		{"both ways, twice", slices.Concat(press(6, 1000), press(6, 3000), []step{{info: '6'}, {info: '6'}}), "66"},
		{"INFO alone, twice", []step{{info: '6'}, {info: '6'}}, "66"},
		{"another key by INFO", append(press(6, 1000), step{info: '7'}), "67"},
		{"INFO much later is a key of its own", append(press(6, 1000), step{info: '6', after: 3 * time.Second}), "66"},
		{"INFO at the end of a long press", []step{{code: 6, ts: 0, dur: 160}, {code: 6, ts: 0, dur: 7000, after: 900 * time.Millisecond},
			{code: 6, ts: 0, dur: 15000, end: true, after: 900 * time.Millisecond}, {info: '6', after: 50 * time.Millisecond}}, "6"},
		{"INFO that is no key", []step{{info: 'x'}, {info: '!'}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
				s := session(t, e, SessionOptions{ID: "a"})
				p := n.phone(t).join(s)
				var got strings.Builder
				s.OnDigit(func(d call.Digit) { got.WriteByte(d.Key) })
				for _, st := range c.steps {
					time.Sleep(st.after)
					if st.info != 0 {
						s.InfoDigit(st.info)
					} else {
						p.key(st.code, st.ts, st.dur, st.end, st.marker)
					}
					synctest.Wait()
				}
				if got.String() != c.want {
					t.Errorf("heard %q, want %q", got.String(), c.want)
				}
			})
		})
	}
}

func TestLatching(t *testing.T) {
	inside := func(a netip.Addr) bool { return a == loopback }
	never := func(netip.Addr) bool { return false }
	for _, c := range []struct {
		name    string
		allowed func(netip.Addr) bool
		act     func(s *Session, described, other, third *phone)
		target  int // which phone hears us at the end: 0, 1 or 2
		heard   uint64
	}{
		{"the described address", inside, func(_ *Session, d, o, _ *phone) { d.say([]byte{1}) }, 0, 1},
		{"moves after three", inside, func(_ *Session, d, o, _ *phone) {
			for range 5 {
				o.say([]byte{1})
			}
		}, 1, 3},
		{"two are not enough", inside, func(_ *Session, d, o, _ *phone) { o.say(nil); o.say(nil) }, 0, 0},
		{"a foreign source", never, func(_ *Session, d, o, _ *phone) {
			for range 9 {
				o.say([]byte{1})
			}
		}, 0, 0},
		{"no one is allowed", nil, func(_ *Session, d, o, _ *phone) {
			for range 9 {
				o.say([]byte{1})
			}
		}, 0, 0},
		{"no second move", inside, func(_ *Session, d, o, th *phone) {
			for range 3 {
				o.say([]byte{1})
			}
			for range 9 {
				th.say([]byte{1})
			}
		}, 1, 1},
		{"not after two seconds", inside, func(_ *Session, d, o, _ *phone) {
			time.Sleep(latchWindow + time.Millisecond)
			for range 9 {
				o.say([]byte{1})
			}
		}, 0, 0},
		{"out of order", inside, func(_ *Session, d, o, _ *phone) {
			for range 9 {
				o.h.seq -= 2
				o.say([]byte{1})
			}
		}, 0, 0},
		{"many sources", inside, func(_ *Session, d, o, _ *phone) {
			for range 9 {
				o.h.ssrc++
				o.say([]byte{1})
			}
		}, 0, 0},
		{"another payload type", inside, func(_ *Session, d, o, _ *phone) {
			o.h.pt = 18
			for range 9 {
				o.say([]byte{1})
			}
		}, 0, 0},
		{"a new answer opens it again", inside, func(s *Session, d, o, th *phone) {
			for range 3 {
				o.say([]byte{1})
			}
			synctest.Wait()
			time.Sleep(time.Minute)
			d.join(s)
			for range 3 {
				th.say([]byte{1})
			}
		}, 2, 2},
		{"a new answer with the old description keeps what was learnt", inside, func(s *Session, d, o, th *phone) {
			for range 3 {
				o.say([]byte{1})
			}
			synctest.Wait()
			d.join(s)
		}, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
				s := session(t, e, SessionOptions{ID: "a"})
				phones := []*phone{n.phone(t), n.phone(t), n.phone(t)}
				phones[1].to = net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, uint16(s.LocalPort())))
				phones[2].to = phones[1].to
				phones[0].join(s, func(p *Params) { p.Allowed = c.allowed })
				c.act(s, phones[0], phones[1], phones[2])
				synctest.Wait()
				for _, p := range phones {
					p.take()
				}
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
				for i, p := range phones {
					if got := len(p.take()) > 0; got != (i == c.target) {
						t.Errorf("phone %d hears us: %v", i, got)
					}
				}
				if got := s.Stats().Received; got != c.heard {
					t.Errorf("%d packets were taken, want %d", got, c.heard)
				}
			})
		})
	}
}

func TestMediaTimeout(t *testing.T) {
	for _, c := range []struct {
		name string
		act  func(s *Session, p *phone)
		want time.Duration // after the first answer; 0: never
	}{
		{"never a packet", func(*Session, *phone) {}, 30 * time.Second},
		{"fell silent", func(_ *Session, p *phone) { p.say([]byte{1}) }, 15 * time.Second},
		{"on hold", func(s *Session, p *phone) { p.join(s, func(p *Params) { p.Recv = false }) }, 0},
		{"after a hold", func(s *Session, p *phone) {
			p.say([]byte{1})
			p.join(s, func(p *Params) { p.Recv = false })
			time.Sleep(40 * time.Second)
			p.join(s)
		}, 70 * time.Second},
		{"muted, but alive by RTCP", func(s *Session, p *phone) {
			p.say([]byte{1})
			raw, _ := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1}})
			for range 4 {
				time.Sleep(5 * time.Second)
				_, _ = p.conn.WriteTo(raw, p.to)
			}
		}, 35 * time.Second},
		{"muted over a new answer", func(s *Session, p *phone) {
			p.say([]byte{1})
			time.Sleep(5 * time.Second)
			p.join(s)
			raw, _ := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1}})
			for range 8 {
				time.Sleep(5 * time.Second)
				_, _ = p.conn.WriteTo(raw, p.to)
			}
		}, 60 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
				s := session(t, e, SessionOptions{ID: "a"})
				begun := time.Now()
				var fired []time.Duration
				s.OnTimeout(func() { fired = append(fired, time.Since(begun).Round(time.Second)) })
				p := n.phone(t).join(s)
				c.act(s, p)
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				var want []time.Duration
				if c.want > 0 {
					want = []time.Duration{c.want}
				}
				if d := cmp.Diff(want, fired); d != "" {
					t.Error(d)
				}
			})
		})
	}
}

func TestStatsAndReports(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		s := session(t, e, SessionOptions{ID: "a"})
		p := n.phone(t)
		c, err := n.listen(t.Context(), netip.AddrPortFrom(loopback, p.addr.Port()+1))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		p.join(s)
		for i := range 100 { // every tenth is lost, every odd one 4 ms late
			if i%2 == 1 {
				time.Sleep(4 * time.Millisecond)
			}
			if i%10 == 5 {
				p.h.seq++
				p.h.ts += frame
			} else {
				p.say(tone(aLaw, 440, 0, frame))
			}
			time.Sleep(20*time.Millisecond - time.Duration(i%2)*4*time.Millisecond)
		}
		time.Sleep(4 * time.Second)
		buf := make([]byte, maxPacket)
		k, from, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		packets, err := rtcp.Unmarshal(buf[:k])
		if err != nil {
			t.Fatal(err)
		}
		sr, ok := packets[0].(*rtcp.SenderReport)
		if !ok || len(sr.Reports) != 1 {
			t.Fatalf("no sender report: %v", packets)
		}
		r := sr.Reports[0]
		if r.TotalLost != 10 || r.FractionLost < 24 || r.FractionLost > 28 || r.SSRC != p.h.ssrc || r.Jitter == 0 {
			t.Errorf("the block says %+v", r)
		}
		if sr.PacketCount == 0 || sr.OctetCount != 160*sr.PacketCount {
			t.Errorf("the report says %+v", sr)
		}
		time.Sleep(50 * time.Millisecond) // the way back takes 50 ms in all, 30 of them in the phone
		raw, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: p.h.ssrc, Reports: []rtcp.ReceptionReport{{
			SSRC: sr.SSRC, TotalLost: 7, Jitter: 80, LastSenderReport: uint32(sr.NTPTime >> 16), Delay: 65536 * 30 / 1000}}},
			&rtcp.Goodbye{Sources: []uint32{p.h.ssrc}}})
		if err != nil {
			t.Fatal(err)
		}
		sent := time.Now()
		_, _ = c.WriteTo(raw, from)
		synctest.Wait()
		st := s.Stats()
		trip := sent.Sub(ntpToTime(sr.NTPTime)) - 30*time.Millisecond
		if st.Received != 90 || st.Lost != 10 || st.RemoteLost != 7 || st.RemoteJitter != 10*time.Millisecond {
			t.Errorf("stats %+v", st)
		}
		if st.Jitter < time.Millisecond || st.Jitter > 6*time.Millisecond {
			t.Errorf("jitter %s, sent with 4 ms", st.Jitter)
		}
		if d := st.RoundTrip - trip; d > time.Millisecond || d < -time.Millisecond {
			t.Errorf("round trip %s, want %s", st.RoundTrip, trip)
		}
		if s.isClosed() {
			t.Error("an RTCP BYE ended the session")
		}
		s.Close()
		for bye := false; !bye; { // ours comes last
			if k, _, err = c.ReadFrom(buf); err != nil {
				t.Fatal(err)
			}
			packets, _ = rtcp.Unmarshal(buf[:k])
			_, bye = packets[len(packets)-1].(*rtcp.Goodbye)
		}
	})
}

// Reports go where the description says, until the peer's own come from elsewhere on its host.
func TestWhereReportsGo(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		s := session(t, e, SessionOptions{ID: "a"})
		p := n.phone(t)
		var at [2]net.PacketConn
		for i := range at {
			c, err := n.listen(t.Context(), netip.AddrPortFrom(loopback, uint16(41001+i)))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			at[i] = c
		}
		p.join(s, func(p *Params) { p.RTCP = netip.AddrPortFrom(loopback, 41001) })
		buf := make([]byte, maxPacket)
		_, from, err := at[0].ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1}})
		_, _ = at[1].WriteTo(raw, from)
		if _, _, err := at[1].ReadFrom(buf); err != nil {
			t.Fatal(err)
		}
	})
}

func ntpToTime(n uint64) time.Time {
	return time.Unix(int64(n>>32)-ntpEpoch, int64((n&0xFFFFFFFF)*1e9>>32))
}

func TestRTCPMux(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		s := session(t, e, SessionOptions{ID: "a"})
		c, err := n.listen(t.Context(), netip.AddrPortFrom(loopback, 0))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		addr := c.LocalAddr().(*net.UDPAddr).AddrPort()
		if err := s.Remote(Params{Addr: addr, Mux: true, Codec: call.PCMU, Send: true, Recv: true}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, maxPacket)
		for {
			k, from, err := c.ReadFrom(buf)
			if err != nil {
				t.Fatal(err)
			}
			if isRTCP(buf[:k]) {
				if from.(*net.UDPAddr).Port != s.LocalPort() {
					t.Errorf("a report from %s", from)
				}
				return
			}
		}
	})
}

// What is not the peer's, or no RTP, is dropped and counted.
func TestDrops(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		s := session(t, e, SessionOptions{ID: "a"})
		p, other := n.phone(t), n.phone(t)
		p.join(s)
		other.to = p.to
		_, _ = p.conn.WriteTo([]byte("INVITE sip:x SIP/2.0\r\n"), p.to)
		_, _ = p.conn.WriteTo([]byte{0x80, 200, 0, 9, 0, 0, 0, 1}, p.to)
		time.Sleep(3 * time.Second)
		other.say([]byte{1})
		p.h.pt = 18
		p.say([]byte{1})
		p.h.pt = comfortNoise
		p.say([]byte{1})
		p.h.pt = 8
		synctest.Wait()
		p.join(s, func(p *Params) { p.Recv = false })
		p.say([]byte{1})
		synctest.Wait()
		for why, want := range map[dropReason]float64{dropMalformed: 2, dropSource: 1, dropPayload: 1, dropHold: 1, dropLate: 0} {
			if got := testutil.ToFloat64(e.metrics.dropped[why]); got != want {
				t.Errorf("%s: %v, want %v", why, got, want)
			}
		}
	})
}

func FuzzReceive(f *testing.F) {
	good, _ := (&rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 8, SequenceNumber: 7, SSRC: 9}, Payload: make([]byte, 160)}).Marshal()
	f.Add(good)
	event, _ := (&rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 101, Marker: true, SSRC: 9}, Payload: []byte{5, 0x8A, 2, 0x80}}).Marshal()
	f.Add(event)
	f.Add([]byte{0x90, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 0xBE, 0xDE, 0, 1, 0x10, 0xFF, 0, 0, 1, 2, 3})
	f.Add([]byte{0xA2, 8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 2})
	report, _ := rtcp.Marshal([]rtcp.Packet{&rtcp.SenderReport{SSRC: 9}, &rtcp.ReceiverReport{SSRC: 9, Reports: []rtcp.ReceptionReport{{SSRC: 1}}}, &rtcp.Goodbye{}})
	f.Add(report)
	n := newMemNet()
	e := run(f, testConfig(), Deps{Listen: n.listen})
	from := netip.AddrPortFrom(loopback, 9)
	var legs [3]*Session
	for i := range legs {
		legs[i] = session(f, e, SessionOptions{ID: "fuzz", RelayDTMF: true})
		if err := legs[i].Remote(Params{Addr: from, Codec: call.PCMU, PayloadType: 0, DTMFType: 97, RecvDTMFType: 101, Send: true, Recv: true}); err != nil {
			f.Fatal(err)
		}
	}
	b := e.NewBridge("fuzz")
	f.Cleanup(b.Close)
	_ = b.Add(legs[0], call.Member{Role: call.Talk})
	_ = b.Add(legs[1], call.Member{Role: call.Talk})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > maxPacket {
			return
		}
		h, ok := parseHeader(raw)
		var oracle rtp.Packet
		err := oracle.Unmarshal(bytes.Clone(raw))
		if ok && err == nil && (h.ssrc != oracle.SSRC || h.seq != oracle.SequenceNumber || h.ts != oracle.Timestamp ||
			h.pt != oracle.PayloadType || h.marker != oracle.Marker || !bytes.Equal(raw[h.payload:h.payload+h.size], oracle.Payload)) {
			t.Errorf("%+v, but pion reads %s", h, oracle.String())
		}
		if !ok && err == nil && oracle.Version == 2 {
			t.Errorf("refused what pion reads: %s", oracle.String())
		}
		now := time.Now()
		legs[0].receive(bytes.Clone(raw), from, now, nil)
		legs[0].receiveRTCP(bytes.Clone(raw), from, now)
		_ = b.Add(legs[2], call.Member{Role: call.Talk}) // the same, mixed
		legs[0].receive(bytes.Clone(raw), from, now, nil)
		b.tick(now, nil)
		b.Remove(legs[2])
	})
}
