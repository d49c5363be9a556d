package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/sip/siptest/softphone"
)

// phase is what a scenario asks of the agents, in a run that judges.
type phase int

const (
	open  phase = iota // agents take calls
	busy               // no agent takes calls: who waits, waits
	alone              // the scenario tells the agents itself when to take calls, so it has them for itself
)

// phases are the phases in the order in which they are played.
var phases = []phase{open, busy, alone}

// scenario is a kind of call and what is expected of it.
type scenario struct {
	name    string
	expects string
	phase   phase
	outside bool // it can be played at a gateway that is somebody else's
	run     func(ctx context.Context, p *player) error
}

// scenarios are all that is played, in turn.
var scenarios = []scenario{
	{"answered", "caller and agent hear each other; one recorded event, its audio fetched and whole", open, false, answered},
	{"emergency-prompt", "0 and a key during the greeting ring the service, with the caller's number, within 300 ms", open, false, emergencyPrompt},
	{"emergency-queue", "0 and a key while waiting ring the service, with the caller's number, within 300 ms", busy, false, emergencyQueue},
	{"emergency-suspended", "0 and a key on the suspended path ring the service, with the caller's number, within 300 ms", open, false, emergencySuspended},
	{"greeting", "the caller is answered and greeted, and hangs up", open, true, greeting},
	{"abandon", "the caller waits and hangs up; the record says abandoned", busy, true, abandon},
	{"call-back", "a caller who left the queue is called back by an agent, under the hotline's number, and they talk", alone, false, callBack},
	{"suspended", "a caller under a measure hears the notice, and no agent rings", open, false, suspended},
	{"no-answer", "the agent does not answer; the next one gets the caller, before those who came later", alone, false, noAnswer},
	{"codec-mismatch", "a µ-law caller and an A-law agent hear each other", open, false, codecMismatch},
	{"intake-away", "case intake is away; the event waits, and arrives once when it is back", open, false, intakeAway},
	{"hold", "the agent holds: the caller hears music, then the agent again", open, false, hold},
	{"own-number", "a caller who claims the hotline's own number at a carrier is refused with 403", open, false, ownNumber},
	{"third-call", "the third call of one number is told to wait, and admitted when one of them ends", open, false, thirdCall},
}

func find(name string) *scenario {
	for i := range scenarios {
		if scenarios[i].name == name {
			return &scenarios[i]
		}
	}
	return nil
}

// errUnmet is an expectation that was not met.
var errUnmet = errors.New("expected")

// want compares one thing with what was expected of it.
func (p *player) want(what string, got, want any) error {
	if p.broken {
		want = fmt.Sprintf("anything but %v", want)
	}
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		return fmt.Errorf("%w %s to be %s, got %s", errUnmet, what, w, g)
	}
	return nil
}

// settled waits for the call's record, and compares its outcome.
func (p *player) settled(ctx context.Context, want session.Outcome) (app.CallRecord, error) {
	rec, err := p.record(ctx)
	if err != nil {
		return rec, err
	}
	p.result.Outcome = rec.CDR.Outcome + "/" + rec.CDR.EndReason
	return rec, p.want("the outcome", rec.CDR.Outcome, want)
}

// facts are what the demo's agents write.
func facts() session.Facts {
	return session.Facts{Outcome: session.OutcomeRegistered, Feedback: true, Name: "演示来电人", Contact: "短信",
		Requests: []session.Request{{Kind: session.KindReport, Summary: "演示：路灯不亮"}}}
}

// toAgent calls and asks for a person, until an agent's phone rings.
func (p *player) toAgent(ctx context.Context) (*ring, error) {
	if err := p.dial(ctx); err != nil {
		return nil, err
	}
	if err := p.reach(ctx, session.StageFlow); err != nil {
		return nil, err
	}
	if err := p.press(ctx, "9"); err != nil {
		return nil, err
	}
	return p.rung(ctx)
}

