package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/recording"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/ivr/prompt"
	"github.com/hotline12345/gateway/sip"
)

func doctorCmd(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at everything the gateway needs, and say what to mend",
		Long:  "Look at everything the gateway needs, and say what to mend. Run it before the gateway: a running one holds its ports.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(o.config, o.sets)
			if err != nil {
				return err
			}
			found := ops.Examine(cmd.Context(), inputs(cfg))
			write := ops.WriteTable
			if asJSON {
				write = ops.WriteJSON
			}
			if err := write(cmd.OutOrStdout(), found); err != nil {
				return err
			}
			if !ops.Healthy(found) {
				return errors.New("something must be mended first")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// inputs are the parts of a configuration that the doctor looks at.
func inputs(cfg config.Config) ops.Inputs {
	in := ops.Inputs{
		Ports: []ops.Port{
			{Network: "udp", Address: cfg.SIP.Carriers.Listen, For: "sip.carriers"},
			{Network: "tcp", Address: cfg.SIP.Carriers.Listen, For: "sip.carriers"},
			{Network: "udp", Address: cfg.SIP.Phones.Listen, For: "sip.phones"},
			{Network: "tcp", Address: cfg.SIP.Phones.Listen, For: "sip.phones"},
			{Network: "tcp", Address: cfg.HTTP.Listen, For: "http"},
		},
		DataDir: cfg.Data, MinFree: 1 << 30, Calls: cfg.SIP.MaxCalls,
		Conns:     cfg.HTTP.Connections + cfg.SIP.Carriers.Dialog.MaxConns + cfg.SIP.Phones.Dialog.MaxConns,
		Buffer:    max(sip.SignallingBuffer, cfg.SIP.Media.ReceiveBuffer),
		RTPPairs:  cfg.SIP.Media.Pairs(),
		Emergency: cfg.EmergencyPlan(),
		Prompts:   func() ([]string, error) { return missing(cfg) },
	}
	if !cfg.Store.Embedded() {
		in.Redis = func(ctx context.Context) (time.Time, error) { return redisTime(ctx, cfg) }
	}
	if len(cfg.Recording.Recipients) > 0 {
		in.Recipients = func() error {
			_, err := recording.New(cfg.Recording, recording.Deps{Log: slog.New(slog.DiscardHandler)})
			return err
		}
	}
	return in
}

func missing(cfg config.Config) ([]string, error) {
	if _, err := prompt.New(cfg.Prompts, nil); err != nil {
		return nil, err
	}
	err := checkFlows(cfg) // a flow that says what the catalogue lacks is refused
	return nil, err
}

func redisTime(ctx context.Context, cfg config.Config) (time.Time, error) {
	s, err := store.New(cfg.Store, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return time.Time{}, err
	}
	defer func() { _ = s.Client().Close() }()
	return s.Now(ctx)
}
