package main

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"golang.org/x/net/ipv4"
)

// sound is the RTP of a whole crowd on a few sockets: one goroutine speaks for all, on absolute
// deadlines, and one a socket hears. Who is heard is told by the gateway's port, which no two legs share.
type sound struct {
	ears []*ear
	left chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	next  uint32                       // the id of the next stream
	turns [soundTurns]map[*stream]bool // those that speak, spread over 20 ms

	skipped atomic.Int64 // turns that this machine was too late for
}

const (
	soundEars  = 2
	soundTurns = 10
	soundTurn  = 20 * time.Millisecond / soundTurns
	soundBatch = 128
	soundRest  = 2 * time.Millisecond // between two looks at a socket, so that a look brings many packets
	soundMark  = 0x68_6f_74_6c        // begins each payload; the speaker's id follows
)

// ear is a pair of sockets.
type ear struct {
	s     *sound
	rtp   *unwatched
	rtcp  *net.UDPConn
	batch *ipv4.PacketConn

	mu sync.Mutex
	by [1 << 16]*stream // by the gateway's port
}

// stream is what one leg says and hears. Fields below got belong to the lock of its ear.
type stream struct {
	ear  *ear
	id   uint32
	turn int
	to   *net.UDPAddr // nil while nobody listens; the sound's lock
	head [12]byte
	body []byte
	said uint64

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
	for i := range s.turns {
		s.turns[i] = map[*stream]bool{}
	}
	for range soundEars {
		e := newEar(t, s)
		s.ears = append(s.ears, e)
		s.wg.Go(e.listen)
		s.wg.Go(e.reports)
	}
	s.wg.Go(s.speak)
	t.Cleanup(func() {
		close(s.left)
		for _, e := range s.ears {
			_ = e.rtcp.Close()
		}
		s.wg.Wait()
		for _, e := range s.ears {
			_ = e.rtp.Close()
		}
	})
	return s
}

// newEar opens a pair of ports: RTP on the even one (RFC 3550 section 11).
func newEar(t *testing.T, s *sound) *ear {
	t.Helper()
	at := netip.MustParseAddr("127.0.0.1")
	for range 100 {
		rtp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
		if err != nil {
			t.Fatal(err)
		}
		port := rtp.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		if port%2 == 0 {
			if other, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, port+1))); err == nil {
				_ = rtp.SetReadBuffer(4 << 20)
				_ = rtp.SetWriteBuffer(4 << 20)
				still := newUnwatched(t, rtp, s.left)
				return &ear{s: s, rtp: still, rtcp: other, batch: ipv4.NewPacketConn(still)}
			}
		}
		_ = rtp.Close()
	}
	t.Fatal("no pair of ports is free")
	return nil
}

// open makes a stream, which is silent until it is aimed.
func (s *sound) open() *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	st := &stream{ear: s.ears[int(s.next)%len(s.ears)], id: s.next, turn: int(s.next) / len(s.ears) % soundTurns}
	st.head[0], st.head[1] = 0x80, 8
	binary.BigEndian.PutUint32(st.head[8:], 0x5eed_0000+s.next)
	st.body = make([]byte, frame)
	binary.BigEndian.PutUint32(st.body, soundMark)
	binary.BigEndian.PutUint32(st.body[4:], s.next)
	for i := range st.body[8:] {
		st.body[8+i] = 0xd5
	}
	return st
}

func (st *stream) port() int { return st.ear.rtp.LocalAddr().(*net.UDPAddr).Port }

// aim hears a port of a gateway from now on, and, when it speaks, sends to it.
func (st *stream) aim(to netip.AddrPort, speak bool) {
	st.ear.mu.Lock()
	st.ear.by[to.Port()] = st
	st.ear.mu.Unlock()
	s := st.ear.s
	s.mu.Lock()
	defer s.mu.Unlock()
	st.to = net.UDPAddrFromAddrPort(to)
	if speak {
		s.turns[st.turn][st] = true
	}
}

