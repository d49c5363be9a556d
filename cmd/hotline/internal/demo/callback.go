package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/queue"
)

// callBack lets a caller give up waiting, and an agent call them back.
func callBack(ctx context.Context, p *player) error {
	if err := p.dial(ctx); err != nil {
		return err
	}
	came := time.Now()
	if err := p.waits(ctx); err != nil {
		return err
	}
	if err := wait(ctx, 3*p.d.pace.think); err != nil {
		return err
	}
	if err := p.call.Hangup(); err != nil {
		return err
	}
	if _, err := p.settled(ctx, session.OutcomeAbandoned); err != nil {
		return err
	}
	owed, err := p.owed(ctx, false)
	if err != nil {
		return err
	}
	if late := owed.Since.Sub(came); late > patience {
		return fmt.Errorf("%w the old place to be kept, it is %s later", errUnmet, late)
	}
	r, err := p.calledBack(ctx, owed)
	if err != nil {
		return err
	}
	if err := p.finish(ctx, r); err != nil {
		return err
	}
	closed, err := p.owed(ctx, true)
	if err == nil {
		err = p.want("the ledger", closed.Ending+" by "+closed.ClosedBy, "answered by "+r.agent.extension)
	}
	return err
}

// owed waits for the caller's task in the ledger, open or closed.
func (p *player) owed(ctx context.Context, closed bool) (queue.CallBack, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		tasks, err := p.d.gateway.CallBacks(ctx, closed)
		if err != nil {
			return queue.CallBack{}, err
		}
		for _, t := range tasks {
			if t.Caller == p.mask() {
				return t, nil
			}
		}
		if wait(ctx, hearing) != nil {
			return queue.CallBack{}, fmt.Errorf("%w the caller to be in the ledger of call backs", errUnmet)
		}
	}
}

// calledBack has an agent call the caller back, and lets them talk. Each sees that it is the other.
func (p *player) calledBack(ctx context.Context, owed queue.CallBack) (*ring, error) {
	if err := p.click(ctx, owed.ID); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	var r *ring
	for r == nil || r.Token != p.id { // it may have rung while the caller waited
		select {
		case r = <-p.rings:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w the agent's phone to ring", errUnmet)
		}
	}
	if err := r.Answer(ctx); err != nil {
		return nil, fmt.Errorf("the agent's answer: %w", err)
	}
	p.beside.Go(func() { _ = r.Tone(r.Context(), r.agent.hz) }) // until the call ends
	p.result.note("agent", r.agent.extension)
	select {
	case p.call = <-p.backs:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w the caller's phone to ring", errUnmet)
	}
	p.result.note("shown", p.call.From)
	if err := p.want("the number shown", national(p.call.From), strings.TrimPrefix(p.d.cfg.SIP.AreaCode, "0")+hotline); err != nil {
		return nil, errors.Join(err, p.call.Hangup())
	}
	if err := p.call.Answer(ctx); err != nil {
		return nil, fmt.Errorf("the caller's answer: %w", err)
	}
	back := p.call
	p.beside.Go(func() { _ = back.Tone(back.Context(), p.hz) }) // until the call ends
	if err := hears(ctx, "the caller", p.call, r.agent.hz); err != nil {
		return nil, err
	}
	if err := hears(ctx, "the agent", r.Call, p.hz); err != nil {
		return nil, err
	}
	return r, wait(ctx, p.d.pace.talk)
}

// click has the first agent who is free call the caller back, and clicks again while the ledger is away for a moment. The phone may ring before the call has a name
// here: it waits for the lock.
func (p *player) click(ctx context.Context, task string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*patience+4*p.d.pace.talk)
	defer cancel()
	for i := 0; ; i++ {
		p.d.mu.Lock()
		id, err := p.d.gateway.CallBack(ctx, task, p.d.agents[i%len(p.d.agents)].extension)
		if err == nil {
			delete(p.d.claimed, p.id)
			p.id, p.result.Call = id, id
			p.d.claimed[id] = true
		}
		p.d.mu.Unlock()
		if !errors.Is(err, session.ErrAgentBusy) && !errors.Is(err, store.ErrAway) {
			return err
		}
		if wait(ctx, hearing) != nil {
			return fmt.Errorf("waiting for an agent who is free: %w", err)
		}
	}
}
