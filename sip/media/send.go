package media

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

const (
	frame = call.FrameBytes // 20 ms: the step of the wheels and of a mix
	// slack is how far the stream may lag behind the wall clock before its timestamp jumps, and how
	// long a relayed party may be silent before frames of silence stand in for it.
	slack = 60 * time.Millisecond
)

func samples(d time.Duration) uint32  { return uint32(d * call.Rate / time.Second) }
func duration(n uint32) time.Duration { return time.Duration(n) * time.Second / call.Rate }
func distance(a, b uint32) int32      { return int32(a - b) }
func seqDistance(a, b uint16) int16   { return int16(a - b) }

// feed is what a bridge gives a leg to hear.
type feed uint8

const (
	feedNone  feed = iota
	feedRelay      // another leg's packets
	feedMix        // the bridge's own frames
	feedHold       // hold music, or silence
)

// origin is what the last packet was made from; a change of it begins a talkspurt.
type origin uint8

const (
	fromNothing origin = iota
	fromSilence
	fromClip
	fromMix
	fromRelay
)

// sender is the outgoing stream of a leg: one source, one rising sequence, one clock, whatever
// feeds it.
type sender struct {
	s *Session

	mu     sync.Mutex
	closed bool
	dst    netip.AddrPort
	on     bool // the peer wants to hear us
	known  bool // Remote was called
	law    law
	pt     uint8
	dtmf   uint8 // 0: the peer takes no telephone-events
	size   int   // bytes a packet

	ssrc   uint32
	seq    uint16    // of the next packet
	next   uint32    // timestamp of the next sample
	nextAt time.Time // when that sample is due
	last   origin
	begins bool // the next packet is the first of a talkspurt (RFC 3551 section 4.1)

	pend   [headerBytes + maxPayload]byte // the packet that fills up
	filled int                            // its payload so far

	clip, hold *playback // hold is what a held leg of a bridge hears, beneath any clip
	event      *eventJob
	feed       feed
	via        viaate
	taps       []*tap

	sent, octets, relayed uint64
}

func (t *sender) start(s *Session) {
	t.s = s
	t.ssrc = rand.Uint32()
	t.seq = uint16(rand.Uint32N(1 << 15)) // RFC 3550 section 5.1: random, low to be kind to old SRTP
	t.next = rand.Uint32()
	t.nextAt = time.Now()
	t.size = frame
}

func (t *sender) remote(p *Params, dst netip.AddrPort, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.known {
		t.known, t.nextAt = true, now
	}
	t.dst = dst
	t.on = p.Send && usable(p.Addr)
	t.law, t.pt = lawOf(p.Codec), p.PayloadType
	t.dtmf = eventType(p.DTMFType)
	t.size, t.filled = int(samples(p.Ptime)), 0
}

// moveTo follows the peer to the address that its media comes from.
func (t *sender) moveTo(dst netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dst = dst
}

func (t *sender) target() (dst netip.AddrPort, on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dst, t.known && usable(t.dst)
}

func (t *sender) addStats(st *call.MediaStats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st.Sent, st.RelayedUndecoded = t.sent, t.relayed
}

// stop ends whatever plays.
func (t *sender) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.clip.finish(ErrClosed)
	t.event.finish(ErrClosed)
	t.clip, t.hold, t.event = nil, nil, nil
}

// setFeed sets what the leg hears from its bridge: nothing, the packets of another leg, or a mix.
func (t *sender) setFeed(f feed, from *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.feed != f || t.via.from != from {
		t.feed, t.hold, t.via = f, nil, viaate{from: from}
	}
}

// tick sends 20 ms of whatever has the word: a key, a clip, hold music, or silence. A relay and a
// mix send by themselves; silence stands in when they have nothing.
func (t *sender) tick(due time.Time, out *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || !t.known {
		return
	}
	if t.clip != nil && t.clip.ended() {
		t.clip.finish(nil) // its last frame has been heard by now
		t.clip = nil
	}
	switch {
	case t.event != nil:
		t.sendEvent(due, out)
	case t.clip != nil:
		t.speak(t.clip, due, out)
	case t.hold != nil:
		t.speak(t.hold, due, out)
	case t.fed(due):
	case t.s.e.cfg.ComfortSilence:
		t.pace(fromSilence, due, nil, out)
	}
}

