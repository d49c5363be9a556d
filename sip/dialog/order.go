package dialog

import (
	"slices"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

const (
	// hold is the longest wait for a request that is missing before one that came.
	hold = 30 * time.Millisecond
	// holdHeard is the longest wait for one that the reader saw and whose goroutine has not come
	// round: it is here, and only a loaded machine keeps it back.
	holdHeard = time.Second
)

// request is one that waits for its turn.
type request struct {
	req *sip.Request
	tx  *sip.ServerTx
	bad *refusal // it was not sane: it takes its number and is refused
	at  time.Time
}

func (r request) cseq() uint32 { return r.req.CSeq().SeqNo }

// queue puts a dialog's requests in the order of CSeq (RFC 3261 section 12.2.2). The library hands
// each over in a goroutine of its own, in any order.
type queue struct {
	mu      sync.Mutex
	last    uint32 // of the request that was taken last; 0 before the first of an outgoing call
	waiting []request
	heard   map[uint32]struct{} // on the wire, not yet handed over
	wake    chan struct{}
}

// placed is what became of a request.
type placed int

const (
	inQueue  placed = iota
	tooLate         // its number, or a higher one, was taken already
	overflow        // too many wait
)

func newQueue(last uint32) *queue {
	return &queue{last: last, heard: make(map[uint32]struct{}), wake: make(chan struct{}, 1)}
}

// hear notes that the reader saw a number.
func (q *queue) hear(cseq uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	known := slices.ContainsFunc(q.waiting, func(r request) bool { return r.cseq() == cseq })
	if cseq > q.last && !known && len(q.heard) < 64 {
		q.heard[cseq] = struct{}{}
	}
}

// put queues a request. BYE is always taken: a full queue must not keep a call up.
func (q *queue) put(r request, bound int) placed {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.heard, r.cseq())
	if r.cseq() <= q.last || slices.ContainsFunc(q.waiting, func(w request) bool { return w.cseq() == r.cseq() }) {
		return tooLate
	}
	if len(q.waiting) >= bound && r.req.Method != sip.BYE {
		return overflow
	}
	i, _ := slices.BinarySearchFunc(q.waiting, r, func(a, b request) int {
		return int(int64(a.cseq()) - int64(b.cseq()))
	})
	q.waiting = slices.Insert(q.waiting, i, r)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return inQueue
}

// take is the next request in order, or how long to wait at the most before asking again; 0 is until
// wake. gap tells that a number is missing before the one taken.
func (q *queue) take(now time.Time) (r request, ok, gap bool, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return request{}, false, false, 0
	}
	first := q.waiting[0]
	gap = q.last == 0 || first.cseq() > q.last+1
	if gap {
		limit := hold
		for n := range q.heard {
			if n < first.cseq() {
				limit = holdHeard
			}
		}
		if left := limit - now.Sub(first.at); left > 0 {
			return request{}, false, false, min(left, hold)
		}
	}
	q.waiting = q.waiting[1:]
	gap = gap && q.last != 0
	q.last = first.cseq()
	for n := range q.heard {
		if n <= q.last {
			delete(q.heard, n)
		}
	}
	return first, true, gap, 0
}

// rest empties the queue.
func (q *queue) rest() []request {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting
	q.waiting = nil
	return all
}
