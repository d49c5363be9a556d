package sip

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/siptest"
)

// offer dials an extension for the queue.
func (f *fleet) offer(ctx context.Context, from, extension, token string) (call.Leg, error) {
	return f.nodes[from].sw.Dial(ctx, call.Endpoint{Kind: call.ToExtension, Name: extension},
		call.DialOptions{Masked: "138****5678", Token: token, Exclusive: true})
}

// engagedWith fails the test unless a dial was refused because of a call.
func engagedWith(t *testing.T, err error, token string) {
	t.Helper()
	e, ok := errors.AsType[*call.DialError](err)
	by, engaged := errors.AsType[*call.Engaged](err)
	if !ok || !engaged || e.Status != 486 || e.Cause != call.CauseBusy || by.Token != token {
		t.Errorf("dialled %q: %v, %+v", token, err, by)
	}
}

// silent fails the test when a phone was rung.
func silent(t *testing.T, p *person) {
	t.Helper()
	select {
	case m := <-p.rung:
		t.Errorf("the phone was rung\n%s", m.Raw)
	default:
	}
}

// Whichever gateway the queue makes an offer at, the phone's own refuses it while the phone rings or talks.
func TestAnOfferToAnEngagedPhone(t *testing.T) {
	for name, from := range map[string][2]string{"own and own": {"n2", "n2"}, "own and another's": {"n2", "n1"},
		"another's and own": {"n1", "n2"}, "another's and a third's": {"n1", "n3"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, nil, "n1", "n2", "n3")
			agent := f.agent("1001", "n2")
			legs := make(chan call.Leg, 1)
			go func() {
				leg, err := f.offer(t.Context(), from[0], "1001", "first")
				if err != nil {
					t.Error(err)
				}
				legs <- leg
			}()
			<-agent.rung
			_, err := f.offer(t.Context(), from[1], "1001", "second") // it rings
			engagedWith(t, err, "first")
			agent.Ring()
			agent.PickUp()
			leg := <-legs
			_, err = f.offer(t.Context(), from[1], "1001", "second") // it talks
			engagedWith(t, err, "first")
			silent(t, agent)
			if n := testutil.ToFloat64(f.nodes["n2"].sw.metrics.engaged); n != 2 {
				t.Errorf("%v refused", n)
			}
			if err := leg.Hangup(t.Context(), call.CauseNormal); err != nil {
				t.Error(err)
			}
			<-agent.ended
			go func() { <-agent.rung; agent.PickUp() }()
			leg, err = f.offer(t.Context(), from[1], "1001", "third")
			if err != nil {
				t.Fatalf("the phone is free: %v", err)
			}
			_ = leg.Hangup(t.Context(), call.CauseNormal)
		})
	}
}

// What a person dials reaches an engaged phone as ever: a consultation, a call back that was clicked, a transfer.
func TestAPersonsCallToAnEngagedPhone(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	f.talk("n1", "1001", agent)
	go func() { <-agent.rung; agent.Refuse(486) }()
	_, err := f.nodes["n1"].sw.Dial(t.Context(), call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{Token: "consult"})
	if e, ok := errors.AsType[*call.DialError](err); !ok || e.Status != 486 {
		t.Errorf("%v", err)
	}
	if by, ok := errors.AsType[*call.Engaged](err); ok {
		t.Errorf("the phone was not asked: %+v", by)
	}
}

// A phone's own busy is no word of its gateway.
func TestABusyPhoneIsNotEngaged(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	go func() { <-agent.rung; agent.Refuse(486) }()
	_, err := f.offer(t.Context(), "n1", "1001", "abc")
	if by, ok := errors.AsType[*call.Engaged](err); ok || err == nil {
		t.Errorf("%v, %+v", err, by)
	}
}

// Whoever is in a call of their own is engaged as well; who calls has no token.
func TestAnOfferToAPhoneThatCalls(t *testing.T) {
	w, legs, _ := taken(t, nil)
	agent := w.agent("1001").dial("*11")
	auth := siptest.Authorize((<-agent.refused).Get("WWW-Authenticate"), "1001", password, "INVITE", fmt.Sprintf("sip:*11@%s", w.sw.Addr(true)))
	agent.dial("*11", "Authorization: "+auth)
	leg := <-legs
	offer := func() error {
		_, err := w.sw.Dial(t.Context(), call.Endpoint{Kind: call.ToExtension, Name: "1001"}, call.DialOptions{Token: "abc", Exclusive: true})
		return err
	}
	engagedWith(t, offer(), "")
	silent(t, agent)
	if err := leg.Reject(t.Context(), call.CauseNormal); err != nil {
		t.Fatal(err)
	}
	go func() { <-agent.rung; agent.Refuse(480) }()
	until(t, "the phone is free", func() bool {
		by, engaged := errors.AsType[*call.Engaged](offer())
		return !engaged || by.Token != ""
	})
}

// Of offers that come at once one rings; the branches of its ring are not in each other's way.
func TestOffersAtOnce(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2", "n3")
	agent, second := f.agent("1001", "n2"), f.agent("1001", "n2")
	const most = 12
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	results := make(chan error, most)
	for i := range most {
		go func() {
			_, err := f.offer(ctx, []string{"n1", "n2", "n3"}[i%3], "1001", string(rune('a'+i)))
			results <- err
		}()
	}
	for range most - 1 {
		if by, ok := errors.AsType[*call.Engaged](<-results); !ok || by.Token == "" {
			t.Errorf("got %+v", by)
		}
	}
	one, two := <-agent.rung, <-second.rung
	if token := one.Get(tokenHeader); token == "" || token != two.Get(tokenHeader) {
		t.Errorf("rung for %q and %q", token, two.Get(tokenHeader))
	}
	silent(t, agent)
	silent(t, second)
	cancel()
	if err := <-results; err == nil {
		t.Error("answered by nobody")
	}
}
