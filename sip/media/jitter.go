package media

import (
	"sync"
)

const (
	jitterSamples = 64 * frame // 64 frames of 20 ms
	jitterMin     = frame      // 20 ms
	jitterMax     = 6 * frame  // 120 ms
	jitterCalm    = 500        // frames without a late one after which the delay shrinks: 10 s
)

// jitter evens out what one party says, for a mix: decoded samples in a ring, by timestamp. Its
// delay grows with every packet that comes too late and shrinks when none does, from 20 to 120 ms.
type jitter struct {
	mu     sync.Mutex
	begun  bool
	ssrc   uint32
	depth  int32  // the delay aimed at, in samples
	play   uint32 // timestamp of the next sample to hand out
	head   uint32 // one past the last sample written
	calm   int    // frames since a late packet
	excess int    // frames in a row that the delay was above its aim
	ring   [jitterSamples]int16
}

// put takes a packet.
func (j *jitter) put(h header, l law, payload []byte) {
	if len(payload) == 0 || len(payload) > maxPayload {
		return
	}
	n := int32(len(payload))
	j.mu.Lock()
	defer j.mu.Unlock()
	ahead := distance(h.ts, j.play)
	if !j.begun || h.ssrc != j.ssrc || ahead+n > jitterSamples || ahead < -jitterSamples {
		j.restart(h)
	} else if ahead+n <= 0 { // its time has passed
		j.depth, j.calm = min(j.depth+frame, jitterMax), 0
		if distance(h.ts, j.head) < 0 {
			return // a straggler; later ones are in time
		}
		j.restart(h) // the source paused, or the buffer ran dry: begin anew, deeper
	}
	table := l.linear()
	for i, b := range payload {
		if ts := h.ts + uint32(i); distance(ts, j.play) >= 0 {
			j.ring[ts%jitterSamples] = table[b]
		}
	}
	if end := h.ts + uint32(n); distance(end, j.head) > 0 {
		j.head = end
	}
}

// restart makes the packet's first sample the next after the delay.
func (j *jitter) restart(h header) {
	clear(j.ring[:])
	j.depth = min(max(j.depth, 2*jitterMin), jitterMax)
	j.begun, j.ssrc, j.calm, j.excess = true, h.ssrc, 0, 0
	j.play, j.head = h.ts-uint32(j.depth), h.ts
}

// get hands out 20 ms; it is false when there is nothing. What was lost is silence.
func (j *jitter) get(pcm *[frame]int32) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	left := distance(j.head, j.play)
	if !j.begun || left <= 0 {
		return false
	}
	j.shrink(left)
	for i := range pcm {
		at := &j.ring[j.play%jitterSamples]
		pcm[i], *at = int32(*at), 0
		j.play++
	}
	return true
}

// shrink gives delay back: a whole frame when the buffer stood above its aim for a second (a clock
// that runs fast, or a burst), and the aim itself after ten calm seconds.
func (j *jitter) shrink(left int32) {
	if j.calm++; j.calm >= jitterCalm {
		j.depth, j.calm = max(j.depth-frame, jitterMin), 0
	}
	if left <= j.depth+2*frame {
		j.excess = 0
		return
	}
	if j.excess++; j.excess < 50 {
		return
	}
	j.excess = 0
	for range frame {
		j.ring[j.play%jitterSamples] = 0
		j.play++
	}
}