// finish ends a talk, writes it up, and checks the record and the hand-over.
func (p *player) finish(ctx context.Context, r *ring) error {
	hang := p.call.Hangup
	if p.hz%80 == 0 { // now the caller, now the agent
		hang = r.Hangup
	}
	if err := hang(); err != nil {
		return fmt.Errorf("hang-up: %w", err)
	}
	if err := r.agent.writeUp(ctx, p.id, facts()); err != nil {
		return err
	}
	rec, err := p.settled(ctx, session.OutcomeRegistered)
	if err == nil {
		err = p.want("the agent", rec.CDR.Agent, r.agent.extension)
	}
	if err == nil {
		err = p.handedOver(ctx, r.agent.hz)
	}
	return err
}

// talk is a whole call with an agent.
func talk(ctx context.Context, p *player, middle func(r *ring) error) error {
	r, err := p.toAgent(ctx)
	if err == nil {
		err = p.join(ctx, r)
	}
	if err == nil && middle != nil {
		err = middle(r)
	}
	if err != nil {
		return err
	}
	return p.finish(ctx, r)
}

func answered(ctx context.Context, p *player) error { return talk(ctx, p, nil) }

func codecMismatch(ctx context.Context, p *player) error {
	p.codecs = muOnly // the agents' phones speak A-law alone
	return talk(ctx, p, nil)
}

func hold(ctx context.Context, p *player) error {
	p.codecs = aOnly
	return talk(ctx, p, func(r *ring) error {
		p.call.Forget()
		if err := r.Hold(ctx, true); err != nil {
			return fmt.Errorf("hold: %w", err)
		}
		if err := hearsClips(ctx, "music", p.call, p.d.prompts.Music()); err != nil {
			return err
		}
		if err := r.Hold(ctx, false); err != nil {
			return fmt.Errorf("resume: %w", err)
		}
		return hears(ctx, "the caller", p.call, r.agent.hz)
	})
}

func intakeAway(ctx context.Context, p *player) error {
	r, err := p.toAgent(ctx)
	if err == nil {
		err = p.join(ctx, r)
	}
	if err != nil {
		return err
	}
	back := p.d.intake.leave()
	defer back()
	waiting, stop := context.WithTimeout(ctx, 2*patience)
	defer stop()
	p.beside.Go(func() { // finish waits for the event: intake comes back when it was tried in vain
		defer back()
		_ = p.d.intake.await(waiting, func() bool { return p.d.intake.refused[p.id+".2"] > 0 })
	})
	if err := p.finish(ctx, r); err != nil {
		return err
	}
	p.d.intake.mu.Lock()
	tries := p.d.intake.refused[p.id+".2"]
	p.d.intake.mu.Unlock()
	p.result.note("tries_while_away", tries)
	if tries == 0 {
		return fmt.Errorf("%w the event to be tried while case intake was away", errUnmet)
	}
	return nil
}

func greeting(ctx context.Context, p *player) error {
	p.codecs = aOnly
	if err := p.dial(ctx); err != nil {
		return err
	}
	if p.d.gateway == nil { // whatever it says
		if err := listen(ctx, "the caller to hear something", p.call, loud); err != nil {
			return err
		}
		p.result.Outcome = "greeted"
		return errors.Join(p.want("the call", "answered", "answered"), p.call.Hangup())
	}
	if err := hearsClips(ctx, "the greeting", p.call, p.d.prompts.Say("zh", "welcome")); err != nil {
		return err
	}
	if err := p.call.Hangup(); err != nil {
		return err
	}
	_, err := p.settled(ctx, session.OutcomeAbandoned)
	return err
}

func abandon(ctx context.Context, p *player) error {
	if err := p.dial(ctx); err != nil {
		return err
	}
	if p.d.gateway == nil {
		p.result.Outcome = "hung up"
		err := listen(ctx, "the caller to hear something", p.call, loud)
		if err == nil {
			err = p.press(ctx, "9")
		}
		if err == nil {
			err = wait(ctx, 2*time.Second)
		}
		return errors.Join(err, p.want("the call", "answered", "answered"), p.call.Hangup())
	}
	if err := p.waits(ctx); err != nil {
		return err
	}
	if err := wait(ctx, 3*p.d.pace.think); err != nil { // shorter than a phone rings: no agent is at fault
		return err
	}
	if err := p.call.Hangup(); err != nil {
		return err
	}
	rec, err := p.settled(ctx, session.OutcomeAbandoned)
	if err == nil {
		err = p.want("the queue", rec.CDR.Queue, p.d.cfg.Session.DefaultQueue)
	}
	return err
}

