package media

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ErrNoDTMF means that the peer takes no telephone-events.
var ErrNoDTMF = errors.New("media: the peer takes no telephone-events")

// A key that we send, in ticks of 20 ms.
const (
	eventTicks  = 8  // held for 160 ms
	eventEnds   = 3  // RFC 4733 section 2.5.1.4: the end is sent three times
	eventGap    = 4  // 80 ms between two keys
	eventVolume = 10 // dBm0, as a minus
	maxKeys     = 64 // at one go
)

// eventJob is a run of keys that is being sent.
type eventJob struct {
	codes []byte
	at    int
	step  int
	ts    uint32
	done  chan error
}

func (j *eventJob) finish(err error) {
	if j != nil {
		j.done <- err
	}
}

// SendDigits sends keys ("0" to "9", "*", "#", "A" to "D") as telephone-events, 160 ms each and 80 ms
// apart, and returns when the last was sent. Whatever else the party hears pauses. It returns
// [ErrNoDTMF], [ErrClosed] or the context's cause.
func (s *Session) SendDigits(ctx context.Context, keys string) error {
	if len(keys) > maxKeys {
		return fmt.Errorf("media: %d keys are more than %d", len(keys), maxKeys)
	}
	j := &eventJob{done: make(chan error, 1)}
	for _, k := range []byte(keys) {
		code := bytes.IndexByte([]byte(eventKeys), k)
		if code < 0 {
			return fmt.Errorf("media: %q is no key", k)
		}
		j.codes = append(j.codes, byte(code))
	}
	if len(j.codes) == 0 {
		return nil
	}
	select {
	case s.sending <- struct{}{}:
		defer func() { <-s.sending }()
	case <-s.done:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := s.tx.beginEvents(j); err != nil {
		return err
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		s.tx.cancelEvents(j)
		return context.Cause(ctx)
	}
}

func (t *sender) beginEvents(j *eventJob) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return ErrClosed
	case t.dtmf == 0:
		return ErrNoDTMF
	}
	t.event = j
	return nil
}

func (t *sender) cancelEvents(j *eventJob) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.event == j {
		t.event = nil
	}
}

// sendEvent sends the packet that is due of the key at hand.
func (t *sender) sendEvent(due time.Time, out *outbox) {
	j := t.event
	if j.step < eventTicks+eventEnds {
		t.sendKey(j, due, out)
	} else {
		t.pace(fromSilence, due, nil, out)
	}
	if j.step++; j.step == eventTicks+eventEnds+eventGap {
		j.step = 0
		if j.at++; j.at == len(j.codes) {
			t.event = nil
			j.finish(nil)
		}
	}
}

// sendKey sends one packet of an event. Its packets share the timestamp of its beginning, its
// marker stands on the first alone (RFC 4733 section 2.5.1.2), and the clock of the stream goes on
// beneath.
func (t *sender) sendKey(j *eventJob, due time.Time, out *outbox) {
	if j.step == 0 {
		t.catchUp(due)
		j.ts = t.next
		t.last, t.filled = fromNothing, 0
	}
	t.advance(j.ts+uint32(j.step+1)*frame, due.Add(tickEvery))
	if !t.on || t.dtmf == 0 {
		return
	}
	pkt := t.pend[:headerBytes+eventBytes]
	body := pkt[headerBytes:]
	body[0], body[1] = j.codes[j.at], eventVolume
	if j.step >= eventTicks {
		body[1] |= 0x80
	}
	binary.BigEndian.PutUint16(body[2:], uint16(min(j.step+1, eventTicks)*frame))
	t.send(out, pkt, header{marker: j.step == 0, pt: t.dtmf, seq: t.seq, ts: j.ts})
	t.seq++
}
