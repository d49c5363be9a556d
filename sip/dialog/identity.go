package dialog

import (
	"crypto/rand"
	"net"
	"slices"
	"strconv"

	"github.com/emiago/sipgo/sip"
)

// identity is a dialog as its requests need it (RFC 3261 section 12.1).
type identity struct {
	callID string
	local  sip.FromHeader // ours, with our tag
	remote sip.ToHeader   // theirs; with their tag as soon as there is one
	target sip.Uri        // their Contact
	routes []sip.Uri
	seq    uint32 // of our last request
	dest   string // the next hop; "" is the first route's or the target's
	user   string // of our Contact
}

// identityUAS is the dialog that an INVITE makes here (RFC 3261 section 12.1.1).
func identityUAS(req *sip.Request) identity {
	id := identity{callID: req.CallID().Value(), local: req.To().AsFrom(), remote: req.From().AsTo(),
		target: *req.Recipient.Clone(), user: req.Recipient.User}
	if c := req.Contact(); c != nil {
		id.target = *c.Address.Clone()
	}
	for _, h := range req.GetHeaders("Record-Route") {
		if rr, ok := h.(*sip.RecordRouteHeader); ok {
			id.routes = append(id.routes, *rr.Address.Clone())
		}
	}
	return id
}

// joined is the dialog that a response to our INVITE makes (RFC 3261 section 12.1.2).
func (id identity) joined(res *sip.Response) identity {
	id.remote = *res.To()
	id.remote.Params = res.To().Params.Clone()
	id.refresh(res.Contact())
	id.routes = nil
	for _, h := range res.GetHeaders("Record-Route") {
		if rr, ok := h.(*sip.RecordRouteHeader); ok {
			id.routes = append(id.routes, *rr.Address.Clone())
		}
	}
	slices.Reverse(id.routes)
	return id
}

// refresh takes a new remote target (RFC 3261 section 12.2).
func (id *identity) refresh(c *sip.ContactHeader) {
	if c != nil && c.Address.Host != "" {
		id.target = *c.Address.Clone()
	}
}

// inDialog makes a request of the dialog with the number that id.seq has (RFC 3261 section 12.2.1.1).
func (l *Layer) inDialog(id identity, method sip.RequestMethod) *sip.Request {
	uri, routes := id.target, id.routes
	if len(routes) > 0 && !routes[0].UriParams.Has("lr") { // a strict router
		uri = routes[0]
		routes = append(slices.Clone(routes[1:]), id.target)
	}
	req := sip.NewRequest(method, uri)
	req.AppendHeader(l.via())
	for _, r := range routes {
		req.AppendHeader(&sip.RouteHeader{Address: r})
	}
	maxForwards := sip.MaxForwardsHeader(70)
	req.AppendHeader(&maxForwards)
	req.AppendHeader(sip.HeaderClone(&id.local))
	req.AppendHeader(sip.HeaderClone(&id.remote))
	callID := sip.CallIDHeader(id.callID)
	req.AppendHeader(&callID)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: id.seq, MethodName: method})
	switch method {
	case sip.INVITE, sip.UPDATE, sip.REFER, sip.NOTIFY:
		req.AppendHeader(l.contact(id.user))
	default: // the others do not set or refresh a target
	}
	if l.cfg.UserAgent != "" {
		req.AppendHeader(sip.NewHeader("User-Agent", l.cfg.UserAgent))
	}
	l.bind(req, id.dest)
	return req
}

// bind makes a request leave by the listener.
func (l *Layer) bind(req *sip.Request, dest string) {
	req.SetTransport(l.network)
	req.Laddr = l.laddr
	if dest == "" {
		dest = l.hop(req)
	}
	req.SetDestination(dest)
}

// hop is where a request goes by its Route or Request-URI.
func (l *Layer) hop(req *sip.Request) string {
	uri := &req.Recipient
	if r := req.Route(); r != nil {
		uri = &r.Address
	}
	port := uri.Port
	if port == 0 {
		port = sip.DefaultPort(l.network)
	}
	host := uri.Host
	if maddr, ok := uri.UriParams.Get("maddr"); ok && maddr != "" {
		host = maddr
	}
	return net.JoinHostPort(trimBrackets(host), strconv.Itoa(port))
}

func trimBrackets(host string) string {
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}

func (l *Layer) via() *sip.ViaHeader {
	v := &sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: l.network, Host: l.host, Port: l.port}
	v.Params.Add("branch", sip.GenerateBranch())
	v.Params.Add("rport", "") // RFC 3581 section 3
	return v
}

func (l *Layer) contact(user string) *sip.ContactHeader {
	c := &sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: user, Host: l.host, Port: l.port}}
	if l.network != "UDP" {
		c.Address.UriParams.Add("transport", sip.NetworkToLower(l.network))
	}
	return c
}

// newTag is a tag, a Call-ID or what else must be unique (RFC 3261 section 19.3 asks for 32 bits).
func newTag() string { return rand.Text()[:20] }
