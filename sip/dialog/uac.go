package dialog

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
)

// Invite is a call to be placed.
type Invite struct {
	RequestURI sip.Uri
	Dest       string         // "host:port" of the next hop; "" is the first Route's or the Request-URI's
	From       sip.FromHeader // the tag is the layer's
	To         sip.ToHeader   // the zero value is the Request-URI
	Headers    []sip.Header   // further headers, e.g. Route or P-Asserted-Identity
	Body       []byte         // the SDP offer; nil asks the far side to offer, see Ack
	// Ack makes the ACK's body when Body is nil: the answer to the offer of the 2xx.
	Ack func(offer []byte) []byte
	// Auth answers 401 and 407, in the whole call.
	Auth *Credentials
	// CallID is set by the caller to know it in advance; "" makes one.
	CallID string
	// Setup sets the call's hooks before the INVITE is sent; nil sets none.
	Setup func(*Call)
	// OnProvisional is told each provisional response but for repeated ones, in order, from the
	// goroutine of Invite. It must not block.
	OnProvisional func(*sip.Response)
	// Emergency lets the call pass max_calls.
	Emergency bool
}

// Refusal is the final response that refused a request. It is the Err of a *call.DialError.
type Refusal struct{ Response *sip.Response }

func (r *Refusal) Error() string {
	return fmt.Sprintf("%d %s", r.Response.StatusCode, r.Response.Reason)
}

// refusalError is what a final response of 300 or above means to the one who dialled.
func refusalError(res *sip.Response) *call.DialError {
	cause, ok := ReasonOf(res)
	if !ok {
		cause = call.CauseOfStatus(res.StatusCode)
	}
	return &call.DialError{Cause: cause, Status: res.StatusCode, Err: &Refusal{Response: res}}
}

// dialError is what the end of a transaction without a final response means.
func dialError(err error) *call.DialError {
	d := &call.DialError{Cause: call.CauseFailure, Err: err}
	switch {
	case errors.Is(err, sip.ErrTransactionTimeout):
		d.Cause, d.Status = call.CauseNoResponse, 408 // RFC 3261 section 8.1.3.1
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, call.ErrLegGone):
		d.Cause, d.Status = call.CauseNormal, 487
	case errors.Is(err, ErrFull):
		d.Cause = call.CauseCongestion
	}
	return d
}

// Invite places a call and blocks until it is answered, refused, or ctx ends. A refusal is a
// *call.DialError whose Err is a *Refusal. When ctx ends, Invite returns at once and the attempt is
// cancelled: with the Reason of a *call.Ended that is the cause of ctx; a 200 that crosses the CANCEL
// is acknowledged and ended by BYE. The call returned is confirmed: the ACK was sent.
func (l *Layer) Invite(ctx context.Context, inv Invite) (*Call, error) {
	c, err := l.outgoing(inv)
	if err != nil {
		return nil, dialError(err)
	}
	req := c.invite
	for tries := 0; ; tries++ {
		res, a, err := c.place(ctx, req, inv.OnProvisional)
		switch {
		case err != nil:
			c.unplaced(&call.Ended{Cause: dialError(err).Cause})
			return nil, dialError(err)
		case res.IsSuccess():
			if err := c.connect(ctx, a, res, inv); err != nil {
				return nil, err
			}
			return c, nil
		}
		if challenged(res) && inv.Auth != nil && tries < 2 {
			if req, err = c.anew(req, res); err == nil {
				continue
			}
		}
		d := refusalError(res)
		c.unplaced(&call.Ended{Remote: true, Cause: d.Cause, Reason: call.EndRejected})
		return nil, d
	}
}

// outgoing makes the call and its INVITE.
func (l *Layer) outgoing(inv Invite) (*Call, error) {
	if !l.up() {
		return nil, ErrNotServing
	}
	id := identity{callID: inv.CallID, local: inv.From, remote: inv.To, target: inv.RequestURI, seq: 1,
		dest: inv.Dest, user: inv.From.Address.User}
	if id.callID == "" {
		id.callID = newTag() + "@" + l.host
	}
	id.local.Params = inv.From.Params.Clone()
	id.local.Params.Add("tag", newTag())
	if id.remote.Address.Host == "" && id.remote.Address.Scheme == "" {
		id.remote.Address = *inv.RequestURI.Clone()
	}
	req := l.inDialog(id, sip.INVITE)
	for _, h := range inv.Headers {
		req.AppendHeader(h)
	}
	if inv.Dest == "" {
		req.SetDestination(l.hop(req)) // a Route among the headers
	}
	req.AppendHeader(sip.NewHeader("Allow", allow))
	if len(inv.Body) > 0 {
		req.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	}
	req.SetBody(inv.Body)
	c := &Call{invite: req, state: calling, id: id, queue: newQueue(0), auth: inv.Auth}
	if ap, err := netip.ParseAddrPort(req.Destination()); err == nil {
		c.peer = ap
	}
	if inv.Setup != nil {
		inv.Setup(c)
	}
	return c, l.newCall(c, inv.Emergency)
}

