package dialog

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
)

// Call is one INVITE dialog. Its methods may be called from any goroutine.
type Call struct {
	l        *Layer
	incoming bool
	invite   *sip.Request
	tx       *sip.ServerTx // of the incoming INVITE
	peer     netip.AddrPort
	key      key
	queue    *queue
	auth     *Credentials

	ctx    context.Context
	cancel context.CancelCauseFunc
	gone   chan struct{} // closed when the state is ended

	mu       sync.Mutex
	state    state
	id       identity
	response *sip.Response     // of an outgoing call
	await    map[uint32]*await // our 2xx that wait for their ACK, by CSeq
	ackBody  []byte
	offering side          // whose offer is being answered
	theirs   int           // how many of theirs wait for their ACK
	freed    chan struct{} // an offer was done
	onOffer  func([]byte) ([]byte, int)
	onInfo   func(string, []byte) bool
	onRefer  func(*Refer) bool
	saved    bool
}

// await is a 2xx of ours without its ACK.
type await struct {
	acked chan struct{}
	body  []byte // of the ACK; set before acked is closed
}

// newCall registers a call and starts its goroutine; the caller has made all but the lifetime.
func (l *Layer) newCall(c *Call, emergency bool) error {
	c.l = l
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.gone = make(chan struct{})
	c.await = make(map[uint32]*await)
	c.freed = make(chan struct{}, 1)
	c.key = key{c.id.callID, c.id.local.Params.GetOr("tag", "")}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrNotServing
	}
	if len(l.calls) >= l.cfg.MaxCalls && !emergency {
		l.mu.Unlock()
		return ErrFull
	}
	l.calls[c.key] = c
	l.mu.Unlock()
	l.m.up(c.incoming, 1)
	l.spawn(c, c.run)
	return nil
}

// Context ends with the call; context.Cause of it is a *call.Ended.
func (c *Call) Context() context.Context { return c.ctx }

// ID is the Call-ID.
func (c *Call) ID() string { return c.key.callID }

// Incoming tells whether the party placed the call.
func (c *Call) Incoming() bool { return c.incoming }

// Request is the INVITE that made the call. It must not be changed.
func (c *Call) Request() *sip.Request { return c.invite }

// Response is the 2xx of an outgoing call: its body is the SDP answer. It is nil on an incoming one.
func (c *Call) Response() *sip.Response {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.response
}

// Peer is where the INVITE came from or was sent to; it is invalid for a host name.
func (c *Call) Peer() netip.AddrPort { return c.peer }

// AckBody is the body of the ACK to our first 2xx: the answer to a delayed offer. nil before the ACK.
func (c *Call) AckBody() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ackBody
}

// OnOffer is asked for the answer to each offer in mid-call (re-INVITE or UPDATE). A status of 300 and
// above refuses, and 0 is 200. offer is nil for a re-INVITE without SDP: the bytes returned are then
// our offer, and f is called again with the ACK's answer (its result is ignored). Until f is set an
// offer is refused 491, so that the party asks again. f runs in the call's goroutine and must not wait for the call.
func (c *Call) OnOffer(f func(offer []byte) (answer []byte, status int)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onOffer = f
}

// OnInfo is told each INFO with a body, in the order of CSeq; it is answered 200, or 415 when f returns
// false or is not set. f runs in the call's goroutine and must not wait for the call.
func (c *Call) OnInfo(f func(contentType string, body []byte) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onInfo = f
}

// OnRefer is told each REFER. true accepts it with 202, and f's caller then tells Refer.Done how it
// went; false, or no f, refuses it with 603. f runs in the call's goroutine.
func (c *Call) OnRefer(f func(*Refer) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onRefer = f
}

// knows tells whether a From-tag is the party's. An early outgoing call does not know it yet.
func (c *Call) knows(tag string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	theirs := c.id.remote.Params.GetOr("tag", "")
	return theirs == "" || theirs == tag
}

// next is the dialog with the next sequence number of ours.
func (c *Call) next() identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.id.seq++
	return c.id
}

// post hands a request of the party to the call's goroutine.
func (c *Call) post(req *sip.Request, tx *sip.ServerTx, bad *refusal) {
	switch c.queue.put(request{req: req, tx: tx, bad: bad, at: time.Now()}, c.l.cfg.MaxQueued) {
	case tooLate: // RFC 3261 section 12.2.2
		c.l.refuse(req, tx, refusal{status: 500, why: "out_of_order"})
	case overflow:
		c.l.refuse(req, tx, refusal{status: 500, why: "queue_full", headers: []sip.Header{c.l.retryAfter()}})
	case inQueue:
	}
}

// run is the call's goroutine: it takes the party's requests in order until the call has ended.
func (c *Call) run() {
	defer func() {
		for _, r := range c.queue.rest() {
			c.l.refuse(r.req, r.tx, refusal{status: 481, why: "no_dialog"})
		}
	}()
	for {
		r, ok, gap, wait := c.queue.take(time.Now())
		if ok {
			if gap {
				c.l.m.event("gap_skipped")
			}
			c.dispatch(r)
			continue
		}
		var again <-chan time.Time
		if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-c.queue.wake:
		case <-again:
		case <-c.gone:
			return
		}
	}
}

// dispatch handles one request; a panic in a hook ends this call and answers 500.
func (c *Call) dispatch(r request) {
	answered := false
	defer func() {
		if !answered {
			c.l.respond(r.tx, c.l.response(r.req, 500, nil))
		}
	}()
	defer c.l.rescue(c)
	c.midCall(r)
	answered = true
}

// hangUp ends the call's context. The dialog may go on: see settle.
func (c *Call) hangUp(e *call.Ended) { c.cancel(e) }

// settle takes the call out of the layer when its state is ended.
func (c *Call) settle() {
	c.mu.Lock()
	over := c.state == ended
	saved := c.saved
	c.saved = false
	c.mu.Unlock()
	if !over {
		return
	}
	l := c.l
	l.mu.Lock()
	_, live := l.calls[c.key]
	delete(l.calls, c.key)
	if c.incoming {
		delete(l.invites, merging(c.invite))
	}
	l.mu.Unlock()
	if !live {
		return
	}
	close(c.gone)
	l.m.up(c.incoming, -1)
	if saved {
		if err := l.deps.Spool.Delete(c.spoolID()); err != nil {
			l.log.Warn("a dialog stays in the spool", "call", c.key.callID, "error", err)
		}
	}
}

// finish ends the call at once, without a message.
func (c *Call) finish(e *call.Ended) {
	c.hangUp(e)
	c.mu.Lock()
	c.state = ended
	c.mu.Unlock()
	c.settle()
}

// fault ends a call that a panic of ours hit, telling the party.
func (c *Call) fault() {
	c.l.spawn(nil, func() {
		ctx, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		if err := c.End(ctx, call.Ended{Cause: call.CauseFailure, Reason: call.EndFault}); err != nil {
			c.l.log.Debug("the party did not confirm the end", "call", c.key.callID, "error", err)
		}
	})
}
