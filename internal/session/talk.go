package session

import (
	"context"
	"errors"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// parties are the legs that talk with the caller; either may be nil.
type parties struct {
	agent, service call.Leg
	bridge         call.Bridge // that joins them already; nil for none
	wanted         Service     // is called into the talk when it begins; "" for none
	asked          time.Time   // when it was asked for
}

// talk joins the caller and an agent. Again means that the agent's leg broke, and the caller waits on.
func (s *story) talk(ctx context.Context, o Offer, p parties) (again bool, err error) {
	agent := p.agent
	defer s.hangup(agent) // whatever happens, a panic included
	s.far = agent.Info().ID
	defer func() { s.far = "" }()
	defer s.pad.set(keysHeeded)()
	s.dropOrders()
	s.phase(PhaseTalk)
	if s.cdr.Connected.IsZero() {
		s.cdr.Connected = time.Now()
	}
	s.cdr.Agent = o.Agent
	s.update(func(v *View) { v.Position = 0 })
	s.stage(StageTalk, 0)
	s.record("talk") // before anybody speaks
	if s.m.cfg.AnnounceAgent && p.bridge == nil {
		s.beside(func() error { s.announce(agent, o); return nil })
	}
	err = s.converse(ctx, p)
	stats := agent.Stats()
	s.cdr.AgentLeg = &stats
	why, lost := broke(agent)
	again = err == nil && lost && s.leg.Context().Err() == nil && s.reason == call.EndAgent
	by := s.reason
	if again {
		s.reason, by = "", why
		s.note("talk", "the agent's phone was lost", nil)
	} else if lost && s.reason == call.EndAgent { // with the caller's leg, of which we hear a moment later
		s.reason, by = why, why
	}
	s.complete(ctx, o, by)
	return again, err
}

// broke tells whether a far leg ended by a fault of the line, not by its party.
func broke(leg call.Leg) (call.EndReason, bool) {
	e, ok := errors.AsType[*call.Ended](context.Cause(leg.Context()))
	if !ok || e.Remote || e.Reason == "" || e.Reason == call.EndDrained {
		return "", false
	}
	return e.Reason, true
}

// left is why a conversation ends that a far party left: of itself, or with the node.
func left(leg call.Leg, by call.EndReason) call.EndReason {
	if e, ok := errors.AsType[*call.Ended](context.Cause(leg.Context())); ok && e.Reason == call.EndDrained {
		return call.EndDrained
	}
	return by
}

// dropOrders forgets what was asked before a talk: it was meant for another moment.
func (s *story) dropOrders() { discard(s.orders) }

// discard empties a channel.
func discard[T any](c <-chan T) {
	for {
		select {
		case <-c:
		default:
			return
		}
	}
}

// announce reads the agent's number to the caller at the start of the talk.
func (s *story) announce(agent call.Leg, o Offer) {
	ctx, stop := context.WithCancel(s.leg.Context())
	defer stop()
	defer context.AfterFunc(agent.Context(), stop)()
	clips := s.m.Prompts.Say(s.snapshot().Language, "agent_no", "digits:"+o.Extension, "agent_serve")
	_ = s.leg.Play(ctx, clips...) // a courtesy: the talk goes on without it
}

// complete sends the agent to wrap-up.
func (s *story) complete(ctx context.Context, o Offer, by call.EndReason) {
	if s.ticket == nil {
		return // the agent left before the others
	}
	after, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	event := "COMPLETECALLER"
	if by == call.EndAgent {
		event = "COMPLETEAGENT"
	}
	s.note("queue", event, map[string]string{"agent": o.Agent, "by": string(by)})
	if err := s.ticket.Complete(after, o, by); err != nil && !errors.Is(err, ErrFenced) {
		s.log.Warn("the end of the talk was not taken; the sweep will free the agent", "err", err)
	}
	s.ticket = nil
}

// conversation is the bridge of a caller with an agent, a service, or both.
type conversation struct {
	*story
	bridge  call.Bridge
	p       parties
	keys    agentKeys
	summons chan summoned // a service that was called while an agent talks
	calling context.CancelFunc
	service Service // the one that is called
}

type summoned struct {
	leg call.Leg
	err error
}

// converse keeps the parties joined until the caller has gone or nobody is left to talk to.
func (s *story) converse(ctx context.Context, p parties) error {
	bridge := p.bridge
	if bridge == nil {
		var err error
		if bridge, err = s.m.Switch.Bridge(ctx, s.id); err != nil {
			return err
		}
	}
	c := &conversation{story: s, bridge: bridge, p: p, summons: make(chan summoned, 1)}
	defer c.close()
	for _, leg := range []call.Leg{s.leg, p.agent, p.service} {
		if leg == nil {
			continue
		}
		err := bridge.Add(leg, call.Member{Role: call.Talk, Staff: leg == p.agent})
		if err != nil && leg.Context().Err() == nil { // that a leg has ended is the first thing that happens
			return err
		}
	}
	if p.wanted != "" {
		c.bring(ctx, p.wanted, p.asked)
	}
	for c.p.agent != nil || c.p.service != nil || c.calling != nil {
		if err := c.next(ctx); err != nil {
			return err
		}
	}
	return nil
}

// close ends the far legs; the caller's own leg is left to the story.
func (c *conversation) close() {
	if c.calling != nil {
		c.calling()
		late := <-c.summons
		c.hangup(late.leg)
	}
	c.hangup(c.p.agent)
	c.hangup(c.p.service)
	if err := c.bridge.Close(); err != nil {
		c.log.Warn("bridge not closed", "err", err)
	}
	c.mark("talk_end")
}

// next is one thing that happens in a conversation.
func (c *conversation) next(ctx context.Context) error {
	var agentGone, serviceGone <-chan struct{}
	var agentKeys <-chan call.Digit
	var agentEvents <-chan call.Event
	var banners <-chan Banner
	if c.p.agent != nil {
		agentGone, agentKeys, agentEvents = c.p.agent.Context().Done(), c.p.agent.Digits(), c.p.agent.Events()
	}
	if c.p.service != nil {
		serviceGone = c.p.service.Context().Done()
	}
	if c.verdict.Lease != nil {
		banners = c.verdict.Lease.Banners()
	}
	select {
	case <-ctx.Done():
		c.reason = call.EndCaller
		if e, ok := errors.AsType[*call.Ended](context.Cause(ctx)); ok && !e.Remote && e.Reason != "" {
			c.reason = e.Reason
		}
		return context.Cause(ctx)
	case <-agentGone:
		c.agentLeft(ctx)
	case <-serviceGone:
		return c.serviceLeft()
	case d := <-agentKeys:
		if o, ok := c.keys.press(d); ok {
			o.by = c.snapshot().Agent
			return c.obey(ctx, o)
		}
	case e := <-agentEvents:
		c.held(e)
	case b := <-banners:
		c.update(func(v *View) { v.Banner = b })
	case o := <-c.orders:
		return c.obey(ctx, o)
	case o := <-c.opening:
		c.begun(o)
	case got := <-c.summons:
		return c.arrived(got)
	}
	return nil
}

// agentLeft frees an agent who leaves the caller to a service, and ends the hold that the agent began.
func (c *conversation) agentLeft(ctx context.Context) {
	c.reason = left(c.p.agent, call.EndAgent)
	c.p.agent = nil
	c.note("talk", "the agent left", nil)
	if c.p.service == nil && c.calling == nil {
		return
	}
	c.complete(ctx, *c.offer, call.EndAgent)
	err := c.bridge.Add(c.leg, call.Member{Role: call.Talk})
	if err == nil && c.calling != nil { // alone until the service answers
		err = c.bridge.Hold(c.leg, c.m.Prompts.Music()...)
	}
	if err != nil && c.leg.Context().Err() == nil {
		c.log.Warn("hold not changed", "err", err)
	}
}

// serviceLeft is the end of the far party. A caller in danger who is alone because the line broke is
// helped by others.
func (c *conversation) serviceLeft() error {
	_, lost := broke(c.p.service)
	c.reason = left(c.p.service, call.EndService)
	c.p.service = nil
	c.note("talk", "the service left", nil)
	if lost && c.p.agent == nil && c.cdr.Emergency != "" {
		return &errDanger{Service: Service(c.cdr.Emergency), At: time.Now(), tried: true}
	}
	return nil
}

func (c *conversation) held(e call.Event) {
	var err error
	switch e.Kind {
	case call.HoldEvent:
		err = c.bridge.Hold(c.leg, c.m.Prompts.Music()...)
	case call.ResumeEvent:
		err = c.bridge.Add(c.leg, call.Member{Role: call.Talk})
	case call.TransferEvent:
		c.note("talk", "a transfer by the phone is refused: destinations are a closed set", nil)
		return
	}
	c.note("talk", string(e.Kind), nil)
	if err != nil {
		c.log.Warn("hold failed", "err", err)
	}
}

func (c *conversation) obey(ctx context.Context, o order) error {
	switch o.kind {
	case orderEmergency:
		if c.calling != nil || c.p.service != nil {
			c.note("emergency", "a service is on the line, or on its way", nil)
			break
		}
		c.inDanger(o.service, "agent")
		c.bring(ctx, o.service, o.at)
	case orderConduct:
		c.conducted(o)
	case orderHangup:
		c.reason = call.EndLine
		if o.by == c.snapshot().Agent {
			c.reason = call.EndAgent
		}
		c.note("hangup", "hung up by "+o.by, nil)
		return errLimit
	case orderKeep:
		c.checkpoint()
	case orderFinish: // a write-up ends after the talk alone
	}
	return nil
}

// bring calls a service into the talk; the agent stays.
func (c *conversation) bring(ctx context.Context, svc Service, pressed time.Time) {
	ctx, c.calling = context.WithCancel(ctx)
	c.service = svc
	c.done.Go(func() {
		var leg call.Leg
		err := c.contain(func() (err error) { leg, err = c.summon(ctx, svc, pressed); return err })
		c.summons <- summoned{leg, err}
	})
}

// arrived joins the service that was called. When none answered and the agent has left meanwhile, the
// caller is not left alone either.
func (c *conversation) arrived(got summoned) error {
	c.calling()
	c.calling = nil
	if got.err == nil {
		got.err = c.bridge.Add(got.leg, call.Member{Role: call.Talk})
	}
	if got.err == nil && c.p.agent == nil { // the caller was held
		got.err = c.bridge.Add(c.leg, call.Member{Role: call.Talk})
	}
	switch agent := c.p.agent; {
	case got.err == nil:
		c.p.service = got.leg
		c.note("emergency", "the service is on the line", nil)
		return nil
	case agent == nil:
		c.hangup(got.leg)
		return &errDanger{Service: c.service, At: time.Now(), tried: true}
	default:
		c.hangup(got.leg)
		c.note("emergency", "no route answered", map[string]string{"err": got.err.Error()})
		c.beside(func() error { return agent.Play(agent.Context(), c.m.Prompts.Say("zh", "em_fail")...) })
		return nil
	}
}

// agentKeys are the feature codes of an agent in talk: *0 and 1 to 4 brings a service, *2 and 1 to 9 is an act
// of Article 29.
type agentKeys struct {
	run  string
	last time.Time
}

// codeGap is the longest time between two keys of a feature code: what was begun and left is no beginning
// for a key that is pressed much later.
const codeGap = 5 * time.Second

func (k *agentKeys) press(d call.Digit) (order, bool) {
	late := d.At.Sub(k.last) > codeGap
	k.last = d.At
	if d.Key == '*' || late {
		k.run = string(d.Key)
		return order{}, false
	}
	k.run += string(d.Key)
	if len(k.run) < 3 {
		return order{}, false
	}
	run := k.run
	k.run = ""
	switch run[:2] {
	case "*0":
		svc := serviceOf(run[2])
		return order{kind: orderEmergency, service: svc, at: d.At}, svc != ""
	case "*2":
		o, ok := conductCodes[run[2]]
		o.kind = orderConduct
		return o, ok
	}
	return order{}, false
}
