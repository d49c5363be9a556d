package dialog

import (
	"context"
	"slices"
	"sync"

	"github.com/emiago/sipgo/sip"
)

// Refer is a party's wish to be transferred (RFC 3515).
type Refer struct {
	Target  sip.Uri
	Request *sip.Request

	c    *Call
	once sync.Once
}

// Refer asks the party to transfer the call to target, in a confirmed call, and returns when it took the
// wish or refused it (a *call.DialError). It asks for no word of how it went (RFC 4488).
func (c *Call) Refer(ctx context.Context, target sip.Uri) error {
	res, err := c.exchange(ctx, sip.REFER, func(req *sip.Request) {
		req.AppendHeader(sip.NewHeader("Refer-To", "<"+target.String()+">"))
		req.AppendHeader(sip.NewHeader("Refer-Sub", "false"))
	})
	switch {
	case err != nil:
		return dialError(err)
	case !res.IsSuccess():
		return refusalError(res)
	}
	return nil
}

// Done tells the party how the transfer went: NOTIFY with 200 or 503, and the end of the subscription.
// A second call does nothing.
func (r *Refer) Done(ok bool) {
	r.once.Do(func() {
		if slices.Equal(values(r.Request, "Refer-Sub"), []string{"false"}) {
			return // RFC 4488 section 4.1: there is no subscription
		}
		fragment := "SIP/2.0 503 Service Unavailable\r\n"
		if ok {
			fragment = "SIP/2.0 200 OK\r\n"
		}
		r.c.l.spawn(r.c, func() { r.notify("terminated;reason=noresource", fragment) })
	})
}

func (r *Refer) notify(subscription, fragment string) {
	if r.c.ctx.Err() != nil {
		return
	}
	_, err := r.c.exchange(context.Background(), sip.NOTIFY, func(req *sip.Request) {
		req.AppendHeader(sip.NewHeader("Event", "refer"))
		req.AppendHeader(sip.NewHeader("Subscription-State", subscription))
		req.AppendHeader(sip.NewHeader("Content-Type", "message/sipfrag;version=2.0")) // RFC 3420
		req.SetBody([]byte(fragment))
	})
	if err != nil {
		r.c.l.log.Debug("a NOTIFY was not answered", "call", r.c.key.callID, "error", err)
	}
	r.c.save()
}

// referred asks the hook about a REFER.
func (c *Call) referred(r request, at state) {
	c.mu.Lock()
	f := c.onRefer
	c.mu.Unlock()
	to := r.req.ReferTo()
	switch {
	case to == nil || len(r.req.GetHeaders("Refer-To")) != 1: // RFC 3515 section 2.4.2
		c.l.refuse(r.req, r.tx, refusal{status: 400, why: "sanity"})
		return
	case at != confirmed || f == nil:
		c.l.respond(r.tx, c.l.response(r.req, 603, nil))
		return
	}
	wish := &Refer{Target: *to.Address.Clone(), Request: r.req, c: c}
	if !f(wish) {
		c.l.respond(r.tx, c.l.response(r.req, 603, nil))
		return
	}
	c.l.respond(r.tx, c.build(r.req, 202, nil, nil))
}
