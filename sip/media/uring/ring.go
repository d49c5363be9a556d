// Package uring is io_uring(7) as far as RTP needs it: the packets of many sockets are received, and sent, by
// one system call, where a call for each costs more than all that a gateway does with a packet.
//
// It needs Linux 6.1, and a system that lets the process use it: many containers do not. [New] tells.
package uring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// ErrUnsupported means that the kernel has no io_uring, or not one that can do what is asked.
var ErrUnsupported = errors.New("io_uring cannot be used here")

// The kernel's interface, linux/io_uring.h. The numbers of the calls are the same on every architecture.
const (
	sysSetup, sysEnter, sysRegister = 425, 426, 427

	setupCQSize       = 1 << 3
	setupDisabled     = 1 << 6
	setupSubmitAll    = 1 << 7
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13
	featSingleMmap    = 1 << 0
	featExtArg        = 1 << 8
	enterGetEvents    = 1 << 0
	enterExtArg       = 1 << 3
	registerEnable    = 12
	registerBuffers   = 22
	opSendmsg         = 9
	opRecvmsg         = 10
	opCancel          = 14
	opRead            = 22
	bufferSelect      = 1 << 5
	recvMultishot     = 1 << 1
	cqeBuffer         = 1 << 0
	cqeMore           = 1 << 1
	mapRings, mapSQEs = 0, 0x10000000
)

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// request is struct io_uring_sqe.
type request struct {
	op, flags        uint8
	prio             uint16
	fd               int32
	off, addr        uint64
	length, msgFlags uint32
	id               uint64
	group, _         uint16
	_                int32
	_                [2]uint64
}

// completion is struct io_uring_cqe.
type completion struct {
	id    uint64
	res   int32
	flags uint32
}

// waitArg is struct io_uring_getevents_arg with the time that it points to.
type waitArg struct {
	_       uint64
	_, _    uint32
	timeout uint64 // the address of what follows
	sec     int64
	nsec    int64
}

// Ring is a pair of queues that are shared with the kernel: of what is asked, and of what was done. One
// goroutine uses it at a time.
type Ring struct {
	fd      int
	mem     [][]byte // all that is mapped
	pending uint32   // asked, and not submitted

	sqHead, sqTail *uint32
	sqMask         uint32
	requests       []request
	cqHead, cqTail *uint32
	cqMask         uint32
	done           []completion

	wait     *waitArg
	buffers  buffers
	messages messages
}

// Options are what a ring is for.
type Options struct {
	Requests    int // that are asked at once; a power of two
	Completions int // that are kept until they are looked at; a power of two, no less than Requests
	// OneThread lets the kernel do its part when the ring is waited on, and never interrupt for it. All is then
	// asked by one thread: the one that calls Enable.
	OneThread bool
	Buffers   int // for received packets, a power of two up to 32768; 0 for a ring that does not receive
	Messages  int // that can be on their way at once; 0 for a ring that does not send
}

// New makes a ring. The error is [ErrUnsupported] where there is none to be had.
func New(o Options) (*Ring, error) {
	p := params{cqEntries: uint32(o.Completions), flags: setupCQSize | setupSubmitAll}
	if o.OneThread {
		p.flags |= setupDisabled | setupSingleIssuer | setupDeferTaskrun
	}
	fd, _, errno := syscall.Syscall(sysSetup, uintptr(o.Requests), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("%w: io_uring_setup: %w", ErrUnsupported, errno)
	}
	r := &Ring{fd: int(fd)}
	if err := r.prepare(&p, o); err != nil {
		r.Close()
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return r, nil
}

func (r *Ring) prepare(p *params, o Options) error {
	if p.features&featSingleMmap == 0 || p.features&featExtArg == 0 {
		return errors.New("the kernel is older than 6.1")
	}
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+uint32(unsafe.Sizeof(completion{}))*p.cqEntries)
	rings, err := r.mapFile(mapRings, int(size))
	if err != nil {
		return err
	}
	sqes, err := r.mapFile(mapSQEs, int(p.sqEntries)*int(unsafe.Sizeof(request{})))
	if err != nil {
		return err
	}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&rings[off])) }
	r.sqHead, r.sqTail, r.sqMask = word(p.sq.head), word(p.sq.tail), *word(p.sq.mask)
	r.cqHead, r.cqTail, r.cqMask = word(p.cq.head), word(p.cq.tail), *word(p.cq.mask)
	r.requests = unsafe.Slice((*request)(unsafe.Pointer(&sqes[0])), p.sqEntries)
	r.done = unsafe.Slice((*completion)(unsafe.Pointer(&rings[p.cq.cqes])), p.cqEntries)
	for i := range p.sqEntries {
		*word(p.sq.array + 4*i) = i // requests are taken in the order of their places
	}
	scratch, err := r.mapOwn(int(unsafe.Sizeof(waitArg{})))
	if err != nil {
		return err
	}
	r.wait = (*waitArg)(unsafe.Pointer(&scratch[0]))
	r.wait.timeout = address(unsafe.Pointer(&r.wait.sec))
	if err := r.messages.prepare(r, o.Messages); err != nil {
		return err
	}
	return r.buffers.prepare(r, o.Buffers)
}

