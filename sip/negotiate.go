package sip

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/media"
)

// TEMPORARY until sip/sdp stands.
type talk struct {
	ip      netip.Addr
	delayed bool
	remote  []byte
	mine    []byte
	version int
}

func (s *Switch) newTalk() *talk { return &talk{ip: s.media.AdvertiseIP()} }
func (t *talk) local() []byte    { return t.mine }
func (t *talk) body(port int, dir string) []byte {
	t.version++
	t.mine = []byte(fmt.Sprintf("v=0\r\no=- 1 %d IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=audio %d RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=%s\r\n", t.version, t.ip, t.ip, port, dir))
	return t.mine
}
func (t *talk) offer(port int) []byte { return t.body(port, "sendrecv") }
func (t *talk) params(b []byte) (media.Params, string, error) {
	p := media.Params{Codec: call.PCMA, PayloadType: 8, DTMFType: 101, RecvDTMFType: 101, Ptime: 20 * time.Millisecond, Send: true, Recv: true}
	dir := "sendrecv"
	var ip netip.Addr
	for line := range strings.SplitSeq(string(b), "\n") {
		line = strings.TrimSpace(line)
		if v, ok := strings.CutPrefix(line, "c=IN IP4 "); ok {
			ip, _ = netip.ParseAddr(v)
		}
		if v, ok := strings.CutPrefix(line, "m=audio "); ok {
			f := strings.Fields(v)
			n, _ := strconv.Atoi(f[0])
			p.Addr = netip.AddrPortFrom(ip, uint16(n))
			if !strings.Contains(" "+v+" ", " 8 ") {
				return p, dir, errors.New("no codec")
			}
		}
		switch line {
		case "a=sendonly":
			p.Send, dir = false, "recvonly"
		case "a=inactive":
			p.Send, p.Recv, dir = false, false, "inactive"
		}
	}
	if !p.Addr.IsValid() {
		return p, dir, errors.New("no address")
	}
	return p, dir, nil
}
func (t *talk) answer(port int) ([]byte, media.Params, error) {
	p, dir, err := t.params(t.remote)
	if err != nil {
		return nil, p, err
	}
	return t.body(port, dir), p, nil
}
func (t *talk) accept(b []byte) (media.Params, error) {
	p, _, err := t.params(b)
	return p, err
}
func (t *talk) reoffered(offer []byte, port int) ([]byte, media.Params, error) {
	t.remote = offer
	return t.answer(port)
}
