package sip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/registrar"
	"github.com/hotline12345/gateway/sip/trunk"
)

// extension rings the phones of an extension, each by the gateways that it is registered at.
func (d *dialling) extension(ctx context.Context, name string) (call.Leg, error) {
	d.info.Extension, d.info.Called = name, name
	found, err := d.sw.registrar.Lookup(ctx, name)
	if err != nil {
		return nil, &call.DialError{Cause: call.CauseFailure, Err: fmt.Errorf("sip: the phones of %s: %w", name, err)}
	}
	var branches []branch
	for _, phone := range byPhone(found) {
		ways, err := d.ways(phone)
		if err != nil {
			return nil, &call.DialError{Cause: call.CauseFailure, Err: err}
		}
		if len(ways) > 0 {
			branches = append(branches, branch{ways: ways})
		}
	}
	if len(branches) == 0 {
		return nil, lost(nil, errors.New("sip: no phone is registered at a gateway that is known"))
	}
	return d.ring(ctx, branches, false)
}

// byPhone sorts bindings by the phone that they are of, each phone's as they came.
func byPhone(all []registrar.Binding) [][]registrar.Binding {
	var phones [][]registrar.Binding
	at := map[string]int{}
	for _, b := range all {
		i, known := at[b.Phone()]
		if !known {
			i = len(phones)
			at[b.Phone()] = i
			phones = append(phones, nil)
		}
		phones[i] = append(phones[i], b)
	}
	return phones
}

// ways are how a phone is reached: from here when it is registered here, and by each other gateway that it is
// registered at, the newest registration first. One that is not known to live comes last: it may have come back
// within the second that such news takes, and who dials has been told of its agent since.
func (d *dialling) ways(bindings []registrar.Binding) ([]way, error) {
	var here, there, absent []way
	for _, p := range bindings {
		switch {
		case p.Node != d.sw.deps.Node:
			known := slices.ContainsFunc(slices.Concat(there, absent), func(w way) bool { return w.node == p.Node })
			switch w, alive, ok := d.toNode(p); {
			case !ok || known:
			case alive:
				there = append(there, w)
			default:
				absent = append(absent, w)
			}
		case len(here) == 0: // of two registrations of one phone the newer counts
			w, err := d.toPhone(p)
			if err != nil {
				return nil, err
			}
			here = append(here, w)
		}
	}
	return slices.Concat(here, there, absent), nil
}

// toPhone is the INVITE to a phone. It shows what the caller of Dial made of the number, never more.
func (d *dialling) toPhone(p registrar.Binding) (way, error) {
	l, err := d.sw.lineOf(atPhones, p.Transport)
	if err != nil {
		return way{}, err
	}
	var target sip.Uri
	if err := sip.ParseUri(p.Contact, &target); err != nil {
		return way{}, fmt.Errorf("sip: a phone's contact: %w", err)
	}
	return way{line: l, phone: p.Phone(), inv: d.invite(l, target, p.Dest(), p.Extension)}, nil
}

// toNode is the INVITE to the gateway that a phone is registered at, and whether that is known to live; ok is false
// when nobody knows where it is.
func (d *dialling) toNode(p registrar.Binding) (w way, alive, ok bool) {
	if d.sw.deps.Peers == nil {
		return way{}, false, false
	}
	addr, alive := d.sw.deps.Peers(p.Node)
	l, err := d.sw.nodeLine()
	target, bad := nodeURI(p.Extension, addr)
	if addr == "" || err != nil || bad != nil {
		return way{}, false, false
	}
	if l.transport != "udp" {
		target.UriParams.Add("transport", l.transport)
	}
	return way{line: l, node: p.Node, phone: phoneID(p.Phone()), inv: d.invite(l, target, addr, p.Extension)}, alive, true
}

// invite is what an agent's phone gets of a call, and what another gateway gets for it.
func (d *dialling) invite(l *line, target sip.Uri, dest, extension string) dialog.Invite {
	user, display := d.opts.Masked, d.opts.Display
	if user == "" {
		user = "anonymous"
	}
	if display == "" {
		display = user
	}
	inv := dialog.Invite{RequestURI: target, Dest: dest,
		From: sip.FromHeader{DisplayName: display, Address: sip.Uri{Scheme: "sip", User: user, Host: l.host()}},
		To:   sip.ToHeader{Address: sip.Uri{Scheme: "sip", User: extension, Host: l.host()}}}
	if d.opts.Token != "" {
		inv.Headers = append(inv.Headers, sip.NewHeader(tokenHeader, d.opts.Token))
	}
	return inv
}

// errSilent is why an attempt was given up: the other gateway said nothing.
var errSilent = errors.New("sip: the gateway does not answer")

// byNode has another gateway ring a phone.
func (d *dialling) byNode(ctx context.Context, w *way, steps chan<- call.Progress) (*dialog.Call, error) {
	token := d.sw.tokens.issue(w.node, w.inv.CallID, d.info.Extension, w.phone, time.Now())
	w.inv.Headers = append(slices.Clip(w.inv.Headers), sip.NewHeader(nodeHeader, token))
	if d.opts.Exclusive {
		w.inv.Headers = append(w.inv.Headers, sip.NewHeader(exclusiveHeader, "1"))
	}
	attempt, give := context.WithCancelCause(ctx)
	defer give(nil)
	silent := time.AfterFunc(d.sw.patience, func() { give(errSilent) })
	defer silent.Stop()
	// On a stream heard sees pieces, not messages: what it may miss is told here.
	w.inv.OnProvisional = func(res *sip.Response) {
		silent.Stop()
		step := call.Trying
		if res.StatusCode >= 180 {
			step = call.Ringing
		}
		select {
		case steps <- step:
		default:
		}
	}
	c, err := w.line.layer.Invite(attempt, w.inv)
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(attempt), errSilent) {
		err = &call.DialError{Cause: call.CauseNoResponse, Err: errSilent}
	}
	d.sw.metrics.nodes.dials.WithLabelValues(nodeResult(w, err)).Inc()
	return c, engagedBy(err)
}

// nodeResult is the metric's word for how a call by another gateway came out.
func nodeResult(w *way, err error) string {
	switch {
	case err == nil:
		return string(trunk.Answered)
	case astray(w, err):
		return unreachable
	}
	return string(resultOf(err))
}

// astray tells whether a way did not lead to its phone, so that another may: nothing came back, or the
// other gateway takes no call (503), does not have the phone any more (404), or does not know us (403).
// What a phone says by another gateway comes as none of these, see [relay.refuse].
func astray(w *way, err error) bool {
	e, ok := errors.AsType[*call.DialError](err)
	switch {
	case !ok, e.Status == 0:
		return true
	case w.node == "":
		return false
	}
	return e.Status == 503 || e.Status == 404 || e.Status == 403
}

// lost is what a phone is that no way leads to. By the only way from here it is what that way said.
func lost(w *way, err error) error {
	if w != nil && w.node == "" {
		return err
	}
	return &call.DialError{Cause: call.CauseTempUnavailable, Status: 480, Err: err}
}