// mapFile maps a part of the ring, mapOwn memory that the kernel reads and the collector does not move or free.
func (r *Ring) mapFile(at int64, size int) ([]byte, error) {
	return r.mapped(syscall.Mmap(r.fd, at, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_POPULATE))
}

func (r *Ring) mapOwn(size int) ([]byte, error) {
	return r.mapped(syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON))
}

func (r *Ring) mapped(mem []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	r.mem = append(r.mem, mem)
	return mem, nil
}

func address(p unsafe.Pointer) uint64 { return uint64(uintptr(p)) }

// Enable begins the use of a ring of one thread, which is the one that calls it.
func (r *Ring) Enable() error { return r.register(registerEnable, nil, 0) }

func (r *Ring) register(op uintptr, arg unsafe.Pointer, n uintptr) error {
	if _, _, errno := syscall.Syscall6(sysRegister, uintptr(r.fd), op, uintptr(arg), n, 0, 0); errno != 0 {
		return fmt.Errorf("io_uring_register: %w", errno)
	}
	return nil
}

// Close ends the ring. What was not done yet is not done any more, a while after it.
func (r *Ring) Close() {
	_ = syscall.Close(r.fd)
	for _, mem := range r.mem {
		_ = syscall.Munmap(mem)
	}
	r.mem = nil
}

// ask queues a request; it is submitted first when the queue is full. It fails when the kernel takes none.
func (r *Ring) ask(q request) bool {
	tail := *r.sqTail // written here alone
	if tail-atomic.LoadUint32(r.sqHead) == uint32(len(r.requests)) {
		if r.Submit() != nil || tail-atomic.LoadUint32(r.sqHead) == uint32(len(r.requests)) {
			return false
		}
	}
	r.requests[tail&r.sqMask] = q
	atomic.StoreUint32(r.sqTail, tail+1)
	r.pending++
	return true
}

// read reads a descriptor once into memory that [Ring.mapOwn] gave.
func (r *Ring) read(fd int, mem []byte, id uint64) bool {
	return r.ask(request{op: opRead, fd: int32(fd), addr: address(unsafe.Pointer(&mem[0])), length: uint32(len(mem)), id: id})
}

// Cancel ends the request that has an id. The completion of the cancel itself has the id 0.
func (r *Ring) Cancel(id uint64) bool { return r.ask(request{op: opCancel, fd: -1, addr: id}) }

// Submit tells the kernel what was asked. Packets are sent when it returns. What the kernel has no room for yet
// is kept for the next time.
func (r *Ring) Submit() error {
	for r.pending > 0 {
		n, _, errno := syscall.Syscall6(sysEnter, uintptr(r.fd), uintptr(r.pending), 0, 0, 0, 0)
		switch errno {
		case 0:
			r.pending -= uint32(n)
		case syscall.EINTR:
		case syscall.EBUSY, syscall.EAGAIN:
			return nil
		default:
			return fmt.Errorf("io_uring_enter: %w", errno)
		}
	}
	return nil
}

// Wait returns when n completions are there, or after a time; below 0 is for ever.
func (r *Ring) Wait(n int, most time.Duration) error {
	flags, arg, size := uintptr(enterGetEvents), uintptr(0), uintptr(0)
	if most >= 0 {
		r.wait.sec, r.wait.nsec = int64(most/time.Second), int64(most%time.Second)
		flags, arg, size = flags|enterExtArg, uintptr(unsafe.Pointer(r.wait)), unsafe.Offsetof(r.wait.sec)
	}
	_, _, errno := syscall.Syscall6(sysEnter, uintptr(r.fd), 0, uintptr(n), flags, arg, size)
	switch errno {
	case 0, syscall.EINTR, syscall.ETIME, syscall.EBUSY, syscall.EAGAIN: // the last two: it has no room yet
		return nil
	default:
		return fmt.Errorf("io_uring_enter: %w", errno)
	}
}

// Done is what became of a request.
type Done struct {
	ID     uint64
	Err    error // nil, or a [syscall.Errno]
	N      int   // what the call returned
	More   bool  // the request goes on
	buffer int   // of a received packet; -1 for none
}

// Take takes up to len(into) completions off the queue and returns how many.
func (r *Ring) Take(into []Done) int {
	head := *r.cqHead // written here alone
	n := min(int(atomic.LoadUint32(r.cqTail)-head), len(into))
	for i := range n {
		c := r.done[(head+uint32(i))&r.cqMask]
		d := Done{ID: c.id, N: int(c.res), More: c.flags&cqeMore != 0, buffer: -1}
		if c.res < 0 {
			d.Err = syscall.Errno(-c.res)
		}
		if c.flags&cqeBuffer != 0 {
			d.buffer = int(c.flags >> 16)
		}
		into[i] = d
	}
	atomic.StoreUint32(r.cqHead, head+uint32(n))
	return n
}