// anew is a request again with the answer to a challenge (RFC 3261 section 22.2).
func (c *Call) anew(req *sip.Request, res *sip.Response) (*sip.Request, error) {
	c.l.m.event("challenged")
	h, err := authorize(res, req.Method, req.Recipient, *c.auth)
	if err != nil {
		return nil, err
	}
	next := req.Clone()
	for next.RemoveHeader(h.Name()) {
	}
	next.AppendHeader(h)
	next.CSeq().SeqNo = c.next().seq
	next.Via().Params.Add("branch", sip.GenerateBranch())
	return next, nil
}

// unplaced ends a call that was never answered.
func (c *Call) unplaced(e *call.Ended) {
	c.step(refused)
	c.hangUp(e)
	c.settle()
}

// place sends an INVITE and returns its final response. When ctx or the call ends first, what is left
// of the attempt goes on in the background.
func (c *Call) place(ctx context.Context, req *sip.Request, told func(*sip.Response)) (*sip.Response, *attempt, error) {
	a := &attempt{c: c, req: req, initial: true, acks: make(map[string]*sip.Request)}
	if err := a.begin(ctx); err != nil {
		return nil, nil, err
	}
	provisional, last := false, ""
	for {
		select {
		case res := <-a.tx.Responses():
			if !res.IsProvisional() {
				return res, a, nil
			}
			provisional = true
			if k := fmt.Sprint(res.StatusCode, toTag(res), string(res.Body())); k != last && told != nil {
				last = k
				told(res)
			}
		case <-a.tx.Done():
			return nil, nil, a.tx.Err()
		case <-ctx.Done():
			c.l.spawn(nil, func() { a.abandon(provisional, context.Cause(ctx)) })
			return nil, nil, errors.Join(ctx.Err(), context.Cause(ctx))
		case <-c.ctx.Done():
			c.l.spawn(nil, func() { a.abandon(provisional, context.Cause(c.ctx)) })
			return nil, nil, context.Cause(c.ctx)
		}
	}
}

// connect takes the 2xx: the dialog is theirs and ours from here on.
func (c *Call) connect(ctx context.Context, a *attempt, res *sip.Response, inv Invite) error {
	c.mu.Lock()
	id := c.id.joined(res)
	if !c.l.cfg.Symmetric {
		id.dest = ""
	}
	c.id, c.response = id, res
	c.mu.Unlock()
	var body []byte
	if len(inv.Body) == 0 && inv.Ack != nil {
		body = inv.Ack(res.Body())
	}
	id.seq = a.req.CSeq().SeqNo
	a.ack(id, res, body)
	_, ok := c.step(connected)
	if ok && ctx.Err() == nil {
		c.save()
		return nil
	}
	// Given up at the very moment of the answer.
	c.l.m.event("cancel_glare")
	c.finish(&call.Ended{Cause: call.CauseNormal})
	c.l.spawn(nil, func() { c.l.endFork(id, call.CauseNormal) })
	return dialError(errors.Join(ctx.Err(), context.Cause(c.ctx)))
}

// attempt is one INVITE transaction of ours, with the ACKs that its 2xx got.
type attempt struct {
	c       *Call
	req     *sip.Request
	tx      *sip.ClientTx
	initial bool // it may make more than one dialog

	mu   sync.Mutex
	acks map[string]*sip.Request // by their tag
}

func (a *attempt) begin(ctx context.Context) (err error) {
	a.tx, err = a.c.l.begin(ctx, a.req, a.again)
	return err
}

// begin starts a client transaction. Whoever begins one reads its responses until Done.
func (l *Layer) begin(ctx context.Context, req *sip.Request, again func(*sip.Response)) (*sip.ClientTx, error) {
	if !l.up() {
		return nil, ErrNotServing
	}
	tx, err := l.txl.NewClientTransaction(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("dialog: %s: %w", req.Method, err)
	}
	if again != nil {
		tx.OnRetransmission(func(res *sip.Response) {
			defer l.rescue(nil)
			again(res)
		})
	}
	if err := tx.Init(); err != nil {
		tx.Terminate()
		return nil, fmt.Errorf("dialog: %s: %w", req.Method, err)
	}
	return tx, nil
}

