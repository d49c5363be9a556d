package media

import (
	"math"
	"sync"
)

const (
	jitterSamples = 64 * frame // 64 frames of 20 ms
	jitterMin     = frame      // 20 ms
	jitterMax     = 6 * frame  // 120 ms
	jitterCalm    = 500        // frames without trouble after which the delay shrinks: 10 s
	jitterExcess  = 50         // frames above the delay aimed at after which one is skipped: 1 s
	jitterFade    = 3 * frame  // how long the last sound stands in for a lost one
	// missing marks a sample that never came: no code of G.711 decodes to it.
	missing = math.MinInt16
)

// jitter evens out what one party says, for a mix: decoded samples in a ring, by timestamp. Its
// delay grows when it runs dry or a packet comes too late, and shrinks when neither happens, between
// 20 and 120 ms.
type jitter struct {
	mu     sync.Mutex
	begun  bool
	dry    bool // nothing was left at the last tick
	ssrc   uint32
	depth  int32  // the delay aimed at, in samples
	play   uint32 // timestamp of the next sample to hand out
	head   uint32 // one past the last sample written
	calm   int    // frames since the last trouble
	excess int    // frames in a row that the delay was above its aim
	ring   [jitterSamples]int16
	last   [frame]int32 // the last 20 ms that came, for what does not
	gone   int32        // samples missing in a row
}

// put takes a packet.
func (j *jitter) put(h header, l law, payload []byte) {
	n := int32(len(payload))
	if n == 0 || n > maxPayload {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	ahead, jump := distance(h.ts, j.play), distance(h.ts, j.head)
	switch {
	case !j.begun || h.ssrc != j.ssrc, jump > jitterMax, jump < -jitterSamples, ahead+n > jitterSamples:
		j.restart(h)
	case j.dry && jump >= 0:
		if jump == 0 { // the network was slow; after a longer jump it was the party that paused
			j.deepen()
		}
		j.restart(h)
	case ahead+n <= 0: // its time has passed
		j.deepen()
		return
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
	fill(j.ring[:], missing)
	if !j.begun {
		j.depth = 2 * jitterMin
	}
	j.begun, j.dry, j.ssrc, j.excess = true, false, h.ssrc, 0
	j.play, j.head = h.ts-uint32(j.depth), h.ts
}

func (j *jitter) deepen() { j.depth, j.calm = min(j.depth+frame, jitterMax), 0 }

// get hands out 20 ms; it is false when there is nothing. The sound before a lost packet is repeated
// in its place, and fades out.
func (j *jitter) get(pcm *[frame]int32) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	left := distance(j.head, j.play)
	if !j.begun || left <= 0 {
		j.dry = true
		return false
	}
	j.shrink(left)
	for i := range pcm {
		v := int32(j.next())
		if v == missing {
			j.gone = min(j.gone+1, jitterFade)
			v = j.last[i] * (jitterFade - j.gone) / jitterFade
		} else {
			j.gone, j.last[i] = 0, v
		}
		pcm[i] = v
	}
	return true
}

func (j *jitter) next() int16 {
	at := &j.ring[j.play%jitterSamples]
	v := *at
	*at = missing
	j.play++
	return v
}

// shrink gives delay back: one frame when the buffer stood above its aim for a second (a clock that
// runs fast, or a burst), and the aim itself after ten calm seconds.
func (j *jitter) shrink(left int32) {
	if j.calm++; j.calm >= jitterCalm {
		j.depth, j.calm = max(j.depth-frame, jitterMin), 0
	}
	if left <= j.depth+2*frame {
		j.excess = 0
		return
	}
	if j.excess++; j.excess >= jitterExcess {
		j.excess = 0
		for range frame {
			j.next()
		}
	}
}
