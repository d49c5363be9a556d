package media

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hotline12345/gateway/sip/media/uring"
)

const (
	ringRequests = 1024
	ringLook     = 256  // completions that are looked at together
	ringBuffers  = 1024 // packets that wait to be looked at; the kernel keeps more in the sockets
	// ringGather and ringWait let packets gather, as [pollGather] does: so many, or for so long.
	ringGather = 64
	ringWait   = pollGather
	ringBell   = 1 // the id of the bell; sockets have higher ones
)

// ringWatcher reads by io_uring(7): the kernel fills buffers with the packets of all sockets, and one system call
// in a millisecond is all that it takes, for what is relayed besides. On a talk between two legs that is a third
// of the cost of a call for each packet.
type ringWatcher struct {
	e    *Engine
	ring *uring.Ring
	bell *uring.Bell
	out  *outbox

	mu      sync.Mutex
	ended   bool // no more sockets
	over    bool // no more ring
	next    uint64
	sockets map[uint64]*ringed
	todo    []*ringed // to be read from now on, or no more
}

// ringed is one socket of a session, read by a ringWatcher. Fields below mu belong to its own lock, the others
// to the watcher's.
type ringed struct {
	w    *ringWatcher
	id   uint64
	s    *Session
	from *udpSocket
	take takePacket

	asked   bool // the kernel has it
	leaving bool

	mu     sync.Mutex // held while a packet is on its way
	closed bool
	failed int // reads in a row
}

// newRing makes a ring that receives and sends.
func newRing() (*uring.Ring, error) {
	ring, err := uring.New(uring.Options{Requests: ringRequests, Completions: 4 * ringRequests, OneThread: true, Buffers: ringBuffers, Messages: outboxSlots})
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	return ring, nil
}

// Gathers tells whether the system lets many packets be read and sent by one system call: nil, or
// [uring.ErrUnsupported] with the reason.
func Gathers() error {
	ring, err := newRing()
	if err != nil {
		return err
	}
	ring.Close()
	return nil
}

func newRingWatcher(e *Engine) (watcher, error) {
	ring, err := newRing()
	if err != nil {
		return nil, err
	}
	bell, err := ring.Bell()
	if err != nil {
		ring.Close()
		return nil, fmt.Errorf("media: eventfd: %w", err)
	}
	return &ringWatcher{e: e, ring: ring, bell: bell, out: outboxOn(ring, e.metrics), next: ringBell, sockets: make(map[uint64]*ringed)}, nil
}

func (w *ringWatcher) add(s *Session, from *udpSocket, take takePacket) (watched, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || !from.hold() { // the kernel's hold, until it has let go
		return nil, ErrClosed
	}
	w.next++
	x := &ringed{w: w, id: w.next, s: s, from: from, take: take}
	w.sockets[x.id] = x
	w.todo = append(w.todo, x)
	w.bell.Ring()
	return x, nil
}

func (x *ringed) remove() {
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	x.leave()
}

// leave lets the kernel let go of a socket; the watcher's lock is held.
func (x *ringed) leave() {
	w := x.w
	switch {
	case w.sockets[x.id] != x || x.leaving:
	case !x.asked:
		w.drop(x)
	default:
		x.leaving = true
		w.todo = append(w.todo, x)
		w.bell.Ring()
	}
}

// drop forgets a socket that the kernel does not have; the watcher's lock is held.
func (w *ringWatcher) drop(x *ringed) {
	delete(w.sockets, x.id)
	w.todo = slices.DeleteFunc(w.todo, func(y *ringed) bool { return x == y })
	x.from.release()
}

func (w *ringWatcher) close() {
	w.bell.Close()
	w.end() // of a watcher that never ran
}

