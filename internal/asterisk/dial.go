package asterisk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hotline12345/gateway/internal/call"
)

// tokenHeader carries a call's token to the phone that rings.
const tokenHeader = "X-Hotline-Call"

// Dial implements [call.Switch]. An extension is an endpoint of pjsip.conf; a number is called by the
// endpoint of its trunk.
func (s *Switch) Dial(ctx context.Context, to call.Endpoint, o call.DialOptions) (call.Leg, error) {
	order, err := s.order(to, o)
	if err != nil {
		return nil, err
	}
	if err := s.connected(ctx); err != nil {
		return nil, err
	}
	l := s.newLeg(order.ChannelID, order.info)
	steps := newSteps(o.OnProgress)
	l.progress = steps.tell
	s.mu.Lock()
	s.legs[l.channel] = l
	s.mu.Unlock()
	s.work.Add(1)
	defer s.work.Done()
	// An order that is taken back on its way would be carried out: a phone would ring for nobody.
	if err := s.api.post(context.WithoutCancel(ctx), "/channels", nil, order); err != nil {
		s.left(l.channel)
		l.cancel(&call.Ended{Cause: call.CauseFailure, Reason: call.EndSignalling})
		return nil, s.refused(ctx, err)
	}
	l.asked.Store(true)
	steps.tell(call.Sent)
	select {
	case <-l.up:
		steps.stop()
		return l, nil
	case <-l.ctx.Done():
		steps.stop()
		e, _ := errors.AsType[*call.Ended](context.Cause(l.ctx))
		return nil, &call.DialError{Cause: e.Cause, Status: e.Cause.Status(), Err: errors.New("asterisk: the call was not answered")}
	case <-ctx.Done():
		steps.stop()
		err := l.end(context.WithoutCancel(ctx), call.Ended{Cause: call.CauseNormal})
		return nil, errors.Join(context.Cause(ctx), err)
	}
}

// connected waits until the events are heard: a call that is placed deaf would never be known to be answered. A short
// absence of Asterisk's is no fault of the agent's whose phone is to ring.
func (s *Switch) connected(ctx context.Context) error {
	for !s.up.Load() {
		select {
		case <-time.After(tryAgain):
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), &call.DialError{Cause: call.CauseFailure, Err: errors.New("asterisk: there is no connection")})
		}
	}
	return nil
}

// originate is ARI's order of a call.
type originate struct {
	Endpoint  string            `json:"endpoint"`
	App       string            `json:"app"`
	AppArgs   string            `json:"appArgs"`
	CallerID  string            `json:"callerId"`
	Timeout   int               `json:"timeout"` // seconds; the dialler's context ends it before
	ChannelID string            `json:"channelId"`
	Formats   string            `json:"formats"`
	Variables map[string]string `json:"variables"`

	info call.Info
}

// order is what Asterisk is asked for.
func (s *Switch) order(to call.Endpoint, o call.DialOptions) (*originate, error) {
	id := ulid.Make().String()
	out := &originate{App: s.app, AppArgs: argOut, Timeout: 600, ChannelID: "hotline-" + id, Formats: "alaw",
		Variables: map[string]string{legVariable: id},
		info: call.Info{ID: id, Direction: call.Outgoing, Caller: o.Caller, Display: o.Display, Called: to.Number,
			Identity: call.Verified, Token: o.Token, WireID: "hotline-" + id, Codec: call.PCMA, At: time.Now()}}
	if o.Token != "" {
		out.Variables["PJSIP_HEADER(add,"+tokenHeader+")"] = o.Token
	}
	switch to.Kind {
	case call.ToExtension:
		if !word.MatchString(to.Name) {
			return nil, &call.DialError{Cause: call.CauseBadNumber, Err: fmt.Errorf("asterisk: %q is no extension", to.Name)}
		}
		out.Endpoint = "PJSIP/" + to.Name
		out.info.Extension, out.info.Called = to.Name, to.Name
		out.CallerID = callerID(o.Display, o.Masked)
		return out, nil
	case call.ToTrunk:
		t, ok := s.cfg.trunk(to.Name)
		if !ok || !word.MatchString(to.Number) {
			return nil, &call.DialError{Cause: call.CauseUnallocated, Err: fmt.Errorf("asterisk: no trunk %q for this number", to.Name)}
		}
		out.Endpoint = "PJSIP/" + to.Number + "@" + t.Endpoint
		out.info.Trunk = t.Name
		out.show(t, o)
		return out, nil
	}
	return nil, fmt.Errorf("asterisk: an endpoint of kind %q: %w", to.Kind, call.ErrUnsupported)
}

// show puts the caller's number where the form says.
func (o *originate) show(t Trunk, d call.DialOptions) {
	number := d.Caller.National()
	o.CallerID = callerID("", t.Caller)
	if !word.MatchString(strings.TrimPrefix(number, "+")) {
		return
	}
	switch d.Form {
	case call.FormFrom:
		o.CallerID = callerID("", number)
	case call.FormPAI: // RFC 3325
		o.Variables["PJSIP_HEADER(add,P-Asserted-Identity)"] = "<sip:" + number + "@12345.invalid>"
	case call.FormDiversion: // RFC 5806
		o.Variables["PJSIP_HEADER(add,Diversion)"] = "<sip:" + number + "@12345.invalid>;reason=deflection"
	default:
	}
}

// callerID writes a caller's name and number as ARI reads them.
func callerID(name, number string) string {
	clean := strings.NewReplacer(`"`, "", `\`, "", "<", "", ">", "", "\r", "", "\n", "").Replace
	if name = clean(name); name == "" {
		return "<" + clean(number) + ">"
	}
	return `"` + name + `" <` + clean(number) + ">"
}

// refused is why Asterisk did not place a call.
func (s *Switch) refused(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	cause := call.CauseFailure
	if e, ok := errors.AsType[*StatusError](err); ok && e.Status < 500 {
		cause = call.CauseUnallocated
	}
	return &call.DialError{Cause: cause, Err: err}
}

// changed is a new state of the channel.
func (l *leg) changed(state string) {
	if l.progress != nil && state == "Ringing" {
		l.progress(call.Ringing)
	}
}

// dialling is a step of a call that is placed.
func (l *leg) dialling(status string) {
	if l.progress == nil {
		return
	}
	switch status {
	case "":
		l.progress(call.Trying)
	case "RINGING":
		l.progress(call.Ringing)
	case "PROGRESS", "PROCEEDING":
		l.progress(call.EarlyMedia)
	}
}