// ack sends the ACK to a 2xx, outside the transaction (RFC 3261 section 13.2.2.4).
func (a *attempt) ack(id identity, res *sip.Response, body []byte) {
	req := a.c.l.inDialog(id, sip.ACK)
	for _, name := range []string{"Authorization", "Proxy-Authorization"} { // section 22.1
		sip.CopyHeaders(name, a.req, req)
	}
	if len(body) > 0 {
		req.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	}
	req.SetBody(body)
	a.mu.Lock()
	a.acks[toTag(res)] = req
	a.mu.Unlock()
	a.c.l.write(req.Clone())
}

// again takes a 2xx after the first: the same repeated, whose ACK was lost, or that of another branch
// of a fork, which gets its own ACK and BYE (RFC 3261 section 13.2.2.4).
func (a *attempt) again(res *sip.Response) {
	if !res.IsSuccess() || res.To() == nil {
		return
	}
	a.mu.Lock()
	ack, known := a.acks[toTag(res)]
	first := len(a.acks) == 0
	if !known && !first {
		a.acks[toTag(res)] = nil
	}
	a.mu.Unlock()
	switch {
	case ack != nil:
		a.c.l.write(ack.Clone())
	case known || first || !a.initial: // its ACK is being made
	default:
		a.c.l.m.event("forked_2xx")
		a.end(res, call.CauseElsewhere)
	}
}

// end acknowledges a 2xx that nobody wants, and ends its dialog.
func (a *attempt) end(res *sip.Response, cause call.Cause) {
	a.c.mu.Lock()
	id := a.c.id
	a.c.mu.Unlock()
	id.seq = a.req.CSeq().SeqNo
	id = id.joined(res)
	if !a.c.l.cfg.Symmetric {
		id.dest = ""
	}
	a.ack(id, res, nil)
	a.c.l.spawn(nil, func() { a.c.l.endFork(id, cause) })
}

// abandon cancels an attempt and sees it to its end. RFC 3261 section 9.1: CANCEL leaves after a
// provisional response only, and 64*T1 after it the attempt is over without a final response.
func (a *attempt) abandon(provisional bool, why error) {
	var giveUp <-chan time.Time
	cancel := func() {
		if giveUp == nil {
			giveUp = time.After(64 * sip.T1)
			a.c.l.spawn(nil, func() { a.cancel(why) })
		}
	}
	if provisional {
		cancel()
	}
	for {
		select {
		case res := <-a.tx.Responses():
			switch {
			case res.IsProvisional():
				cancel()
				continue
			case res.IsSuccess() && a.initial: // it crossed the CANCEL
				a.c.l.m.event("cancel_glare")
				a.end(res, call.CauseNormal)
			case res.IsSuccess(): // a re-INVITE: the dialog goes on
				a.c.mu.Lock()
				id := a.c.id
				a.c.mu.Unlock()
				id.seq = a.req.CSeq().SeqNo
				a.ack(id, res, nil)
			}
			return
		case <-a.tx.Done():
			return
		case <-giveUp:
			a.tx.Terminate()
			return
		case <-a.c.l.done:
			a.tx.Terminate()
			return
		}
	}
}

// cancel sends CANCEL: the INVITE's Via, Request-URI and Route (RFC 3261 section 9.1).
func (a *attempt) cancel(why error) {
	req := sip.NewRequest(sip.CANCEL, a.req.Recipient)
	req.AppendHeader(a.req.Via().Clone())
	sip.CopyHeaders("Route", a.req, req)
	for _, name := range []string{"Max-Forwards", "From", "To", "Call-ID"} {
		sip.CopyHeaders(name, a.req, req)
	}
	req.AppendHeader(&sip.CSeqHeader{SeqNo: a.req.CSeq().SeqNo, MethodName: sip.CANCEL})
	if e, ok := errors.AsType[*call.Ended](why); ok {
		req.AppendHeader(reason(e.Cause))
	}
	req.SetBody(nil)
	a.c.l.bind(req, a.req.Destination())
	if _, err := a.c.l.roundTrip(context.Background(), req); err != nil {
		a.c.l.log.Debug("a CANCEL was not answered", "call", a.c.key.callID, "error", err)
	}
}
