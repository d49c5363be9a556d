package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hotline12345/gateway/sip/siptest"
)

// crowd is a carrier's callers and agents' phones by the hundred, all in the test's own process: SIP on
// one socket of each side, each call a small state machine that repeats what is not answered (RFC 3261
// section 17), and sound. It keeps the books itself, so that a gateway is judged from outside.
type crowd struct {
	t     *testing.T
	sound *sound
	trunk *net.UDPConn // the carrier's socket
	phone *net.UDPConn // all phones' socket
	left  chan struct{}
	wg    sync.WaitGroup

	mu        sync.Mutex
	parties   map[string]*party // by Call-ID
	desks     map[string]*desk  // by extension
	voices    map[uint32]*party // by the stream's id
	registers map[string]chan siptest.Message
	began     time.Time
	turned    int64              // how many steps since have had their turn
	due       map[int64][]*party // whose turn comes with a step; a turn too many does no harm
	visits    []*visit
	rings     []*ring
	faults    []string
}

// visit is what became of one caller who wanted to be served, over all the gateways that the carrier tried.
type visit struct {
	number   string
	speaks   bool
	patience time.Duration // until the caller gives up waiting; 0: never
	keys     string        // what the caller presses at once, by INFO
	redial   *visit        // the call that this one takes up again
	gateways []*gateway    // in the order in which the carrier tries them

	sent, first, answered, ended time.Time // ended is zero while the call lasts
	tries                        int
	by                           string // who ended it: caller, gateway; or the refusal's status
	at                           *gateway
	party                        *party
	ring                         *ring // the agent's call whose voice was heard
}

// ring is one call to an agent's phone.
type ring struct {
	desk                  *desk
	token                 string // X-Hotline-Call
	rang, answered, ended time.Time
	by                    string // who ended it: agent, gateway, caller
	party                 *party
	visit                 *visit // the caller whose voice was heard
	talk                  time.Duration
}

// desk is an agent's phone.
type desk struct {
	c                 *crowd
	extension, secret string
	at                *gateway
	sip               *siptest.Phone
	talk              func() time.Duration // how long the next talk lasts; 0: until somebody else ends it
	deaf              bool                 // rings, and nobody answers
	now               *ring
	reg               siptest.Call
}

// party is one leg.
type party struct {
	c      *crowd
	call   *siptest.Call
	stream *stream
	visit  *visit // a caller's leg
	ring   *ring  // an agent's
	invite siptest.Message

	heard   bool // any response came
	dropped bool // the carrier went on to the next gateway
	closing bool // BYE is out
	keys    string
	pressed time.Time
	again   func()
	wait    time.Duration
	due     time.Time // of the next repetition
	tried   time.Time // since when it is repeated
	hang    time.Time // when this side hangs up; zero: never
}

const (
	crowdStep = 20 * time.Millisecond
	timerT1   = 500 * time.Millisecond // RFC 3261 section 17.1.1.1
	timerT2   = 4 * time.Second
	timerB    = 64 * timerT1
	keyEvery  = 300 * time.Millisecond
	// carrierPatience is how long a carrier waits for a gateway's first response before it tries the next.
	carrierPatience = timerT1
)

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{t: t, sound: newSound(t), left: make(chan struct{}), parties: map[string]*party{}, desks: map[string]*desk{},
		voices: map[uint32]*party{}, registers: map[string]chan siptest.Message{}, began: time.Now(), due: map[int64][]*party{}}
	for _, conn := range []**net.UDPConn{&c.trunk, &c.phone} {
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		_ = u.SetReadBuffer(4 << 20)
		*conn = u
		c.wg.Go(func() { c.listen(u) })
	}
	c.wg.Go(c.turn)
	t.Cleanup(func() {
		close(c.left)
		_ = c.trunk.Close()
		_ = c.phone.Close()
		c.wg.Wait()
	})
	return c
}

// Helper and Fatalf let a siptest.Phone use the crowd: a socket that refuses is a gateway that was killed.
func (c *crowd) Helper() {}

// Fatalf is called with the crowd's lock held.
func (c *crowd) Fatalf(format string, args ...any) {
	select {
	case <-c.left:
	default:
		c.fault(format, args...)
	}
}

// fault notes what no gateway may do; the crowd's lock is held.
func (c *crowd) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

func (c *crowd) listen(conn *net.UDPConn) {
	buf := make([]byte, 65535)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		select {
		case <-c.left:
			return
		default:
		}
		if err != nil {
			continue
		}
		m := siptest.ParseMessage(string(buf[:n]))
		m.At, m.From = time.Now(), from
		c.mu.Lock()
		c.handle(conn, m)
		c.mu.Unlock()
	}
}

