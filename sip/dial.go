package sip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/media"
	"github.com/hotline12345/gateway/sip/trunk"
)

// tokenHeader carries a call's token to the phone that rings.
const tokenHeader = "X-Hotline-Call"

// Dial implements [call.Switch]. An extension rings on every phone that it has, once each, whatever gateways
// it is registered at; the first that answers gets the call, and the others are told so (RFC 3326). The cause of ctx is in the error when
// ctx ended the attempt.
func (s *Switch) Dial(ctx context.Context, to call.Endpoint, opts call.DialOptions) (call.Leg, error) {
	if !s.enter() {
		return nil, &call.DialError{Cause: call.CauseFailure, Err: errClosed}
	}
	defer s.work.Done()
	if opts.OnProgress == nil {
		opts.OnProgress = func(call.Progress) {}
	}
	d := &dialling{sw: s, opts: opts, info: call.Info{ID: newID(), Direction: call.Outgoing, Caller: opts.Caller,
		Display: opts.Display, Called: to.Number, Identity: call.Verified, Token: opts.Token}}
	switch to.Kind {
	case call.ToExtension:
		return d.extension(ctx, to.Name)
	case call.ToTrunk:
		return d.number(ctx, to)
	}
	return nil, fmt.Errorf("sip: an endpoint of kind %q: %w", to.Kind, call.ErrUnsupported)
}

// dialling is a call that is being placed.
type dialling struct {
	sw      *Switch
	opts    call.DialOptions
	info    call.Info
	trunk   *trunk.Trunk
	release func()
	began   time.Time
	told    [4]bool // each step once
}

// branch is one party that a call is placed to: the ways to it, the best first, and the leg that it may
// become.
type branch struct {
	ways []way
	leg  *leg // of the way that was tried last
}

// way is one INVITE.
type way struct {
	line  *line
	inv   dialog.Invite
	node  string // the gateway that rings the phone; "" when this one does
	phone string // the phone's name to that gateway, or here; "" for a trunk
}

// number calls a number by a trunk.
func (d *dialling) number(ctx context.Context, to call.Endpoint) (call.Leg, error) {
	t, ok := d.sw.trunks.Get(to.Name)
	if !ok || t.Address == "" {
		return nil, &call.DialError{Cause: call.CauseUnallocated,
			Err: fmt.Errorf("sip: no outgoing trunk %q", to.Name)}
	}
	l, err := d.sw.lineOf(atCarriers, string(t.Transport))
	if err != nil {
		return nil, &call.DialError{Cause: call.CauseFailure, Err: err}
	}
	grant, release := t.Take(call.Outgoing, d.opts.Emergency)
	if grant != trunk.Ordinary { // what is kept is for those who call us
		release()
		t.Count(call.Outgoing, trunk.Failed)
		return nil, &call.DialError{Cause: call.CauseCongestion, Err: fmt.Errorf("sip: trunk %s is full", t.Name)}
	}
	d.info.Trunk, d.trunk, d.release = t.Name, t, release
	o := t.Outgoing(to.Number, d.opts.Caller, d.opts.Form, l.host())
	inv := dialog.Invite{RequestURI: o.Target, Dest: t.Address, From: sip.FromHeader{Address: o.From}, Headers: o.Headers,
		Emergency: d.opts.Emergency}
	leg, err := d.ring(ctx, []branch{{ways: []way{{line: l, inv: inv}}}}, true)
	if err != nil {
		release()
		t.Count(call.Outgoing, resultOf(err))
		return nil, err
	}
	t.Count(call.Outgoing, trunk.Answered)
	t.ObserveAnswer(time.Since(d.began))
	return leg, nil
}

// resultOf is the metric's word for a dial that failed.
func resultOf(err error) trunk.Result {
	e, ok := errors.AsType[*call.DialError](err)
	if !ok {
		return trunk.Failed
	}
	return trunk.ResultOf(e.Status)
}

// maxSteps bounds the steps that are not told yet; more can only be repetitions.
const maxSteps = 64

// outcome is how a branch came out.
type outcome struct {
	branch int
	call   *dialog.Call
	err    error
}

// ring places every branch at once and makes a leg of the first that is answered. All of them offer one
// media session.
func (d *dialling) ring(ctx context.Context, branches []branch, relayDTMF bool) (call.Leg, error) {
	sound, err := d.sw.session(d.info.ID, relayDTMF, d.opts.Emergency)
	if err != nil {
		return nil, &call.DialError{Cause: call.CauseCongestion, Err: err}
	}
	t := d.sw.newTalk()
	offer := t.offer(sound.LocalPort())
	// The losers are cancelled by a cause of their own, which their CANCEL tells.
	try, settle := context.WithCancelCause(ctx)
	steps := make(chan call.Progress, maxSteps)
	outcomes := make(chan outcome, len(branches))
	d.began = time.Now()
	d.tell(call.Sent)
	for i := range branches {
		b := &branches[i]
		d.sw.work.Go(func() {
			c, err := d.reach(try, b, t, offer, steps)
			outcomes <- outcome{i, c, err}
		})
	}
	won, err := d.first(ctx, len(branches), steps, outcomes, settle)
	settle(&call.Ended{Cause: call.CauseElsewhere})
	if err != nil {
		sound.Close()
		return nil, err
	}
	return d.connected(branches[won.branch].leg, sound)
}

