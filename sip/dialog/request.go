package dialog

import (
	"context"
	"errors"
	"fmt"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
)

// write sends an ACK; it has no transaction.
func (l *Layer) write(req *sip.Request) {
	if !l.up() {
		return
	}
	if err := l.tpl.WriteMsg(req); err != nil {
		l.log.Debug("an ACK was not sent", "error", err)
	}
}

// roundTrip sends a request other than INVITE and returns its final response.
func (l *Layer) roundTrip(ctx context.Context, req *sip.Request) (*sip.Response, error) {
	tx, err := l.begin(ctx, req, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Terminate()
	for {
		select {
		case res := <-tx.Responses():
			if !res.IsProvisional() {
				return res, nil
			}
		case <-tx.Done():
			return nil, fmt.Errorf("dialog: %s: %w", req.Method, tx.Err())
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-l.done:
			return nil, ErrNotServing
		}
	}
}

// Request sends a request outside a dialog (OPTIONS, REGISTER) and returns its final response,
// whatever its status. Missing Via, From, To, Call-ID, CSeq, Max-Forwards and Contact are filled in. It
// goes to the request's Destination when that is set, or to its Route or Request-URI. auth, when not
// nil, answers a 401 or 407, and once more a stale nonce. The error is sip.ErrTransactionTimeout
// when nothing came for 64*T1.
func (l *Layer) Request(ctx context.Context, req *sip.Request, auth *Credentials) (*sip.Response, error) {
	l.complete(req)
	for tries := 0; ; tries++ {
		res, err := l.roundTrip(ctx, req)
		if err != nil || !challenged(res) || auth == nil || tries == 2 {
			return res, err
		}
		l.m.event("challenged")
		h, err := authorize(res, req.Method, req.Recipient, *auth)
		if err != nil {
			return res, nil //nolint:nilerr // the 401 is the answer then
		}
		req = req.Clone()
		for req.RemoveHeader(h.Name()) {
		}
		req.AppendHeader(h)
		req.CSeq().SeqNo++
		req.Via().Params.Add("branch", sip.GenerateBranch())
	}
}

func (l *Layer) complete(req *sip.Request) {
	if req.Via() == nil {
		req.PrependHeader(l.via())
	}
	if req.MaxForwards() == nil {
		maxForwards := sip.MaxForwardsHeader(70)
		req.AppendHeader(&maxForwards)
	}
	if req.From() == nil {
		from := &sip.FromHeader{Address: sip.Uri{Scheme: "sip", User: "hotline", Host: l.host}}
		req.AppendHeader(from)
	}
	if !req.From().Params.Has("tag") {
		req.From().Params.Add("tag", newTag())
	}
	if req.To() == nil {
		req.AppendHeader(&sip.ToHeader{Address: *req.Recipient.Clone()})
	}
	if req.CallID() == nil {
		callID := sip.CallIDHeader(newTag() + "@" + l.host)
		req.AppendHeader(&callID)
	}
	if req.CSeq() == nil {
		req.AppendHeader(&sip.CSeqHeader{SeqNo: 1, MethodName: req.Method})
	}
	if req.Contact() == nil {
		req.AppendHeader(l.contact(req.From().Address.User))
	}
	if req.ContentLength() == nil {
		req.SetBody(req.Body())
	}
	l.bind(req, req.MessageData.Destination())
}

// exchange sends a request of the dialog and returns its final response; one challenge is answered.
func (c *Call) exchange(ctx context.Context, method sip.RequestMethod, fill func(*sip.Request)) (*sip.Response, error) {
	req := c.l.inDialog(c.next(), method)
	req.SetBody(nil)
	if fill != nil {
		fill(req)
	}
	res, err := c.l.roundTrip(ctx, req)
	if err == nil && challenged(res) && c.auth != nil {
		if again, aerr := c.anew(req, res); aerr == nil {
			res, err = c.l.roundTrip(ctx, again)
		}
	}
	return res, err
}

// sendBye sends BYE and waits for its answer; without one the call is over just the same (RFC 3261
// section 15.1.1).
func (c *Call) sendBye(ctx context.Context, cause call.Cause, headers []sip.Header) {
	_, err := c.exchange(ctx, sip.BYE, func(req *sip.Request) {
		req.AppendHeader(reason(cause))
		for _, h := range headers {
			req.AppendHeader(h)
		}
	})
	if err != nil {
		c.l.log.Debug("a BYE was not answered", "call", c.key.callID, "error", err)
	}
}

// endFork ends a dialog that has no Call.
func (l *Layer) endFork(id identity, cause call.Cause) {
	id.seq++
	req := l.inDialog(id, sip.BYE)
	req.AppendHeader(reason(cause))
	req.SetBody(nil)
	if _, err := l.roundTrip(context.Background(), req); err != nil {
		l.log.Debug("a BYE was not answered", "call", id.callID, "error", err)
	}
}

// Bye ends a call: BYE when answered, CANCEL when placed and unanswered, the cause's status when
// incoming and unanswered. The call's context has ended when the BYE leaves; Bye returns when it was
// answered or timed out, or with an error when ctx ended first, and the BYE goes on. A second call
// does nothing.
func (c *Call) Bye(ctx context.Context, cause call.Cause) error {
	return c.End(ctx, call.Ended{Cause: cause})
}

// End is Bye with the whole cause of the context's end, and further headers on the message.
func (c *Call) End(ctx context.Context, e call.Ended, headers ...sip.Header) error {
	c.mu.Lock()
	early := c.state == ringing
	c.mu.Unlock()
	if early {
		err := c.reject(e.Cause.Status(), "", &e, append([]sip.Header{reason(e.Cause)}, headers...))
		if !errors.Is(err, call.ErrAnswered) {
			return ignoreGone(err)
		}
	}
	from, ok := c.step(ourBye)
	if !ok {
		return nil
	}
	c.hangUp(&e)
	switch from {
	case calling: // the attempt sees the context's end and cancels
		c.settle()
		return nil
	case confirmed:
		c.l.spawn(nil, func() {
			defer c.settle()
			c.sendBye(context.Background(), e.Cause, headers)
		})
	default: // accepted: the BYE waits for the ACK, see ack and lapse
	}
	select {
	case <-c.gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ignoreGone takes the end that somebody else was quicker with for the end that was asked.
func ignoreGone(err error) error {
	if errors.Is(err, call.ErrLegGone) {
		return nil
	}
	return err
}
