package main

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/cmd/hotline/internal/demo"
	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
)

func demoCmd(o *options) *cobra.Command {
	var d demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play carrier, callers, agents and case intake",
		Long: `Run a gateway and play the world around it over real SIP and RTP on loopback: a carrier with callers,
emergency services, agents 1001 and 1002, and case intake. It goes on until SIGINT, and extension 1003 is
yours: register a phone there, or call sip:12345 yourself.

With --backend asterisk the carrier and the phones are endpoints of an Asterisk, which is started for it.
deploy/asterisk/setup fetches one.

With --once it plays --calls calls on free ports and a directory of its own, checks what each was expected
to come to, and fails when one did not.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.Load = func(sets ...string) (config.Config, error) { return config.Load(o.config, append(o.sets, sets...)) }
			level := slog.LevelWarn
			if d.Once {
				level = slog.LevelError
			}
			d.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			d.Out = cmd.OutOrStdout()
			ops.Tune(d.Log)
			again := func() {}
			d.Welcome = func(out io.Writer, gateway *app.App, at demo.Line) { again = gateway.EndNow; invite(out, gateway, at) }
			ctx, stop := signals(cmd.Context(), func() { again() })
			defer stop()
			return demo.Run(ctx, d)
		},
	}
	f := cmd.Flags()
	f.IntVar(&d.Calls, "calls", 24, "with --once: how many calls, spread over the scenarios")
	f.BoolVar(&d.Once, "once", false, "play the calls once, judge them and end")
	f.BoolVar(&d.JSON, "json", false, "print the report as JSON")
	f.StringVar(&d.Backend, "backend", "sip", "sip, or asterisk: carrier and phones are at an Asterisk that the gateway drives")
	f.StringVar(&d.Asterisk, "asterisk", "", "ARI's root of a running Asterisk, as the configuration's section asterisk knows it; empty starts one")
	f.StringVar(&d.AsteriskSetup, "asterisk-setup", cmp.Or(os.Getenv("HOTLINE_ASTERISK_SETUP"), "deploy/asterisk/setup"),
		"the script that fetched the Asterisk which is started; HOTLINE_ASTERISK_SETUP sets it as well")
	f.StringVar(&d.Target, "target", "", "host:port of a running gateway: only callers are played")
	f.StringVar(&d.Break, "break", "", "falsify the expectation of a scenario: for the test that a broken one is told")
	_ = f.MarkHidden("break") // the flag exists
	return cmd
}

// invite shows a newcomer where everything is, and with what they log in.
func invite(out io.Writer, gateway *app.App, at demo.Line) {
	_, _, pages := gateway.Addrs()
	secret := "its phone secret"
	if at.Secret != "" {
		secret = "the secret " + at.Secret
	}
	fmt.Fprintf(out, "console   http://%s\nphones    sip:%s: register yours as 1003 by %s, dial *11, then 1003# and the PIN with #\ncallers   sip:12345@%s: call, and one of the agents answers\n",
		pages, at.Phones, secret, at.Carriers)
	if len(gateway.Newcomers) == 0 {
		fmt.Fprintln(out, "log-ins   those of the first start; `hotline staff password admin` and `hotline staff phone 1003` set new ones")
	}
	welcome(out, gateway.Newcomers)
}
