package media

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/pion/rtcp"
)

// reportEvery is the time between reports (RFC 3550 section 6.2: 5 s is the least, and right for two).
const reportEvery = 5 * time.Second

// ntpEpoch is how far NTP's clock is ahead of Unix's (RFC 3550 section 4).
const ntpEpoch = 2208988800

// reporting is what a leg knows of reports.
type reporting struct {
	mu        sync.Mutex
	described netip.AddrPort // the peer's RTCP address; zero: the port above its RTP
	seen      netip.AddrPort // where its RTCP comes from (RFC 4961)
	mux       bool
	next      time.Time // of our next report

	lastSR   uint32    // the middle of the peer's last NTP time
	lastSRAt time.Time // when that came

	remoteLost   uint64
	remoteJitter time.Duration
	roundTrip    time.Duration
}

func (r *reporting) remote(p *Params) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.described, r.mux, r.seen = p.RTCP, p.Mux, netip.AddrPort{}
}

func (r *reporting) addStats(st *call.MediaStats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.RemoteLost, st.RemoteJitter, st.RoundTrip = r.remoteLost, r.remoteJitter, r.roundTrip
}

// target is where reports go, given where RTP goes.
func (r *reporting) target(rtp netip.AddrPort) netip.AddrPort {
	switch {
	case r.mux:
		return rtp
	case r.seen.IsValid() && r.seen.Addr() == rtp.Addr():
		return r.seen
	case r.described.IsValid() && r.described.Addr() == rtp.Addr():
		return r.described
	default:
		return netip.AddrPortFrom(rtp.Addr(), rtp.Port()+1) // RFC 3550 section 11
	}
}

// due tells, every five seconds, that a report is to be sent.
func (r *reporting) due(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next.IsZero() {
		r.next = now.Add(reportEvery)
	}
	if now.Before(r.next) {
		return false
	}
	r.next = now.Add(reportEvery)
	return true
}

// report sends a report when one is due.
func (s *Session) report(now time.Time) {
	if s.reports.due(now) {
		s.sendRTCP(now)
	}
}

// bye takes leave of the peer (RFC 3550 section 6.6).
func (s *Session) bye() {
	s.sendRTCP(time.Now(), &rtcp.Goodbye{Sources: []uint32{s.tx.ssrc}})
}

// sendRTCP sends a compound packet: a report, the source's name, and what else is given.
func (s *Session) sendRTCP(now time.Time, more ...rtcp.Packet) {
	dst, ok := s.tx.target()
	if !ok {
		return
	}
	var blocks []rtcp.ReceptionReport
	s.reports.mu.Lock()
	dst = s.reports.target(dst)
	if b, ok := s.rx.block(); ok {
		if b.LastSenderReport = s.reports.lastSR; b.LastSenderReport != 0 {
			b.Delay = uint32(now.Sub(s.reports.lastSRAt).Seconds() * 65536)
		}
		blocks = append(blocks, b)
	}
	out := s.rtcp
	if s.reports.mux {
		out = s.rtp
	}
	s.reports.mu.Unlock()
	name := &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
		Source: s.tx.ssrc,
		Items:  []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: "hotline"}},
	}}}
	raw, err := rtcp.Marshal(append([]rtcp.Packet{s.tx.senderReport(now, blocks), name}, more...))
	if err == nil {
		_, err = out.WriteToUDPAddrPort(raw, dst)
	}
	if err != nil {
		s.e.metrics.sendErrors.Inc()
	}
}

// senderReport is a sender report, or a receiver report while nothing was sent.
func (t *sender) senderReport(now time.Time, blocks []rtcp.ReceptionReport) rtcp.Packet {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sent == 0 {
		return &rtcp.ReceiverReport{SSRC: t.ssrc, Reports: blocks}
	}
	return &rtcp.SenderReport{
		SSRC:        t.ssrc,
		NTPTime:     ntpTime(now),
		RTPTime:     t.next - samples(max(t.nextAt.Sub(now), 0)) + samples(max(now.Sub(t.nextAt), 0)),
		PacketCount: uint32(t.sent),
		OctetCount:  uint32(t.octets),
		Reports:     blocks,
	}
}

// block is what we tell the peer of its stream.
func (r *receiver) block() (rtcp.ReceptionReport, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.src.begun {
		return rtcp.ReceptionReport{}, false
	}
	return rtcp.ReceptionReport{
		SSRC:               r.src.ssrc,
		FractionLost:       r.src.fraction(),
		TotalLost:          uint32(min(r.src.lost(), 1<<23-1)),
		LastSequenceNumber: r.src.top,
		Jitter:             uint32(r.src.jitter),
	}, true
}

// receiveRTCP takes a compound packet from the peer: its host must be the one that RTP is locked to.
func (s *Session) receiveRTCP(pkt []byte, from netip.AddrPort, now time.Time) {
	if !s.rx.signOfLife(from, now) {
		s.drop(dropSource)
		return
	}
	packets, err := rtcp.Unmarshal(pkt)
	if err != nil {
		s.drop(dropMalformed)
		return
	}
	r := &s.reports
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.mux {
		r.seen = from
	}
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.SenderReport:
			r.lastSR, r.lastSRAt = uint32(p.NTPTime>>16), now
			r.blocks(p.Reports, s.tx.ssrc, now)
		case *rtcp.ReceiverReport:
			r.blocks(p.Reports, s.tx.ssrc, now)
		}
	}
}

// blocks reads what the peer says of our stream.
func (r *reporting) blocks(reports []rtcp.ReceptionReport, ours uint32, now time.Time) {
	for _, b := range reports {
		if b.SSRC != ours {
			continue
		}
		r.remoteLost = uint64(b.TotalLost)
		r.remoteJitter = duration(b.Jitter)
		if b.LastSenderReport == 0 {
			continue
		}
		// RFC 3550 section 6.4.1: in units of 1/65536 s, with wrap-around.
		trip := uint32(ntpTime(now)>>16) - b.LastSenderReport - b.Delay
		if trip < 1<<31 {
			r.roundTrip = time.Duration(trip) * time.Second / 65536
		}
	}
}

// signOfLife takes note of RTCP from the locked peer.
func (r *receiver) signOfLife(from netip.AddrPort, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used = true
	if !r.known || from.Addr() != r.latch.locked.Addr() {
		return false
	}
	if !r.last.IsZero() { // before any RTP the initial time-out stands: RTCP alone is no call
		r.alive = now
	}
	return true
}

func ntpTime(t time.Time) uint64 {
	return uint64(t.Unix()+ntpEpoch)<<32 | uint64(t.Nanosecond())<<32/1e9
}
