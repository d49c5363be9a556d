package main

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/pion/rtcp"
	"golang.org/x/sys/unix"
)

// sound is the RTP of a whole crowd on a few sockets. One goroutine speaks and hears for all: every two
// milliseconds, on absolute deadlines, it sends what is due and takes what has come, many packets at a time,
// and the runtime watches none of the sockets. So the crowd leaves the machine to the gateway under test.
// Who is heard is told by the gateway's port, which no two legs share.
type sound struct {
	ears    []*ear
	in, out packets
	left    chan struct{}
	wg      sync.WaitGroup

	mu      sync.Mutex // also of all streams; held while the crowd speaks and hears
	next    uint32     // the id of the next stream
	changed []uint32   // the streams that hear somebody else than before

	skipped atomic.Int64 // turns that this machine was too late for
}

const (
	soundEars   = 4
	soundTurns  = 10
	soundTurn   = 20 * time.Millisecond / soundTurns
	soundBatch  = 128
	soundRoom   = 1500          // octets of a packet
	soundBuffer = 4 << 20       // octets of a socket's buffer: 70 ms of 1,600 streams
	soundMark   = 0x68_6f_74_6c // begins each payload; the speaker's id follows
	soundReport = 50            // turns from one look at the reports to the next
)

// ear is a pair of sockets.
type ear struct {
	s         *sound
	rtp, rtcp int
	port      uint16
	turns     [soundTurns][]*stream // those that speak, spread over 20 ms
	by        [1 << 16]*stream      // by the gateway's port
}

// stream is what one leg says and hears; it belongs to the sound's lock.
type stream struct {
	ear    *ear
	id     uint32
	turn   int
	to     netip.AddrPort // invalid while nobody listens
	speaks bool
	said   uint64

	got      uint64
	lost     int64
	next     uint16
	first    time.Time
	last     time.Time
	worst    time.Duration // the longest that a packet came after its time
	heard    uint32        // the id of whom was heard last; 0 is music, silence or a prompt
	lostThen uint64        // of what was said, as the gateway's last report has it
}

func newSound(t *testing.T) *sound {
	t.Helper()
	s := &sound{left: make(chan struct{})}
	s.in.init()
	s.out.init()
	for range soundEars {
		s.ears = append(s.ears, newEar(t, s))
	}
	s.wg.Go(s.live)
	t.Cleanup(func() {
		close(s.left)
		s.wg.Wait()
	})
	return s
}

// newEar opens a pair of ports: RTP on the even one (RFC 3550 section 11).
func newEar(t *testing.T, s *sound) *ear {
	t.Helper()
	for range 100 {
		rtp, port, err := openPort(t, 0)
		if err != nil {
			t.Fatal(err)
		}
		if port%2 != 0 {
			continue
		}
		if other, _, err := openPort(t, port+1); err == nil {
			return &ear{s: s, rtp: rtp, rtcp: other, port: port}
		}
	}
	t.Fatal("no pair of ports is free")
	return nil
}

// openPort opens a socket on a port of this machine, 0 being any; it is closed with the test.
func openPort(t *testing.T, port uint16) (fd int, bound uint16, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, soundBuffer)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, soundBuffer) // past the system's limit, for those who may
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, 0, err
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return 0, 0, err
	}
	return fd, uint16(at.(*unix.SockaddrInet4).Port), nil
}

// open makes a stream, which is silent until it is aimed.
func (s *sound) open() *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return &stream{ear: s.ears[int(s.next)%len(s.ears)], id: s.next, turn: int(s.next) / len(s.ears) % soundTurns}
}

func (st *stream) port() int { return int(st.ear.port) }

// aim hears a port of a gateway from now on, and, when it speaks, sends to it.
func (st *stream) aim(to netip.AddrPort, speak bool) {
	e := st.ear
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	e.by[to.Port()] = st
	st.to = to
	if speak && !st.speaks {
		st.speaks = true
		e.turns[st.turn] = append(e.turns[st.turn], st)
	}
}

func (st *stream) close() {
	e := st.ear
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	if st.speaks {
		st.speaks = false
		e.turns[st.turn] = slices.DeleteFunc(e.turns[st.turn], func(o *stream) bool { return o == st })
	}
	if st.to.IsValid() && e.by[st.to.Port()] == st {
		e.by[st.to.Port()] = nil
	}
}

// hearing is how well a stream was heard, both ways.
type hearing struct {
	said, lostThere uint64
	got             uint64
	lost            int64
	worst           time.Duration
	last            time.Time
	whom            uint32
}

func (st *stream) hearing() hearing {
	st.ear.s.mu.Lock()
	defer st.ear.s.mu.Unlock()
	return hearing{said: st.said, lostThere: st.lostThen, got: st.got, lost: st.lost, worst: st.worst, last: st.last, whom: st.heard}
}

// forget begins the measurement of punctuality anew.
func (st *stream) forget() {
	st.ear.s.mu.Lock()
	defer st.ear.s.mu.Unlock()
	st.worst, st.first, st.got = 0, time.Time{}, 0
}

// news is the ids of the streams that hear somebody else than at the last call.
func (s *sound) news() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.changed
	s.changed = nil
	return changed
}