func (w *ringWatcher) run(ctx context.Context) {
	runtime.LockOSThread() // the kernel knows a ring by its thread
	defer runtime.UnlockOSThread()
	defer context.AfterFunc(ctx, w.bell.Ring)()
	defer w.end()
	if err := w.ring.Enable(); err != nil {
		w.e.log.Error("media watcher did not start", "err", err)
		return
	}
	w.bell.Listen(w.ring, ringBell)
	done, due := make([]uring.Done, ringLook), make([]*ringed, ringLook)
	for ctx.Err() == nil {
		if err := w.look(done, due); err != nil {
			w.e.log.Error("media watcher stopped", "err", err)
			return
		}
	}
	w.letGo(done, due)
}

// look waits for packets and takes them.
func (w *ringWatcher) look(done []uring.Done, due []*ringed) error {
	w.ask()
	if err := w.ring.Submit(); err != nil {
		return fmt.Errorf("media: %w", err)
	}
	n := w.ring.Take(done)
	if n == 0 {
		return w.ring.Wait(1, -1)
	}
	w.mu.Lock()
	for i, d := range done[:n] {
		due[i] = w.sockets[d.ID]
	}
	w.mu.Unlock()
	now := time.Now()
	for i, d := range done[:n] {
		switch {
		case d.ID&outboxMark != 0:
			w.out.sent(d)
		case due[i] != nil:
			due[i].read(d, now)
			w.ring.Give(d)
		case d.ID == ringBell:
			w.bell.Listen(w.ring, ringBell)
		}
	}
	clear(due)                              // a closed session must not be kept alive by the scratch list
	if err := w.ring.Submit(); err != nil { // what was relayed goes before the others are waited for
		return fmt.Errorf("media: %w", err)
	}
	return w.ring.Wait(ringGather, ringWait)
}

// ask tells the kernel which sockets to read from now on, and which no more.
func (w *ringWatcher) ask() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, x := range w.todo {
		if x.leaving {
			if !w.ring.Cancel(x.id) {
				w.todo = w.todo[i:]
				return // the queue is full: at the next look
			}
			continue
		}
		if x.asked = w.ring.Receive(x.from.fd, x.id); !x.asked {
			w.todo = w.todo[i:]
			return
		}
	}
	w.todo = w.todo[:0]
}

// read takes what came of a socket. One that brings errors alone is not asked again; the buffers' want is none.
func (x *ringed) read(d uring.Done, now time.Time) {
	x.mu.Lock()
	switch pkt, from := x.w.ring.Packet(d); {
	case x.closed:
	case pkt != nil:
		x.failed = 0
		x.taken(pkt, (*sockaddr)(from).addrPort(), now)
	case errors.Is(d.Err, syscall.ENOBUFS):
		x.w.e.metrics.ringFull[boundBuffers].Inc()
	case d.Err != nil:
		if x.failed++; x.failed == maxReadErrors {
			x.s.log.Warn("media reader stopped after too many failed reads", "port", x.s.port)
			x.closed = true
		}
	}
	closed := x.closed
	x.mu.Unlock()
	if d.More {
		return
	}
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	x.asked = false
	if closed || x.leaving {
		x.w.drop(x)
		return
	}
	x.w.todo = append(x.w.todo, x)
}

func (x *ringed) taken(pkt []byte, from netip.AddrPort, now time.Time) {
	defer x.s.e.caught(x.s.opts.ID, "RTP reader")
	x.take(pkt, unmap(from), now, x.w.out)
}

// letGo lets the kernel let go of every socket, so that the ports are free at once.
func (w *ringWatcher) letGo(done []uring.Done, due []*ringed) {
	w.mu.Lock()
	w.ended = true
	for _, x := range w.sockets {
		x.leave()
	}
	w.mu.Unlock()
	for deadline := time.Now().Add(closeWait); time.Now().Before(deadline); {
		w.mu.Lock()
		left := len(w.sockets)
		w.mu.Unlock()
		if left == 0 || w.look(done, due) != nil {
			return
		}
	}
}

// end ends the ring, and what it still has with it.
func (w *ringWatcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.ended, w.over = true, true
	w.ring.Close()
	for _, x := range w.sockets {
		w.drop(x)
	}
	w.out.letGo()
}
