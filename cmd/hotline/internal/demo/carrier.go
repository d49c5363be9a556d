package demo

import (
	"context"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/sip/siptest/softphone"
)

// hotline is the number that callers dial.
const hotline = "12345"

// publicAddr is where the second carrier calls from: one whose callers may not claim our own number.
const publicAddr = "127.0.0.2"

// serviceHz is the tone of an emergency service.
const serviceHz = 1900

// carrier brings callers to the hotline, and takes its calls to the emergency services, as a drill, and
// back to callers.
type carrier struct {
	d      *demo
	line   *softphone.Phone // the trunk loopback
	public *softphone.Phone // the trunk demo-carrier; nil with a target
}

func newCarrier(d *demo, here netip.AddrPort) (c *carrier, err error) {
	c = &carrier{d: d}
	c.line, err = softphone.New(softphone.Config{Listen: here.String(), Log: d.log, OnCall: c.rung}, d.engine)
	if err != nil || d.opts.Target != "" {
		return c, err
	}
	c.public, err = softphone.New(softphone.Config{Listen: publicAddr + ":0", Log: d.log}, d.engine)
	return c, err
}

func (c *carrier) phones() []*softphone.Phone {
	if c.public == nil {
		return []*softphone.Phone{c.line}
	}
	return []*softphone.Phone{c.line, c.public}
}

// aim says where the gateway is.
func (c *carrier) aim(at netip.AddrPort) {
	for _, p := range c.phones() {
		p.Aim(at)
	}
}

func (c *carrier) start(ctx context.Context, world *errgroup.Group) {
	for _, p := range c.phones() {
		world.Go(func() error { return p.Run(ctx) })
	}
}

func (c *carrier) ready(ctx context.Context) error {
	for _, p := range c.phones() {
		select {
		case <-p.Ready():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// rung is told of a call from the hotline. A caller who is called back decides what happens then; every
// other number is a service's.
func (c *carrier) rung(in *softphone.Call) {
	if err := in.Ring(); err != nil {
		return
	}
	p := c.d.withNumber(national(in.To))
	if p == nil {
		c.service(in)
		return
	}
	select {
	case p.backs <- in:
	case <-in.Context().Done():
	}
}

// service is an emergency service: it answers, speaks its tone, and stays until the caller goes. The
// caller's player is told who was called and what number was shown.
func (c *carrier) service(in *softphone.Call) {
	if err := in.Answer(in.Context()); err != nil {
		c.d.log.Warn("the service could not answer", "err", err)
		return
	}
	c.d.mu.Lock()
	for p := range c.d.players {
		if national(in.From) == p.from {
			select {
			case p.services <- in:
			default: // a second service is not what the player waits for
			}
		}
	}
	c.d.mu.Unlock()
	_ = in.Tone(in.Context(), serviceHz) // until the call ends
}

// national is a number as it is dialled inside the country.
func national(user string) string {
	if len(user) > 3 && user[:3] == "+86" {
		return user[3:]
	}
	return user
}
