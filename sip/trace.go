package sip

import (
	"bytes"
	"regexp"
	"strings"
	"sync"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/trunk"
)

// maxTraced bounds the calls whose ladder is followed; twice as many are held at most.
const maxTraced = 8192

// ids gives the Call-IDs of the wire the identities of their legs, from the first message to a while
// after the last.
type ids struct {
	mu        sync.Mutex
	cur, prev map[string]named // two generations: a full one ages as a whole
}

// named is a leg's identity. It is free until a leg has taken it: messages come before the leg.
type named struct {
	leg   string
	taken bool
}

func newIDs() *ids { return &ids{cur: map[string]named{}} }

// set names a Call-ID's leg.
func (i *ids) set(callID, leg string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.put(callID, named{leg, true})
}

func (i *ids) put(callID string, n named) {
	if len(i.cur) >= maxTraced {
		i.prev, i.cur = i.cur, map[string]named{}
	}
	i.cur[callID] = n
}

func (i *ids) find(callID string) named {
	if n, ok := i.cur[callID]; ok {
		return n
	}
	return i.prev[callID]
}

// get is the leg of a Call-ID, or "".
func (i *ids) get(callID string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.find(callID).leg
}

// obtain is the leg of a Call-ID, named now if it has none.
func (i *ids) obtain(callID string, name func() string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := i.find(callID)
	if n.leg == "" {
		n.leg = name()
		i.put(callID, n)
	}
	return n.leg
}

// claim is the identity of a new leg. A Call-ID that an earlier leg had, ended or not, gives it none:
// whoever calls chooses it, and two calls of one identity would share their records.
func (i *ids) claim(callID string, name func() string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := i.find(callID)
	if n.leg == "" || n.taken {
		n.leg = name()
	}
	n.taken = true
	i.put(callID, n)
	return n.leg
}

// trace counts a message and tells it, masked, to the ladder of its call.
func (s *Switch) trace(l *line, m dialog.Message) {
	if status, method, ok := response(m.Raw); ok {
		s.metrics.responses.WithLabelValues(s.label(l, m), method, status).Inc()
		if status == "1xx" && method == "INVITE" && !m.Sent {
			s.heard.tell(m)
		}
	}
	if s.deps.Trace == nil || m.CallID == "" {
		return
	}
	leg := s.ids.get(m.CallID)
	if leg == "" {
		if m.Sent || !bytes.HasPrefix(m.Raw, []byte("INVITE ")) {
			return // a REGISTER or an OPTIONS is no call's
		}
		leg = s.ids.obtain(m.CallID, newID)
	}
	s.deps.Trace(leg, m.At, m.Sent, m.Peer.String(), mask(s.plan, string(m.Raw)))
}

// label is the trunk label of a message's peer.
func (s *Switch) label(l *line, m dialog.Message) string {
	if l.phones {
		return phonesLabel
	}
	if t, ok := s.trunks.Match(m.Peer.Addr()); ok {
		return t.Name
	}
	return otherLabel
}

// response tells a response's class and method, for the counter.
func response(raw []byte) (class, method string, ok bool) {
	rest, ok := bytes.CutPrefix(raw, []byte("SIP/2.0 "))
	if !ok || len(rest) < 3 || rest[0] < '1' || rest[0] > '6' {
		return "", "", false
	}
	method = otherLabel
	if _, after, found := bytes.Cut(raw, []byte("\nCSeq:")); found {
		cseq, _, _ := bytes.Cut(after, []byte("\r"))
		if f := bytes.Fields(cseq); len(f) == 2 {
			for _, known := range methods {
				if string(f[1]) == known {
					method = known
				}
			}
		}
	}
	return string(rest[:1]) + "xx", method, true
}

var (
	numbered = regexp.MustCompile(`(?i)^(?:[A-Z]+ (?:sips?|tel):|(?:from|f|to|t|contact|m|p-asserted-identity|p-preferred-identity|remote-party-id|diversion|history-info|referred-by|b|refer-to|r)\s*:)`)
	digits   = regexp.MustCompile(`\+?\d[\d\-.()]{5,}\d`)
	address  = regexp.MustCompile(`^\d{1,3}(\.\d{1,3}){3}$`)
	secret   = regexp.MustCompile(`(?i)\bresponse="[^"]*"`)
	pressed  = regexp.MustCompile(`(?im)^(signal\s*=\s*)\S+`)
)

// mask hides what a ladder must not show (decision "privacy on the wire"): telephone numbers in the
// headers that carry them, the digest's response, the keys of an INFO, and the user in the session
// description.
func mask(plan *trunk.Plan, text string) string {
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	var b strings.Builder
	b.Grow(len(text))
	for line := range strings.SplitSeq(head, "\r\n") {
		switch {
		case numbered.MatchString(line):
			line = maskNumbers(plan, line)
		case strings.HasPrefix(strings.ToLower(line), "authorization"):
			line = secret.ReplaceAllString(line, `response="***"`)
		}
		b.WriteString(line)
		b.WriteString("\r\n")
	}
	b.WriteString("\r\n")
	body = pressed.ReplaceAllString(body, "${1}*")
	if before, after, ok := strings.Cut(body, "o="); ok {
		user, rest, _ := strings.Cut(after, " ")
		body = before + "o=" + maskNumbers(plan, user) + " " + rest
	}
	if len(strings.TrimSpace(body)) == 1 {
		body = "*" // application/dtmf
	}
	b.WriteString(body)
	return b.String()
}

func maskNumbers(plan *trunk.Plan, s string) string {
	return digits.ReplaceAllStringFunc(s, func(d string) string {
		if address.MatchString(d) {
			return d
		}
		n := plan.Parse(d)
		if n.E164 == "" {
			n = call.Number{Raw: d}
		}
		return n.Masked()
	})
}
