package media

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

const (
	eventBytes = 4                  // RFC 4733 section 2.3
	eventKeys  = "0123456789*#ABCD" // section 3.2, events 0 to 15
	// sameKey is how long a key told by one way waits for the same key by the other.
	sameKey = time.Second
	// eventStale is the pause after which a timestamp that is older than the last event's means a
	// source that began anew, not a packet that comes late.
	eventStale = time.Second
	// maxTold bounds the keys that wait for their double.
	maxTold = 32
)

// eventType is a payload type of telephone-events, 0 for none: 0 itself is PCMU for ever.
func eventType(pt int) uint8 {
	if pt <= 0 || pt > 127 {
		return 0
	}
	return uint8(pt)
}

// digits turns telephone-events and INFO into keys, one each.
//
// A key is told at the first packet of its event, be it the first, any in between, or an end: so
// nothing that is lost can swallow it, as long as one packet arrives. Packets of one event share
// their timestamp (RFC 4733 section 2.1), and that is what keeps a key from being told twice. The
// marker is not needed.
type digits struct {
	mu   sync.Mutex
	fn   func(call.Digit)
	told []told // keys told by one way that the other may bring still

	any   bool
	ssrc  uint32
	ts    uint32
	held  uint16 // the event's duration so far, in samples
	code  byte
	ended bool
	at    time.Time
}

// eventPlace is how a packet of an event stands to the event before it.
type eventPlace uint8

const (
	eventNew  eventPlace = iota // another key, or the same pressed again
	eventSame                   // one more packet of it
	eventLate                   // of one that was told before it
)

type told struct {
	key    byte
	source call.DigitSource
	at     time.Time
}

func (d *digits) listen(fn func(call.Digit)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fn = fn
}

// event takes a telephone-event packet.
func (d *digits) event(h header, payload []byte, now time.Time) {
	if len(payload) < eventBytes || int(payload[0]) >= len(eventKeys) {
		return
	}
	code, end, held := payload[0], payload[1]&0x80 != 0, binary.BigEndian.Uint16(payload[2:])
	d.mu.Lock()
	defer d.mu.Unlock()
	place := d.place(h, code, now)
	if place == eventLate {
		return
	}
	d.any, d.ssrc, d.ts, d.held, d.code, d.at = true, h.ssrc, h.ts, held, code, now
	if place == eventNew {
		d.ended = end
		d.tell(eventKeys[code], call.DigitRTP, now)
		return
	}
	d.ended = d.ended || end
	d.touch(eventKeys[code], now)
}

// place tells how a packet stands to the event before it.
func (d *digits) place(h header, code byte, now time.Time) eventPlace {
	age := distance(h.ts, d.ts)
	switch {
	case !d.any || h.ssrc != d.ssrc:
		return eventNew
	case age == 0:
		return eventSame
	case age < 0 && now.Sub(d.at) < eventStale:
		return eventLate
	case age < 0:
		return eventNew // the source set its clock back
	case code == d.code && !d.ended && !h.marker && age <= int32(d.held)+frame:
		// Section 2.5.1.3: a long event goes on in a new segment, without an end and without a
		// marker; some phones even move the timestamp with each packet.
		return eventSame
	default:
		return eventNew
	}
}

// press takes a key that came whole.
func (d *digits) press(key byte, source call.DigitSource, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tell(key, source, now)
}

// tell tells a key, unless the same one came by another way a moment ago: each key so told cancels
// one of the other way, so that a key pressed twice stays two.
func (d *digits) tell(key byte, source call.DigitSource, now time.Time) {
	d.told = slices.DeleteFunc(d.told, func(t told) bool { return now.Sub(t.at) > sameKey })
	double := func(t told) bool { return t.key == key && t.source != source }
	if i := slices.IndexFunc(d.told, double); i >= 0 {
		d.told = slices.Delete(d.told, i, i+1)
		return
	}
	if len(d.told) == maxTold {
		d.told = slices.Delete(d.told, 0, 1)
	}
	d.told = append(d.told, told{key, source, now})
	if d.fn != nil {
		d.fn(call.Digit{Key: key, At: now, Source: source})
	}
}

// touch keeps a key that is still held down waiting for its INFO, which phones send at its end.
func (d *digits) touch(key byte, now time.Time) {
	for i := len(d.told) - 1; i >= 0; i-- {
		if d.told[i].key == key && d.told[i].source == call.DigitRTP {
			d.told[i].at = now
			return
		}
	}
}
