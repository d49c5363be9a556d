package calltest

import (
	"bytes"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// Party is a person on a Fake leg, as a script. It is a [Peer].
type Party struct {
	answers   chan struct{} // closed when the line answered this party's call
	ends      chan struct{} // one value when a leg ended
	refusals  chan int
	dialled   chan Ring
	cancelled chan struct{} // one value for each ring that was given up
	does      chan step

	mu    sync.Mutex
	leg   *leg
	hz    float64
	clock int
	ears  bytes.Buffer
}

// Ring is a call that reached a phone.
type Ring struct {
	Options call.DialOptions
	At      time.Time
}

type step struct {
	progress call.Progress
	status   int
}

func newParty() *Party {
	return &Party{answers: make(chan struct{}), ends: make(chan struct{}, 8), refusals: make(chan int, 1),
		dialled: make(chan Ring, 8), cancelled: make(chan struct{}, 8), does: make(chan step, 8)}
}

// Answered is closed when the line answered this party's call.
func (p *Party) Answered() <-chan struct{} { return p.answers }

// Refused tells the SIP status of a refused call.
func (p *Party) Refused() <-chan int { return p.refusals }

// Ended tells that a leg of this party ended.
func (p *Party) Ended() <-chan struct{} { return p.ends }

// Rung waits for a call to reach this phone.
func (p *Party) Rung() Ring { return <-p.dialled }

// Cancelled waits until a ring was given up.
func (p *Party) Cancelled() { <-p.cancelled }

// Trying, Ring, PickUp and Refuse answer a call that reached this phone.
func (p *Party) Trying()           { p.does <- step{progress: call.Trying} }
func (p *Party) Ring()             { p.does <- step{progress: call.Ringing} }
func (p *Party) PickUp()           { p.does <- step{} }
func (p *Party) Refuse(status int) { p.does <- step{status: status} }

// Press sends keys, in order.
func (p *Party) Press(keys string) {
	for _, k := range []byte(keys) {
		p.current().digits <- call.Digit{Key: k, At: time.Now(), Source: call.DigitRTP}
	}
}

// Does tells an event, such as a hold.
func (p *Party) Does(kind call.EventKind) {
	p.current().events <- call.Event{Kind: kind, At: time.Now()}
}

// Speak makes the party say a tone from now on; 0 is silence.
func (p *Party) Speak(hz float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hz = hz
}

// Hang ends the call from this side.
func (p *Party) Hang() {
	p.current().end(&call.Ended{Remote: true, Cause: call.CauseNormal})
}

// Break ends the call for a reason of the line's own, such as media that stopped.
func (p *Party) Break(why call.EndReason) {
	p.current().end(&call.Ended{Cause: call.CauseFailure, Reason: why})
}

// Listen forgets what was heard and returns, as A-law, what is heard for a while.
func (p *Party) Listen(d time.Duration) []byte {
	p.mu.Lock()
	p.ears.Reset()
	p.mu.Unlock()
	time.Sleep(d)
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.ears.Bytes())
}

func (p *Party) current() *leg {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leg
}

func (p *Party) answer() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.answers:
	default:
		close(p.answers)
	}
}

func (p *Party) refused(status int) { p.refusals <- status }

func (p *Party) gone() {
	select {
	case p.ends <- struct{}{}:
	default:
	}
}

// frame is the next 20 ms of what the party says.
func (p *Party) frame() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hz == 0 {
		return silence()
	}
	out := make([]byte, call.FrameBytes)
	for i := range out {
		out[i] = toneAt(p.hz, p.clock)
		p.clock++
	}
	return out
}

func (p *Party) hear(frame []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ears.Len() < 60*call.Rate {
		p.ears.Write(frame)
	}
}
