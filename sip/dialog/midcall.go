package dialog

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
)

// midCall handles one request of the party; it runs in the call's goroutine.
func (c *Call) midCall(r request) {
	c.mu.Lock()
	at := c.state
	c.mu.Unlock()
	switch {
	case r.bad != nil:
		c.l.refuse(r.req, r.tx, *r.bad)
	case r.req.Method == sip.BYE:
		c.bye(r)
	case at == ended || at == closing:
		c.l.refuse(r.req, r.tx, refusal{status: 481, why: "no_dialog"})
	default:
		c.other(r, at)
	}
}

func (c *Call) other(r request, at state) {
	if at == accepted && r.req.Method != sip.INFO {
		if at = c.afterAck(); at == ended || at == closing {
			c.l.refuse(r.req, r.tx, refusal{status: 481, why: "no_dialog"})
			return
		}
	}
	switch r.req.Method {
	case sip.INVITE:
		c.reinvited(r, at)
	case sip.UPDATE:
		c.updated(r, at)
	case sip.INFO:
		c.informed(r)
	case sip.REFER:
		c.referred(r, at)
	case sip.OPTIONS:
		c.l.respond(r.tx, c.l.capable(r.req))
	case sip.PRACK, sip.NOTIFY: // nothing of ours was reliable (RFC 3262 section 3), nor subscribed
		c.l.refuse(r.req, r.tx, refusal{status: 481, why: "no_dialog"})
	default:
		c.l.refuse(r.req, r.tx, refusal{status: 405, why: "sanity", headers: []sip.Header{sip.NewHeader("Allow", allow)}})
	}
}

