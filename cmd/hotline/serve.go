package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/staff"
)

func serveCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway until SIGTERM or SIGINT. Then new calls are refused with 503 and running ones may
finish within drain_for; a second signal ends them at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(o.config, o.sets)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: cfg.Level()}))
			ops.Tune(log)
			reload := func() (config.Config, error) { return config.Load(o.config, o.sets) }
			return serve(cmd.Context(), cfg, log, cmd.OutOrStdout(), reload)
		},
	}
}

func serve(ctx context.Context, cfg config.Config, log *slog.Logger, out io.Writer, reload func() (config.Config, error)) error {
	gateway, err := app.New(ctx, cfg, log)
	if err != nil {
		return err
	}
	carriers, phones, pages := gateway.Addrs()
	fmt.Fprintf(out, "carriers  sip:%s (UDP and TCP)\nphones    sip:%s (UDP and TCP), realm %s\nconsole   http://%s\n",
		carriers, phones, cfg.SIP.Registrar.Realm, pages)
	welcome(out, gateway.Newcomers)
	ctx, stop := signals(ctx, gateway.EndNow)
	defer stop()
	defer onHangup(func() {
		cfg, err := reload()
		if err == nil {
			err = gateway.Reload(cfg)
		}
		if err != nil {
			log.Error("the reload failed; what does not read stays as it was", "err", err)
			return
		}
		log.Info("flows, prompts and lists were read anew; every other setting needs a restart")
	})()
	return gateway.Run(ctx)
}

// welcome shows the people of a first start and what they log in with, once.
func welcome(out io.Writer, people []staff.Credential) {
	if len(people) == 0 {
		return
	}
	fmt.Fprintln(out, "\nFirst start. These are shown once; `hotline staff password` sets new ones:")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PERSON\tROLES\tCONSOLE PASSWORD\tEXTENSION\tPHONE SECRET\tPHONE PIN")
	for _, p := range people {
		fmt.Fprintf(w, "%s\t%v\t%s\t%s\t%s\t%s\n", p.Person.ID, p.Person.Roles, p.Password, p.Person.Extension, p.Secret, p.PIN)
	}
	_ = w.Flush() // the terminal went away
	fmt.Fprintln(out)
}
