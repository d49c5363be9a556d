package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

// ringTime is how long an agent's phone rings in a run that judges: the shortest that is allowed.
const ringTime = 5 * time.Second

// noAnswer lets an agent not answer. In a run that judges, the demo has the agents for itself: the second
// one is ready only after another caller came, so that who is offered to them shows whose place is older.
func noAnswer(ctx context.Context, p *player) error {
	if p.d.opts.Once {
		return p.keepsPlace(ctx)
	}
	r, err := p.toAgent(ctx)
	if err != nil {
		return err
	}
	if err := p.unanswered(ctx, r); err != nil {
		return err
	}
	next, err := p.rung(ctx)
	if err == nil {
		err = p.join(ctx, next)
	}
	if err != nil {
		return err
	}
	return p.finish(ctx, next)
}

// unanswered lets a phone ring until the gateway gives up, and has the agent take calls again: the gateway
// pauses who does not answer.
func (p *player) unanswered(ctx context.Context, r *ring) error {
	if err := over(ctx, r.Call); err != nil {
		return err
	}
	if p.d.opts.Once {
		return nil
	}
	err := p.watch(ctx, "the offer to be taken back", func([]session.View) bool {
		v, ok := p.view()
		return !ok || v.Agent != r.agent.extension
	})
	if err != nil {
		return err
	}
	p.beside.Go(func() { _ = r.agent.code(context.WithoutCancel(ctx), codeReady) })
	return nil
}

func (p *player) keepsPlace(ctx context.Context) error {
	silent, next, last := p.d.agents[0], p.d.agents[1], p.d.agents[2]
	if err := silent.code(ctx, codeReady); err != nil {
		return err
	}
	r, err := p.toAgent(ctx)
	if err != nil {
		return err
	}
	later := p.d.newPlayer(&Result{}, "")
	defer later.leave()
	if err := later.dial(ctx); err != nil {
		return err
	}
	if err := later.waits(ctx); err != nil {
		return err
	}
	if err := p.unanswered(ctx, r); err != nil {
		return err
	}
	if err := p.reach(ctx, session.StageQueue); err != nil {
		return err
	}
	if err := next.code(ctx, codeReady); err != nil {
		return err
	}
	select {
	case wrong := <-later.rings:
		return fmt.Errorf("%w the caller who came first to be offered first, the later one rings at %s", errUnmet, wrong.agent.extension)
	case r = <-p.rings:
	case <-time.After(patience):
		return fmt.Errorf("%w the next agent to ring", errUnmet)
	}
	if err := p.join(ctx, r); err != nil {
		return err
	}
	if err := p.finish(ctx, r); err != nil {
		return err
	}
	rec, err := p.record(ctx)
	if err != nil {
		return err
	}
	if _, ok := timeline(rec, "queue", "RINGNOANSWER"); !ok {
		return fmt.Errorf("%w the timeline to tell of the agent who did not answer", errUnmet)
	}
	return later.servedBy(ctx, last)
}

// servedBy ends the scenario of a helper: an agent is ready, and the caller who came later is served too.
func (p *player) servedBy(ctx context.Context, a *agent) error {
	if err := a.code(ctx, codeReady); err != nil {
		return err
	}
	r, err := p.rung(ctx)
	if err == nil {
		err = p.join(ctx, r)
	}
	if err != nil {
		return fmt.Errorf("the caller who came later: %w", err)
	}
	return p.finish(ctx, r)
}
