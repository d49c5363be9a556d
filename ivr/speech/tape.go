package speech

import (
	"sync"

	"github.com/hotline12345/gateway/internal/call"
)

// tapeLength is how much speech waits for a server at most, and how much is played again on a new connection, in samples.
const tapeLength = 2 * call.Rate

// tape is the last of a caller's speech. Positions are counted in samples from its beginning.
type tape struct {
	mu   sync.Mutex
	loop [tapeLength]byte
	end  int           // of what was written
	at   int           // of what was read
	more chan struct{} // 1: something was written
}

// write takes speech and returns how much of the oldest was lost to it. It never blocks.
func (t *tape) write(alaw []byte) (lost int) {
	t.mu.Lock()
	for _, b := range alaw {
		t.loop[t.end%tapeLength] = b
		t.end++
	}
	if lost = t.end - tapeLength - t.at; lost > 0 {
		t.at += lost
	}
	t.mu.Unlock()
	select {
	case t.more <- struct{}{}:
	default:
	}
	return max(lost, 0)
}

// read fills dst, or tells that there is not enough yet.
func (t *tape) read(dst []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.end-t.at < len(dst) {
		return false
	}
	for i := range dst {
		dst[i] = t.loop[t.at%tapeLength]
		t.at++
	}
	return true
}

// rewind goes back as far as the tape does.
func (t *tape) rewind() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at = max(0, t.end-tapeLength)
}
