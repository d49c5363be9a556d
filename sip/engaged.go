package sip

import (
	"context"
	"errors"
	"sync"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
)

const (
	// exclusiveHeader asks the gateway that a phone is registered at to ring it only when its extension is in no
	// other call. One of an older version takes no notice.
	exclusiveHeader = "X-Hotline-Exclusive"
	// engagedHeader goes with the 486 to such an INVITE: the token of the call that the extension is in, or "-".
	engagedHeader = "X-Hotline-Engaged"
)

// engaged is the calls of the phones that are registered here, from the INVITE to the end. Who owns a phone knows
// for sure whether it rings or talks, whatever the queue believes: with a Redis that lost its last writes, or two
// that each serve some of the gateways, an agent can be offered in mid-call.
type engaged struct {
	mu  sync.Mutex
	all map[string]map[string]string // by extension and Call-ID, the token of the call
}

func newEngaged() *engaged { return &engaged{all: map[string]map[string]string{}} }

// take notes a call of an extension. With exclusive it fails with a *call.Engaged when there is another one: the
// branches of one ring have one token, and are no others.
func (e *engaged) take(extension, callID, token string, exclusive bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, other := range e.all[extension] {
		if exclusive && (other == "" || other != token) {
			return &call.Engaged{Token: other}
		}
	}
	if e.all[extension] == nil {
		e.all[extension] = map[string]string{}
	}
	e.all[extension][callID] = token
	return nil
}

// drop forgets a call that is over.
func (e *engaged) drop(extension, callID string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.all[extension], callID)
	if len(e.all[extension]) == 0 {
		delete(e.all, extension)
	}
}

// toOwn rings a phone of this gateway, unless it was to be rung alone and is engaged.
func (d *dialling) toOwn(ctx context.Context, w *way) (*dialog.Call, error) {
	d.sw.parted(ctx, w.phone)
	extension, id := d.info.Extension, w.inv.CallID
	if err := d.sw.engaged.take(extension, id, d.info.Token, d.opts.Exclusive); err != nil {
		d.sw.metrics.engaged.Inc()
		return nil, &call.DialError{Cause: call.CauseBusy, Status: call.CauseBusy.Status(), Err: err}
	}
	c, err := w.line.layer.Invite(ctx, w.inv)
	if err != nil {
		d.sw.engaged.drop(extension, id)
		return nil, err
	}
	context.AfterFunc(c.Context(), func() { d.sw.engaged.drop(extension, id) })
	return c, nil
}

// engagedBy is what the gateway of a phone says of another call of its extension.
func engagedBy(err error) error {
	e, ok := errors.AsType[*call.DialError](err)
	if !ok {
		return err
	}
	r, ok := errors.AsType[*dialog.Refusal](e.Err)
	if !ok {
		return err
	}
	h := r.Response.GetHeader(engagedHeader)
	if h == nil {
		return err
	}
	by := &call.Engaged{Token: h.Value()}
	if by.Token == "-" {
		by.Token = ""
	}
	return &call.DialError{Cause: call.CauseBusy, Status: e.Status, Err: by}
}

// engagedHeaders tell another gateway that the phone it asked for is engaged; none for any other refusal.
func engagedHeaders(err error) []sip.Header {
	by, ok := errors.AsType[*call.Engaged](err)
	if !ok {
		return nil
	}
	token := by.Token
	if token == "" {
		token = "-"
	}
	return []sip.Header{sip.NewHeader(engagedHeader, token)}
}
