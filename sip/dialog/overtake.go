package dialog

import (
	"time"

	"github.com/emiago/sipgo/sip"
)

// maxOvertakes bounds the CANCELs that wait for their INVITE; one more is told that there is none.
const maxOvertakes = 64

// overtaken takes a CANCEL that the transaction layer found no INVITE for. The two may have come in one
// instant: the library hands each over in a goroutine of its own, and the CANCEL of an INVITE that is still
// on its way to its transaction would leave a phone ringing that nobody calls (RFC 3261 section 9.2).
func (l *Layer) overtaken(req *sip.Request, tx *sip.ServerTx) {
	c := l.await(req)
	if c == nil {
		l.refuse(req, tx, refusal{status: 481, why: "no_dialog"})
		return
	}
	l.m.event("cancel_overtook")
	l.respond(tx, l.response(req, 200, nil))
	if c.cancelled(req) {
		l.respond(c.tx, c.build(c.invite, 487, nil, nil))
	}
}

// await is the call of a CANCEL's INVITE, for which it waits a little; nil when there is none.
func (l *Layer) await(cancel *sip.Request) *Call {
	tag := toTag(cancel) // as the INVITE's: see tagFor
	l.mu.Lock()
	c := l.calls[key{cancel.CallID().Value(), tag}]
	handled, others := l.arrived[tag]
	if c == nil && !others {
		handled = make(chan struct{})
		l.arrived[tag] = handled
	}
	l.mu.Unlock()
	if c != nil {
		return c
	}
	select {
	case l.overtakes <- struct{}{}:
		defer func() { <-l.overtakes }()
		select {
		case <-handled:
		case <-time.After(holdHeard):
		case <-l.done:
		}
	default:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.arrived, tag)
	return l.calls[key{cancel.CallID().Value(), tag}]
}

// handled lets the CANCEL of an INVITE go on.
func (l *Layer) handled(invite *sip.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if handled, ok := l.arrived[toTag(invite)]; ok {
		close(handled)
		delete(l.arrived, toTag(invite))
	}
}
