package dialog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
)

// merging is what two copies of one INVITE have in common when they came by two ways.
func merging(req *sip.Request) string {
	return fromTag(req) + "\n" + req.CallID().Value() + "\n" + strconv.FormatUint(uint64(req.CSeq().SeqNo), 10)
}

// invited takes an INVITE outside a dialog.
func (l *Layer) invited(req *sip.Request, tx *sip.ServerTx) {
	if l.drain.Load() {
		l.refuse(req, tx, l.busy("draining"))
		return
	}
	l.mu.Lock()
	_, twice := l.invites[merging(req)]
	if !twice {
		l.invites[merging(req)] = struct{}{}
	}
	l.mu.Unlock()
	if twice { // RFC 3261 section 8.2.2.2
		l.refuse(req, tx, refusal{status: 482, why: "merged"})
		return
	}
	c := &Call{incoming: true, invite: req, tx: tx, peer: source(req), state: ringing, id: identityUAS(req),
		queue: newQueue(req.CSeq().SeqNo)}
	if l.cfg.Symmetric {
		c.id.dest = req.Source()
	}
	if err := l.newCall(c, false); err != nil {
		l.mu.Lock()
		delete(l.invites, merging(req))
		l.mu.Unlock()
		l.refuse(req, tx, l.busy("calls_full"))
		return
	}
	// A CANCEL that was quicker than this line is told by the result.
	if !tx.OnCancel(func(cancel *sip.Request) { c.cancelled(cancel) }) {
		c.cancelled(nil)
		return
	}
	l.spawn(c, func() { l.deps.OnInvite(c) })
}

// cancelled ends an unanswered call, and tells whether it was one; the transaction has sent 487, or does
// next. It runs inside the transaction and must not use it.
func (c *Call) cancelled(cancel *sip.Request) bool {
	if _, ok := c.step(cancelled); !ok {
		return false
	}
	e := &call.Ended{Remote: true, Cause: call.CauseNormal, Reason: call.EndCancelled}
	if cancel != nil {
		if cause, ok := ReasonOf(cancel); ok {
			e.Cause = cause
		}
	}
	c.hangUp(e)
	c.settle()
	return true
}

// build is a response to the INVITE that may make a dialog (RFC 3261 section 12.1.1).
func (c *Call) build(req *sip.Request, status int, sdp []byte, headers []sip.Header) *sip.Response {
	res := c.l.response(req, status, sdp)
	if status > 100 && status < 300 {
		res.AppendHeader(c.l.contact(c.id.user))
		res.AppendHeader(sip.NewHeader("Allow", allow))
	}
	if len(sdp) > 0 {
		res.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	}
	for _, h := range headers {
		res.AppendHeader(h)
	}
	return res
}

// early tells why nothing provisional or final can be sent any more; nil means that it can.
func (c *Call) early() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case ringing:
		return nil
	case ended, closing:
		return context.Cause(c.ctx)
	default:
		return call.ErrAnswered
	}
}

// Provisional sends a 101 to 199 on an unanswered incoming call. A body is sent as application/sdp.
func (c *Call) Provisional(_ context.Context, status int, body []byte, headers ...sip.Header) error {
	if status <= 100 || status >= 200 {
		return fmt.Errorf("dialog: %d is not provisional", status)
	}
	if err := c.early(); err != nil {
		return err
	}
	if err := c.tx.Respond(c.build(c.invite, status, body, headers)); err != nil {
		return c.sendFailed(err)
	}
	return nil
}