func (c *crowd) handle(conn *net.UDPConn, m siptest.Message) {
	p := c.parties[m.Get("Call-ID")]
	_, of := m.CSeq()
	switch {
	case p != nil && p.visit != nil && m.Method() == "":
		p.answered(m, of)
	case p != nil:
		p.handle(m, of)
	case of == "REGISTER":
		if answers := c.registers[m.Get("Call-ID")]; answers != nil {
			tell(answers, m)
		}
	case m.Method() == "INVITE" && m.Tag("To") == "":
		c.called(m)
	case m.Method() != "" && m.Method() != "ACK":
		status := 481
		if m.Method() == "OPTIONS" {
			status = 200
		}
		siptest.NewPhone(c, conn, "crowd", m.From).Respond(m, status, "crowd", "")
	}
}

// turn does what is due. Nobody is looked at for whom nothing is: most of a large crowd waits.
func (c *crowd) turn() {
	tick := time.NewTicker(crowdStep)
	defer tick.Stop()
	for {
		select {
		case <-c.left:
			return
		case now := <-tick.C:
			c.mu.Lock()
			for _, id := range c.sound.news() {
				c.match(c.voices[id])
			}
			for n := int64(now.Sub(c.began) / crowdStep); c.turned < n; {
				c.turned++
				for _, p := range c.due[c.turned] {
					p.turn(now)
				}
				delete(c.due, c.turned)
			}
			c.mu.Unlock()
		}
	}
}

// wake gives a party a turn in the first step after a time.
func (p *party) wake(at time.Time) {
	n := max(int64(at.Sub(p.c.began)/crowdStep), p.c.turned) + 1
	p.c.due[n] = append(p.c.due[n], p)
}

// desk makes an agent's phone at a gateway. Each talk lasts as long as talk says.
func (c *crowd) desk(extension string, at *gateway, talk func() time.Duration) *desk {
	d := &desk{c: c, extension: extension, secret: at.people[extension].secret, talk: talk}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.desks[extension] = d
	d.move(at)
	return d
}

// move makes the phone speak to another gateway; the crowd's lock is held.
func (d *desk) move(at *gateway) {
	d.at = at
	d.sip = siptest.NewPhone(d.c, d.c.phone, d.extension, at.phones)
	self := fmt.Sprintf("<sip:%s@%s>", d.extension, at.phones.Addr())
	d.reg = siptest.Call{Phone: d.sip, ID: d.sip.Name(fmt.Sprintf("reg%d-", time.Now().UnixNano())),
		Local: self + ";tag=" + d.sip.Name("tag"), Remote: self, Target: fmt.Sprintf("sip:%s", at.phones)}
}

// register registers the phone, or refreshes it, and returns the last status; 0 is no answer.
func (d *desk) register(expires int) int {
	answers := make(chan siptest.Message, 4)
	d.c.mu.Lock()
	id := d.reg.ID
	d.c.registers[id] = answers
	d.c.mu.Unlock()
	defer func() {
		d.c.mu.Lock()
		delete(d.c.registers, id)
		d.c.mu.Unlock()
	}()
	header := []string{fmt.Sprintf("Expires: %d", expires)}
	for try := 0; try < 8; try++ {
		d.c.mu.Lock()
		d.reg.Request("REGISTER", "", header...)
		sent := d.reg.CSeq
		d.c.mu.Unlock()
		var m siptest.Message
		for n := uint32(0); n != sent; n, _ = m.CSeq() {
			select {
			case m = <-answers:
			case <-time.After(timerT1 << min(try, 3)):
				m, sent = siptest.Message{}, 0
			}
		}
		switch m.Status() {
		case 0:
		case 401:
			header = append(header[:1], "Authorization: "+
				siptest.Authorize(m.Get("WWW-Authenticate"), d.extension, d.secret, "REGISTER", d.reg.Target))
		default:
			return m.Status()
		}
	}
	return 0
}

// dial lets a caller call the number 12345: the carrier tries the gateways in turn.
func (c *crowd) dial(v *visit) *visit {
	c.mu.Lock()
	defer c.mu.Unlock()
	v.sent = time.Now()
	c.visits = append(c.visits, v)
	c.attempt(v)
	return v
}

// attempt offers the call to the next gateway.
func (c *crowd) attempt(v *visit) {
	if v.tries == len(v.gateways) {
		v.end("no gateway", time.Now())
		return
	}
	g := v.gateways[v.tries]
	v.tries++
	st := c.sound.open()
	p := &party{c: c, visit: v, stream: st}
	p.call = siptest.NewPhone(c, c.trunk, fmt.Sprintf("line%d", st.id), g.carriers).Invite("12345", p.sdp(),
		fmt.Sprintf("P-Asserted-Identity: <sip:%s@127.0.0.1>", v.number))
	c.parties[p.call.ID], c.voices[st.id] = p, p
	v.at, v.party = g, p
	p.repeat(p.call.Resend)
	p.wake(p.tried.Add(carrierPatience))
}

