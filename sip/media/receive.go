package media

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// maxReadErrors is how many failed reads in a row end a reader.
const maxReadErrors = 100

// comfortNoise is the static payload type of RFC 3389.
const comfortNoise = 13

// kind is what an arriving packet is.
type kind uint8

const (
	kindNothing kind = iota // to be counted and no more
	kindAudio
	kindEvent
)

// receiver is the incoming side of a leg.
type receiver struct {
	mu       sync.Mutex
	known    bool
	recv     bool
	law      law
	pt       uint8
	events   [2]uint8 // telephone-event types, 0: none
	latch    latch
	src      source
	past     totals // of sources before src
	gap      bool   // the clock of the track begins anew
	taps     []*tap
	answered time.Time // the last (re)answer
	last     time.Time // the last RTP packet
	alive    time.Time // the last sign of life since answered; zero: none
	used     bool      // any packet ever
	timedOut bool
}

// remote takes the new parameters and returns where to send.
func (r *receiver) remote(p *Params, now time.Time) netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known, r.recv = true, p.Recv
	r.law, r.pt = lawOf(p.Codec), p.PayloadType
	r.events = [2]uint8{eventType(p.RecvDTMFType), eventType(p.DTMFType)}
	r.answered, r.alive = now, time.Time{}
	r.gap = true // a pause may have stopped the peer's clock
	return r.latch.open(p.Addr, p.Allowed, now)
}

// silentTooLong tells, once, that the peer has sent nothing for too long.
func (r *receiver) silentTooLong(now time.Time, cfg *Config) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known || !r.recv || r.timedOut {
		return false
	}
	since, limit := r.alive, cfg.Timeout
	if since.IsZero() {
		since, limit = r.answered, cfg.InitialTimeout
	}
	r.timedOut = limit > 0 && now.Sub(since) >= limit
	return r.timedOut
}

func (r *receiver) heardAny() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used
}

func (r *receiver) stats() call.MediaStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return call.MediaStats{
		Received:   r.past.received + r.src.received,
		Lost:       r.past.lost + r.src.lost(),
		Jitter:     r.src.jitterTime(),
		LastPacket: r.last,
	}
}

// judge decides on a packet: who sent it, what it is, and what it tells of the stream. moved is the
// new source when the leg latched to it.
func (r *receiver) judge(pkt []byte, h header, from netip.AddrPort, now time.Time) (k kind, l law, moved bool, why dropReason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used = true
	k, l, negotiated := r.classify(h)
	ok, moved := r.latch.accept(from, h, negotiated, now)
	switch {
	case !r.known || !ok:
		return kindNothing, l, false, dropSource
	case !negotiated:
		return kindNothing, l, moved, dropPayload
	}
	r.last, r.alive = now, now
	r.count(h, k, now)
	if k == kindAudio && !r.recv {
		return kindNothing, l, moved, dropHold
	}
	if k == kindAudio {
		for _, p := range r.taps {
			p.push(call.TrackIn, h.ts, l, pkt[h.payload:h.payload+h.size], r.gap)
		}
		r.gap = false
	}
	return k, l, moved, ""
}

// classify names a packet by its payload type. Both laws are understood under their static types
// whatever was agreed, since some carriers change between them without asking.
func (r *receiver) classify(h header) (k kind, l law, negotiated bool) {
	switch {
	case h.pt == r.pt:
		return kindAudio, r.law, true
	case h.pt != 0 && (h.pt == r.events[0] || h.pt == r.events[1]):
		return kindEvent, r.law, true
	case h.pt == 8:
		return kindAudio, aLaw, true
	case h.pt == 0:
		return kindAudio, uLaw, true
	case h.pt == comfortNoise:
		return kindNothing, r.law, true
	default:
		return kindNothing, r.law, false
	}
}

// count keeps the statistics of the source, and begins anew with a new one.
func (r *receiver) count(h header, k kind, now time.Time) {
	if !r.src.takes(h) {
		r.past.received += r.src.received
		r.past.lost += r.src.lost()
		r.src = newSource(h, r.src.jitter)
		r.gap = true
	}
	r.src.update(h, k == kindAudio, now)
}

// listen begins to read both ports; the engine's lock is held.
func (s *Session) listen() {
	s.hear(s.rtp, s.receive)
	s.hear(s.rtcp, func(pkt []byte, from netip.AddrPort, now time.Time, _ *outbox) { s.receiveRTCP(pkt, from, now) })
}

func (s *Session) hear(from socket, take takePacket) {
	u, ok := from.(*udpSocket)
	if !ok {
		s.readers.Go(func() {
			defer s.e.caught(s.opts.ID, "RTP reader")
			s.read(from, take)
		})
		return
	}
	x, err := s.e.watchers[s.e.next%len(s.e.watchers)].add(s, u, take)
	if err != nil {
		s.log.Error("a media port cannot be read", "err", err)
		return
	}
	s.watched = append(s.watched, x)
}

func (s *Session) read(from socket, take takePacket) {
	buf := make([]byte, maxPacket)
	for failed := 0; failed < maxReadErrors; {
		n, src, err := from.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil:
			failed = 0
			take(buf[:n], unmap(src), time.Now(), nil)
		case errors.Is(err, net.ErrClosed), s.isClosed():
			return
		default:
			failed++
		}
	}
	s.log.Warn("media reader stopped after too many failed reads", "port", s.port)
}

// receive takes one packet from the RTP port. pkt is overwritten by what is relayed.
func (s *Session) receive(pkt []byte, from netip.AddrPort, now time.Time, out *outbox) {
	if isRTCP(pkt) {
		s.receiveRTCP(pkt, from, now)
		return
	}
	h, ok := parseHeader(pkt)
	if !ok {
		s.drop(dropMalformed)
		return
	}
	k, l, moved, why := s.rx.judge(pkt, h, from, now)
	if moved {
		s.e.metrics.latches.Inc()
		s.tx.moveTo(from)
	}
	if why != "" {
		s.drop(why)
		return
	}
	to := s.route.Load()
	switch {
	case k == kindEvent:
		s.digits.event(h, pkt[h.payload:h.payload+h.size], now)
		if to != nil && to.to != nil {
			to.to.tx.relayEvent(s, pkt, h, now, out)
		}
	case k != kindAudio || to == nil:
	case to.mix != nil:
		to.mix.put(h, l, pkt[h.payload:h.payload+h.size])
	case !to.to.tx.relay(s, pkt, h, l, now, out):
		s.drop(dropLate)
	}
}

func (s *Session) drop(why dropReason) { s.e.metrics.dropped[why].Inc() }
