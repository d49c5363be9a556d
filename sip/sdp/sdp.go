// Package sdp reads and writes session descriptions (RFC 8866) and answers offers (RFC 3264), for
// telephone calls in G.711.
//
// Reading is lenient, because carriers send what no strict parser takes: no final CRLF, no s= or t=,
// a= before t=, words for session ids, spaces in a user name, image and video streams, lines of their
// own. What is unknown is passed over; what is too long is an error. Writing is strict.
package sdp

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The bounds of a description.
const (
	MaxBytes = 64 << 10
	MaxLines = 1024
	MaxMedia = 16
)

// ErrMalformed is what every error of Parse wraps.
var ErrMalformed = errors.New("sdp: not a session description")

// Direction is the flow of a stream, seen from whoever wrote the description.
type Direction string

// The directions.
const (
	SendRecv Direction = "sendrecv"
	SendOnly Direction = "sendonly"
	RecvOnly Direction = "recvonly"
	Inactive Direction = "inactive"
)

// Flow is the direction of one who sends, receives, both or neither.
func Flow(send, recv bool) Direction {
	switch {
	case send && recv:
		return SendRecv
	case send:
		return SendOnly
	case recv:
		return RecvOnly
	default:
		return Inactive
	}
}

// Sends tells whether the writer sends.
func (d Direction) Sends() bool { return d == SendRecv || d == SendOnly }

// Receives tells whether the writer receives.
func (d Direction) Receives() bool { return d == SendRecv || d == RecvOnly }

// Description is a session as it was described.
type Description struct {
	Origin string // the value of o=, as it came
	Media  []Media
}

// Media is one stream. What stood at session level is filled in where the stream said nothing.
type Media struct {
	Kind      string // "audio", "image", ...
	Port      int    // 0: refused, or not wanted
	Proto     string // "RTP/AVP", ...
	Formats   []string
	Conn      netip.Addr // invalid when it was no IP address
	Direction Direction
	RTCP      netip.AddrPort // of a=rtcp; the address may be invalid when only a port was told
	Mux       bool
	PTime     time.Duration // 0: not told

	maps map[string]string // rtpmap: payload type to "name/clock" in upper case
}

// Map is the coding of a payload type in upper case, such as "PCMA/8000", or "".
func (m *Media) Map(format string) string {
	if name, ok := m.maps[format]; ok {
		return name
	}
	switch format { // RFC 3551 section 6
	case "0":
		return "PCMU/8000"
	case "8":
		return "PCMA/8000"
	case "13":
		return "CN/8000"
	default:
		return ""
	}
}

// Parse reads a description.
func Parse(b []byte) (*Description, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxBytes)
	}
	d := &Description{}
	session := Media{Direction: SendRecv}
	at, version, lines := &session, false, 0
	for line := range strings.SplitSeq(string(b), "\n") {
		line = strings.TrimSpace(line)
		if lines++; lines > MaxLines {
			return nil, fmt.Errorf("%w: more than %d lines", ErrMalformed, MaxLines)
		}
		if len(line) < 2 || line[1] != '=' {
			continue
		}
		value := strings.TrimSpace(line[2:])
		switch line[0] {
		case 'v':
			version = true
		case 'o':
			d.Origin = value
		case 'm':
			if len(d.Media) == MaxMedia {
				return nil, fmt.Errorf("%w: more than %d streams", ErrMalformed, MaxMedia)
			}
			m, err := parseMedia(value, session)
			if err != nil {
				return nil, err
			}
			d.Media = append(d.Media, m)
			at = &d.Media[len(d.Media)-1]
		case 'c':
			at.Conn = parseConn(value)
		case 'a':
			at.attribute(value)
		}
	}
	if !version && len(d.Media) == 0 {
		return nil, fmt.Errorf("%w: neither v= nor m=", ErrMalformed)
	}
	return d, nil
}

// parseMedia reads "audio 4000/2 RTP/AVP 8 0".
func parseMedia(value string, session Media) (Media, error) {
	f := strings.Fields(value)
	if len(f) < 3 {
		return Media{}, fmt.Errorf("%w: m=%.40q", ErrMalformed, value)
	}
	port, _, _ := strings.Cut(f[1], "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Media{}, fmt.Errorf("%w: port %.20q", ErrMalformed, f[1])
	}
	m := session
	m.Kind, m.Port, m.Proto, m.Formats = strings.ToLower(f[0]), int(n), strings.ToUpper(f[2]), f[3:]
	m.maps = nil
	return m, nil
}

// parseConn reads "IN IP4 10.0.0.1", or with "/ttl" as multicast has it.
func parseConn(value string) netip.Addr {
	f := strings.Fields(value)
	if len(f) == 0 {
		return netip.Addr{}
	}
	host, _, _ := strings.Cut(f[len(f)-1], "/")
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}

func (m *Media) attribute(value string) {
	name, arg, _ := strings.Cut(value, ":")
	arg = strings.TrimSpace(arg)
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "sendrecv", "sendonly", "recvonly", "inactive":
		m.Direction = Direction(strings.ToLower(strings.TrimSpace(name)))
	case "rtpmap":
		format, coding, ok := strings.Cut(arg, " ")
		if !ok {
			return
		}
		if m.maps == nil {
			m.maps = make(map[string]string)
		}
		coding = strings.ToUpper(strings.TrimSpace(coding))
		m.maps[format] = strings.TrimSuffix(coding, "/1") // one channel is what all of them have
	case "ptime":
		if ms, err := strconv.ParseFloat(arg, 32); err == nil && ms > 0 && ms <= 1000 {
			m.PTime = time.Duration(ms * float64(time.Millisecond))
		}
	case "rtcp": // RFC 3605: a port, or a port and an address
		port, conn, _ := strings.Cut(arg, " ")
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
			m.RTCP = netip.AddrPortFrom(parseConn(conn), uint16(n))
		}
	case "rtcp-mux": // RFC 5761
		m.Mux = true
	}
}
