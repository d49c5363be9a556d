package sip

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
	"github.com/hotline12345/gateway/sip/siptest"
)

// person is a telephone with someone at it, over real sockets: a [calltest.Peer].
type person struct {
	t     *testing.T
	user  string
	phone *siptest.Phone
	conn  net.PacketConn
	rtp   *net.UDPConn

	answered  chan struct{}
	refused   chan siptest.Message
	ended     chan siptest.Message // the BYE
	rung      chan siptest.Message
	cancelled chan siptest.Message // the CANCEL
	provision chan siptest.Message // 180 to 183
	reoffered chan siptest.Message // the 200 to a re-INVITE
	other     chan siptest.Message

	once    sync.Once
	left    atomic.Bool
	closing sync.WaitGroup

	mu     sync.Mutex
	call   *siptest.Call
	invite siptest.Message
	sdp    string // what to offer; "" is A-law with telephone-event
	remote netip.AddrPort
	hz     float64
	clock  int
	seq    uint16
	stamp  uint32
	ears   []byte
}

// newPerson is someone at a telephone that speaks to peer; the test lets them leave.
func newPerson(t *testing.T, user string, peer netip.AddrPort) *person {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rtp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, user: user, conn: conn, rtp: rtp,
		answered: make(chan struct{}), refused: make(chan siptest.Message, 8), ended: make(chan siptest.Message, 8),
		rung: make(chan siptest.Message, 8), cancelled: make(chan siptest.Message, 8),
		provision: make(chan siptest.Message, 64), reoffered: make(chan siptest.Message, 8), other: make(chan siptest.Message, 64)}
	p.phone = newPhone(p, user, peer)
	return p
}

// leave closes the telephone.
func (p *person) leave() {
	p.left.Store(true)
	_ = p.conn.Close()
	_ = p.rtp.Close()
	p.closing.Wait()
}

func newPhone(p *person, user string, peer netip.AddrPort) *siptest.Phone {
	return siptest.NewPhone(quiet{p}, p.conn, user, peer)
}

// quiet keeps a telephone whose person has left from failing the test.
type quiet struct{ p *person }

func (q quiet) Helper() {}

func (q quiet) Fatalf(format string, args ...any) {
	if q.p.left.Load() {
		runtime.Goexit()
	}
	q.p.t.Errorf(format, args...)
	q.p.t.FailNow()
}

// sit begins to answer what comes.
func (p *person) sit() *person {
	p.closing.Go(p.signals)
	p.closing.Go(p.listen)
	p.closing.Go(p.speak)
	return p
}

func (p *person) signals() {
	buf := make([]byte, 65535)
	if err := p.conn.SetReadDeadline(time.Time{}); err != nil {
		return
	}
	for {
		n, from, err := p.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		p.take(siptest.ParseMessage(string(buf[:n])), from)
	}
}

func (p *person) take(m siptest.Message, from net.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := netip.MustParseAddrPort(from.String()); m.Method() != "" && a != p.phone.Peer() {
		p.phone = newPhone(p, p.user, a) // the telephone is registered at several gateways
	}
	_, of := m.CSeq()
	switch status := m.Status(); {
	case m.Method() == "INVITE" && m.Get("Via") == p.invite.Get("Via"): // again, since the machine is busy
	case m.Method() == "INVITE" && m.Tag("To") == "":
		p.invite = m
		p.call = &siptest.Call{Phone: p.phone, ID: m.Get("Call-ID"), Local: m.Get("To") + ";tag=" + p.phone.Name("tag"),
			Remote: m.Get("From"), Target: m.Contact(), CSeq: 100, Routes: m.All("Record-Route")}
		p.aim(m.Body)
		p.rung <- m
	case m.Method() == "CANCEL":
		p.call.Respond(m, 200, "")
		p.call.Respond(p.invite, 487, "")
		p.cancelled <- m
	case m.Method() == "BYE":
		p.call.Respond(m, 200, "")
		p.ended <- m
	case m.Method() == "ACK":
	case m.Method() != "":
		p.phone.Respond(m, 200, p.phone.Name("tag"), "")
		p.other <- m
	case of != "INVITE":
		p.other <- m
	case status > 100 && status < 200:
		p.aim(m.Body)
		p.provision <- m
	case status >= 300:
		p.call.Ack(m, "")
		p.refused <- m
	case status >= 200:
		p.call.Ack(m, "")
		p.aim(m.Body)
		first := false
		p.once.Do(func() { first = true; close(p.answered) })
		if !first {
			p.reoffered <- m
		}
	}
}

var mediaLine = regexp.MustCompile(`(?m)^m=audio (\d+)`)

// aim sends sound to where a description says.
func (p *person) aim(sdp string) {
	if m := mediaLine.FindStringSubmatch(sdp); m != nil {
		port, _ := strconv.Atoi(m[1])
		p.remote = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
	}
}

