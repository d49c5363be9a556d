package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/asterisk"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/recording"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/ivr/prompt"
	"github.com/hotline12345/gateway/ivr/speech"
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
			in, err := inputs(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			found := ops.Examine(cmd.Context(), in)
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
func inputs(ctx context.Context, cfg config.Config) (ops.Inputs, error) {
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
		Emergency: cfg.EmergencyPlan(nil),
		Prompts:   func() ([]string, error) { return missing(cfg) },
	}
	if cfg.Backend == config.Asterisk {
		asteriskInputs(ctx, cfg, &in)
	}
	if !cfg.Store.Embedded() {
		in.Redis = func(ctx context.Context) (time.Time, error) {
			return redis(cfg, func(s *store.Store) (time.Time, error) { return s.Now(ctx) })
		}
		in.RedisServer = func(ctx context.Context) (ops.RedisServer, error) { return describeRedis(ctx, cfg) }
	}
	if len(cfg.Recording.Recipients) > 0 {
		in.Recipients = func() error {
			_, err := recording.New(cfg.Recording, recording.Deps{Log: slog.New(slog.DiscardHandler)})
			return err
		}
	}
	if cfg.Speech.On() {
		r, err := speech.New(cfg.Speech, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			return in, err
		}
		in.Recogniser = r.Check
	}
	if cfg.Nodes.Clustered() {
		var err error
		if in.Cluster, err = clusterInputs(cfg); err != nil {
			return in, err
		}
		in.Ports = append(in.Ports, ops.Port{Network: "tcp", Address: cfg.Nodes.Listen, For: "nodes"})
		if cfg.Backend == config.SIP {
			in.Ports = append(in.Ports, ops.Port{Network: "tcp", Address: cfg.SIP.Nodes.Listen, For: "sip.nodes"})
		}
	}
	return in, nil
}

// asteriskInputs are what the doctor looks at in place of the ports of our own SIP.
func asteriskInputs(ctx context.Context, cfg config.Config, in *ops.Inputs) {
	in.Ports = []ops.Port{{Network: "tcp", Address: cfg.HTTP.Listen, For: "http"}}
	in.Calls, in.Conns, in.RTPPairs = cfg.Asterisk.MaxCalls, cfg.HTTP.Connections, 0
	in.Asterisk = &ops.AsteriskInputs{Config: cfg.Asterisk, Node: cfg.Session.Node, Prompt: func() (*call.Clip, error) {
		voices, err := prompt.New(cfg.Prompts, nil)
		if err != nil {
			return nil, err
		}
		return voices.Say("zh", "welcome")[0], nil
	}}
	in.Emergency = cfg.EmergencyPlan(trunks(ctx, cfg))
}

// trunks is where the trunks of Asterisk lead. When Asterisk does not say it, the finding asterisk says why.
func trunks(ctx context.Context, cfg config.Config) map[string]string {
	i, err := asterisk.Inspect(cfg.Asterisk, cfg.Session.Node)
	if err != nil {
		return nil
	}
	defer i.Close()
	at, err := i.Trunks(ctx)
	if err != nil {
		return nil
	}
	return at
}

// clusterInputs are what the doctor compares with the other gateways.
func clusterInputs(cfg config.Config) (*ops.ClusterInputs, error) {
	same, err := cfg.Hash()
	if err != nil {
		return nil, err
	}
	policy, err := cfg.PolicyHash()
	if err != nil {
		return nil, err
	}
	return &ops.ClusterInputs{SecretFile: cfg.Nodes.SecretFile, Config: same, Policy: policy,
		TLS:   cfg.Nodes.TLS.CertFile != "" && cfg.SIP.Nodes.TLS.CertFile != "",
		Peers: func(ctx context.Context) ([]ops.PeerNode, error) { return peers(ctx, cfg) }}, nil
}

// peers is the other gateways that Redis lists.
func peers(ctx context.Context, cfg config.Config) ([]ops.PeerNode, error) {
	all, err := redis(cfg, func(s *store.Store) ([]store.Node, error) { return store.NewNodes(s).List(ctx) })
	var out []ops.PeerNode
	for _, n := range all {
		if n.Name != cfg.Session.Node {
			out = append(out, ops.PeerNode{Name: n.Name, Version: n.Version, Config: n.ConfigHash, Policy: n.PolicyHash, API: n.API, SIP: n.SIP, Alive: n.Alive})
		}
	}
	return out, err
}

func describeRedis(ctx context.Context, cfg config.Config) (ops.RedisServer, error) {
	said, err := redis(cfg, func(s *store.Store) (store.Server, error) { return s.Server(ctx) })
	return ops.RedisServer{Policy: said.Policy, MaxMemory: said.MaxMemory, AOF: said.AOF,
		Spare: cfg.Store.Mode != store.Single || said.Replicas > 0}, err
}

func missing(cfg config.Config) ([]string, error) {
	if _, err := prompt.New(cfg.Prompts, nil); err != nil {
		return nil, err
	}
	err := checkFlows(cfg) // a flow that says what the catalogue lacks is refused
	return nil, err
}

// redis asks the Redis of a configuration.
func redis[T any](cfg config.Config, ask func(*store.Store) (T, error)) (out T, err error) {
	s, err := store.New(cfg.Store, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return out, err
	}
	defer func() { _ = errors.Join(s.Client().Close(), s.Blocking().Close()) }()
	return ask(s)
}
