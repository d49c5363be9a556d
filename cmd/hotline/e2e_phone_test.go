package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hotline12345/gateway/sip/siptest"
)

// phone is a telephone, or a carrier's switch, on real sockets: it places and takes calls, each with
// sound of its own. What comes is answered as a decent phone would: BYE and CANCEL at once, OPTIONS too.
type phone struct {
	t    *testing.T
	user string
	conn net.PacketConn
	wg   sync.WaitGroup
	left atomic.Bool

	mu    sync.Mutex
	sip   *siptest.Phone
	lines map[string]*line
	reg   chan siptest.Message // answers to REGISTER

	incoming chan *line // calls that came; nobody has answered them yet
	// take, when set, is given each incoming call in its place, in the reader's goroutine.
	take func(*line)
}

// newPhone makes a telephone that speaks to peer, as user. It leaves with the test.
func newPhone(t *testing.T, user string, peer netip.AddrPort) *phone {
	t.Helper()
	return newPhoneAt(t, netip.MustParseAddr("127.0.0.1"), user, peer)
}

// newPhoneAt is newPhone at another address of this machine: on another trunk.
func newPhoneAt(t *testing.T, at netip.Addr, user string, peer netip.AddrPort) *phone {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadBuffer(4 << 20) // a burst of calls; the kernel caps it
	p := &phone{t: t, user: user, conn: &returning{PacketConn: conn, to: peer}, lines: map[string]*line{},
		reg: make(chan siptest.Message, 8), incoming: make(chan *line, 256)}
	p.sip = siptest.NewPhone(calm{p}, p.conn, user, peer)
	p.wg.Go(p.listen)
	t.Cleanup(p.leave)
	return p
}

// returning sends to a peer or, when there is none yet, to where the last message came from: the far
// side of a gateway that has not started when its address is written into the configuration.
type returning struct {
	net.PacketConn
	to   netip.AddrPort
	mu   sync.Mutex
	last net.Addr
}

func (r *returning) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := r.PacketConn.ReadFrom(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	if from != nil {
		r.last = from
	}
	return n, from, err
}

func (r *returning) WriteTo(b []byte, to net.Addr) (int, error) {
	if !r.to.IsValid() {
		r.mu.Lock()
		to = r.last
		r.mu.Unlock()
	}
	return r.PacketConn.WriteTo(b, to)
}

// calm keeps a phone that has left from failing the test.
type calm struct{ p *phone }

func (c calm) Helper() {}

func (c calm) Fatalf(format string, args ...any) {
	if !c.p.left.Load() {
		c.p.t.Errorf(format, args...)
	}
}

func (p *phone) leave() {
	p.left.Store(true)
	_ = p.conn.Close()
	p.mu.Lock()
	lines := p.lines
	p.lines = map[string]*line{}
	p.mu.Unlock()
	for _, l := range lines {
		l.close()
	}
	p.wg.Wait()
}

func (p *phone) addr() netip.AddrPort { return p.sip.Addr() }

func (p *phone) listen() {
	buf := make([]byte, 65535)
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if p.left.Load() {
			return
		}
		if err != nil {
			continue // the peer is down: ECONNREFUSED does not end a telephone
		}
		m := siptest.ParseMessage(string(buf[:n]))
		m.At = time.Now()
		p.handle(m)
	}
}

func (p *phone) handle(m siptest.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lines[m.Get("Call-ID")]
	_, of := m.CSeq()
	switch {
	case m.Method() == "INVITE" && l == nil:
		p.ring(m)
	case of == "REGISTER":
		p.reg <- m
	case l == nil && m.Method() != "" && m.Method() != "ACK":
		p.sip.Respond(m, map[bool]int{true: 200, false: 481}[m.Method() == "OPTIONS"], p.sip.Name("tag"), "")
	case l != nil:
		l.handle(m, of)
	}
}

// ring takes a call that comes in.
func (p *phone) ring(m siptest.Message) {
	l := p.line(&siptest.Call{Phone: p.sip, ID: m.Get("Call-ID"), Local: m.Get("To") + ";tag=" + p.sip.Name("tag"),
		Remote: m.Get("From"), Target: m.Contact(), CSeq: 100, Routes: m.All("Record-Route")})
	l.invite = m
	l.aim(m.Body)
	if p.take != nil {
		p.take(l)
		return
	}
	p.incoming <- l
}

// answering makes the phone pick up each call at once, with a tone to say.
func (p *phone) answering(hz float64) *phone {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.take = func(l *line) {
		l.speakLocked(hz)
		l.respond(200)
		p.incoming <- l
	}
	return p
}

// ringing makes the phone ring without an answer.
func (p *phone) ringing() *phone {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.take = func(l *line) {
		l.respond(180)
		p.incoming <- l
	}
	return p
}

