package sip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/media"
	"github.com/hotline12345/gateway/sip/registrar"
	"github.com/hotline12345/gateway/sip/sdp"
	"github.com/hotline12345/gateway/sip/trunk"
)

const (
	// relayAct bounds what one party of a relay is asked on the other's behalf.
	relayAct = 5 * time.Second
	// relayRing bounds how long a phone rings: the other gateway gives up long before, unless it was
	// killed (RFC 3261 section 16.6 step 11 has a proxy wait as long).
	relayRing = 3 * time.Minute
	// partFor is how long a phone is given to hear of the end of a call before it is rung for the next.
	partFor = time.Second
)

// relay joins another gateway to a phone of this one. The call's story is told at the other gateway; here
// it is two legs, and what each does is done to the other.
type relay struct {
	sw     *Switch
	phone  registrar.Binding
	caller *leg // of the gateway that calls
	agent  *leg // of the phone, once it has answered
	sound  *media.Bridge
	over   chan struct{} // closed when both have ended
}

// fromNode takes an INVITE of another gateway for a phone that is registered here.
func (s *Switch) fromNode(l *line, c *dialog.Call) {
	req := c.Request()
	extension, value := req.Recipient.User, ""
	if h := req.GetHeader(nodeHeader); h != nil {
		value = h.Value()
	}
	t, err := s.tokens.take(value, c.ID(), extension, time.Now())
	if err != nil {
		if errors.Is(err, errSkew) { // what strangers send is counted: a log could be filled with it
			s.log.Warn("a call of another gateway was refused", "peer", c.Peer(), "error", err)
		}
		s.refuse(c, call.CauseForbidden, "token")
		return
	}
	phone, ok := s.phoneHere(c.Context(), extension, t.phone)
	if !ok {
		s.refuse(c, call.CauseUnallocated, "no_phone")
		return
	}
	info := call.Info{Direction: call.Incoming, Extension: extension, Called: extension, Identity: call.Verified}
	if from := req.From(); from != nil {
		info.Caller, info.Display = call.Number{Raw: from.Address.User}, from.DisplayName
	}
	if h := req.GetHeader(tokenHeader); h != nil {
		info.Token = h.Value()
	}
	caller := s.newLeg(l, c, info)
	caller.node = t.node
	r := &relay{sw: s, phone: phone, caller: caller, over: make(chan struct{})}
	s.start(caller, r.run)
}

// phoneHere is the newest registration of a phone at this gateway.
func (s *Switch) phoneHere(ctx context.Context, extension, id string) (registrar.Binding, bool) {
	all, err := s.registrar.Own(ctx, extension)
	if err != nil {
		s.log.Warn("the phones of this gateway are not listed", "error", err)
	}
	for _, b := range all {
		if phoneID(b.Phone()) == id && b.Node == s.deps.Node {
			return b, true
		}
	}
	return registrar.Binding{}, false
}

// run rings the phone, joins the two, and keeps them joined until one of them ends. It is the handler of
// the caller's leg, which is ended when it returns.
func (r *relay) run(ctx context.Context, _ call.Leg, _ *call.Checkpoint) {
	m := r.sw.metrics.nodes
	m.relays.Inc()
	defer m.relays.Dec()
	defer r.sw.enlist(r)()
	result := r.ring(ctx)
	m.relayed.WithLabelValues(string(result)).Inc()
	if result != trunk.Answered {
		return
	}
	defer r.sound.Close()
	r.pass(ctx)
	r.agent.end(cause(r.caller))
	r.caller.end(cause(r.agent))
}

// enlist makes a relay known until leave is called.
func (s *Switch) enlist(r *relay) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.relays[r] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.relays, r)
		close(r.over)
	}
}

// parted waits until a phone has heard of the end of its relayed calls. The other gateway, whose caller hung up, had
// its 200 before the phone had the BYE, and may have another caller for the agent at once. A phone that does not
// confirm its BYE is waited for no longer than T1 doubled (RFC 3261 section 17.1.1.1).
func (s *Switch) parted(ctx context.Context, phone string) {
	ctx, cancel := context.WithTimeout(ctx, partFor)
	defer cancel()
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.relays))
	s.mu.Unlock()
	for _, r := range all {
		if r.phone.Phone() != phone || r.caller.Context().Err() == nil { // who still talks is busy, and the phone says so
			continue
		}
		select {
		case <-r.over:
		case <-ctx.Done():
			return
		}
	}
}

// ring rings the phone until it answers or refuses, or the other gateway gives up.
func (r *relay) ring(ctx context.Context) trunk.Result {
	ringing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer time.AfterFunc(relayRing, func() { stop(&call.Ended{Cause: call.CauseNoAnswer}) }).Stop()
	defer context.AfterFunc(r.caller.Context(), func() { stop(r.caller.gone()) })()
	i := r.caller.Info()
	d := &dialling{sw: r.sw, opts: call.DialOptions{Masked: i.Caller.Raw, Display: i.Display, Token: i.Token, OnProgress: r.progress,
		Exclusive: r.caller.dialog.Request().GetHeader(exclusiveHeader) != nil},
		info: call.Info{ID: newID(), Direction: call.Outgoing, Extension: i.Extension, Called: i.Extension,
			Caller: i.Caller, Display: i.Display, Identity: call.Verified, Token: i.Token}}
	w, err := d.toPhone(r.phone)
	if err != nil {
		return r.refuse(err)
	}
	answered, err := d.ring(ringing, []branch{{ways: []way{w}}}, false)
	if err != nil {
		return r.refuse(err)
	}
	r.agent = answered.(*leg)
	if err := r.join(ctx); err != nil {
		r.agent.log.Warn("a call of another gateway was not joined", "error", err)
		r.agent.end(cause(r.caller))
		return trunk.Failed
	}
	return trunk.Answered
}