func (st *stream) close() {
	s := st.ear.s
	s.mu.Lock()
	delete(s.turns[st.turn], st)
	to := st.to
	s.mu.Unlock()
	if to == nil {
		return
	}
	st.ear.mu.Lock()
	defer st.ear.mu.Unlock()
	if st.ear.by[to.Port] == st {
		st.ear.by[to.Port] = nil
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
	said := st.said
	st.ear.s.mu.Unlock()
	st.ear.mu.Lock()
	defer st.ear.mu.Unlock()
	return hearing{said: said, lostThere: st.lostThen, got: st.got, lost: st.lost, worst: st.worst, last: st.last, whom: st.heard}
}

// forget begins the measurement of punctuality anew.
func (st *stream) forget() {
	st.ear.mu.Lock()
	defer st.ear.mu.Unlock()
	st.worst, st.first, st.got = 0, time.Time{}, 0
}

// speak sends a packet of each stream every 20 ms.
func (s *sound) speak() {
	start := time.Now()
	batches := make(map[*ear][]ipv4.Message)
	for turn := 0; ; turn++ {
		at := start.Add(time.Duration(turn) * soundTurn)
		if late := time.Since(at); late > 100*time.Millisecond {
			n := int(late / soundTurn)
			turn, at = turn+n, at.Add(time.Duration(n)*soundTurn)
			s.skipped.Add(int64(n))
		}
		select {
		case <-s.left:
			return
		case <-time.After(time.Until(at)):
		}
		s.fill(turn%soundTurns, batches)
		for e, batch := range batches {
			for rest := batch; len(rest) > 0; {
				n, err := e.batch.WriteBatch(rest[:min(len(rest), soundBatch)], 0)
				if err != nil && n <= 0 {
					n = 1 // a gateway that was killed refuses it
				}
				rest = rest[n:]
			}
		}
	}
}

// fill prepares the packets of a turn.
func (s *sound) fill(turn int, batches map[*ear][]ipv4.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range batches {
		batches[e] = batches[e][:0]
	}
	for st := range s.turns[turn] {
		st.said++
		binary.BigEndian.PutUint16(st.head[2:], uint16(st.said))
		binary.BigEndian.PutUint32(st.head[4:], uint32(st.said)*frame)
		batches[st.ear] = append(batches[st.ear], ipv4.Message{Buffers: [][]byte{st.head[:], st.body}, Addr: st.to})
	}
}

// listen takes what comes, many packets at a time.
func (e *ear) listen() {
	batch := make([]ipv4.Message, soundBatch)
	for i := range batch {
		batch[i].Buffers = [][]byte{make([]byte, 512)}
	}
	for {
		n, err := e.batch.ReadBatch(batch, 0)
		select {
		case <-e.s.left:
			return
		default:
		}
		if err != nil {
			continue
		}
		now := time.Now()
		e.mu.Lock()
		for _, m := range batch[:n] {
			if from, ok := m.Addr.(*net.UDPAddr); ok && m.N >= 12 {
				e.by[from.Port].take(m.Buffers[0][:m.N], now)
			}
		}
		e.mu.Unlock()
	}
}

// unwatched is a socket that the runtime does not watch: it would wake a thread for every packet, at the
// cost of the gateway that sends it.
type unwatched struct {
	*net.UDPConn // closed; it knows the address still
	file         *os.File
	raw          resting
}

func newUnwatched(t *testing.T, c *net.UDPConn, left chan struct{}) *unwatched {
	t.Helper()
	file, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close() // the duplicate lives on
	fd := file.Fd()
	if err := syscall.SetNonblock(int(fd), true); err != nil {
		t.Fatal(err)
	}
	return &unwatched{UDPConn: c, file: file, raw: resting{fd: fd, left: left}}
}

func (u *unwatched) SyscallConn() (syscall.RawConn, error) { return u.raw, nil }
func (u *unwatched) Close() error                          { return u.file.Close() }

// resting tries again after a rest where others wait to be woken.
type resting struct {
	fd   uintptr
	left chan struct{}
}

func (r resting) Control(f func(fd uintptr)) error    { f(r.fd); return nil }
func (r resting) Write(f func(fd uintptr) bool) error { return r.Read(f) }
func (r resting) Read(f func(fd uintptr) bool) error {
	for !f(r.fd) {
		select {
		case <-r.left:
			return net.ErrClosed
		case <-time.After(soundRest):
		}
	}
	return nil
}

// take counts one packet; the ear's lock is held. A stream that is over takes nothing.
func (st *stream) take(pkt []byte, now time.Time) {
	if st == nil || pkt[1]&0x7f != 8 {
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
	st.heard = 0
	if body := pkt[12:]; len(body) >= 8 && binary.BigEndian.Uint32(body) == soundMark {
		st.heard = binary.BigEndian.Uint32(body[4:])
	}
}

// reports reads what the gateway says of the streams that it hears (RFC 3550 section 6.4).
func (e *ear) reports() {
	buf := make([]byte, 2048)
	for {
		n, from, err := e.rtcp.ReadFromUDPAddrPort(buf)
		select {
		case <-e.s.left:
			return
		default:
		}
		if err != nil {
			continue
		}
		packets, err := rtcp.Unmarshal(buf[:n])
		if err != nil {
			continue
		}
		e.mu.Lock()
		if st := e.by[from.Port()-1]; st != nil {
			for _, p := range packets {
				if sr, ok := p.(*rtcp.SenderReport); ok && len(sr.Reports) == 1 {
					st.lostThen = uint64(sr.Reports[0].TotalLost)
				}
			}
		}
		e.mu.Unlock()
	}
}