func (p *party) sdp() string {
	return fmt.Sprintf("v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio %d RTP/AVP 8 101\n"+
		"a=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\na=ptime:20\na=sendrecv\n", p.stream.port())
}

// aim hears, and from the answer on speaks to, what a description names.
func (p *party) aim(sdp string, speak bool) {
	if m := audioLine.FindStringSubmatch(sdp); m != nil {
		port, _ := strconv.Atoi(m[1])
		p.stream.aim(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)), speak)
	}
}

// repeat does a thing again until it is answered.
func (p *party) repeat(again func()) {
	p.again, p.wait, p.tried = again, timerT1, time.Now()
	p.due = p.tried.Add(p.wait)
	p.wake(p.due)
	p.wake(p.tried.Add(timerB))
}

// hangAt lets this side hang up at a time.
func (p *party) hangAt(at time.Time) {
	p.hang = at
	p.wake(at)
}

// turn repeats, gives up and hangs up.
func (p *party) turn(now time.Time) {
	v := p.visit
	switch {
	case p.c.parties[p.call.ID] != p: // over
		return
	case (p.again != nil || p.left()) && now.Sub(p.tried) > timerB:
		p.over("nobody", now)
		return
	case v != nil && v.party == p && !p.heard && now.Sub(p.tried) > carrierPatience && len(v.gateways) > 1:
		p.drop()
	case p.again != nil && now.After(p.due):
		p.again()
		p.wait = min(2*p.wait, timerT2)
		p.due = now.Add(p.wait)
		p.wake(p.due)
	}
	if p.keys != "" && now.After(p.pressed.Add(keyEvery)) {
		p.call.InfoDigit(p.keys[0])
		p.keys, p.pressed = p.keys[1:], now
		p.wake(now.Add(keyEvery))
	}
	if !p.hang.IsZero() && now.After(p.hang) {
		p.hangup()
	}
}

// drop lets the carrier go on to the next gateway. This one may answer still.
func (p *party) drop() {
	p.dropped, p.again = true, nil
	p.c.attempt(p.visit)
}

// left tells whether the carrier went on from a gateway that has not answered since.
func (p *party) left() bool { return p.dropped && !p.closing }

// match learns from the voices who talks with whom, when a leg hears somebody else than before.
func (c *crowd) match(p *party) {
	if p == nil {
		return
	}
	other := c.voices[p.stream.hearing().whom]
	if p.visit != nil {
		p, other = other, p
	}
	if p == nil || p.ring == nil || p.ring.answered.IsZero() || other == nil || other.visit == nil ||
		p.stream.hearing().whom != other.stream.id || other.stream.hearing().whom != p.stream.id {
		return
	}
	r, v := p.ring, other.visit
	if r.visit == v {
		return
	}
	if r.visit != nil {
		c.fault("%s was joined with %s, then with %s", r.desk.extension, r.visit.number, v.number)
	}
	r.visit = v
	if v.ring != nil && v.ring.by != "node" { // who lost the agent with a gateway gets another
		c.fault("%s was joined with %s, then with %s", v.number, v.ring.desk.extension, r.desk.extension)
	}
	v.ring = r
	other.hang = time.Time{}              // who talks is not impatient
	if r.talk > 0 && p.stream.id%2 == 0 { // half of the talks are ended by the caller
		other.hangAt(p.hang)
		p.hang = time.Time{}
	}
}

// hangup ends the leg as its person would.
func (p *party) hangup() {
	p.hang = time.Time{}
	if p.closing {
		return
	}
	who := "caller"
	if p.ring != nil {
		who = "agent"
	}
	p.end(who, time.Now())
	p.closing = true
	if p.visit != nil && p.visit.answered.IsZero() {
		p.again = nil
		p.call.Cancel()
		return
	}
	text := p.call.Request("BYE", "")
	p.repeat(func() { p.call.Phone.Send(text) })
}

// end writes the end of a call into the books.
func (p *party) end(by string, at time.Time) {
	p.stream.close()
	if r := p.ring; r != nil && r.ended.IsZero() {
		r.ended, r.by = at, by
		r.desk.now = nil
	}
	if p.visit != nil && p.visit.party == p {
		p.visit.end(by, at)
	}
}

