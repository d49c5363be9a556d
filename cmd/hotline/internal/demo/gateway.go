package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
	gwintake "github.com/hotline12345/gateway/internal/intake"
	"github.com/hotline12345/gateway/sip/trunk"
)

// once are the settings of a run that judges: its own directory and free ports, and short times.
func once(dir string) []string {
	return []string{"drain_for=5s", "data=" + filepath.Join(dir, "data"), "sip.carriers.listen=127.0.0.1:0", "sip.phones.listen=127.0.0.1:0",
		"http.listen=127.0.0.1:0", "sip.media.port_min=0", "sip.media.port_max=0", "intake.backoff_min=200ms",
		"intake.backoff_max=1s", "session.announce_agent=false"}
}

// openGateway makes a gateway between the demo's carrier, agents and intake.
func (d *demo) openGateway(ctx context.Context) (err error) {
	if err := os.MkdirAll(d.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if d.intake, err = newIntake(d); err != nil {
		return err
	}
	d.join()
	if err := d.loopbackOnly(); err != nil {
		return err
	}
	if d.opts.onAsterisk() {
		if err := d.bootAsterisk(ctx); err != nil {
			return err
		}
	}
	if d.gateway, err = app.New(ctx, d.cfg, d.log); err != nil {
		return err
	}
	line, err := d.line(ctx)
	if err != nil {
		return errors.Join(err, d.discard(ctx))
	}
	d.carrier.aim(line.Carriers)
	if err := d.hire(ctx, line); err != nil {
		return errors.Join(err, d.discard(ctx))
	}
	if d.opts.Welcome != nil && !d.opts.Once {
		d.opts.Welcome(d.opts.Out, d.gateway, line)
	}
	return nil
}

// line is where callers and phones find the gateway, or the Asterisk before it.
func (d *demo) line(ctx context.Context) (Line, error) {
	if d.opts.onAsterisk() {
		return d.asteriskLine(ctx)
	}
	carriers, phones, _ := d.gateway.Addrs()
	c, err := netip.ParseAddrPort(carriers)
	if err != nil {
		return Line{}, err
	}
	p, err := netip.ParseAddrPort(phones)
	return Line{Carriers: c, Phones: p}, err
}

// firstAgent is the extension of an agent that there always is.
const firstAgent = "1001"

// hire makes the agents.
func (d *demo) hire(ctx context.Context, line Line) error {
	extensions := []string{firstAgent, "1002"} // 1003 is for whoever looks on
	if d.opts.Once {
		extensions = append(extensions, "1003")
	}
	for i, ext := range extensions {
		a, err := newAgent(ctx, d, ext, 1100+200*i, line)
		if err != nil {
			return fmt.Errorf("demo: agent %s: %w", ext, err)
		}
		d.agents = append(d.agents, a)
	}
	return nil
}

// discard closes a gateway that will not run.
func (d *demo) discard(ctx context.Context) error {
	ended, end := context.WithCancel(ctx)
	end()
	return d.gateway.Run(ended)
}

// join puts the demo's carrier and intake into the configuration.
func (d *demo) join() {
	if !d.opts.onAsterisk() {
		d.joinTrunks()
	}
	d.cfg.Intake.Targets = append(slices.Clip(d.cfg.Intake.Targets), gwintake.Target{
		Name: "demo", Kind: gwintake.Webhook, URL: d.intake.url(), SecretFile: d.intake.secretFile, Networks: []string{"127.0.0.0/8"}})
	if d.opts.Once {
		for i := range d.cfg.Queue.Queues {
			d.cfg.Queue.Queues[i].Ring = ringTime
		}
	}
}

// joinTrunks puts the demo's carrier behind the trunks of the backend sip.
func (d *demo) joinTrunks() {
	trunks := []trunk.Config{}
	for _, t := range d.cfg.SIP.Trunks {
		if t.Name == d.cfg.Emergency.DrillTrunk && t.Address == "" {
			t.Address = d.carrier.line.Addr().String() // where a drill rings, and who is called back
			t.Caller = hotline
			d.cfg.Session.CallBack.Trunk = t.Name
		}
		trunks = append(trunks, t)
	}
	if d.carrier.public != nil {
		trunks = append(trunks, trunk.Config{Name: "demo-carrier", Sources: []string{publicAddr + "/32"}, Identity: trunk.ByFrom,
			Carrier: true, Transport: trunk.UDP, MaxCalls: 50})
	}
	d.cfg.SIP.Trunks = trunks
}

// loopbackOnly refuses a configuration by which a call for help could leave this host, an agreement or not:
// the demo presses the emergency keys.
func (d *demo) loopbackOnly() error {
	plan := d.cfg.EmergencyPlan(map[string]string{d.cfg.Emergency.DrillTrunk: d.carrier.line.Addr().String()})
	plan.Live = false
	if err := plan.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrLive, err)
	}
	return nil
}
