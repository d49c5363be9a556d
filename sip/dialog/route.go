package dialog

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// allow is the methods of the line (RFC 3261 section 20.5).
const allow = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE, REFER"

// arrive sees each message in the order of the wire, on the reader's goroutine, before the transaction
// layer does. It must not block.
func (l *Layer) arrive(msg sip.Message) {
	defer l.rescue(nil)
	l.whence(msg)
	if s, ok := l.streams.Load(msg.Source()); ok {
		s.(*conn).whole()
	}
	req, ok := msg.(*sip.Request)
	if !ok || req.Via() == nil || req.To() == nil || req.From() == nil || req.CallID() == nil || req.CSeq() == nil {
		return
	}
	// RFC 3261 section 18.2.1: the address that it came from, when Via says another.
	if host, _, err := net.SplitHostPort(req.Source()); err == nil && strings.Trim(req.Via().Host, "[]") != host {
		req.Via().Params.Add("received", host)
	}
	if !req.To().Params.Has("tag") {
		// Every response of the transaction has to carry the same tag, those that the library makes by
		// itself too (RFC 3261 sections 8.2.6.2 and 9.2).
		req.To().Params.Add("tag", l.tagFor(req))
		if !req.IsAck() && !req.IsCancel() {
			l.admit()
		}
		return
	}
	if c := l.find(req); c != nil && !req.IsAck() && !req.IsCancel() {
		c.queue.hear(req.CSeq().SeqNo)
	}
}

// tagFor is the To-tag of a request that came without one: the same for its retransmissions and its
// CANCEL, and different for every other request.
func (l *Layer) tagFor(req *sip.Request) string {
	branch, _ := req.Via().Params.Get("branch")
	mac := hmac.New(sha256.New, l.secret[:])
	fmt.Fprintf(mac, "%s\n%s\n%s\n%d", req.CallID().Value(), fromTag(req), branch, req.CSeq().SeqNo)
	return hex.EncodeToString(mac.Sum(nil)[:12])
}

func fromTag(m sip.Message) string { return m.From().Params.GetOr("tag", "") }
func toTag(m sip.Message) string   { return m.To().Params.GetOr("tag", "") }

// find is the call that a request belongs to.
func (l *Layer) find(req *sip.Request) *Call {
	l.mu.Lock()
	c := l.calls[key{req.CallID().Value(), toTag(req)}]
	l.mu.Unlock()
	if c != nil && !c.knows(fromTag(req)) {
		return nil
	}
	return c
}

// handle takes a request with its transaction; the library calls it in a goroutine a request, in any
// order. A transaction that gets no final response would stay for ever, so every way out of here
// responds or terminates.
func (l *Layer) handle(req *sip.Request, tx *sip.ServerTx) {
	defer l.rescue(nil)
	l.count(tx)
	own := false // the request goes on in a goroutine of its own
	defer func() {
		if !own {
			l.leave()
		}
	}()
	if req.IsInvite() && req.To() != nil {
		defer l.handled(req)
	}
	if req.IsAck() {
		defer tx.Terminate() // an ACK has no transaction of its own
	}
	bad := l.check(req)
	if bad != nil && (req.To() == nil || req.From() == nil || req.CallID() == nil || req.CSeq() == nil) {
		l.refuse(req, tx, *bad)
		return
	}
	c := l.find(req)
	switch {
	case c != nil && req.IsAck():
		c.ack(req)
	case req.IsAck():
		return
	case req.IsCancel():
		l.overtaken(req, tx)
	case c != nil && req.IsInvite() && toTag(req) == l.tagFor(req):
		tx.Terminate() // the INVITE of a running call again, after its transaction was gone
	case c != nil:
		c.post(req, tx, bad)
	case bad != nil:
		l.refuse(req, tx, *bad)
	case toTag(req) != l.tagFor(req): // RFC 3261 section 12.2.2
		l.refuse(req, tx, refusal{status: 481, why: "no_dialog"})
	default:
		own = l.outside(req, tx)
	}
}

// outside takes a request that belongs to no dialog. It tells whether the request goes on in a goroutine
// of its own, which leaves when it is done.
func (l *Layer) outside(req *sip.Request, tx *sip.ServerTx) bool {
	switch req.Method {
	case sip.INVITE:
		l.invited(req, tx)
	case sip.OPTIONS:
		if l.drain.Load() {
			l.refuse(req, tx, l.busy("draining"))
			return false
		}
		l.respond(tx, l.capable(req))
	case sip.BYE, sip.INFO, sip.UPDATE, sip.PRACK, sip.NOTIFY, sip.REFER:
		l.refuse(req, tx, refusal{status: 481, why: "no_dialog"})
	default:
		f := l.deps.OnRequest[req.Method]
		if f == nil {
			l.refuse(req, tx, refusal{status: 405, why: "sanity", headers: []sip.Header{sip.NewHeader("Allow", allow)}})
			return false
		}
		l.spawn(nil, func() {
			defer l.leave()
			l.ask(f, req, tx)
		})
		return true
	}
	return false
}

// ask runs a handler of the owner and answers 500 when it did not.
func (l *Layer) ask(f func(*sip.Request, func(*sip.Response)), req *sip.Request, tx *sip.ServerTx) {
	final := false
	defer func() { // at a panic too
		if !final {
			l.respond(tx, l.response(req, 500, nil))
		}
	}()
	f(req, func(res *sip.Response) {
		final = final || res.StatusCode >= 200
		l.respond(tx, res)
	})
}

// capable is the 200 to OPTIONS (RFC 3261 section 11.2).
func (l *Layer) capable(req *sip.Request) *sip.Response {
	res := l.response(req, 200, nil)
	res.AppendHeader(sip.NewHeader("Allow", allow))
	res.AppendHeader(sip.NewHeader("Accept", "application/sdp, application/dtmf-relay, application/dtmf"))
	return res
}

// busy is the refusal of a layer that takes no more.
func (l *Layer) busy(why string) refusal {
	return refusal{status: 503, why: why, headers: []sip.Header{l.retryAfter()}}
}

func (l *Layer) retryAfter() sip.Header {
	return sip.NewHeader("Retry-After", strconv.Itoa(int(l.cfg.RetryAfter/time.Second)))
}

// response is a response with what each of ours carries.
func (l *Layer) response(req *sip.Request, status int, body []byte) *sip.Response {
	res := sip.NewResponseFromRequest(req, status, phrase(status), body)
	res.SipVersion = "SIP/2.0" // the library copies the request's, which may be the very fault
	if l.cfg.UserAgent != "" {
		res.AppendHeader(sip.NewHeader("Server", l.cfg.UserAgent))
	}
	return res
}

// respond sends a response in its transaction. A failure to send is the peer's time-out to find.
func (l *Layer) respond(tx *sip.ServerTx, res *sip.Response) {
	if err := tx.Respond(res); err != nil {
		l.log.Debug("a response was not sent", "status", res.StatusCode, "error", err)
		tx.Terminate()
		return
	}
	l.shed(tx, res.StatusCode)
}

func (l *Layer) refuse(req *sip.Request, tx *sip.ServerTx, r refusal) {
	l.m.refuse(r.why)
	if req.IsAck() {
		return
	}
	res := l.response(req, r.status, nil)
	for _, h := range r.headers {
		res.AppendHeader(h)
	}
	l.respond(tx, res)
}

// source is where a request came from.
func source(req *sip.Request) netip.AddrPort {
	ap, err := netip.ParseAddrPort(req.Source())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