func (v *visit) end(by string, at time.Time) {
	if v.ended.IsZero() {
		v.ended, v.by = at, by
	}
}

// over forgets a leg.
func (p *party) over(by string, at time.Time) {
	p.end(by, at)
	delete(p.c.parties, p.call.ID)
	delete(p.c.voices, p.stream.id)
}

// answered takes a response to what a caller asked.
func (p *party) answered(m siptest.Message, of string) {
	v, status := p.visit, m.Status()
	switch {
	case of == "BYE":
		p.over("caller", m.At)
	case of != "INVITE":
	case status < 200:
		p.again, p.heard = nil, true
		if v.first.IsZero() {
			v.first = m.At
		}
		if p.dropped || p.closing {
			p.call.Cancel()
			return
		}
		p.aim(m.Body, false)
	case status < 300:
		p.accepted(m)
	default:
		p.call.Ack(m, "")
		if status == 503 && !p.dropped && !p.closing && v.party == p && v.tries < len(v.gateways) {
			p.drop()
		}
		p.over(strconv.Itoa(status), m.At)
	}
}

// accepted takes the 200 to an INVITE; one that comes when the carrier has gone on is ended at once.
func (p *party) accepted(m siptest.Message) {
	v := p.visit
	p.call.Ack(m, "")
	if p.closing && p.again != nil {
		return // a repetition of the 200
	}
	p.again, p.heard = nil, true
	if p.dropped || p.closing {
		p.closing = true
		text := p.call.Request("BYE", "")
		p.repeat(func() { p.call.Phone.Send(text) })
		return
	}
	p.aim(m.Body, v.speaks)
	if v.answered.IsZero() {
		v.answered = m.At
		if v.patience > 0 {
			p.hangAt(m.At.Add(v.patience))
		}
		p.keys = v.keys
		p.wake(m.At)
	}
}

// handle takes a request of the gateway within a call, or a response to an agent's phone.
func (p *party) handle(m siptest.Message, of string) {
	switch {
	case m.Method() == "INVITE" && m.Tag("To") == "": // again
		if p.again != nil {
			p.again()
		}
	case m.Method() == "INVITE":
		p.aim(m.Body, true)
		p.call.Respond(m, 200, p.sdp())
	case m.Method() == "ACK":
		p.again = nil
	case m.Method() == "CANCEL":
		p.call.Respond(m, 200, "")
		if p.ring != nil && p.ring.answered.IsZero() {
			p.call.Respond(p.invite, 487, "")
			p.over("gateway", m.At)
		}
	case m.Method() == "BYE":
		p.call.Respond(m, 200, "")
		p.over("gateway", m.At)
	case m.Method() != "":
		p.call.Respond(m, 200, "")
	case of == "BYE":
		p.over("agent", m.At)
	}
}

// called takes a call to an agent's phone.
func (c *crowd) called(m siptest.Message) {
	extension, _, _ := strings.Cut(strings.TrimPrefix(m.URI(), "sip:"), "@")
	d := c.desks[extension]
	if d == nil {
		siptest.NewPhone(c, c.phone, "nobody", m.From).Respond(m, 404, "nobody", "")
		return
	}
	if d.now != nil {
		c.fault("%s is rung for %s while it has %s", extension, m.Get("X-Hotline-Call"), d.now.token)
		d.sip.Respond(m, 486, d.sip.Name("tag"), "")
		return
	}
	r := &ring{desk: d, token: m.Get("X-Hotline-Call"), rang: m.At, talk: d.talk()}
	p := &party{c: c, ring: r, stream: c.sound.open(), invite: m, call: &siptest.Call{Phone: d.sip, ID: m.Get("Call-ID"),
		Local: m.Get("To") + ";tag=" + d.sip.Name("tag"), Remote: m.Get("From"), Target: m.Contact(), CSeq: 100, Routes: m.All("Record-Route")}}
	r.party, d.now = p, r
	c.rings = append(c.rings, r)
	c.parties[p.call.ID], c.voices[p.stream.id] = p, p
	p.call.Respond(m, 180, "")
	if d.deaf {
		return
	}
	r.answered = time.Now()
	if r.talk > 0 {
		p.hangAt(r.answered.Add(r.talk))
	}
	p.aim(m.Body, true)
	answer := func() { p.call.Respond(m, 200, p.sdp()) }
	answer()
	p.repeat(answer)
}

// look lets a test read the books.
func (c *crowd) look(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// noFaults fails the test for what the crowd saw that no gateway may do.
func (c *crowd) noFaults() {
	c.t.Helper()
	c.look(func() {
		for _, f := range c.faults[:min(len(c.faults), 20)] {
			c.t.Error(f)
		}
	})
}
