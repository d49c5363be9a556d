package demo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/sip/siptest/softphone"
)

// promised is how soon after the choosing key the INVITE to the service leaves.
const promised = 300 * time.Millisecond

func emergencyPrompt(ctx context.Context, p *player) error {
	if err := p.dial(ctx); err != nil {
		return err
	}
	if err := p.reach(ctx, session.StageFlow); err != nil {
		return err
	}
	return p.danger(ctx)
}

func emergencyQueue(ctx context.Context, p *player) error {
	if err := p.dial(ctx); err != nil {
		return err
	}
	if err := p.waits(ctx); err != nil {
		return err
	}
	return p.danger(ctx)
}

func emergencySuspended(ctx context.Context, p *player) error {
	lift, err := p.suspend(ctx)
	if err != nil {
		return err
	}
	defer lift()
	if err := p.dial(ctx); err != nil {
		return err
	}
	if err := p.reach(ctx, session.StageSuspended); err != nil {
		return err
	}
	return p.danger(ctx)
}

// danger presses the emergency key and the service's, talks with the service, and checks which number
// rang, which caller it was shown, and how long it took.
func (p *player) danger(ctx context.Context) error {
	v, _ := p.view()
	p.result.note("pressed_at", v.Stage)
	if err := p.press(ctx, "0"); err != nil {
		return err
	}
	if err := p.reach(ctx, session.StageEmergency); err != nil {
		return err
	}
	pressed, err := p.choose(ctx)
	if err != nil {
		return err
	}
	service, err := p.reached(ctx)
	if err != nil {
		return err
	}
	p.result.note("ms_seen", service.At.Sub(pressed).Milliseconds())
	if err := hears(ctx, "the caller", p.call, serviceHz); err != nil {
		return err
	}
	if err := hears(ctx, "the service", service, p.hz); err != nil {
		return err
	}
	if err := wait(ctx, p.d.pace.talk); err != nil {
		return err
	}
	if err := p.call.Hangup(); err != nil {
		return err
	}
	return p.helped(ctx, service)
}

// choose presses the service's key, and returns when it was pressed.
func (p *player) choose(ctx context.Context) (time.Time, error) {
	if err := wait(ctx, p.d.pace.think); err != nil {
		return time.Time{}, err
	}
	return time.Now(), p.keys(ctx, string(keyOf(p.service)))
}

// reached waits for the service's answer.
func (p *player) reached(ctx context.Context) (*softphone.Call, error) {
	select {
	case service := <-p.services:
		return service, nil
	case <-time.After(patience):
		return nil, fmt.Errorf("%w service %s to ring", errUnmet, p.service)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// helped checks the record of an emergency.
func (p *player) helped(ctx context.Context, service *softphone.Call) error {
	rec, err := p.settled(ctx, session.OutcomeEmergency)
	if err != nil {
		return err
	}
	invite, _ := timeline(rec, "emergency", "INVITE to the service")
	ms, err := strconv.Atoi(invite["ms_after_key"])
	if err != nil {
		return fmt.Errorf("%w the timeline to tell when the INVITE left: %w", errUnmet, err)
	}
	p.result.note("rang", service.To)
	p.result.note("shown", service.From)
	p.result.note("ms_after_key", ms)
	if took := time.Duration(ms) * time.Millisecond; took >= promised {
		err = fmt.Errorf("%w the INVITE within %v, it took %v", errUnmet, promised, took)
	}
	return errors.Join(err,
		p.want("the service", rec.CDR.Emergency, p.service),
		p.want("the number that rang", service.To, p.d.cfg.Emergency.RoutesTo(p.service)[0].Number),
		p.want("the number shown", national(service.From), p.from),
		p.urgent(ctx))
}

// keyOf is the key that chooses a service.
func keyOf(s session.Service) byte {
	for i, one := range session.Services() {
		if one == s {
			return byte('1' + i)
		}
	}
	return 0
}
