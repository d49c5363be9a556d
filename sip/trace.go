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

// maxEarly bounds the calls whose first messages wait for their leg, and maxHeld the messages of one.
const (
	maxEarly = 1024
	maxHeld  = 8
)

// ids gives the Call-IDs of the wire the identities of their legs, from the first message to a while
// after the last. Messages that come before the leg wait for it: what never becomes a call, such as a
// flood of INVITEs, has no ladder.
type ids struct {
	mu        sync.Mutex
	cur, prev map[string]string // two generations: a full one ages as a whole
	early     map[string][]dialog.Message
}

func newIDs() *ids { return &ids{cur: map[string]string{}, early: map[string][]dialog.Message{}} }

// set names a Call-ID's leg, and returns the messages that waited for it. A Call-ID that an earlier leg
// had is given to the new one: whoever calls chooses it.
func (i *ids) set(callID, leg string) []dialog.Message {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.cur) >= maxTraced {
		i.prev, i.cur = i.cur, map[string]string{}
	}
	i.cur[callID] = leg
	held := i.early[callID]
	delete(i.early, callID)
	return held
}

// of is the leg of a message, or "". The message of a call that has none yet is held.
func (i *ids) of(m dialog.Message) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if leg, ok := i.cur[m.CallID]; ok {
		return leg
	}
	if leg, ok := i.prev[m.CallID]; ok {
		return leg
	}
	held, begun := i.early[m.CallID]
	switch {
	case !begun && (m.Sent || !bytes.HasPrefix(m.Raw, []byte("INVITE "))), len(held) == maxHeld:
		return "" // a REGISTER or an OPTIONS is no call's
	case !begun && len(i.early) == maxEarly:
		clear(i.early)
	}
	m.Raw = bytes.Clone(m.Raw)
	i.early[m.CallID] = append(held, m)
	return ""
}

// drop forgets a call that became no leg.
func (i *ids) drop(callID string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.early, callID)
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
	if leg := s.ids.of(m); leg != "" {
		s.tellLadder(leg, m)
	}
}

// tellLadder tells a message of a leg.
func (s *Switch) tellLadder(leg string, m dialog.Message) {
	s.deps.Trace(leg, m.At, m.Sent, m.Peer.String(), mask(s.plan, string(m.Raw)))
}

// label is the trunk label of a message's peer.
func (s *Switch) label(l *line, m dialog.Message) string {
	switch l.at {
	case atPhones:
		return phonesLabel
	case atNodes:
		return nodesLabel
	case atCarriers:
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
