package media

import "encoding/binary"

const (
	headerBytes = 12  // RFC 3550 section 5.1, without CSRC
	maxPayload  = 480 // 60 ms, the longest packet time in use
	maxPacket   = 1500
	rtpVersion  = 2
)

// header is the part of an RTP header that the gateway needs.
type header struct {
	marker  bool
	pt      uint8
	seq     uint16
	ts      uint32
	ssrc    uint32
	payload int // where the payload begins in the packet, headerBytes at least
	size    int // the payload's bytes, padding taken off
}

// parseHeader reads an RTP packet (RFC 3550 section 5.1) without allocating: contributing sources,
// an extension and padding are stepped over.
func parseHeader(pkt []byte) (h header, ok bool) {
	if len(pkt) < headerBytes || pkt[0]>>6 != rtpVersion {
		return h, false
	}
	start, end := headerBytes+4*int(pkt[0]&0x0F), len(pkt)
	if pkt[0]&0x10 != 0 { // section 5.3.1: an extension, its length in words
		if end < start+4 {
			return h, false
		}
		start += 4 + 4*int(binary.BigEndian.Uint16(pkt[start+2:]))
	}
	if pkt[0]&0x20 != 0 { // padding: the last byte counts it, itself included
		pad := int(pkt[end-1])
		if pad == 0 {
			return h, false
		}
		end -= pad
	}
	if start > end {
		return h, false
	}
	return header{
		marker:  pkt[1]&0x80 != 0,
		pt:      pkt[1] & 0x7F,
		seq:     binary.BigEndian.Uint16(pkt[2:]),
		ts:      binary.BigEndian.Uint32(pkt[4:]),
		ssrc:    binary.BigEndian.Uint32(pkt[8:]),
		payload: start,
		size:    end - start,
	}, true
}

// put writes a plain header of twelve bytes.
func (h header) put(b []byte) {
	b[0] = rtpVersion << 6
	b[1] = h.pt
	if h.marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], h.seq)
	binary.BigEndian.PutUint32(b[4:], h.ts)
	binary.BigEndian.PutUint32(b[8:], h.ssrc)
}

// isRTCP tells RTCP from RTP on one port (RFC 5761 section 4).
func isRTCP(pkt []byte) bool {
	return len(pkt) >= 8 && pkt[0]>>6 == rtpVersion && pkt[1] >= 192 && pkt[1] <= 223
}
