package uring

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// ring makes a ring; a system without io_uring has nothing to test.
func ring(t *testing.T, o Options) *Ring {
	t.Helper()
	r, err := New(o)
	if errors.Is(err, ErrUnsupported) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// port opens a port in blocking mode.
func port(t *testing.T) (fd int, at netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return int(f.Fd()), c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func sockaddr(to netip.AddrPort) []byte {
	b := make([]byte, syscall.SizeofSockaddrInet4)
	b[0] = syscall.AF_INET // little endian, as every machine that tests run on
	b[2], b[3] = byte(to.Port()>>8), byte(to.Port())
	ip := to.Addr().As4()
	copy(b[4:], ip[:])
	return b
}

// take waits for one completion.
func take(t *testing.T, r *Ring) Done {
	t.Helper()
	var into [1]Done
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if r.Take(into[:]) == 1 {
			return into[0]
		}
		if err := r.Wait(1, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("nothing is done")
	return Done{}
}

// Many packets go out by one call and come in whole, from the right sender, and a cancelled socket is silent.
func TestPackets(t *testing.T) {
	const n = 200 // more than there are requests or buffers, fewer than the socket has room for
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := ring(t, Options{Requests: 16, Completions: 1024, OneThread: true, Buffers: 64, Messages: n})
	if err := r.Enable(); err != nil {
		t.Fatal(err)
	}
	from, at := port(t)
	to, there := port(t)
	const receives, cancels = 7, 1000
	if !r.Receive(to, receives) {
		t.Fatal("refused")
	}
	for i := range n {
		if !r.Send(from, i, []byte(strconv.Itoa(i)), sockaddr(there), cancels+1+uint64(i)) {
			t.Fatal("refused")
		}
	}
	if err := r.Submit(); err != nil {
		t.Fatal(err)
	}
	sent, got := 0, 0
	for got < n || sent < n {
		d := take(t, r)
		if d.ID != receives {
			if sent++; d.Err != nil {
				t.Fatalf("a packet was not sent: %v", d.Err)
			}
			continue
		}
		if d.Err != nil && !errors.Is(d.Err, syscall.ENOBUFS) {
			t.Fatal(d.Err)
		}
		if packet, sender := r.Packet(d); packet != nil {
			if string(packet) != strconv.Itoa(got) || string(sender[:8]) != string(sockaddr(at)[:8]) {
				t.Fatalf("packet %d is %q from %v", got, packet, sender)
			}
			got++
		}
		r.Give(d)
		if !d.More && !r.Receive(to, receives) {
			t.Fatal("refused")
		}
		if err := r.Submit(); err != nil {
			t.Fatal(err)
		}
	}
	if !r.Cancel(receives) || r.Submit() != nil {
		t.Fatal("not cancelled")
	}
	for {
		if d := take(t, r); d.ID == receives && !d.More {
			if !errors.Is(d.Err, syscall.ECANCELED) {
				t.Fatalf("it ended by %v", d.Err)
			}
			return
		}
	}
}

// A refused packet is told, and the next goes all the same.
func TestRefusedPacket(t *testing.T) {
	r := ring(t, Options{Requests: 8, Completions: 8, Messages: 4})
	from, _ := port(t)
	_, there := port(t)
	if r.Send(from, 0, make([]byte, MaxMessage+1), sockaddr(there), 1) || r.Send(from, 0, nil, sockaddr(there), 1) {
		t.Error("a packet of a wrong length is taken")
	}
	if !r.Send(from, 0, []byte("x"), sockaddr(netip.MustParseAddrPort("127.0.0.1:0")), 1) || !r.Send(from, 1, []byte("y"), sockaddr(there), 2) || r.Submit() != nil {
		t.Fatal("refused")
	}
	for _, want := range []Done{{ID: 1, Err: syscall.EINVAL, N: -int(syscall.EINVAL), buffer: -1}, {ID: 2, N: 1, buffer: -1}} {
		if d := take(t, r); d != want {
			t.Errorf("it is %+v, want %+v", d, want)
		}
	}
}

// A bell wakes who waits, whenever it is rung.
func TestBell(t *testing.T) {
	r := ring(t, Options{Requests: 8, Completions: 8})
	b, err := r.Bell()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	b.Ring()
	for range 2 {
		if !b.Listen(r, 5) || r.Submit() != nil {
			t.Fatal("refused")
		}
		if d := take(t, r); d.ID != 5 || d.N != 8 {
			t.Fatalf("it is %+v", d)
		}
		go b.Ring()
	}
}

// What cannot be had is refused with the reason.
func TestUnsupported(t *testing.T) {
	if _, err := New(Options{Requests: 1 << 30, Completions: 1 << 30}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("the error is %v", err)
	}
}
