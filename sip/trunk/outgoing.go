package trunk

import (
	"net"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
)

// Outgoing is how a call to a trunk names its parties.
type Outgoing struct {
	Target  sip.Uri // the request's URI
	From    sip.Uri
	Headers []sip.Header
}

// Outgoing names the parties of a call to number. local is the host of From when the trunk has no
// domain. A caller without a number is called by the allotted one, whatever the form.
func (t *Trunk) Outgoing(number string, caller call.Number, form call.CallerForm, local string) Outgoing {
	host := t.Domain
	if host == "" {
		host = local
	}
	own := phone(t.plan.outgoing(t.Caller), host)
	o := Outgoing{Target: t.target(number), From: own}
	if caller.E164 == "" {
		return o
	}
	party := phone(caller.E164, host)
	switch form {
	case call.FormFrom:
		o.From = party
	case call.FormPAI: // RFC 3325 section 9.1
		o.Headers = append(o.Headers, sip.NewHeader("P-Asserted-Identity", "<"+party.String()+">"))
	case call.FormDiversion: // RFC 5806 section 3
		o.Headers = append(o.Headers,
			sip.NewHeader("Diversion", "<"+party.String()+">;reason=unconditional;privacy=off"))
	case call.FormSpoken: // nothing to send: the number is said to the service
	}
	return o
}

// Ping is the URI of an OPTIONS to the trunk.
func (t *Trunk) Ping() sip.Uri {
	u := t.target("")
	u.UriParams = nil
	return u
}

func (t *Trunk) target(number string) sip.Uri {
	host, port, _ := net.SplitHostPort(t.Address)
	u := phone(number, host)
	u.Port, _ = strconv.Atoi(port) // checked by Validate
	if t.Domain != "" {
		u.Host, u.Port = t.Domain, 0
	}
	return u
}

// phone is a telephone number as a SIP URI (RFC 3261 section 19.1.6).
func phone(user, host string) sip.Uri {
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]"
	}
	return sip.Uri{Scheme: "sip", User: user, Host: host,
		UriParams: sip.HeaderParams{{K: "user", V: "phone"}}}
}

// outgoing is a number as carriers take it: E.164, or as it was written when it is no number.
func (p *Plan) outgoing(s string) string {
	if n := p.Parse(s); n.E164 != "" {
		return n.E164
	}
	return s
}