// live lets each stream send a packet every 20 ms, and hears what comes.
func (s *sound) live() {
	start := time.Now()
	for turn := 0; ; turn++ {
		at := start.Add(time.Duration(turn) * soundTurn)
		if late := time.Since(at); late > 100*time.Millisecond {
			n := int(late / soundTurn)
			turn, at = turn+n, at.Add(time.Duration(n)*soundTurn)
			s.skipped.Add(int64(n))
		}
		for rest := time.Until(at); rest > 0; rest = time.Until(at) { // not a timer of the runtime's, which costs more than the turn
			ts := unix.NsecToTimespec(int64(rest))
			_ = unix.Nanosleep(&ts, nil)
		}
		select {
		case <-s.left:
			return
		default:
		}
		s.mu.Lock()
		for _, e := range s.ears {
			e.speak(e.turns[turn%soundTurns])
		}
		for _, e := range s.ears {
			e.hear(e.rtp, (*stream).take)
			if turn%soundReport == 0 {
				e.hear(e.rtcp, (*stream).report)
			}
		}
		s.mu.Unlock()
		if turn%4 == 0 {
			runtime.Gosched() // a goroutine that is not rescheduled in 10 ms is, by signals and other threads
		}
	}
}

// speak sends a packet of each of the streams.
func (e *ear) speak(all []*stream) {
	for streams := range slices.Chunk(all, soundBatch) {
		for i, st := range streams {
			e.s.out.put(i, st)
		}
		e.s.out.send(e.rtp, len(streams))
	}
}

// hear takes what has come to a socket. RTCP comes from the port after that of the RTP (RFC 3550 section 11).
func (e *ear) hear(fd int, take func(st *stream, pkt []byte, now time.Time)) {
	above := uint16(0)
	if fd == e.rtcp {
		above = 1
	}
	for n := soundBatch; n == soundBatch; {
		n = e.s.in.receive(fd)
		now := time.Now()
		for i := range n {
			if st := e.by[e.s.in.from(i)-above]; st != nil {
				take(st, e.s.in.packet(i), now)
			}
		}
	}
}

// take counts one packet.
func (st *stream) take(pkt []byte, now time.Time) {
	if len(pkt) < 12 || pkt[1]&0x7f != 8 {
		return
	}
	number := binary.BigEndian.Uint16(pkt[2:])
	switch gap := int16(number - st.next); {
	case st.last.IsZero():
		st.next = number + 1
	case gap < 0: // late: it was counted as lost
		st.lost--
	default:
		st.lost += int64(gap)
		st.next = number + 1
	}
	if st.first.IsZero() {
		st.first = now
	}
	st.worst = max(st.worst, now.Sub(st.first.Add(time.Duration(st.got)*20*time.Millisecond)))
	st.got++
	st.last = now
	whom := uint32(0)
	if body := pkt[12:]; len(body) >= 8 && binary.BigEndian.Uint32(body) == soundMark {
		whom = binary.BigEndian.Uint32(body[4:])
	}
	if whom != st.heard {
		st.heard = whom
		st.ear.s.changed = append(st.ear.s.changed, st.id)
	}
}

// report reads what the gateway says of a stream that it hears (RFC 3550 section 6.4).
func (st *stream) report(pkt []byte, _ time.Time) {
	all, err := rtcp.Unmarshal(pkt)
	if err != nil {
		return
	}
	for _, p := range all {
		if sr, ok := p.(*rtcp.SenderReport); ok && len(sr.Reports) == 1 {
			st.lostThen = uint64(sr.Reports[0].TotalLost)
		}
	}
}

// packets is room for a batch that the kernel takes or gives at once (sendmmsg(2), recvmmsg(2)).
type packets struct {
	headers [soundBatch]struct {
		unix.Msghdr
		n uint32 // octets that came
	}
	parts [soundBatch]unix.Iovec
	peers [soundBatch]unix.RawSockaddrInet4
	bytes [soundBatch][soundRoom]byte
}

func (b *packets) init() {
	for i := range b.headers {
		b.parts[i].Base = &b.bytes[i][0]
		b.parts[i].SetLen(soundRoom)
		b.peers[i].Family = unix.AF_INET
		h := &b.headers[i].Msghdr
		h.Iov, h.Name, h.Namelen = &b.parts[i], (*byte)(unsafe.Pointer(&b.peers[i])), unix.SizeofSockaddrInet4
		h.SetIovlen(1)
	}
}

// put makes a packet the next one of a stream (RFC 3550 section 5.1, PCMA).
func (b *packets) put(i int, st *stream) {
	st.said++
	pkt := b.bytes[i][:12+frame]
	pkt[0], pkt[1] = 0x80, 8
	binary.BigEndian.PutUint16(pkt[2:], uint16(st.said))
	binary.BigEndian.PutUint32(pkt[4:], uint32(st.said)*frame)
	binary.BigEndian.PutUint32(pkt[8:], 0x5eed_0000+st.id)
	binary.BigEndian.PutUint32(pkt[12:], soundMark)
	binary.BigEndian.PutUint32(pkt[16:], st.id)
	copy(pkt[20:], soundSilence)
	b.parts[i].SetLen(len(pkt))
	b.peers[i].Addr = st.to.Addr().As4()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&b.peers[i].Port))[:], st.to.Port())
}

// soundSilence is PCMA of nothing (ITU-T G.711).
var soundSilence = slices.Repeat([]byte{0xd5}, frame-8)

// send sends the first packets.
func (b *packets) send(fd, n int) {
	for done := 0; done < n; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[done])), uintptr(n-done), 0, 0, 0)
		switch errno {
		case 0:
			done += int(sent)
		case unix.EINTR:
		default:
			done++ // a gateway that was killed refuses it
		}
	}
}

// receive takes what has come, up to a batch, and returns how many packets that is.
func (b *packets) receive(fd int) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[0])), soundBatch, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// from is the port that a packet came from.
func (b *packets) from(i int) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&b.peers[i].Port))[:])
}

func (b *packets) packet(i int) []byte { return b.bytes[i][:b.headers[i].n] }
