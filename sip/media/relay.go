package media

import (
	"encoding/binary"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// route is where a leg's sound goes from its reader: to the other leg of two, or into a mix.
type route struct {
	to  *Session
	mix *jitter
}

// A jump of the sequence, or of a timestamp beyond what the sequence explains, of more than this is
// a new beginning.
const (
	resyncPackets = 100
	resyncSamples = 2 * call.Rate
)

// viaate maps another leg's numbers to ours. While in step the offsets stand, so loss, order and
// pauses of the source stay visible to the receiver.
type viaate struct {
	from   *Session // the only leg whose packets are taken
	inStep bool
	ssrc   uint32
	first  uint16 // the sequence number that the offsets begin at
	top    uint16 // the highest so far
	seq    uint16 // ours minus theirs
	ts     uint32 // ours minus theirs
}

// relay sends a packet of another leg on: its header is rewritten where it stands, right before the
// payload, and the payload goes through a table at most. pkt is the reader's own buffer. A packet
// that comes too late, or twice, is refused.
func (t *sender) relay(from *Session, pkt []byte, h header, l law, now time.Time, box *outbox) (ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.relays(from) || h.size == 0 || h.size > maxPayload {
		return true
	}
	out, ok := t.follow(h, now, false)
	if !ok {
		return false
	}
	body := pkt[h.payload : h.payload+h.size]
	if table := transcode(l, t.law); table != nil {
		for i, b := range body {
			body[i] = table[b]
		}
	} else {
		t.relayed++
	}
	out.pt = t.pt
	t.send(box, pkt[h.payload-headerBytes:h.payload+h.size], out)
	t.hear(out.ts, t.law, body)
	t.advance(out.ts+uint32(h.size), now.Add(duration(uint32(h.size))))
	return true
}

// relayEvent sends a telephone-event on under this peer's payload type, when the leg wants it.
func (t *sender) relayEvent(from *Session, pkt []byte, h header, now time.Time, box *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.relays(from) || h.size < eventBytes {
		return
	}
	if t.dtmf == 0 || !t.s.opts.RelayDTMF {
		t.via.inStep = false // what is left out must not look like loss
		return
	}
	out, ok := t.follow(h, now, true)
	if !ok {
		return
	}
	out.pt = t.dtmf
	held := binary.BigEndian.Uint16(pkt[h.payload+2:])
	t.send(box, pkt[h.payload-headerBytes:h.payload+h.size], out)
	t.advance(out.ts+uint32(held), now.Add(tickEvery))
}

// relays tells whether packets of from are wanted now; when they are not, the next that is begins
// anew.
func (t *sender) relays(from *Session) bool {
	if t.closed || t.feed != feedRelay || t.via.from != from {
		return false
	}
	if !t.on || t.busy() {
		t.via.inStep = false
		return false
	}
	return true
}

// follow maps a header of the source to the stream's own numbers. A telephone-event keeps the
// timestamp of its beginning (RFC 4733 section 2.1), however long it lasts.
func (t *sender) follow(h header, now time.Time, event bool) (out header, ok bool) {
	r := &t.via
	ahead, off := seqDistance(h.seq, r.top), distance(h.ts+r.ts, t.next)
	switch {
	case !r.inStep || t.last != fromRelay || h.ssrc != r.ssrc,
		ahead > resyncPackets || ahead < -resyncPackets,
		!event && (off > resyncSamples || off < -resyncSamples):
		t.catchUp(now)
		*r = viaate{from: r.from, inStep: true, ssrc: h.ssrc, first: h.seq, top: h.seq,
			seq: t.seq - h.seq, ts: t.next - h.ts}
		t.last, t.filled, t.begins = fromRelay, 0, false
		out.marker = true
	case ahead == 0 || seqDistance(h.seq, r.first) < 0:
		return out, false
	case ahead > 0:
		r.top = h.seq
	}
	out.marker = out.marker || h.marker
	out.seq, out.ts = h.seq+r.seq, h.ts+r.ts
	if seqDistance(out.seq, t.seq) >= 0 {
		t.seq = out.seq + 1
	}
	return out, true
}