// progress passes on that the phone rings. What it plays before it answers is not passed on: nobody
// listens to that at the other gateway.
func (r *relay) progress(p call.Progress) {
	if p != call.Ringing && p != call.EarlyMedia {
		return
	}
	if err := r.caller.dialog.Provisional(r.caller.Context(), 180, nil); err != nil && r.caller.Context().Err() == nil {
		r.caller.log.Warn("the other gateway was not told that the phone rings", "error", err)
	}
}

// refuse passes on why the phone was not answered. What the phone says goes with its own cause; the
// statuses by which the other gateway would look for another way to the phone are this gateway's alone,
// and 503 is what it says when the phone was not reached.
func (r *relay) refuse(err error) trunk.Result {
	e, ok := errors.AsType[*call.DialError](err)
	if !ok {
		e = &call.DialError{Cause: call.CauseFailure, Err: err}
	}
	if r.caller.Context().Err() != nil {
		return trunk.Cancelled
	}
	status, result := e.Status, trunk.ResultOf(e.Status)
	switch {
	case status == 0:
		status, result = 503, trunk.Failed
	case status == 503 || status == 403 || status == 404 || status < 300:
		status = 480
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	headers := append(r.sw.refusalHeaders(e.Cause), engagedHeaders(e)...)
	if err := r.caller.dialog.Reject(ctx, status, "", headers...); err != nil && r.caller.Context().Err() == nil {
		r.caller.log.Warn("a refusal was not sent", "error", err)
	}
	return result
}

// join answers the other gateway, in the phone's codec so that nothing is decoded on the way, and joins
// the sound.
func (r *relay) join(ctx context.Context) error {
	r.caller.talk.sdp.Codecs = []call.Codec{r.agent.Info().Codec}
	answering, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(r.agent.Context(), func() { stop(r.agent.gone()) })()
	if err := r.caller.Answer(answering); err != nil {
		return err
	}
	r.sound = r.sw.media.NewBridge(r.caller.Info().ID)
	for _, l := range []*leg{r.caller, r.agent} {
		err := l.with(func(s *media.Session) error { return r.sound.Add(s, call.Member{Role: call.Talk}) })
		if err != nil && l.Context().Err() == nil {
			r.sound.Close()
			return err
		}
	}
	return nil
}

// pass does to the other gateway what the phone does, until one of them ends. The other gateway does
// nothing but talk.
func (r *relay) pass(ctx context.Context) {
	both, stop := context.WithCancel(ctx)
	defer stop()
	for _, l := range []*leg{r.caller, r.agent} {
		defer context.AfterFunc(l.Context(), stop)()
	}
	for {
		var err error
		select {
		case <-both.Done():
			return
		case d := <-r.agent.digits:
			err = r.press(both, d)
		case e := <-r.agent.events:
			err = r.event(both, e)
		}
		if err != nil && both.Err() == nil {
			r.caller.log.Warn("what a phone did was not passed on", "error", err)
		}
	}
}

// press passes a key on as it came: a telephone-event is in the sound already, unless that is mixed.
func (r *relay) press(ctx context.Context, d call.Digit) error {
	if d.Source == call.DigitRTP && r.sound.Relays() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, relayAct)
	defer cancel()
	return r.caller.dialog.Info(ctx, "application/dtmf-relay", fmt.Appendf(nil, "Signal=%c\r\nDuration=160\r\n", d.Key))
}

// event passes on a hold, a resume or a wish to transfer.
func (r *relay) event(ctx context.Context, e call.Event) error {
	ctx, cancel := context.WithTimeout(ctx, relayAct)
	defer cancel()
	switch e.Kind {
	case call.HoldEvent:
		return r.caller.offer(ctx, sdp.SendOnly)
	case call.ResumeEvent:
		return r.caller.offer(ctx, sdp.SendRecv)
	case call.TransferEvent:
		return r.caller.dialog.Refer(ctx, sip.Uri{Scheme: "sip", User: e.Target, Host: r.caller.line.host()})
	}
	return nil
}

// offer offers the leg's media anew, in another direction.
func (l *leg) offer(ctx context.Context, d sdp.Direction) error {
	l.mu.Lock()
	sound, t := l.sound, l.talk
	l.mu.Unlock()
	if sound == nil {
		return l.gone()
	}
	t.at(sound.LocalPort())
	answer, err := l.dialog.ReInvite(ctx, t.sdp.Offer(d))
	if err != nil {
		return err
	}
	p, _, err := t.accept(answer)
	if err != nil {
		return err
	}
	return sound.Remote(l.allow(p))
}

// cause is how the other leg of a relay is ended when one has ended.
func cause(l *leg) call.Ended {
	if e, ok := errors.AsType[*call.Ended](l.gone()); ok {
		return call.Ended{Cause: e.Cause}
	}
	return call.Ended{Cause: call.CauseNormal}
}
