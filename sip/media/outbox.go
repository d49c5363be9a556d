package media

import (
	"fmt"
	"net/netip"

	"github.com/hotline12345/gateway/sip/media/uring"
	"github.com/prometheus/client_golang/prometheus"
)

// outboxSlots is how many packets are sent by one system call at most. A turn of a full wheel has 200.
const outboxSlots = 512

// outboxMark is what the ids of an outbox's requests begin with, the slot after it.
const outboxMark = 1 << 63

// outbox gathers the packets of one turn of a wheel, or of one look at the sockets: one system call sends them
// all. One goroutine uses it. A nil outbox gathers nothing.
type outbox struct {
	ring    *uring.Ring
	refused prometheus.Counter      // packets
	full    prometheus.Counter      // times
	held    [outboxSlots]*udpSocket // until the packet is sent
	free    []int
	done    []uring.Done // for flush
}

// newOutbox makes an outbox on a ring of its own.
func newOutbox(m *metrics) (*outbox, error) {
	ring, err := uring.New(uring.Options{Requests: outboxSlots, Completions: outboxSlots, Messages: outboxSlots})
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	return outboxOn(ring, m), nil
}

func outboxOn(ring *uring.Ring, m *metrics) *outbox {
	o := &outbox{ring: ring, refused: m.sendErrors, full: m.ringFull[boundOutbox], done: make([]uring.Done, outboxSlots)}
	for slot := range outboxSlots {
		o.free = append(o.free, slot)
	}
	return o
}

// put takes a copy of a packet along, unless it cannot: then the packet must be sent another way.
func (o *outbox) put(from socket, pkt []byte, to netip.AddrPort) bool {
	u, ok := from.(*udpSocket)
	if o == nil || !ok || !u.hold() {
		return false
	}
	if len(o.free) == 0 {
		o.full.Inc()
		u.release()
		return false
	}
	var dst sockaddr
	size := dst.set(to)
	slot := o.free[len(o.free)-1]
	if !o.ring.Send(u.fd, slot, pkt, dst[:size], outboxMark|uint64(slot)) {
		o.full.Inc()
		u.release()
		return false
	}
	o.free, o.held[slot] = o.free[:len(o.free)-1], u
	return true
}

// flush sends what was gathered. It is for an outbox with a ring of its own.
func (o *outbox) flush() {
	if o == nil || len(o.free) == outboxSlots {
		return
	}
	if err := o.ring.Submit(); err != nil {
		return // what is left goes with the next turn
	}
	for _, d := range o.done[:o.ring.Take(o.done)] {
		o.sent(d)
	}
}

// sent is told of a packet that has gone, or was refused.
func (o *outbox) sent(d uring.Done) {
	slot := int(d.ID &^ outboxMark)
	if d.Err != nil {
		o.refused.Inc()
	}
	o.held[slot].release()
	o.held[slot] = nil
	o.free = append(o.free, slot)
}

// close ends an outbox with a ring of its own; what it holds is let go.
func (o *outbox) close() {
	if o == nil {
		return
	}
	o.flush()
	o.ring.Close()
	o.letGo()
}

// letGo lets go of the sockets of packets that no ring will send any more.
func (o *outbox) letGo() {
	for _, u := range o.held {
		if u != nil {
			u.release()
		}
	}
}
