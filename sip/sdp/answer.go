package sdp

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// ErrNoAudio says that a description has no stream that this line can speak: it is answered 488.
var ErrNoAudio = errors.New("sdp: no G.711 audio stream in common")

// Local is our end of one session. It keeps the session's id and version over re-offers, so there is
// one for each leg. It is not safe for concurrent use.
type Local struct {
	Addr   netip.AddrPort // of RTP; RTCP is at the port above
	Codecs []call.Codec   // the best first; nil is PCMA, PCMU
	PTime  time.Duration  // 0 is 20 ms
	Mux    bool           // take RTCP on the RTP port when the peer wants that

	id, version uint64
	last        string    // of what was sent, without o=
	offered     Direction // of our last offer
}

// Remote is what a peer's description means for our media.
type Remote struct {
	Addr netip.AddrPort // where RTP goes; on hold by 0.0.0.0 the address is unspecified
	RTCP netip.AddrPort // where RTCP goes
	Mux  bool           // both use one port

	Codec       call.Codec
	PayloadType uint8 // that the peer wants to receive
	// RecvPayloadType is the one that the peer sends: ours of the offer, or the same.
	RecvPayloadType uint8
	// EventType is telephone-event's payload type (RFC 4733) that the peer wants to receive, and
	// RecvEventType the one that it sends; -1 is none.
	EventType, RecvEventType int
	PTime                    time.Duration // that the peer wants to receive, 10 to 60 ms in steps of 10

	// Send and Recv are what is ours to do: both are true in a conversation.
	Send, Recv bool
	// Hold is set when the peer put us on hold: it does not want to hear us (RFC 3264 section 8.4).
	Hold bool
}

// eventPT is the payload type of telephone-event in our own offers.
const eventPT = 101

func (l *Local) codecs() []call.Codec {
	if len(l.Codecs) == 0 {
		return []call.Codec{call.PCMA, call.PCMU}
	}
	return l.Codecs
}

// Offer is a description of ours with a direction: SendRecv to talk, SendOnly or Inactive to hold. The
// version grows by one whenever the description differs from the last one sent.
func (l *Local) Offer(d Direction) []byte {
	l.offered = d
	var formats []string
	var maps strings.Builder
	for _, c := range l.codecs() {
		formats = append(formats, strconv.Itoa(int(static(c))))
		fmt.Fprintf(&maps, "a=rtpmap:%d %s/8000\r\n", static(c), c)
	}
	formats = append(formats, strconv.Itoa(eventPT))
	fmt.Fprintf(&maps, "a=rtpmap:%d telephone-event/8000\r\na=fmtp:%d 0-15\r\n", eventPT, eventPT)
	body := fmt.Sprintf("m=audio %d RTP/AVP %s\r\n%s", l.Addr.Port(), strings.Join(formats, " "), maps.String())
	return l.describe(body + l.tail(l.ptime(0), l.Mux, d))
}

// Answer answers an offer: the first G.711 stream in the offerer's order of codings is taken, every other
// stream is refused by port 0 in its place, and the direction mirrors the offer's.
func (l *Local) Answer(offer []byte) ([]byte, Remote, error) {
	d, err := Parse(offer)
	if err != nil {
		return nil, Remote{}, err
	}
	taken, r := l.choose(d)
	if taken < 0 {
		return nil, Remote{}, ErrNoAudio
	}
	r.RecvPayloadType, r.RecvEventType = r.PayloadType, r.EventType // RFC 3264 section 6.1: the same numbers
	r.Mux = r.Mux && l.Mux
	var b strings.Builder
	for i := range d.Media {
		m := &d.Media[i]
		if i != taken {
			refuse(&b, m)
			continue
		}
		fmt.Fprintf(&b, "m=audio %d %s %d", l.Addr.Port(), m.Proto, r.PayloadType)
		if r.EventType >= 0 {
			fmt.Fprintf(&b, " %d", r.EventType)
		}
		fmt.Fprintf(&b, "\r\na=rtpmap:%d %s/8000\r\n", r.PayloadType, r.Codec)
		if r.EventType >= 0 {
			fmt.Fprintf(&b, "a=rtpmap:%d telephone-event/8000\r\na=fmtp:%d 0-15\r\n", r.EventType, r.EventType)
		}
		b.WriteString(l.tail(r.PTime, r.Mux, Flow(r.Send, r.Recv)))
	}
	l.offered = SendRecv
	return l.describe(b.String()), r, nil
}

