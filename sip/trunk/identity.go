package trunk

import (
	"strings"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
)

// maxIdentities bounds the identities that are read of one INVITE; RFC 3325 section 9.1 allows two.
const maxIdentities = 8

// Caller is what an INVITE says of the calling party, and what its trunk makes of it.
type Caller struct {
	Number   call.Number
	Display  string // as sent, never trusted
	Identity call.Identity
	// OwnNumber is set when any of the caller's numbers is the hotline's own, on a carrier trunk.
	OwnNumber bool
	// Withheld is set when the caller asked not to be shown (RFC 3323, RFC 3325 section 9.3): the
	// number is kept for admission and emergencies, and agents see none.
	Withheld bool
}

// Identify reads the calling party of an INVITE.
func (t *Trunk) Identify(req *sip.Request) Caller {
	from := t.from(req)
	asserted := t.asserted(req)
	c := Caller{Number: from.number, Display: from.display, Withheld: from.anonymous || withheld(req)}
	switch t.Identity {
	case ByPAI:
		c.Number, c.Identity = t.byAssertion(from, asserted)
	case ByFrom:
		c.Identity = t.byFrom(from, asserted)
	default:
		c.Identity = call.Anonymous
	}
	if c.Identity == call.Verified && (t.isShared(c.Number) || payphone(from, asserted)) {
		c.Identity = call.Shared
	}
	if t.Carrier {
		for _, p := range append(asserted, from) {
			c.OwnNumber = c.OwnNumber || t.plan.Own(p.number)
		}
	}
	return c
}

// byAssertion classes a caller of a trunk that asserts identities. A number that nobody asserts is a
// spoof; a caller who claims none is anonymous.
func (t *Trunk) byAssertion(from party, asserted []party) (call.Number, call.Identity) {
	switch {
	case len(asserted) == 0 && from.number.E164 == "" && from.anonymous:
		return from.number, call.Anonymous
	case len(asserted) == 0:
		return from.number, call.Spoof
	}
	n, agree := agreed(asserted)
	switch {
	case !agree:
		return n, call.Spoof
	case n.E164 == "":
		return n, call.Anonymous
	}
	return n, call.Verified
}

// byFrom classes a caller of a trunk that screens From. An assertion of another number contradicts it.
func (t *Trunk) byFrom(from party, asserted []party) call.Identity {
	if from.number.E164 == "" {
		return call.Anonymous
	}
	if n, agree := agreed(asserted); !agree || n.E164 != "" && n.E164 != from.number.E164 {
		return call.Spoof
	}
	return call.Verified
}

// agreed is the one number that all identities name. They disagree when they name two, or when
// there are more than a SIP and a tel one (RFC 3325 section 9.1).
func agreed(asserted []party) (call.Number, bool) {
	var n call.Number
	kinds := map[bool]int{}
	agree := true
	for _, p := range asserted {
		kinds[p.tel]++
		if n.E164 == "" {
			n = p.number
			continue
		}
		agree = agree && (p.number.E164 == "" || p.number.E164 == n.E164)
	}
	return n, agree && kinds[true] <= 1 && kinds[false] <= 1
}

// party is one address of the calling side.
type party struct {
	number    call.Number
	display   string
	tel       bool
	anonymous bool // From says so (RFC 3323 section 4.1.1.3)
	payphone  bool // calling party's category, as carriers send it in the tel URI's cpc
}

func (t *Trunk) from(req *sip.Request) party {
	f := req.From()
	if f == nil {
		return party{anonymous: true}
	}
	p := t.party(f.DisplayName, &f.Address)
	p.anonymous = anonymous(p.number.Raw, f.Address.Host)
	if p.anonymous {
		p.number.E164 = ""
	}
	return p
}

// asserted reads every P-Asserted-Identity of an INVITE.
func (t *Trunk) asserted(req *sip.Request) []party {
	var out []party
	for _, h := range req.GetHeaders("P-Asserted-Identity") {
		for _, v := range splitList(h.Value()) {
			if len(out) == maxIdentities {
				return out
			}
			var u sip.Uri
			display, ok := parseAddress(v, &u)
			if ok {
				out = append(out, t.party(display, &u))
			}
		}
	}
	return out
}

func (t *Trunk) party(display string, u *sip.Uri) party {
	user, params := u.User, ""
	if strings.EqualFold(u.Scheme, "tel") {
		user = u.Raw()
	}
	if _, after, ok := strings.Cut(user, ";"); ok {
		params = after
	}
	user = strings.TrimPrefix(user, t.CallerStrip)
	cpc, ok := u.UriParams.Get("cpc")
	if !ok {
		cpc = param(params, "cpc")
	}
	return party{
		number:   t.plan.Parse(user),
		display:  display,
		tel:      strings.EqualFold(u.Scheme, "tel"),
		payphone: strings.EqualFold(cpc, "payphone"),
	}
}

func payphone(from party, asserted []party) bool {
	for _, p := range asserted {
		if p.payphone {
			return true
		}
	}
	return from.payphone
}

// anonymous tells the names that carriers write for no number.
func anonymous(user, host string) bool {
	switch strings.ToLower(user) {
	case "", "anonymous", "unknown", "unavailable", "restricted", "private", "+anonymous":
		return true
	}
	return strings.EqualFold(host, "anonymous.invalid") // RFC 3323 section 4.1.1.3
}

// withheld tells whether Privacy asks to hide the caller (RFC 3323 section 4.2, RFC 3325 section 9.3).
func withheld(req *sip.Request) bool {
	for _, h := range req.GetHeaders("Privacy") {
		for v := range strings.FieldsFuncSeq(h.Value(), func(r rune) bool { return r == ';' || r == ',' || r == ' ' }) {
			switch strings.ToLower(v) {
			case "id", "user", "header":
				return true
			}
		}
	}
	return false
}

// splitList cuts a header's value at the commas that stand outside quotes and angle brackets.
func splitList(s string) []string {
	var out []string
	start, quoted, escaped, depth := 0, false, false, 0
	for i := range len(s) {
		c := s[i]
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			depth++
		case c == '>' && depth > 0:
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(s[start:i]))
			start = i + 1
		}
	}
	return append(out, strings.TrimSpace(s[start:]))
}

// parseAddress reads a name-addr or an addr-spec (RFC 3261 section 25.1).
func parseAddress(s string, u *sip.Uri) (display string, ok bool) {
	open := -1
	quoted, escaped := false, false
	for i := range len(s) {
		switch c := s[i]; {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case c == '<' && !quoted:
			open = i
		}
		if open >= 0 {
			break
		}
	}
	spec := s
	if open >= 0 {
		end := strings.IndexByte(s[open:], '>')
		if end < 0 {
			return "", false
		}
		display = strings.Trim(strings.TrimSpace(s[:open]), `"`)
		spec = s[open+1 : open+end]
	}
	if err := sip.ParseUri(strings.TrimSpace(spec), u); err != nil || u.Wildcard {
		return "", false
	}
	return display, true
}
