package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/sip/siptest/softphone"
)

// The feature codes that an agent dials.
const (
	codeLogin = "*11"
	codeReady = "*12"
	codePause = "*13"
)

// Bounds of an agent's acts.
const (
	patience = 20 * time.Second // for anything that should happen
	guestFor = time.Minute      // a talk with a caller who is no part of the demo
	register = time.Hour
)

// agent is a person at a phone: person and extension have one name.
type agent struct {
	d         *demo
	extension string
	hz        int // the tone that the agent speaks
	pin       string
	phone     *softphone.Phone
}

// newAgent gives an extension a phone. On a first start the gateway tells its secret; later it is set
// anew.
func newAgent(ctx context.Context, d *demo, extension string, hz int, line Line) (*agent, error) {
	a := &agent{d: d, extension: extension, hz: hz}
	secret := ""
	for _, c := range d.gateway.Newcomers {
		if c.Person.Extension == extension {
			secret, a.pin = c.Secret, c.PIN
		}
	}
	switch {
	case line.Secret != "": // the phones are Asterisk's
		secret = line.Secret
	case secret == "":
		secret = rand.Text()
		if err := d.gateway.SetPhoneSecret(ctx, extension, secret, "demo"); err != nil {
			return nil, err
		}
	}
	var err error
	a.phone, err = softphone.New(softphone.Config{Listen: "127.0.0.1:0", Peer: line.Phones, User: extension, Secret: secret,
		Codecs: aOnly, Log: d.log, OnCall: a.rung}, d.engine)
	return a, err
}

// arrive registers the phone and logs the agent in: by the feature code with the PIN, or at the desk when
// the PIN is not known any more.
func (a *agent) arrive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-a.phone.Ready():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := a.phone.Register(ctx, register); err != nil {
		return err
	}
	if a.pin != "" {
		return a.login(ctx)
	}
	at, err := a.d.gateway.Seated(ctx, a.extension)
	if err == nil && at != a.extension {
		err = a.d.gateway.Seat(ctx, a.extension, a.extension)
	}
	if err != nil {
		return err
	}
	return a.code(ctx, codeReady) // the last run may have ended in a pause
}

// stay registers the phone again in good time, until ctx ends.
func (a *agent) stay(ctx context.Context) error {
	tick := time.NewTicker(register / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := a.phone.Register(ctx, register); err != nil {
				a.d.log.Warn("an agent's phone could not register again", "extension", a.extension, "err", err)
			}
		}
	}
}

// login dials *11, and gives the staff number and the PIN, each ended with #.
func (a *agent) login(ctx context.Context) error {
	c, err := a.phone.Dial(ctx, softphone.Dial{To: codeLogin})
	if err != nil {
		return err
	}
	for _, keys := range []string{a.extension + "#", a.pin + "#"} {
		if err := c.Press(ctx, keys); err != nil {
			return fmt.Errorf("log-in: %w", err)
		}
	}
	if err := over(ctx, c); err != nil {
		return err
	}
	at, err := a.d.gateway.Seated(ctx, a.extension)
	if err == nil && at != a.extension {
		err = errors.New("the log-in on the phone was refused")
	}
	return err
}

// code dials a feature code, and hangs up when the gateway begins to confirm it.
func (a *agent) code(ctx context.Context, code string) error {
	c, err := a.phone.Dial(ctx, softphone.Dial{To: code})
	if err != nil {
		return fmt.Errorf("%s: %w", code, err)
	}
	return errors.Join(listen(ctx, code+" to be confirmed", c, loud), c.Hangup())
}

// over waits until the gateway ends a call.
func over(ctx context.Context, c *softphone.Call) error {
	select {
	case <-c.Context().Done():
		return nil
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), c.Hangup())
	}
}

// ring is an agent's phone that rings for a player.
type ring struct {
	agent *agent
	*softphone.Call
}

// rung is told that the phone rings. What happens then is the player's; a caller who is no part of the
// demo is answered.
func (a *agent) rung(in *softphone.Call) {
	if err := in.Ring(); err != nil {
		return
	}
	p := a.d.playerOf(in.Token)
	if p == nil {
		a.guest(in)
		return
	}
	select {
	case p.rings <- &ring{a, in}:
	case <-in.Context().Done():
	}
}

// guest serves somebody's own call.
func (a *agent) guest(in *softphone.Call) {
	ctx, cancel := context.WithTimeout(in.Context(), guestFor)
	defer cancel()
	if err := in.Answer(ctx); err != nil {
		return
	}
	clips := a.d.prompts.Say("zh", "agent_no", "digits:"+a.extension, "agent_serve")
	_ = in.Say(ctx, clips...)
	_ = in.Tone(ctx, a.hz) // until the caller goes, or the time is over
	if err := in.Hangup(); err != nil {
		a.d.log.Debug("a guest's call was not ended", "err", err)
	}
	after, stop := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer stop()
	if err := a.writeUp(after, in.Token, session.Facts{Outcome: session.OutcomeConsultation}); err != nil {
		a.d.log.Debug("a guest's call was not written up", "err", err)
	}
}

// writeUp writes a call up, and takes calls again.
func (a *agent) writeUp(ctx context.Context, id string, f session.Facts) error {
	if err := a.d.gateway.WriteUp(ctx, id, a.extension, f); err != nil {
		return fmt.Errorf("write-up: %w", err)
	}
	return a.code(ctx, codeReady)
}

// everyAgent has all agents act at once.
func (d *demo) everyAgent(act func(*agent) error) error {
	var g errgroup.Group
	for _, a := range d.agents {
		g.Go(func() error {
			if err := act(a); err != nil {
				return fmt.Errorf("demo: agent %s: %w", a.extension, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// pauseAll has all agents dial *13.
func (d *demo) pauseAll(ctx context.Context) error {
	return d.everyAgent(func(a *agent) error { return a.code(ctx, codePause) })
}

// refusedWith is the SIP status that a dial was refused with, or 0.
func refusedWith(err error) int {
	if refused, ok := errors.AsType[*call.DialError](err); ok {
		return refused.Status
	}
	return 0
}