// Accept reads the answer to our last Offer. It may be called again when a later response to the same
// offer has another one, as early media of a fork does.
func (l *Local) Accept(answer []byte) (Remote, error) {
	d, err := Parse(answer)
	if err != nil {
		return Remote{}, err
	}
	taken, r := l.choose(d)
	if taken != 0 { // there was one stream in our offer
		return Remote{}, ErrNoAudio
	}
	r.RecvPayloadType, r.RecvEventType = static(r.Codec), -1
	if r.EventType >= 0 {
		r.RecvEventType = eventPT
	}
	r.Mux = r.Mux && l.Mux
	r.Send = r.Send && l.offered.Sends()
	r.Recv = r.Recv && l.offered.Receives()
	r.Hold = r.Hold && l.offered.Sends() // what answers our own hold is none of theirs
	return r, nil
}

// choose finds the first stream that can be spoken, or -1.
func (l *Local) choose(d *Description) (int, Remote) {
	for i := range d.Media {
		m := &d.Media[i]
		if m.Kind != "audio" || m.Port == 0 || m.Proto != "RTP/AVP" && m.Proto != "RTP/AVPF" || !m.Conn.IsValid() {
			continue
		}
		if r, ok := l.read(m); ok {
			return i, r
		}
	}
	return -1, Remote{}
}

// read takes the peer's side of a stream.
func (l *Local) read(m *Media) (Remote, bool) {
	r := Remote{Addr: netip.AddrPortFrom(m.Conn, uint16(m.Port)), EventType: -1, Mux: m.Mux, PTime: l.ptime(m.PTime)}
	for _, format := range m.Formats {
		pt, err := strconv.ParseUint(format, 10, 7)
		if err != nil {
			continue
		}
		name, clock, _ := strings.Cut(m.Map(format), "/")
		codec := call.Codec(name)
		switch {
		case clock != "8000":
		case name == "TELEPHONE-EVENT" && r.EventType < 0:
			r.EventType = int(pt)
		case r.Codec == "" && slices.Contains(l.codecs(), codec):
			r.Codec, r.PayloadType = codec, uint8(pt)
		}
	}
	if r.Codec == "" {
		return r, false
	}
	r.RTCP = netip.AddrPortFrom(m.Conn, uint16(m.Port+1))
	if m.Mux && l.Mux {
		r.RTCP = r.Addr
	} else if m.RTCP.Port() != 0 {
		addr := m.RTCP.Addr()
		if !addr.IsValid() {
			addr = m.Conn
		}
		r.RTCP = netip.AddrPortFrom(addr, m.RTCP.Port())
	}
	hears := m.Direction.Receives() && !m.Conn.IsUnspecified() // c=0.0.0.0 is RFC 2543's hold
	r.Send, r.Recv, r.Hold = hears, m.Direction.Sends(), !hears
	return r, true
}

// ptime is a packet time that this line can send.
func (l *Local) ptime(wanted time.Duration) time.Duration {
	if wanted == 0 {
		wanted = l.PTime
	}
	if wanted < 10*time.Millisecond || wanted > 60*time.Millisecond || wanted%(10*time.Millisecond) != 0 {
		return 20 * time.Millisecond
	}
	return wanted
}

func static(c call.Codec) uint8 {
	if c == call.PCMU {
		return 0
	}
	return 8
}

// refuse writes a stream with port 0 in its place (RFC 3264 section 6).
func refuse(b *strings.Builder, m *Media) {
	formats := strings.Join(m.Formats, " ")
	if formats == "" {
		formats = "0"
	}
	fmt.Fprintf(b, "m=%s 0 %s %s\r\n", m.Kind, m.Proto, formats)
}

func (l *Local) tail(ptime time.Duration, mux bool, d Direction) string {
	s := fmt.Sprintf("a=ptime:%d\r\n", ptime.Milliseconds())
	if mux {
		s += "a=rtcp-mux\r\n"
	}
	return s + "a=" + string(d) + "\r\n"
}

// describe puts the session's lines before the streams'.
func (l *Local) describe(media string) []byte {
	if l.id == 0 {
		l.id = uint64(rand.Uint32N(1<<31)) + 1 // some peers keep it in 32 bits
	}
	family := "IP4"
	if l.Addr.Addr().Unmap().Is6() {
		family = "IP6"
	}
	addr := l.Addr.Addr().Unmap()
	rest := fmt.Sprintf("s=-\r\nc=IN %s %s\r\nt=0 0\r\n%s", family, addr, media)
	if rest != l.last { // RFC 3264 section 8
		l.version++
		l.last = rest
	}
	return fmt.Appendf(nil, "v=0\r\no=- %d %d IN %s %s\r\n%s", l.id, l.version, family, addr, rest)
}
