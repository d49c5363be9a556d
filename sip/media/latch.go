package media

import (
	"net/netip"
	"time"
)

const (
	latchWindow  = 2 * time.Second // after an (re)answer
	latchPackets = 3
)

// latch decides whose packets are the peer's. The described address is believed; within two seconds
// of an answer the leg may move once, to an allowed source that sent three packets of one SSRC in
// order. From then on it stays: whoever learns the port later cannot take the call over.
type latch struct {
	described netip.AddrPort
	locked    netip.AddrPort
	allowed   func(netip.Addr) bool
	until     time.Time // when the window closes
	moved     bool
	rival     rival
}

// rival is a source that may become the peer.
type rival struct {
	from netip.AddrPort
	ssrc uint32
	seq  uint16
	n    int
}

// open begins a window and returns the address to send to: the described one, or the one that was
// learnt behind that same description. A description without an address (a hold) changes neither.
func (l *latch) open(described netip.AddrPort, allowed func(netip.Addr) bool, now time.Time) netip.AddrPort {
	if usable(described) && described != l.described {
		l.described, l.locked = described, described
	}
	l.allowed = allowed
	l.until, l.moved, l.rival = now.Add(latchWindow), false, rival{}
	return l.locked
}

// accept tells whether a packet is the peer's, and whether it made the leg move.
func (l *latch) accept(from netip.AddrPort, h header, negotiated bool, now time.Time) (ok, moved bool) {
	if from == l.locked {
		return true, false
	}
	if l.moved || now.After(l.until) || !negotiated || l.allowed == nil || !l.allowed(from.Addr()) {
		return false, false
	}
	r := &l.rival
	if from == r.from && h.ssrc == r.ssrc && seqDistance(h.seq, r.seq) > 0 {
		r.seq = h.seq
		r.n++
	} else {
		*r = rival{from: from, ssrc: h.ssrc, seq: h.seq, n: 1}
	}
	if r.n < latchPackets {
		return false, false
	}
	l.locked, l.moved = from, true
	return true, true
}
