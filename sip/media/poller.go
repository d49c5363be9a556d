package media

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	pollEvents = 256
	// pollGather is how long a poller lets packets gather once some have come: a look at the sockets costs the
	// same for one as for all of a millisecond, and a conversation does not notice.
	pollGather = time.Millisecond
)

// watcher reads the sockets of many sessions in one goroutine. The runtime would wake a goroutine for each
// packet, which then asks in vain for the next: of a thousand legs that costs more than what is done with the
// packets.
type watcher interface {
	// add reads a socket from now on.
	add(s *Session, from *udpSocket, take takePacket) (watched, error)
	// run reads until ctx ends.
	run(ctx context.Context)
	// close frees what a watcher has that has run, and that no socket is with any more.
	close()
}

// watched is a socket that a watcher reads.
type watched interface {
	// remove takes it off, before it is closed. No packet of it is on its way when it returns.
	remove()
}

// takePacket takes a packet, which it may overwrite and does not keep. What it sends it may put into out.
type takePacket func(pkt []byte, from netip.AddrPort, now time.Time, out *outbox)

// poller reads by epoll(7): one system call tells which sockets have a packet, and one for each reads it. It is
// what there is where the system has no io_uring; see [ringWatcher].
type poller struct {
	e    *Engine
	fd   int
	stop [2]int // a pipe: closing its end 1 ends the poller

	mu      sync.Mutex
	next    int32
	sockets map[int32]*polled
}

// polled is one socket of a session, read by a poller.
type polled struct {
	p    *poller
	id   int32
	s    *Session
	from *udpSocket
	take takePacket

	mu     sync.Mutex // held while a packet is on its way
	ended  bool
	failed int // reads in a row
}

func newPoller(e *Engine) (watcher, error) {
	p := &poller{e: e, sockets: make(map[int32]*polled)}
	var err error
	if p.fd, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("media: epoll_create1: %w", err)
	}
	if err := syscall.Pipe2(p.stop[:], syscall.O_CLOEXEC); err != nil {
		_ = syscall.Close(p.fd)
		return nil, fmt.Errorf("media: pipe2: %w", err)
	}
	if err := p.watch(p.stop[0], 0); err != nil {
		p.close()
		_ = syscall.Close(p.stop[1])
		return nil, err
	}
	return p, nil
}

func (p *poller) watch(fd int, id int32) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: id}
	if err := syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("media: epoll_ctl: %w", err)
	}
	return nil
}

func (p *poller) close() {
	_ = syscall.Close(p.fd)
	_ = syscall.Close(p.stop[0])
}

func (p *poller) add(s *Session, from *udpSocket, take takePacket) (watched, error) {
	p.mu.Lock()
	p.next++
	x := &polled{p: p, id: p.next, s: s, from: from, take: take}
	p.sockets[x.id] = x
	p.mu.Unlock()
	if err := p.watch(from.fd, x.id); err != nil {
		x.remove()
		return nil, err
	}
	return x, nil
}

func (x *polled) remove() {
	x.p.mu.Lock()
	delete(x.p.sockets, x.id)
	x.p.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stop()
}

// stop ends the reading; x.mu is held.
func (x *polled) stop() {
	if !x.ended {
		x.ended = true
		_ = syscall.EpollCtl(x.p.fd, syscall.EPOLL_CTL_DEL, x.from.fd, nil) // it is closed next
	}
}

func (p *poller) run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { _ = syscall.Close(p.stop[1]) })()
	events, due := make([]syscall.EpollEvent, pollEvents), make([]*polled, 0, pollEvents)
	buf := make([]byte, maxPacket)
	for ctx.Err() == nil {
		n, err := syscall.EpollWait(p.fd, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			p.e.log.Error("media poller stopped", "err", err)
			return
		}
		p.mu.Lock()
		for _, event := range events[:max(n, 0)] {
			if x := p.sockets[event.Fd]; x != nil {
				due = append(due, x)
			}
		}
		p.mu.Unlock()
		now := time.Now()
		for _, x := range due {
			x.read(buf, now)
		}
		clear(due) // a closed session must not be kept alive by the scratch list
		due = due[:0]
		if n < pollEvents {
			time.Sleep(pollGather)
		}
	}
}

// read takes one packet. A socket that brings errors alone is not asked again.
func (x *polled) read(buf []byte, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.ended:
	case x.taken(buf, now):
		x.failed = 0
	default:
		if x.failed++; x.failed == maxReadErrors {
			x.s.log.Warn("media reader stopped after too many failed reads", "port", x.s.port)
			x.stop()
		}
	}
}

func (x *polled) taken(buf []byte, now time.Time) (ok bool) {
	defer x.s.e.caught(x.s.opts.ID, "RTP reader")
	n, from, err := x.from.ReadFromUDPAddrPort(buf)
	if err != nil {
		return false
	}
	x.take(buf[:n], unmap(from), now, nil)
	return true
}