// waits brings the caller into the queue. In a demo that goes on, an agent's phone may ring meanwhile.
func (p *player) waits(ctx context.Context) error {
	if err := p.reach(ctx, session.StageFlow); err != nil {
		return err
	}
	if err := p.press(ctx, "9"); err != nil {
		return err
	}
	return p.reach(ctx, session.StageQueue, session.StageRing)
}

func suspended(ctx context.Context, p *player) error {
	p.codecs = aOnly
	lift, err := p.suspend(ctx)
	if err != nil {
		return err
	}
	defer lift()
	if err := p.dial(ctx); err != nil {
		return err
	}
	for _, part := range []string{"suspend_emerg", "notice_head"} {
		if err := hearsClips(ctx, part, p.call, p.d.prompts.Say("zh", part)); err != nil {
			return err
		}
	}
	if err := p.call.Hangup(); err != nil {
		return err
	}
	rec, err := p.settled(ctx, session.OutcomeSuspended)
	if err == nil {
		err = p.want("admission", rec.CDR.Decision, session.IVROnly)
	}
	if _, rang := timeline(rec, "offer", ""); err == nil && rang {
		err = fmt.Errorf("%w no agent to ring", errUnmet)
	}
	return err
}

// suspend puts the caller's number under a measure, and returns what lifts it.
func (p *player) suspend(ctx context.Context) (lift func(), err error) {
	decision, err := p.d.gateway.Suspend(ctx, app.MeasureOrder{Number: p.from, Clause: "29-1", Level: 1,
		Reason: "demo", By: "demo"})
	if err != nil {
		return nil, fmt.Errorf("the measure: %w", err)
	}
	p.result.note("decision", decision)
	return func() {
		act := app.Act{By: "demo", Reason: "the demo's call is over"}
		if err := p.d.gateway.Restore(context.WithoutCancel(ctx), decision, act); err != nil {
			p.d.log.Warn("a measure of the demo was not lifted", "decision", decision, "err", err)
		}
	}, nil
}

func ownNumber(ctx context.Context, p *player) error {
	c, err := p.d.carrier.public.Dial(ctx, softphone.Dial{From: hotline, To: hotline})
	if err == nil {
		return errors.Join(fmt.Errorf("%w the call to be refused, it was answered", errUnmet), c.Hangup())
	}
	status := refusedWith(err)
	p.result.Outcome = fmt.Sprintf("refused %d", status)
	return p.want("the answer", status, 403)
}

func thirdCall(ctx context.Context, p *player) error {
	p.codecs = aOnly
	first, second := p.d.newPlayer(&Result{}, p.from), p.d.newPlayer(&Result{}, p.from)
	defer first.leave()
	defer second.leave()
	for _, h := range []*player{first, second} {
		if err := h.dial(ctx); err != nil {
			return err
		}
		if err := h.reach(ctx, session.StageFlow); err != nil {
			return err
		}
	}
	if err := p.dial(ctx); err != nil {
		return err
	}
	if err := p.reach(ctx, session.StageLeaseWait); err != nil {
		return err
	}
	if err := hearsClips(ctx, "why it waits", p.call, p.d.prompts.Say("zh", "lease_wait")); err != nil {
		return err
	}
	if err := first.call.Hangup(); err != nil {
		return err
	}
	if err := p.reach(ctx, session.StageFlow); err != nil {
		return fmt.Errorf("after one of them ended: %w", err)
	}
	if err := p.call.Hangup(); err != nil {
		return err
	}
	rec, err := p.settled(ctx, session.OutcomeAbandoned)
	for _, word := range []session.Decision{session.QueueLease, session.Admit} { // first one, then the other
		if _, said := timeline(rec, "screened", string(word)); err == nil && !said {
			err = fmt.Errorf("%w admission to say %s", errUnmet, word)
		}
	}
	return err
}
