package sip

import (
	"mime"
	"strconv"
	"strings"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
)

// hear sets what is done with the party's requests in mid-call. It comes before any response of ours.
func (l *leg) hear() {
	l.dialog.OnOffer(l.reoffered)
	l.dialog.OnInfo(l.informed)
	if l.line.at != atCarriers { // a carrier does not send our callers elsewhere
		l.dialog.OnRefer(l.referred)
	}
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
