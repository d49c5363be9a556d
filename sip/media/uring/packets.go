package uring

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// MaxPacket is the longest packet that is received whole, and MaxMessage the longest that is sent, in bytes.
const (
	MaxPacket  = bufferBytes - receivedHead - nameBytes
	MaxMessage = messageBytes - messageHead
)

const (
	bufferBytes  = 2048
	receivedHead = 16                            // struct io_uring_recvmsg_out
	nameBytes    = syscall.SizeofSockaddrInet6   // what is left for an address
	buffersGroup = 0                             // the only one
	messageBytes = 1024                          // a message with its packet
	messageHead  = int(unsafe.Sizeof(message{})) // before the packet
)

// buffers are where the kernel puts what it receives.
type buffers struct {
	ring   []buffer
	tail   *uint16 // in the kernel's sight
	memory []byte
	header *syscall.Msghdr // says how much room an address has
}

// buffer is struct io_uring_buf. The last field of the first is the tail of the ring.
type buffer struct {
	addr     uint64
	length   uint32
	id, tail uint16
}

// registration is struct io_uring_buf_reg.
type registration struct {
	addr         uint64
	entries      uint32
	group, flags uint16
	_            [3]uint64
}

func (b *buffers) prepare(r *Ring, n int) error {
	if n == 0 {
		return nil
	}
	ring, err := r.mapOwn(n * int(unsafe.Sizeof(buffer{})))
	if err != nil {
		return err
	}
	if b.memory, err = r.mapOwn(n * bufferBytes); err != nil {
		return err
	}
	head, err := r.mapOwn(int(unsafe.Sizeof(syscall.Msghdr{})))
	if err != nil {
		return err
	}
	b.header = (*syscall.Msghdr)(unsafe.Pointer(&head[0]))
	b.header.Namelen = nameBytes
	b.ring = unsafe.Slice((*buffer)(unsafe.Pointer(&ring[0])), n)
	b.tail = &b.ring[0].tail
	if err := r.register(registerBuffers, unsafe.Pointer(&registration{addr: address(unsafe.Pointer(&ring[0])), entries: uint32(n), group: buffersGroup}), 1); err != nil {
		return err
	}
	for i := range n {
		b.give(i)
	}
	return nil
}

// give lets the kernel use a buffer, again.
func (b *buffers) give(id int) {
	tail := *b.tail
	slot := &b.ring[int(tail)%len(b.ring)]
	slot.addr, slot.length, slot.id = address(unsafe.Pointer(&b.memory[id*bufferBytes])), bufferBytes, uint16(id)
	// There is no atomic store of 16 bits: the exchange of the word around it is one, and its other half is the
	// first buffer's id, which is written here alone.
	word := (*uint32)(unsafe.Pointer(&b.ring[0].id))
	var next [2]uint16
	next[0], next[1] = b.ring[0].id, tail+1
	atomic.StoreUint32(word, *(*uint32)(unsafe.Pointer(&next)))
}

// Receive receives every packet of a socket until it is cancelled, or a completion has no More. The socket is
// in blocking mode.
func (r *Ring) Receive(fd int, id uint64) bool {
	return r.ask(request{op: opRecvmsg, flags: bufferSelect, prio: recvMultishot, fd: int32(fd),
		addr: address(unsafe.Pointer(r.buffers.header)), length: 1, id: id, group: buffersGroup})
}

// Packet is what was received, and the sender's struct sockaddr; nil when nothing was. Both are good until [Ring.Give].
func (r *Ring) Packet(d Done) (packet, from []byte) {
	if d.buffer < 0 || d.Err != nil || d.N < receivedHead+nameBytes {
		return nil, nil
	}
	b := r.buffers.memory[d.buffer*bufferBytes:][:d.N]
	return b[receivedHead+nameBytes:], b[receivedHead:][:nameBytes]
}

// Give gives a packet's memory back.
func (r *Ring) Give(d Done) {
	if d.buffer >= 0 {
		r.buffers.give(d.buffer)
	}
}

// messages are packets on their way out.
type messages struct{ memory []byte }

// message is what sendmsg(2) is told, before the packet itself.
type message struct {
	header syscall.Msghdr
	data   syscall.Iovec
	name   [nameBytes]byte
	_      [4]byte
}

func (m *messages) prepare(r *Ring, n int) (err error) {
	if n > 0 {
		m.memory, err = r.mapOwn(n * messageBytes)
	}
	return err
}

// Send sends a packet, by a copy, to a struct sockaddr; it drops it when the system has no room. message is below
// [Options.Messages] and is not used again before the completion, whose id is id.
func (r *Ring) Send(fd, slot int, packet, to []byte, id uint64) bool {
	if len(packet) == 0 || len(packet) > MaxMessage {
		return false
	}
	mem := r.messages.memory[slot*messageBytes:][:messageBytes]
	m := (*message)(unsafe.Pointer(&mem[0]))
	copy(mem[messageHead:], packet)
	copy(m.name[:], to)
	m.data.Base, m.header.Name, m.header.Iov = &mem[messageHead], &m.name[0], &m.data
	m.data.SetLen(len(packet))
	m.header.Namelen = uint32(len(to))
	m.header.Iovlen = 1
	return r.ask(request{op: opSendmsg, fd: int32(fd), addr: address(unsafe.Pointer(m)), length: 1, msgFlags: syscall.MSG_DONTWAIT, id: id})
}

// Bell wakes a ring that is waited on. It may be rung from any goroutine, and after its end.
type Bell struct {
	mem []byte

	mu sync.Mutex
	fd int // -1 when closed
}

// Bell makes one; its completions have the id that [Bell.Listen] is given.
func (r *Ring) Bell() (*Bell, error) {
	fd, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return nil, errno
	}
	mem, err := r.mapOwn(8)
	if err != nil {
		_ = syscall.Close(int(fd))
		return nil, err
	}
	return &Bell{fd: int(fd), mem: mem}, nil
}

// Listen waits for the next ring of the bell; Ring rings it.
func (b *Bell) Listen(r *Ring, id uint64) bool { return r.read(b.fd, b.mem, id) }

// Ring rings the bell. Nobody need listen yet.
func (b *Bell) Ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fd < 0 {
		return
	}
	one := uint64(1)
	_, _ = syscall.Write(b.fd, (*[8]byte)(unsafe.Pointer(&one))[:]) // it is full: it rings
}

// Close closes the bell, which must not be listened to any more.
func (b *Bell) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fd >= 0 {
		_ = syscall.Close(b.fd)
		b.fd = -1
	}
}
