package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/internal/asterisk"
	"github.com/hotline12345/gateway/internal/asterisk/instance"
)

// With the backend asterisk one stands between the demo's carrier and the gateway: the carrier's trunk and the
// agents' phones are endpoints of that Asterisk, which hands each call to the gateway. It is one that is named, or one
// that the demo starts.

// asteriskTrunk is the trunk of the configuration that the documentation tells to paste, and asteriskNode the
// gateway that its dialplan names.
const (
	asteriskTrunk = "carrier"
	asteriskNode  = "node1"
)

// prepareAsterisk writes an Asterisk's run folder, and returns the settings by which the gateway drives it. end
// ends that Asterisk, and takes the folder away.
func (d *demo) prepareAsterisk() (sets []string, end func() error, err error) {
	end = func() error { return nil }
	if d.opts.Asterisk != "" {
		return []string{"backend=" + string(config.Asterisk), "asterisk.url=" + d.opts.Asterisk}, end, nil
	}
	dir, err := os.MkdirTemp("", "hotline-asterisk-")
	if err != nil {
		return nil, end, err
	}
	end = func() error {
		if d.asterisk != nil {
			d.asterisk.Kill()
		}
		return os.RemoveAll(dir)
	}
	d.asterisk, err = instance.New(instance.Config{Setup: d.opts.AsteriskSetup, Dir: dir, Node: asteriskNode})
	if err != nil {
		return nil, end, fmt.Errorf("demo: %w", err)
	}
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(d.asterisk.Secret), 0o600); err != nil {
		return nil, end, err
	}
	return []string{"backend=" + string(config.Asterisk), "asterisk.url=" + d.asterisk.URL, "asterisk.username=" + d.asterisk.User,
		"asterisk.password_file=" + password, "asterisk.application=hotline-" + asteriskNode, "asterisk.sounds_dir=" + filepath.Join(dir, "sounds"),
		fmt.Sprintf("asterisk.rtp_ports=%d", instance.RTPPorts),
		"asterisk.trunks=[{name: " + asteriskTrunk + ", endpoint: " + asteriskTrunk + ", trusted: true, carrier: true, caller: '" + hotline + "'}]",
		"emergency.drill_trunk=" + asteriskTrunk, "session.call_back.trunk=" + asteriskTrunk}, end, nil
}

// beforeAsterisk is where the demo's carrier listens: where the trunk of a named Asterisk leads, which must be here.
func (d *demo) beforeAsterisk(ctx context.Context) (netip.AddrPort, error) {
	if d.asterisk != nil {
		return netip.AddrPortFrom(loopback, 0), nil
	}
	i, err := asterisk.Inspect(d.cfg.Asterisk, d.cfg.Session.Node)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("demo: asterisk.%w", err)
	}
	defer i.Close()
	trunks, err := i.Trunks(ctx)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("demo: %w", err)
	}
	at, err := netip.ParseAddrPort(trunks[d.cfg.Emergency.DrillTrunk])
	if err != nil || !at.Addr().IsLoopback() {
		return at, fmt.Errorf("%w: the trunk %s leads to %q; give its aor the contact sip:127.0.0.1:5070", ErrLive,
			d.cfg.Emergency.DrillTrunk, trunks[d.cfg.Emergency.DrillTrunk])
	}
	return at, nil
}

// bootAsterisk starts the demo's own Asterisk, with the carrier behind its trunk. Our number is shown to who is called
// back as carriers have it, with the area.
func (d *demo) bootAsterisk(ctx context.Context) error {
	for i := range d.cfg.Asterisk.Trunks {
		d.cfg.Asterisk.Trunks[i].Caller = "+86" + strings.TrimPrefix(d.cfg.SIP.AreaCode, "0") + hotline
	}
	if d.asterisk == nil {
		return nil
	}
	if err := d.asterisk.Carrier(d.carrier.line.Addr().String()); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if err := d.asterisk.Boot(ctx); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

// asteriskLine is where callers and phones find Asterisk.
func (d *demo) asteriskLine(ctx context.Context) (Line, error) {
	i, err := asterisk.Inspect(d.cfg.Asterisk, d.cfg.Session.Node)
	if err != nil {
		return Line{}, err
	}
	defer i.Close()
	at, secret, err := i.Phone(ctx, firstAgent)
	if err != nil {
		return Line{}, fmt.Errorf("demo: %w", err)
	}
	if at.Addr().IsUnspecified() {
		at = netip.AddrPortFrom(loopback, at.Port())
	}
	return Line{Carriers: at, Phones: at, Secret: secret}, nil
}

// connected waits until the gateway takes the calls of Asterisk.
func (d *demo) connected(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	i, err := asterisk.Inspect(d.cfg.Asterisk, d.cfg.Session.Node)
	if err != nil {
		return err
	}
	defer i.Close()
	for {
		if _, connected, _, err := i.Application(ctx); err == nil && connected {
			return nil
		}
		if err := wait(ctx, hearing); err != nil {
			return fmt.Errorf("demo: the gateway is not connected to Asterisk: %w", err)
		}
	}
}

// watchAsterisk ends the demo when its Asterisk dies.
func (d *demo) watchAsterisk(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.asterisk.Done():
		return errors.New("demo: Asterisk ended: " + d.asterisk.Log())
	}
}
