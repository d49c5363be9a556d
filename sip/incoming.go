package sip

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/trunk"
)

// fromTrunk takes an INVITE of a carrier: who it is, what was dialled, who calls, and whether there is a
// place. It runs in the call's own goroutine and returns when the handler has.
func (s *Switch) fromTrunk(l *line, c *dialog.Call) {
	t, ok := s.trunks.Match(c.Peer().Addr())
	if !ok { // the gate lets in the answers of those we call; they may not call us
		s.refuse(c, call.CauseForbidden, "number")
		return
	}
	called, ok := t.Route(dialled(c.Request()))
	if !ok {
		t.Count(call.Incoming, trunk.Rejected)
		s.refuse(c, call.CauseUnallocated, "number")
		return
	}
	reserve, release, full := s.place(t)
	if full != "" {
		t.Count(call.Incoming, trunk.Failed)
		s.refuse(c, call.CauseCongestion, full)
		return
	}
	who := t.Identify(c.Request())
	leg := s.newLeg(l, c, call.Info{
		Direction: call.Incoming, Trunk: t.Name, Caller: who.Number, Display: who.Display, Called: called,
		Identity: who.Identity, OwnNumber: who.OwnNumber, Withheld: who.Withheld, Reserve: reserve,
	})
	leg.trunk, leg.release = t, release
	s.start(leg, s.handler)
}

// fromPhone takes an INVITE of an agent's phone, such as a feature code.
func (s *Switch) fromPhone(l *line, c *dialog.Call) {
	ctx, cancel := context.WithTimeout(c.Context(), goodbye)
	ext, no := s.registrar.Authenticate(ctx, c.Request())
	cancel()
	if no != nil {
		s.metrics.refused.WithLabelValues("login").Inc()
		s.reject(c, no.Status, no.Headers...)
		return
	}
	_ = s.engaged.take(ext, c.ID(), "", false) // it may call whenever it likes
	defer s.engaged.drop(ext, c.ID())
	s.start(s.newLeg(l, c, call.Info{
		Direction: call.Incoming, Extension: ext, Caller: call.Number{Raw: ext}, Called: dialled(c.Request()),
		Identity: call.Verified,
	}), s.handler)
}

// start runs a leg's handler, when its offer is one that can be answered.
func (s *Switch) start(l *leg, h call.Handler) {
	if cause, ok := l.acceptable(); !ok {
		l.drop()
		s.refuse(l.dialog, cause, "media")
		return
	}
	l.hear()
	if !s.begin(l, true) {
		l.drop()
		s.refuse(l.dialog, call.CauseCongestion, "draining")
		return
	}
	l.watch()
	if l.info.Reserve {
		s.metrics.reserved.Inc()
	}
	s.handle(l, h)
}

// place takes a place in the cap of the trunk and of the gateway. full names the cap that has none left.
func (s *Switch) place(t *trunk.Trunk) (reserve bool, release func(), full string) {
	all := s.cap.Take(false)
	if all == trunk.Refused {
		return false, nil, "all_full"
	}
	one, give := t.Take(call.Incoming, false)
	if one == trunk.Refused {
		s.cap.Release()
		return false, nil, "trunk_full"
	}
	s.metrics.calls.Inc()
	// Without ports for an ordinary call, the caller still reaches the emergency exit on the kept ones.
	return all == trunk.Kept || one == trunk.Kept || s.media.Scarce(), func() {
		give()
		s.cap.Release()
		s.metrics.calls.Dec()
	}, ""
}

// refuse answers a call that is no leg, and counts why.
func (s *Switch) refuse(c *dialog.Call, cause call.Cause, why string) {
	s.metrics.refused.WithLabelValues(why).Inc()
	s.reject(c, cause.Status(), s.refusalHeaders(cause)...)
}

func (s *Switch) reject(c *dialog.Call, status int, headers ...sip.Header) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), goodbye)
	defer cancel()
	defer s.ids.drop(c.Request().CallID().Value())
	if err := c.Reject(ctx, status, "", headers...); err != nil && c.Context().Err() == nil {
		s.log.Warn("a refusal was not sent", "call", c.ID(), "error", err)
	}
}

// refusalHeaders go with a refusal: why (RFC 3326), and when to try again (RFC 3261 section 20.33).
func (s *Switch) refusalHeaders(cause call.Cause) []sip.Header {
	h := []sip.Header{sip.NewHeader("Reason", reasonValue(cause))}
	if cause == call.CauseCongestion {
		seconds := int(s.cfg.Carriers.Dialog.RetryAfter / time.Second)
		h = append(h, sip.NewHeader("Retry-After", strconv.Itoa(seconds)))
	}
	return h
}

// reasonValue is a cause as a Reason header writes it (RFC 3326 section 2).
func reasonValue(cause call.Cause) string {
	head, text, ok := strings.Cut(cause.String(), " ")
	if !ok {
		return head
	}
	return head + `;text="` + text + `"`
}

// dialled is the number in a Request-URI, sip or tel, with its parameters.
func dialled(req *sip.Request) string {
	if strings.EqualFold(req.Recipient.Scheme, "tel") {
		return req.Recipient.Raw()
	}
	return req.Recipient.User
}