// register registers the phone with digest.
func (p *phone) register(secret string) {
	p.t.Helper()
	uri := fmt.Sprintf("sip:%s", p.sip.Peer())
	id, tag := "reg"+p.user+strconv.FormatInt(time.Now().UnixNano(), 36), "t"+p.user
	authorization := ""
	for cseq := 1; cseq <= 2; cseq++ {
		p.mu.Lock()
		p.sip.Send(fmt.Sprintf("REGISTER %s SIP/2.0\nVia: SIP/2.0/UDP %s;branch=%s;rport\nMax-Forwards: 70\n"+
			"From: <sip:%s@%s>;tag=%s\nTo: <sip:%s@%s>\nCall-ID: %s\nCSeq: %d REGISTER\nContact: <%s>\nExpires: 600\n%sContent-Length: 0\n\n",
			uri, p.sip.Addr(), p.sip.Name("z9hG4bK"), p.user, p.sip.Peer().Addr(), tag, p.user, p.sip.Peer().Addr(),
			id, cseq, p.sip.Contact(), authorization))
		p.mu.Unlock()
		m := receive(p.t, "an answer to REGISTER", p.reg)
		switch m.Status() {
		case 200:
			return
		case 401:
			authorization = "Authorization: " + siptest.Authorize(m.Get("WWW-Authenticate"), p.user, secret, "REGISTER", uri) + "\n"
		default:
			p.t.Fatalf("REGISTER: %s", m.Raw)
		}
	}
	p.t.Fatalf("%s could not register", p.user)
}

// dial places a call and returns at once.
func (p *phone) dial(number string, header ...string) *line {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.line(nil)
	l.placed = time.Now()
	l.call = p.sip.Invite(number, l.sdp(), header...)
	p.lines[l.call.ID] = l
	return l
}

// line makes the media of a call.
func (p *phone) line(c *siptest.Call) *line {
	p.t.Helper()
	rtp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		p.t.Fatal(err)
	}
	l := &line{p: p, call: c, rtp: rtp, closed: make(chan struct{}), ssrc: rtpSource.Add(1),
		answered: make(chan siptest.Message, 1), refused: make(chan siptest.Message, 1), ended: make(chan siptest.Message, 1),
		cancelled: make(chan siptest.Message, 1), replies: make(chan siptest.Message, 4096)}
	if c != nil {
		p.lines[c.ID] = l
	}
	p.wg.Go(l.hear)
	p.wg.Go(l.talk)
	return l
}

var rtpSource atomic.Uint32

// line is one call of a phone. Fields below mu belong to the phone's lock, those of sound to sound.
type line struct {
	p      *phone
	call   *siptest.Call
	invite siptest.Message // that came in
	placed time.Time       // when ours went out
	final  int             // what we answered

	answered, refused, ended, cancelled chan siptest.Message
	replies                             chan siptest.Message // to other requests of ours

	rtp    *net.UDPConn
	ssrc   uint32
	once   sync.Once
	closed chan struct{}

	sound  sync.Mutex
	remote netip.AddrPort
	tone   []byte // one second; nil is silence
	said   int
	seq    uint16
	stamp  uint32
	mute   bool
	ears   []byte
	heard  uint64    // packets
	lost   int64     // by the gaps of their numbers
	next   uint16    // the number that should come
	last   time.Time // of the last packet
}

func (l *line) close() {
	l.once.Do(func() {
		close(l.closed)
		_ = l.rtp.Close()
	})
}

func tell(c chan siptest.Message, m siptest.Message) {
	select {
	case c <- m:
	default: // a retransmission
	}
}

// handle takes a message of the call; the phone's lock is held.
func (l *line) handle(m siptest.Message, of string) {
	switch status := m.Status(); {
	case m.Method() == "INVITE" && m.Tag("To") == "": // again
		if l.final != 0 {
			l.respond(l.final)
		}
	case m.Method() == "INVITE":
		l.aim(m.Body)
		l.call.Respond(m, 200, l.sdp())
	case m.Method() == "CANCEL":
		l.call.Respond(m, 200, "")
		if l.final < 200 {
			l.respond(487)
		}
		tell(l.cancelled, m)
	case m.Method() == "BYE":
		l.call.Respond(m, 200, "")
		l.close()
		tell(l.ended, m)
	case m.Method() == "ACK":
	case m.Method() != "":
		l.call.Respond(m, 200, "")
	case of != "INVITE":
		tell(l.replies, m)
	case status >= 300:
		l.call.Ack(m, "")
		l.close()
		tell(l.refused, m)
	case status >= 200:
		l.call.Ack(m, "")
		l.aim(m.Body)
		tell(l.answered, m)
	case status > 100:
		l.aim(m.Body)
	}
}

// respond answers the call; the phone's lock is held.
func (l *line) respond(status int) {
	body := ""
	if status >= 180 && status < 300 && status != 180 {
		body = l.sdp()
	}
	if status >= 200 {
		l.final = status
	}
	l.call.Respond(l.invite, status, body)
	if status >= 300 {
		l.close()
	}
}

// reply answers the call that came in.
func (l *line) reply(status int) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.respond(status)
}