// Answer sends 200 with the SDP and returns after the ACK. The 200 is repeated from T1, doubling, up to
// T2; without an ACK at 64*T1 the call is ended by BYE and its cause has the reason
// call.EndSignalling. When ctx ends first the call goes on waiting by itself. For an INVITE without an
// offer sdp is ours, and AckBody is the answer.
func (c *Call) Answer(ctx context.Context, sdp []byte, headers ...sip.Header) error {
	if from, ok := c.step(answered); !ok {
		if from == accepted || from == confirmed {
			return call.ErrAnswered
		}
		return context.Cause(c.ctx)
	}
	a, err := c.accept(c.invite, c.tx, c.build(c.invite, 200, sdp, headers), nil)
	if err != nil {
		return c.sendFailed(err)
	}
	select {
	case <-a.acked:
		return nil
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sendFailed ends a call whose transaction did not take a response: a CANCEL was first, or the
// transport failed.
func (c *Call) sendFailed(err error) error {
	e := &call.Ended{Cause: call.CauseFailure, Reason: call.EndSignalling}
	if errors.Is(err, sip.ErrTransactionCanceled) {
		e = &call.Ended{Remote: true, Cause: call.CauseNormal, Reason: call.EndCancelled}
	}
	c.finish(e)
	return context.Cause(c.ctx)
}

// accept sends a 2xx to an INVITE and has it repeated until its ACK. done runs when that is over.
func (c *Call) accept(req *sip.Request, tx *sip.ServerTx, res *sip.Response, done func(ackBody []byte)) (*await, error) {
	a := &await{acked: make(chan struct{})}
	c.mu.Lock()
	c.await[req.CSeq().SeqNo] = a
	c.mu.Unlock()
	if err := tx.Respond(res); err != nil {
		return nil, err
	}
	c.l.spawn(c, func() {
		if !c.untilAck(a, tx, res) {
			c.lapse()
		}
		if done != nil {
			done(a.body)
		}
	})
	return a, nil
}

// untilAck repeats a 2xx (RFC 3261 section 13.3.1.4). It returns false at 64*T1.
func (c *Call) untilAck(a *await, tx *sip.ServerTx, res *sip.Response) bool {
	interval := sip.T1
	again := time.NewTimer(interval)
	defer again.Stop()
	giveUp := time.NewTimer(64 * sip.T1)
	defer giveUp.Stop()
	for {
		select {
		case <-a.acked:
			return true
		case <-c.gone:
			return true
		case ack := <-tx.Acks(): // with the INVITE's own branch, as RFC 2543 had it
			c.ack(ack)
		case <-giveUp.C:
			return false
		case <-again.C:
			c.l.m.event("repeated_2xx")
			c.l.respond(tx, res)
			interval = min(2*interval, sip.T2)
			again.Reset(interval)
		}
	}
}

// lapse ends a call whose 2xx was never acknowledged (RFC 3261 section 13.3.1.4: "SHOULD ... BYE").
func (c *Call) lapse() {
	c.l.m.event("answered_unacked")
	c.mu.Lock()
	if c.state == confirmed { // a re-INVITE of ours answered in vain ends the dialog too
		c.state = ended
	} else if to, ok := moves[c.state][unacked]; ok {
		c.state = to
	}
	c.mu.Unlock()
	c.hangUp(&call.Ended{Cause: call.CauseMediaTimeout, Reason: call.EndSignalling})
	c.sendBye(context.Background(), call.CauseMediaTimeout, nil)
	c.settle()
}

// ack takes the ACK to a 2xx of ours.
func (c *Call) ack(req *sip.Request) {
	c.mu.Lock()
	a := c.await[req.CSeq().SeqNo]
	delete(c.await, req.CSeq().SeqNo)
	first := c.incoming && req.CSeq().SeqNo == c.invite.CSeq().SeqNo
	if a != nil && first {
		c.ackBody = req.Body()
	}
	c.mu.Unlock()
	if a == nil {
		return // repeated, or to nothing of ours
	}
	a.body = req.Body()
	if !first {
		close(a.acked)
		return
	}
	from, ok := c.step(acked)
	close(a.acked)
	switch {
	case ok && from == closing: // hung up before the ACK: only now may the BYE leave (section 15)
		c.l.spawn(c, func() {
			c.sendBye(context.Background(), causeOf(c.ctx), nil)
			c.settle()
		})
	case ok:
		c.save()
	}
}

// causeOf is the cause that a call's context ended with.
func causeOf(ctx context.Context) call.Cause {
	if e, ok := errors.AsType[*call.Ended](context.Cause(ctx)); ok {
		return e.Cause
	}
	return call.CauseNormal
}

// Reject refuses an unanswered incoming call with a status of 300 to 699; reason "" is the usual one.
func (c *Call) Reject(_ context.Context, status int, reason string, headers ...sip.Header) error {
	if status < 300 || status > 699 {
		return fmt.Errorf("dialog: %d refuses nothing", status)
	}
	return c.reject(status, reason, &call.Ended{Cause: call.CauseOfStatus(status), Reason: call.EndRejected}, headers)
}

func (c *Call) reject(status int, phrase string, e *call.Ended, headers []sip.Header) error {
	if !c.incoming {
		return call.ErrAnswered
	}
	if from, ok := c.step(refused); !ok {
		if from == ended || from == closing {
			return context.Cause(c.ctx)
		}
		return call.ErrAnswered
	}
	res := c.build(c.invite, status, nil, headers)
	if phrase != "" {
		res.Reason = phrase
	}
	c.hangUp(e)
	defer c.settle()
	if err := c.tx.Respond(res); err != nil && !errors.Is(err, sip.ErrTransactionCanceled) {
		return fmt.Errorf("dialog: reject: %w", err)
	}
	c.l.shed(c.tx, status)
	return nil
}