// fed tells that a relay or a mix sends by itself. Silence that stands in for it goes on without a
// hole until it does.
func (t *sender) fed(due time.Time) bool {
	return (t.feed == feedRelay || t.feed == feedMix) && t.last != fromSilence && due.Sub(t.nextAt) <= slack
}

// busy says that something stands above what a bridge sends.
func (t *sender) busy() bool { return t.event != nil || t.clip != nil || t.hold != nil }

// mixed sends a frame of a mix. It may be called with the frame in linear form only.
func (t *sender) mixed(pcm *[frame]int32, due time.Time, out *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.busy() || t.feed != feedMix {
		return
	}
	var b [frame]byte
	t.law.encode(b[:], pcm[:])
	t.pace(fromMix, due, b[:], out)
}

// pace appends 20 ms to the packet that fills up and sends it when it is full: so the packet time
// of the peer is met by any source. No payload is silence.
func (t *sender) pace(from origin, due time.Time, payload []byte, out *outbox) {
	if !t.on {
		t.filled = 0
		return
	}
	jumped := t.catchUp(due.Add(-duration(uint32(t.filled))))
	if jumped {
		t.filled = 0
	}
	if from != fromSilence && (jumped || from != t.last) {
		t.begins = true
	}
	t.last = from
	for rest := frame; rest > 0; {
		room := t.pend[headerBytes+t.filled : headerBytes+t.size]
		n := min(rest, len(room))
		if payload == nil {
			fill(room[:n], t.law.silence())
		} else {
			copy(room[:n], payload[frame-rest:])
		}
		rest -= n
		if t.filled += n; t.filled == t.size {
			t.send(out, t.pend[:headerBytes+t.size], header{marker: t.begins, pt: t.pt, seq: t.seq, ts: t.next})
			t.hear(t.next, t.law, t.pend[headerBytes:headerBytes+t.size])
			t.advance(t.next+uint32(t.size), t.nextAt.Add(duration(uint32(t.size))))
			t.seq++
			t.filled, t.begins = 0, false
		}
	}
}

// catchUp lets the clock of the stream jump to the wall clock when nothing was sent for a while
// (RFC 3550 section 5.1: the timestamp counts the pause, the sequence does not). A stream that runs
// ahead, because its relayed source did, keeps its timestamps and only forgets the lead.
func (t *sender) catchUp(at time.Time) (jumped bool) {
	switch late := at.Sub(t.nextAt); {
	case late > slack:
		t.next += samples(late)
		t.nextAt = at
		return true
	case late < -2*slack:
		t.nextAt = at
	}
	return false
}

// advance moves the clock to the sample after a packet; it never turns it back.
func (t *sender) advance(next uint32, at time.Time) {
	if distance(next, t.next) > 0 {
		t.next = next
	}
	t.nextAt = at
}

// send writes one packet, its header first: with the others of its turn where they are gathered, else at once.
func (t *sender) send(out *outbox, pkt []byte, h header) {
	h.ssrc = t.ssrc
	h.put(pkt)
	if !out.put(t.s.rtp, pkt, t.dst) {
		if _, err := t.s.rtp.WriteToUDPAddrPort(pkt, t.dst); err != nil {
			t.s.e.metrics.sendErrors.Inc()
			return
		}
	}
	t.sent++
	t.octets += uint64(len(pkt) - headerBytes)
}

// hear gives what the party hears to the taps.
func (t *sender) hear(ts uint32, l law, payload []byte) {
	for _, p := range t.taps {
		p.push(call.TrackOut, ts, l, payload, false)
	}
}

func fill[T any](b []T, v T) {
	for i := range b {
		b[i] = v
	}
}
