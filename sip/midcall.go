package sip

import (
	"mime"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/media"
)

// session opens the media of a leg.
func (s *Switch) session(id string, relayDTMF bool) (*media.Session, error) {
	return s.media.NewSession(media.SessionOptions{ID: id, RelayDTMF: relayDTMF})
}

// allow lets a leg's media move within the networks that its signalling may come from.
func (l *leg) allow(p media.Params) media.Params {
	p.Allowed = within(l.sw.cfg.PhoneSources)
	if l.trunk != nil {
		p.Allowed = func(a netip.Addr) bool { return l.trunk.Contains(a) }
	}
	return p
}

// hear sets what is done with the party's requests in mid-call. It comes before any response of ours.
func (l *leg) hear() {
	l.dialog.OnOffer(l.reoffered)
	l.dialog.OnInfo(l.informed)
	if l.line.phones { // a carrier does not send our callers elsewhere
		l.dialog.OnRefer(l.referred)
	}
}

// reoffered answers a re-INVITE or an UPDATE: the party holds, comes back, or moves its media.
func (l *leg) reoffered(offer []byte) (answer []byte, status int) {
	l.mu.Lock()
	sound, t := l.sound, l.talk
	l.mu.Unlock()
	if sound == nil {
		return nil, 491 // our own answer is on its way
	}
	if offer == nil { // their re-INVITE asks for our offer; the ACK brings the answer to this hook
		l.asked = true
		return t.offer(sound.LocalPort()), 200
	}
	params, err := l.agree(t, offer, &answer, sound.LocalPort())
	if err == nil {
		err = sound.Remote(l.allow(params))
	}
	if err != nil {
		l.log.Warn("an offer in mid-call was refused", "error", err)
		return nil, call.CauseCodec.Status()
	}
	l.mu.Lock()
	was, is := l.held, !params.Send
	l.held, l.info.Codec = is, params.Codec
	l.mu.Unlock()
	switch {
	case is && !was:
		l.tell(call.HoldEvent, "")
	case was && !is:
		l.tell(call.ResumeEvent, "")
	}
	return answer, 200
}

// agree takes an offer, or the answer to an offer of ours that a re-INVITE asked for.
func (l *leg) agree(t *talk, offer []byte, answer *[]byte, port int) (p media.Params, err error) {
	if l.asked {
		l.asked = false
		return t.accept(offer)
	}
	*answer, p, err = t.reoffered(offer, port)
	return p, err
}

// informed takes the key of an INFO.
func (l *leg) informed(contentType string, body []byte) bool {
	key, ok := infoKey(contentType, string(body))
	if !ok {
		return false
	}
	l.mu.Lock()
	sound := l.sound
	l.mu.Unlock()
	if sound != nil {
		sound.InfoDigit(key)
	}
	return true
}

// infoKey reads the two forms in which phones send a key by INFO: "Signal=5" among other lines, or the
// bare key. Both write 10 and 11 for * and #, and 12 to 15 for A to D.
func infoKey(contentType, body string) (byte, bool) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return 0, false
	}
	value := ""
	switch kind {
	case "application/dtmf":
		value = body
	case "application/dtmf-relay":
		for line := range strings.SplitSeq(body, "\n") {
			name, v, _ := strings.Cut(line, "=")
			if strings.EqualFold(strings.TrimSpace(name), "signal") {
				value = v
			}
		}
	}
	value = strings.ToUpper(strings.TrimSpace(value))
	if len(value) == 1 && call.ValidDigit(value[0]) {
		return value[0], true
	}
	if n, err := strconv.Atoi(value); err == nil && n >= 10 && n <= 15 {
		return "*#ABCD"[n-10], true
	}
	return 0, false
}

// referred takes an agent's wish to transfer the call. It is accepted at once and the phone told that it
// may let go: what happens to the caller is the line's to decide, and only the number counts.
func (l *leg) referred(r *dialog.Refer) bool {
	target := r.Target.User
	if strings.EqualFold(r.Target.Scheme, "tel") {
		target = r.Target.Raw()
	}
	if target == "" {
		return false
	}
	l.tell(call.TransferEvent, target)
	r.Done(true)
	return true
}

// acceptable reads the offer of an incoming leg; a cause says why it cannot be answered.
func (l *leg) acceptable() (call.Cause, bool) {
	l.talk = l.sw.newTalk()
	body := l.dialog.Request().Body()
	if len(body) == 0 {
		l.talk.delayed = true
		return 0, true
	}
	l.talk.remote = body
	if _, _, err := l.talk.params(body); err != nil {
		return call.CauseCodec, false
	}
	return 0, true
}
