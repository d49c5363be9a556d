package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// udpSocket is a UDP socket that the runtime does not watch: a [watcher] does, and nothing waits in it. Its
// system calls take a few microseconds at most, so the scheduler is not told of them.
type udpSocket struct {
	fd   int
	file *os.File
	addr net.Addr

	holds   atomic.Int32 // of those who use fd, and one of the owner
	closing sync.Once
	gone    chan struct{} // closed with fd
}

// closeWait bounds how long a socket is waited for that is in use still. It takes a millisecond; who used it for
// longer would be at fault, and then only the port is busy for a while.
const closeWait = time.Second

// unwatched takes a socket away from the runtime.
func unwatched(c *net.UDPConn) (*udpSocket, error) {
	defer c.Close() //nolint:errcheck // its duplicate lives on
	file, err := c.File()
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	u := &udpSocket{fd: int(file.Fd()), file: file, addr: c.LocalAddr(), gone: make(chan struct{})}
	u.holds.Store(1)
	return u, nil
}

// hold keeps the descriptor until release: it must not be another socket's meanwhile. It fails when it is closed.
func (u *udpSocket) hold() bool {
	for {
		n := u.holds.Load()
		if n == 0 {
			return false
		}
		if u.holds.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (u *udpSocket) release() {
	if u.holds.Add(-1) == 0 {
		_ = u.file.Close() // nothing is lost with it
		close(u.gone)
	}
}

func (u *udpSocket) LocalAddr() net.Addr { return u.addr }

// Close closes the socket: its port is free when it returns. Whoever reads it must have been told before.
func (u *udpSocket) Close() error {
	u.closing.Do(u.release)
	select {
	case <-u.gone:
		return nil
	case <-time.After(closeWait):
		return errStillUsed
	}
}

// ReadFromUDPAddrPort takes a packet that is there; without one the error is EAGAIN.
func (u *udpSocket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	if !u.hold() {
		return 0, netip.AddrPort{}, net.ErrClosed
	}
	defer u.release()
	var from sockaddr
	size := uint32(len(from))
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(u.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		syscall.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, netip.AddrPort{}, errno
	}
	return int(n), from.addrPort(), nil
}

// WriteToUDPAddrPort sends a packet, or drops it when the system has no room.
func (u *udpSocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if !u.hold() {
		return 0, net.ErrClosed
	}
	defer u.release()
	var dst sockaddr
	size := dst.set(to)
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(u.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		syscall.MSG_DONTWAIT, uintptr(unsafe.Pointer(&dst)), size)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

var errStillUsed = errors.New("media: a closed socket is still in use")

// sockaddr is an address as the kernel has it: struct sockaddr_in, or sockaddr_in6, which is longer.
type sockaddr [syscall.SizeofSockaddrInet6]byte

// set writes an address and returns how many bytes it takes.
func (a *sockaddr) set(to netip.AddrPort) uintptr {
	binary.BigEndian.PutUint16(a[2:], to.Port())
	if to.Addr().Is4() {
		binary.NativeEndian.PutUint16(a[:], syscall.AF_INET)
		ip := to.Addr().As4()
		copy(a[4:], ip[:])
		return syscall.SizeofSockaddrInet4
	}
	binary.NativeEndian.PutUint16(a[:], syscall.AF_INET6)
	ip := to.Addr().As16()
	copy(a[8:], ip[:])
	return syscall.SizeofSockaddrInet6
}

func (a *sockaddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(a[2:])
	if binary.NativeEndian.Uint16(a[:]) == syscall.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a[4:])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(a[8:])), port)
}
