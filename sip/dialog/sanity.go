package dialog

import (
	"strings"

	"github.com/emiago/sipgo/sip"
)

// refusal is why a request is not taken, and the response that says so.
type refusal struct {
	status  int
	why     string // of the counter
	headers []sip.Header
}

// once are the headers that may stand in a request only once (RFC 3261 section 7.3.1): two of them are
// two readings of one message, one for us and one for whoever stands between.
var once = []string{"call-id", "cseq", "from", "to", "max-forwards", "content-length", "content-type"}

// bodies are the content types that each method may bring; a method without an entry may bring any.
var bodies = map[sip.RequestMethod]string{
	sip.INVITE: "application/sdp", sip.UPDATE: "application/sdp", sip.PRACK: "application/sdp",
}

// check is what the library's parser does not look at. nil takes the request.
func (l *Layer) check(req *sip.Request) *refusal {
	bad := func(status int, headers ...sip.Header) *refusal {
		return &refusal{status: status, why: "sanity", headers: headers}
	}
	switch {
	case req.SipVersion != "SIP/2.0":
		return bad(505) // RFC 3261 section 21.5.7
	case req.Via() == nil || req.To() == nil || req.From() == nil || req.CallID() == nil || req.CSeq() == nil,
		fromTag(req) == "", req.CallID().Value() == "",
		req.CSeq().MethodName != req.Method,
		req.MaxForwards() != nil && *req.MaxForwards() > 255:
		return bad(400) // RFC 3261 sections 8.1.1 and 20.22
	}
	for _, name := range once {
		if len(req.GetHeaders(name)) > 1 {
			return bad(400)
		}
	}
	if req.IsAck() || req.IsCancel() {
		return nil // neither may be refused for what follows (RFC 3261 sections 8.2.2.3 and 9.1)
	}
	switch req.Recipient.Scheme {
	case "sip", "sips", "tel":
	default:
		return bad(416) // RFC 3261 section 8.2.2.1
	}
	if req.MaxForwards() != nil && *req.MaxForwards() == 0 && req.IsInvite() {
		return bad(483) // a call that goes on from here would go round (RFC 3261 section 16.3)
	}
	if strange := values(req, "Require"); len(strange) > 0 {
		// RFC 3261 section 8.2.2.3: no extension is supported that a peer could require.
		return bad(420, sip.NewHeader("Unsupported", strings.Join(strange, ", ")))
	}
	return l.checkBody(req)
}

// checkBody is RFC 3261 section 8.2.3, and Accept for calls (section 21.4.7).
func (l *Layer) checkBody(req *sip.Request) *refusal {
	for _, name := range []string{"Content-Encoding", "e"} {
		for _, v := range values(req, name) {
			if !strings.EqualFold(v, "identity") {
				return &refusal{status: 415, why: "sanity", headers: []sip.Header{sip.NewHeader("Accept-Encoding", "identity")}}
			}
		}
	}
	want, bound := bodies[req.Method]
	if bound && len(req.Body()) > 0 && mediaType(req) != want {
		return &refusal{status: 415, why: "sanity", headers: []sip.Header{sip.NewHeader("Accept", want)}}
	}
	if accept := values(req, "Accept"); req.IsInvite() && len(accept) > 0 && !accepts(accept, "application", "sdp") {
		return &refusal{status: 406, why: "sanity"}
	}
	return nil
}

// mediaType is the content type in lower case without parameters; a body without one is SDP, as some
// carriers send it.
func mediaType(m interface{ ContentType() *sip.ContentTypeHeader }) string {
	h := m.ContentType()
	if h == nil {
		return "application/sdp"
	}
	t, _, _ := strings.Cut(h.Value(), ";")
	return strings.ToLower(strings.TrimSpace(t))
}

func accepts(ranges []string, kind, sub string) bool {
	for _, r := range ranges {
		r, _, _ = strings.Cut(r, ";")
		k, s, _ := strings.Cut(strings.ToLower(strings.TrimSpace(r)), "/")
		if (k == "*" || k == kind) && (s == "*" || s == sub) {
			return true
		}
	}
	return false
}