// afterAck is the state once the ACK, which has no number of its own and may have been overtaken, had
// its time to come.
func (c *Call) afterAck() state {
	c.mu.Lock()
	a := c.await[c.invite.CSeq().SeqNo]
	c.mu.Unlock()
	if a != nil {
		select {
		case <-a.acked:
		case <-time.After(hold):
		case <-c.gone:
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// bye ends the call, before our ACK came too: the two may have changed places on the way.
func (c *Call) bye(r request) {
	from, ok := c.step(theirBye)
	if ok {
		c.hangUp(byeOf(r.req, from)) // whoever has the 200 may build on it that the call has ended here
	}
	c.l.respond(r.tx, c.l.response(r.req, 200, nil))
	if !ok {
		return // ours is on its way as well
	}
	if from == ringing { // RFC 3261 section 15.1.2: the INVITE is still to be answered
		c.l.respond(c.tx, c.build(c.invite, 487, nil, nil))
	}
	c.settle()
}

// byeOf is the end that a BYE means.
func byeOf(req *sip.Request, in state) *call.Ended {
	e := &call.Ended{Remote: true, Cause: call.CauseNormal}
	if in == ringing {
		e.Reason = call.EndCancelled
	}
	if cause, ok := ReasonOf(req); ok {
		e.Cause = cause
	}
	return e
}

// informed tells an INFO (RFC 2976, RFC 6086).
func (c *Call) informed(r request) {
	c.mu.Lock()
	f := c.onInfo
	c.mu.Unlock()
	switch {
	case len(r.req.Body()) == 0, f != nil && f(mediaType(r.req), r.req.Body()):
		c.l.respond(r.tx, c.l.response(r.req, 200, nil))
	default:
		c.l.refuse(r.req, r.tx, refusal{status: 415, why: "sanity",
			headers: []sip.Header{sip.NewHeader("Accept", "application/dtmf-relay, application/dtmf")}})
	}
}

// side is whose offer is being answered (RFC 3264 section 4: one at a time).
type side int

const (
	nobody side = iota
	us
	them
)

// claim begins an offer. Theirs may follow theirs: it shows that the 2xx came.
func (c *Call) claim(s side) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.offering != nobody && (s == us || c.offering == us) {
		return false
	}
	c.offering = s
	if s == them {
		c.theirs++
	}
	return true
}

func (c *Call) release(s side) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s == them {
		if c.theirs--; c.theirs > 0 {
			return
		}
	}
	c.offering = nobody
	select {
	case c.freed <- struct{}{}:
	default:
	}
}

// offered asks the hook for the answer.
func (c *Call) offered(offer []byte) ([]byte, int) {
	c.mu.Lock()
	f := c.onOffer
	c.mu.Unlock()
	if f == nil { // not yet set: the party asks again (RFC 3261 section 14.1)
		return nil, 491
	}
	return f(offer)
}

// reinvited answers a re-INVITE (RFC 3261 section 14.2).
func (c *Call) reinvited(r request, at state) {
	switch {
	case at == ringing || at == calling:
		c.l.refuse(r.req, r.tx, refusal{status: 500, why: "out_of_order", headers: []sip.Header{c.l.retryAfter()}})
		return
	case at == accepted || !c.claim(them):
		c.l.m.event("offer_glare")
		c.l.respond(r.tx, c.l.response(r.req, 491, nil))
		return
	}
	var offer []byte
	if len(r.req.Body()) > 0 {
		offer = r.req.Body()
	}
	sdp, status := c.offered(offer)
	if status >= 300 {
		c.release(them)
		c.l.respond(r.tx, c.l.response(r.req, status, nil))
		return
	}
	c.retarget(r.req.Contact())
	_, err := c.accept(r.req, r.tx, c.build(r.req, 200, sdp, nil), func(answer []byte) {
		defer c.release(them)
		if offer == nil && len(answer) > 0 {
			c.offered(answer)
		}
	})
	if err != nil { // cancelled: the session stays as it was
		c.release(them)
	}
}

// updated answers an UPDATE (RFC 3311 section 5.2).
func (c *Call) updated(r request, at state) {
	if len(r.req.Body()) == 0 {
		c.retarget(r.req.Contact())
		c.l.respond(r.tx, c.build(r.req, 200, nil, nil))
		return
	}
	if at == ringing || at == calling {
		c.l.refuse(r.req, r.tx, refusal{status: 500, why: "out_of_order", headers: []sip.Header{c.l.retryAfter()}})
		return
	}
	if at == accepted || !c.claim(them) {
		c.l.m.event("offer_glare")
		c.l.respond(r.tx, c.l.response(r.req, 491, nil))
		return
	}
	defer c.release(them)
	sdp, status := c.offered(r.req.Body())
	if status >= 300 {
		c.l.respond(r.tx, c.l.response(r.req, status, nil))
		return
	}
	c.retarget(r.req.Contact())
	c.l.respond(r.tx, c.build(r.req, 200, sdp, nil))
}

// retarget takes their new Contact and keeps it over a kill.
func (c *Call) retarget(h *sip.ContactHeader) {
	c.mu.Lock()
	c.id.refresh(h)
	c.mu.Unlock()
	c.save()
}

// ReInvite sends an offer in a confirmed call and returns the answer. A refusal is a *call.DialError;
// the session then stays as it was. A 491 is waited out once, as RFC 3261 section 14.1 says. 408, 481
// and silence end the call. When ctx ends first, the re-INVITE is cancelled.
func (c *Call) ReInvite(ctx context.Context, offer []byte) (answer []byte, err error) {
	answer, err = c.reInvite(ctx, offer)
	var d *call.DialError
	if !errors.As(err, &d) || d.Status != 491 {
		return answer, err
	}
	c.l.m.event("offer_glare")
	wait := time.Duration(rand.N(200)) * 10 * time.Millisecond
	if !c.incoming { // whoever made the Call-ID waits longer, so that one of the two is first
		wait += 2100 * time.Millisecond
	}
	select {
	case <-time.After(wait):
		return c.reInvite(ctx, offer)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.ctx.Done():
		return nil, context.Cause(c.ctx)
	}
}

func (c *Call) reInvite(ctx context.Context, offer []byte) ([]byte, error) {
	for !c.claim(us) {
		select {
		case <-c.freed:
		case <-ctx.Done():
			return nil, errors.Join(ErrGlare, context.Cause(ctx))
		case <-c.ctx.Done():
			return nil, context.Cause(c.ctx)
		}
	}
	defer c.release(us)
	c.mu.Lock()
	at := c.state
	c.mu.Unlock()
	if at != confirmed {
		if err := context.Cause(c.ctx); err != nil {
			return nil, err
		}
		return nil, call.ErrNotAnswered
	}
	req := c.l.inDialog(c.next(), sip.INVITE)
	req.AppendHeader(sip.NewHeader("Allow", allow))
	req.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	req.SetBody(offer)
	res, a, err := c.await2xx(ctx, req)
	if err == nil && challenged(res) && c.auth != nil {
		if again, aerr := c.anew(req, res); aerr == nil {
			res, a, err = c.await2xx(ctx, again)
		}
	}
	return c.reAnswered(res, a, err)
}

// await2xx sends a re-INVITE and returns its final response.
func (c *Call) await2xx(ctx context.Context, req *sip.Request) (*sip.Response, *attempt, error) {
	a := &attempt{c: c, req: req, acks: make(map[string]*sip.Request)}
	if err := a.begin(ctx); err != nil {
		return nil, nil, err
	}
	provisional := false
	leave := func(why error) (*sip.Response, *attempt, error) {
		c.l.spawn(nil, func() { a.abandon(provisional, why) })
		return nil, nil, why
	}
	for {
		select {
		case res := <-a.tx.Responses():
			if !res.IsProvisional() {
				return res, a, nil
			}
			provisional = true
		case <-a.tx.Done():
			return nil, nil, a.tx.Err()
		case <-ctx.Done():
			return leave(context.Cause(ctx))
		case <-c.ctx.Done():
			return leave(context.Cause(c.ctx))
		}
	}
}

// reAnswered takes the end of a re-INVITE of ours.
func (c *Call) reAnswered(res *sip.Response, a *attempt, err error) ([]byte, error) {
	if err == nil && res.IsSuccess() {
		c.retarget(res.Contact())
		c.mu.Lock()
		id := c.id
		c.mu.Unlock()
		id.seq = a.req.CSeq().SeqNo
		a.ack(id, res, nil)
		return res.Body(), nil
	}
	d := dialError(err)
	if err == nil {
		d = refusalError(res)
	}
	c.save()
	if d.Status == 408 || d.Status == 481 { // the dialog is gone (RFC 3261 section 12.2.1.2)
		c.l.spawn(nil, func() {
			//nolint:errcheck // a dialog that is gone confirms nothing
			c.End(context.Background(), call.Ended{Cause: call.CauseNoResponse, Reason: call.EndSignalling})
		})
	}
	return nil, d
}