// connected waits for the answer, and returns how long it took from the INVITE.
func (l *line) connected() time.Duration {
	l.p.t.Helper()
	select {
	case m := <-l.answered:
		return m.At.Sub(l.placed)
	case m := <-l.refused:
		l.p.t.Fatalf("%s: the call was refused: %s", l.p.user, m)
	case <-time.After(15 * time.Second):
		l.p.t.Fatalf("%s: the call was not answered", l.p.user)
	}
	return 0
}

// hangup ends the call.
func (l *line) hangup() {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.call.Request("BYE", "")
	l.close()
}

// info presses keys by INFO, one request after the other without waiting.
func (l *line) info(keys string) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	for _, k := range []byte(keys) {
		l.call.InfoDigit(k)
	}
}

var audioLine = regexp.MustCompile(`(?m)^m=audio (\d+)`)

// aim sends the sound to where a description says.
func (l *line) aim(sdp string) {
	if m := audioLine.FindStringSubmatch(sdp); m != nil {
		port, _ := strconv.Atoi(m[1])
		l.sound.Lock()
		l.remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
		l.sound.Unlock()
	}
}

func (l *line) sdp() string {
	return fmt.Sprintf("v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio %d RTP/AVP 8 101\n"+
		"a=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\na=ptime:20\na=sendrecv\n",
		l.rtp.LocalAddr().(*net.UDPAddr).Port)
}

// speak says a tone from now on; 0 is silence.
func (l *line) speak(hz float64) *line { l.speakLocked(hz); return l }

func (l *line) speakLocked(hz float64) {
	l.sound.Lock()
	defer l.sound.Unlock()
	l.tone = nil
	if hz > 0 {
		l.tone = siptest.ALaw(siptest.Tone(hz, time.Second))
	}
}

const frame = 160 // bytes of G.711 in 20 ms

// talk sends a frame every 20 ms until the call is over.
func (l *line) talk() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-l.closed:
			return
		case <-tick.C:
		}
		l.sound.Lock()
		body := slices.Repeat([]byte{0xd5}, frame)
		if l.tone != nil {
			body = l.tone[l.said : l.said+frame]
			l.said = (l.said + frame) % len(l.tone)
		}
		l.stamp += frame
		if !l.mute {
			l.send(8, false, body)
		}
		l.sound.Unlock()
	}
}

// send sends one packet; the lock of the sound is held.
func (l *line) send(kind byte, marker bool, body []byte) {
	if !l.remote.IsValid() {
		return
	}
	l.seq++
	h := make([]byte, 12, 12+len(body))
	h[0], h[1] = 0x80, kind
	if marker {
		h[1] |= 0x80
	}
	binary.BigEndian.PutUint16(h[2:], l.seq)
	binary.BigEndian.PutUint32(h[4:], l.stamp)
	binary.BigEndian.PutUint32(h[8:], l.ssrc)
	_, _ = l.rtp.WriteToUDPAddrPort(append(h, body...), l.remote) // a gateway that was killed refuses it
}

// press sends keys as telephone-events: each begins, lasts and ends thrice (RFC 4733 section 2.5). It
// returns when the last key was begun: the moment at which a person presses.
func (l *line) press(keys string) time.Time {
	var at time.Time
	for _, k := range []byte(keys) {
		code := strings.IndexByte("0123456789*#ABCD", k)
		l.sound.Lock()
		l.stamp += 2 * frame
		at = time.Now()
		for i, e := range []struct {
			length uint16
			end    byte
		}{{160, 0}, {320, 0}, {480, 0x80}, {480, 0x80}, {480, 0x80}} {
			l.send(101, i == 0, []byte{byte(code), 10 | e.end, byte(e.length >> 8), byte(e.length)})
		}
		l.stamp += 4 * frame
		l.sound.Unlock()
	}
	return at
}

// hear keeps what is heard.
func (l *line) hear() {
	buf := make([]byte, 2048)
	for {
		n, err := l.rtp.Read(buf)
		select {
		case <-l.closed:
			return
		default:
		}
		if err != nil || n < 12 || buf[1]&0x7f != 8 {
			continue
		}
		l.sound.Lock()
		number := binary.BigEndian.Uint16(buf[2:])
		switch gap := int16(number - l.next); {
		case l.heard == 0:
			l.next = number + 1
		case gap < 0: // late: it was counted as lost
			l.lost--
		default:
			l.lost += int64(gap)
			l.next = number + 1
		}
		l.heard++
		l.last = time.Now()
		l.ears = append(l.ears, buf[12:n]...)
		l.sound.Unlock()
	}
}

// hears waits until a tone fills what is heard for half a second.
func (l *line) hears(hz float64) {
	l.p.t.Helper()
	const enough = 4000 // samples
	l.forget()
	until(l.p.t, 15*time.Second, fmt.Sprintf("%s hears %v Hz", l.p.user, hz), func() bool {
		l.sound.Lock()
		defer l.sound.Unlock()
		if len(l.ears) < enough {
			return false
		}
		return siptest.Share(siptest.FromALaw(l.ears[len(l.ears)-enough:]), hz) > 0.9
	})
}

func (l *line) forget() {
	l.sound.Lock()
	defer l.sound.Unlock()
	l.ears = nil
}