// offer is the telephone's description.
func (p *person) offer(direction string) string {
	if p.sdp != "" {
		return p.sdp
	}
	return fmt.Sprintf("v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio %d RTP/AVP 8 101\n"+
		"a=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\na=ptime:20\na=%s\n",
		p.rtp.LocalAddr().(*net.UDPAddr).Port, direction)
}

// dial calls a number; header lines may follow.
func (p *person) dial(number string, lines ...string) *person {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.call = p.phone.Invite(number, p.offer("sendrecv"), lines...)
	return p
}

// register registers the telephone as an agent's; it is not sitting yet.
func (p *person) register(password string) {
	p.t.Helper()
	if res := p.phone.Register(password, 600, "Contact: <"+p.phone.Contact()+">"); res.Status() != 200 {
		p.t.Fatalf("REGISTER: %s", res.Raw)
	}
}

func (p *person) listen() {
	buf := make([]byte, 2048)
	for {
		n, err := p.rtp.Read(buf)
		if err != nil {
			return
		}
		if n > 12 && buf[1]&0x7f == 8 {
			p.mu.Lock()
			p.ears = append(p.ears, buf[12:n]...)
			p.mu.Unlock()
		}
	}
}

// speak says a frame every 20 ms until the socket closes.
func (p *person) speak() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		p.mu.Lock()
		frame := slices.Repeat([]byte{0xd5}, call.FrameBytes)
		if p.hz > 0 {
			tone := calltest.Tone(p.hz, time.Second)
			for i := range frame {
				frame[i] = tone[(p.clock+i)%len(tone)]
			}
			p.clock += len(frame)
		}
		p.stamp += call.FrameBytes
		err := p.send(8, false, frame)
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *person) send(payload byte, marker bool, body []byte) error {
	if !p.remote.IsValid() {
		if _, err := p.rtp.WriteToUDPAddrPort(nil, netip.MustParseAddrPort("127.0.0.1:9")); err != nil {
			return err
		}
		return nil
	}
	p.seq++
	h := make([]byte, 12, 12+len(body))
	h[0], h[1] = 0x80, payload
	if marker {
		h[1] |= 0x80
	}
	binary.BigEndian.PutUint16(h[2:], p.seq)
	binary.BigEndian.PutUint32(h[4:], p.stamp)
	binary.BigEndian.PutUint32(h[8:], 0x5eed)
	_, err := p.rtp.WriteToUDPAddrPort(append(h, body...), p.remote)
	return err
}

func (p *person) Answered() <-chan struct{} { return p.answered }

func (p *person) Refused() <-chan int {
	out := make(chan int, 1)
	p.closing.Go(func() {
		select {
		case m := <-p.refused:
			out <- m.Status()
		case <-p.t.Context().Done():
		}
	})
	return out
}

func (p *person) Ended() <-chan struct{} {
	out := make(chan struct{}, 1)
	p.closing.Go(func() {
		select {
		case <-p.ended:
			out <- struct{}{}
		case <-p.t.Context().Done():
		}
	})
	return out
}

// Press sends keys as telephone-events: each begins, lasts and ends thrice (RFC 4733 section 2.5).
func (p *person) Press(keys string) {
	for _, k := range []byte(keys) {
		code := strings.IndexByte("0123456789*#ABCD", k)
		p.mu.Lock()
		p.stamp += 2 * call.FrameBytes
		for i, e := range []struct {
			length uint16
			end    byte
		}{{160, 0}, {320, 0}, {480, 0x80}, {480, 0x80}, {480, 0x80}} {
			body := []byte{byte(code), 10 | e.end, byte(e.length >> 8), byte(e.length)}
			if err := p.send(101, i == 0, body); err != nil {
				p.t.Error(err)
			}
		}
		p.stamp += 4 * call.FrameBytes
		p.mu.Unlock()
	}
}

func (p *person) Speak(hz float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hz = hz
}

func (p *person) Listen(d time.Duration) []byte {
	p.mu.Lock()
	p.ears = nil
	p.mu.Unlock()
	<-time.After(d)
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ears)
}

func (p *person) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.call.Request("BYE", "")
}

func (p *person) Does(kind call.EventKind) {
	p.mu.Lock()
	direction := "sendonly"
	if kind == call.ResumeEvent {
		direction = "sendrecv"
	}
	p.call.Request("INVITE", p.offer(direction))
	p.mu.Unlock()
	<-p.reoffered
}

func (p *person) Rung() calltest.Ring {
	m := <-p.rung
	return calltest.Ring{At: time.Now(), Options: call.DialOptions{Token: m.Get(tokenHeader)}}
}

func (p *person) respond(status int, body string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.call.Respond(p.invite, status, body)
}

func (p *person) Ring() { p.respond(180, "") }
func (p *person) PickUp() {
	p.once.Do(func() { close(p.answered) })
	p.respond(200, p.offer("sendrecv"))
}

func (p *person) Refuse(status int) { p.respond(status, "") }
func (p *person) Cancelled()        { <-p.cancelled }

var _ calltest.Peer = (*person)(nil)