// reach places a branch by its ways, one after the other until one leads to the party.
func (d *dialling) reach(ctx context.Context, b *branch, t *talk, offer []byte, steps chan<- call.Progress) (*dialog.Call, error) {
	for i := range b.ways {
		w := &b.ways[i]
		c, err := d.try(ctx, b, w, t, offer, steps)
		if err == nil || ctx.Err() != nil || !astray(w, err) {
			return c, err
		}
		if i == len(b.ways)-1 {
			return nil, lost(w, err)
		}
		d.sw.log.Warn("a phone is tried another way", "call", d.info.ID, "gateway", w.node, "error", err)
	}
	return nil, lost(nil, nil)
}

// try sends one INVITE.
func (d *dialling) try(ctx context.Context, b *branch, w *way, t *talk, offer []byte, steps chan<- call.Progress) (*dialog.Call, error) {
	w.inv.Body, w.inv.CallID = offer, newID()
	w.inv.Setup = func(c *dialog.Call) { b.leg = d.leg(w, c, t) }
	d.sw.heard.set(w.inv.CallID, steps)
	defer d.sw.heard.drop(w.inv.CallID)
	d.sw.ids.set(w.inv.CallID, d.info.ID)
	if err := w.line.ready(ctx); err != nil {
		return nil, &call.DialError{Cause: call.CauseNormal, Status: 487, Err: err}
	}
	if w.node != "" {
		return d.byNode(ctx, w, steps)
	}
	if w.phone != "" {
		return d.toOwn(ctx, w)
	}
	return w.line.layer.Invite(ctx, w.inv)
}

// first waits for the first answer, telling the steps meanwhile; without one it is the refusal that says
// most. What is left is ended in the background.
func (d *dialling) first(ctx context.Context, n int, steps <-chan call.Progress, outcomes <-chan outcome,
	settle context.CancelCauseFunc) (outcome, error) {
	var refused *call.DialError
	for left := n; left > 0; {
		select {
		case p := <-steps:
			d.tell(p)
		case o := <-outcomes:
			d.drain(steps) // what came on the wire before the final response
			left--
			if o.err == nil {
				d.tell(call.Trying)
				d.rest(left, outcomes)
				return o, nil
			}
			e, ok := errors.AsType[*call.DialError](o.err)
			if !ok {
				e = &call.DialError{Cause: call.CauseFailure, Err: o.err}
			}
			_, engaged := errors.AsType[*call.Engaged](e)
			if e.Status >= 600 || engaged { // RFC 3261 section 16.7: a global refusal speaks for every phone
				settle(&call.Ended{Cause: call.CauseElsewhere})
				d.rest(left, outcomes)
				d.tell(call.Trying)
				return o, e
			}
			refused = better(refused, e)
		}
	}
	if ctx.Err() == nil && refused.Status > 0 && refused.Status != 408 {
		d.tell(call.Trying)
	}
	return outcome{}, refused
}

func (d *dialling) drain(steps <-chan call.Progress) {
	for {
		select {
		case p := <-steps:
			d.tell(p)
		default:
			return
		}
	}
}

// better is the refusal that says more: busy before the rest, a word of the phone before none.
func better(a, b *call.DialError) *call.DialError {
	switch {
	case a == nil, b.Cause == call.CauseBusy && a.Cause != call.CauseBusy, a.Status == 0 || a.Status == 408:
		return b
	}
	return a
}

// rest ends the branches that are answered after the first: the answer crossed their CANCEL.
func (d *dialling) rest(n int, outcomes <-chan outcome) {
	if n == 0 {
		return
	}
	d.sw.work.Go(func() {
		for range n {
			o := <-outcomes
			if o.err != nil {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), goodbye)
			if err := o.call.Bye(ctx, call.CauseElsewhere); err != nil {
				d.sw.log.Warn("a phone did not confirm the end of a ring", "call", d.info.ID, "error", err)
			}
			cancel()
		}
	})
}

// leg is what a branch becomes when it is answered. It is made before the INVITE leaves, so that nothing
// of the party comes too early.
func (d *dialling) leg(w *way, c *dialog.Call, t *talk) *leg {
	leg := d.sw.newLeg(w.line, c, d.info)
	leg.node = w.node
	leg.trunk, leg.release, leg.talk = d.trunk, d.release, t
	leg.answered.Store(true)
	leg.hear()
	return leg
}

// connected joins an answered leg and its media.
func (d *dialling) connected(l *leg, sound *media.Session) (call.Leg, error) {
	params, held, err := l.talk.accept(l.dialog.Response().Body())
	if err == nil {
		err = sound.Remote(l.allow(params))
	}
	if err != nil {
		sound.Close()
		l.end(call.Ended{Cause: call.CauseCodec})
		return nil, &call.DialError{Cause: call.CauseCodec, Status: 488, Err: err}
	}
	d.sw.begin(l, false)
	l.join(sound)
	l.settled(params, held)
	l.watch()
	return l, nil
}

// tell tells a step once, and never one that came before another.
func (d *dialling) tell(p call.Progress) {
	order := [...]call.Progress{call.Sent, call.Trying, call.Ringing, call.EarlyMedia}
	for i, step := range order {
		if step != p {
			continue
		}
		for later := i; later < len(order); later++ {
			if d.told[later] {
				return
			}
		}
		d.told[i] = true
	}
	if p == call.Ringing && d.trunk != nil {
		d.trunk.ObserveRinging(time.Since(d.began))
	}
	d.opts.OnProgress(p)
}

// host is how the line names itself to its peers.
func (l *line) host() string {
	if h, _, err := net.SplitHostPort(l.advertise); err == nil {
		return h
	}
	if l.advertise != "" {
		return l.advertise
	}
	return l.addr.Addr().Unmap().String()
}
