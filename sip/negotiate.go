package sip

import (
	"net/netip"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/media"
	"github.com/hotline12345/gateway/sip/sdp"
)

// talk is a leg's side of its session description, kept over re-offers.
type talk struct {
	sdp     sdp.Local
	ip      netip.Addr
	theirs  []byte // the offer of an incoming INVITE
	delayed bool   // the INVITE had none: ours goes in the 200, the answer comes with the ACK
	local   []byte // what goes with 183 and 200
}

func (s *Switch) newTalk() *talk { return &talk{ip: s.media.AdvertiseIP(), sdp: sdp.Local{Mux: true}} }

// at sets our own end.
func (t *talk) at(port int) { t.sdp.Addr = netip.AddrPortFrom(t.ip, uint16(port)) }

// offer is a description of ours.
func (t *talk) offer(port int) []byte {
	t.at(port)
	t.local = t.sdp.Offer(sdp.SendRecv)
	return t.local
}

// accept reads the answer to our offer.
func (t *talk) accept(answer []byte) (media.Params, bool, error) {
	r, err := t.sdp.Accept(answer)
	return params(r), r.Hold, err
}

// answer answers an offer.
func (t *talk) answer(offer []byte, port int) ([]byte, media.Params, bool, error) {
	t.at(port)
	b, r, err := t.sdp.Answer(offer)
	t.local = b
	return b, params(r), r.Hold, err
}

// speakable tells whether an offer can be answered at all.
func speakable(offer []byte) error {
	_, _, err := new(sdp.Local).Answer(offer)
	return err
}

// params is what a description means for the media.
func params(r sdp.Remote) media.Params {
	return media.Params{Addr: r.Addr, RTCP: r.RTCP, Mux: r.Mux, Codec: r.Codec, PayloadType: r.PayloadType,
		DTMFType: r.EventType, RecvDTMFType: r.RecvEventType, Ptime: r.PTime, Send: r.Send, Recv: r.Recv}
}

// session opens the media of a leg.
func (s *Switch) session(id string, relayDTMF, emergency bool) (*media.Session, error) {
	return s.media.NewSession(media.SessionOptions{ID: id, RelayDTMF: relayDTMF, Emergency: emergency})
}

// allow lets a leg's media move within the networks that its signalling may come from.
func (l *leg) allow(p media.Params) media.Params {
	switch {
	case l.trunk != nil:
		p.Allowed = l.trunk.Contains
	case l.line.at == atNodes:
		p.Allowed = l.sw.gateways
	default:
		p.Allowed = l.sw.phones
	}
	return p
}

// acceptable reads the offer of an incoming leg; a cause says why it cannot be answered.
func (l *leg) acceptable() (call.Cause, bool) {
	l.talk = l.sw.newTalk()
	l.talk.theirs = l.dialog.Request().Body()
	l.talk.delayed = len(l.talk.theirs) == 0
	if !l.talk.delayed && speakable(l.talk.theirs) != nil {
		return call.CauseCodec, false
	}
	return 0, true
}

// reoffered answers a re-INVITE or an UPDATE: the party holds, comes back, or moves its media.
func (l *leg) reoffered(offer []byte) (answer []byte, status int) {
	l.mu.Lock()
	sound, t := l.sound, l.talk
	l.mu.Unlock()
	if sound == nil {
		return nil, 491 // our own answer is on its way
	}
	if offer == nil { // it asks for our offer; the ACK brings the answer to this hook
		l.asked = true
		return t.offer(sound.LocalPort()), 200
	}
	var p media.Params
	var held bool
	var err error
	if l.asked {
		l.asked = false
		p, held, err = t.accept(offer)
	} else {
		answer, p, held, err = t.answer(offer, sound.LocalPort())
	}
	if err == nil {
		err = sound.Remote(l.allow(p))
	}
	if err != nil {
		l.log.Warn("an offer in mid-call was refused", "error", err)
		return nil, call.CauseCodec.Status()
	}
	l.settled(p, held)
	return answer, 200
}

// settled notes what an offer and its answer changed.
func (l *leg) settled(p media.Params, held bool) {
	l.mu.Lock()
	was := l.held
	l.held, l.info.Codec = held, p.Codec
	l.mu.Unlock()
	switch {
	case held && !was:
		l.tell(call.HoldEvent, "")
	case was && !held:
		l.tell(call.ResumeEvent, "")
	}
}
