package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/goccy/go-yaml"
	"github.com/invopop/jsonschema"
	"github.com/spf13/cobra"

	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/configs"
	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/recording"
	"github.com/hotline12345/gateway/internal/staff"
	"github.com/hotline12345/gateway/ivr"
	"github.com/hotline12345/gateway/ivr/prompt"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func configCmd(o *options) *cobra.Command {
	check := &cobra.Command{Use: "check", Short: "Check the configuration and everything it names", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(o.config, o.sets)
			if err != nil {
				return err
			}
			if err := checkFlows(cfg); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "the configuration is right")
			return err
		}}
	example := &cobra.Command{Use: "example", Short: "Print a commented configuration to start from", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(configs.Example)
			return err
		}}
	effective := &cobra.Command{Use: "effective", Short: "Print every setting in force, defaults included", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(o.config, o.sets)
			if err != nil {
				return err
			}
			b, err := yaml.Marshal(cfg)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(b)
			return err
		}}
	schema := &cobra.Command{Use: "schema", Short: "Print the JSON schema of the configuration", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := jsonschema.Reflector{FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, Namer: sectionName, Mapper: asWritten}
			b, err := r.Reflect(config.Config{}).MarshalJSON()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), string(b))
			return err
		}}
	return group("config", "Check, show and explain the configuration", check, example, effective, schema)
}

// sectionName tells the sections apart in the schema: each is a Config of its own package.
func sectionName(t reflect.Type) string {
	if t.Name() == "" {
		return ""
	}
	return path.Base(t.PkgPath()) + t.Name()
}

// asWritten is the schema of what a file holds as a text: times and addresses.
func asWritten(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{Type: "string", Examples: []any{"30s", "5m", "24h"}}
	case reflect.TypeFor[netip.Addr]():
		return &jsonschema.Schema{Type: "string", Examples: []any{"192.0.2.1"}}
	default:
		return nil
	}
}

// checkFlows loads the flows as the gateway would, without running it.
func checkFlows(cfg config.Config) error {
	prompts, err := prompt.New(cfg.Prompts, nil)
	if err != nil {
		return err
	}
	var queues []string
	for _, q := range cfg.Queue.Queues {
		queues = append(queues, q.Name)
	}
	_, err = ivr.New(cfg.IVR, prompts, queues, slog.New(slog.DiscardHandler), nil)
	return err
}

func flowCmd(o *options) *cobra.Command {
	check := &cobra.Command{Use: "check FILE", Short: "Tell everything that is wrong with a flow", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := loadFlow(o, args[0])
			if err != nil {
				return err
			}
			if err := l.report(cmd.OutOrStdout()); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "the flow is right")
			return err
		}}
	render := &cobra.Command{Use: "render FILE", Short: "Draw a flow", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := loadFlow(o, args[0])
			if err != nil {
				return err
			}
			if l.flow == nil {
				return l.report(cmd.OutOrStdout())
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), ivr.Render(l.flow))
			return err
		}}
	var script string
	simulate := &cobra.Command{Use: "simulate FILE --script CALLS", Short: "Play scripted calls through a flow", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := loadFlow(o, args[0])
			if err != nil {
				return err
			}
			if l.flow == nil {
				return l.report(cmd.OutOrStdout())
			}
			return l.simulate(cmd.OutOrStdout(), os.DirFS(filepath.Dir(args[0])), script)
		}}
	simulate.Flags().StringVar(&script, "script", "", "the calls, a txtar archive (required)")
	_ = simulate.MarkFlagRequired("script") // the flag exists
	return group("flow", "Check, draw and try flows", check, render, simulate)
}

// loadedFlow is a flow of a file and what it stands on; flow is nil when its problems allow none.
type loadedFlow struct {
	cfg      config.Config
	prompts  *prompt.Catalogue
	flow     *ivr.Flow
	problems []ivr.Problem
}

func loadFlow(o *options, file string) (*loadedFlow, error) {
	cfg, err := config.Load(o.config, o.sets)
	if err != nil {
		return nil, err
	}
	prompts, err := prompt.New(cfg.Prompts, nil)
	if err != nil {
		return nil, err
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	known := ivr.Known{Prompts: prompts, Targets: sortedKeys(cfg.IVR.Targets)}
	for _, q := range cfg.Queue.Queues {
		known.Queues = append(known.Queues, q.Name)
	}
	flow, problems := ivr.Check(file, src, known)
	return &loadedFlow{cfg, prompts, flow, problems}, nil
}

// report prints every problem; it fails when there is a fault among them.
func (l *loadedFlow) report(out io.Writer) error {
	for _, p := range l.problems {
		fmt.Fprintln(out, p.Error())
	}
	if n := len(ivr.Faults(l.problems)); n > 0 {
		return fmt.Errorf("%d faults", n)
	}
	return nil
}

// simulate plays the calls of a script; beside holds the files that the flow names.
func (l *loadedFlow) simulate(out io.Writer, beside fs.FS, script string) error {
	calls, err := os.ReadFile(script)
	if err != nil {
		return err
	}
	done, err := ivr.Simulate(l.flow, l.cfg.IVR, l.prompts, beside, calls)
	if err != nil {
		return err
	}
	var failed []error
	for _, s := range done {
		fmt.Fprintf(out, "%s\n%s", s.Name, s.Trace)
		if s.Err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.Name, s.Err))
		}
	}
	return errors.Join(failed...)
}

func auditCmd(o *options) *cobra.Command {
	var kept string
	verify := &cobra.Command{Use: "verify", Short: "Check every audit chain in the data directory, and name the first bad line", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(o.config, o.sets)
			if err != nil {
				return err
			}
			var known []audit.Receipt
			if kept == "" {
				kept = cfg.Audit.CopyDir
			}
			if kept != "" {
				if known, err = audit.Verify(kept); err != nil {
					return fmt.Errorf("the copy: %w", err)
				}
			}
			heads, err := audit.Verify(cfg.AuditDir(), known...)
			for _, h := range heads {
				fmt.Fprintf(cmd.OutOrStdout(), "%s\t%d entries\thead %s\n", h.Node, h.Seq, h.Hash)
			}
			return err
		}}
	verify.Flags().StringVar(&kept, "copy", "", "a copy that was kept elsewhere: what it has must stand in the chains (default audit.copy_dir)")
	return group("audit", "Look after the audit log", verify)
}

func recordingCmd(o *options) *cobra.Command {
	var key string
	with := func(run func(cmd *cobra.Command, r *recording.Recorder, keys []age.Identity, id string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(o.config, o.sets)
			if err != nil {
				return err
			}
			if key == "" {
				key = cfg.AgencyKey()
			}
			keys, err := recording.LoadIdentities(key)
			if err != nil {
				return fmt.Errorf("%w; name the agency's private key with --key", err)
			}
			if len(cfg.Recording.Recipients) == 0 {
				recipient, err := recording.EnsureKey(cfg.AgencyKey())
				if err != nil {
					return err
				}
				cfg.Recording.Recipients = []string{recipient}
			}
			r, err := recording.New(cfg.Recording, recording.Deps{Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				return err
			}
			return run(cmd, r, keys, args[0])
		}
	}
	verify := &cobra.Command{Use: "verify ID", Short: "Compare a recording with its manifest", Args: cobra.ExactArgs(1),
		RunE: with(func(cmd *cobra.Command, r *recording.Recorder, keys []age.Identity, id string) error {
			if err := r.Verify(cmd.Context(), id, keys...); err != nil {
				return err
			}
			m, err := r.Manifest(id)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "the recording is as it was sealed: %.1f s, partial %t, sha256_sealed %s\n",
				float64(m.Samples)/8000, m.Partial, m.SHA256Sealed)
			return err
		})}
	export := &cobra.Command{Use: "export ID", Short: "Write a recording as a WAV file to standard output", Args: cobra.ExactArgs(1),
		RunE: with(func(cmd *cobra.Command, r *recording.Recorder, keys []age.Identity, id string) error {
			return r.Export(cmd.Context(), cmd.OutOrStdout(), id, keys...)
		})}
	cmd := group("recording", "Look after recordings", verify, export)
	cmd.PersistentFlags().StringVar(&key, "key", "", "file with the agency's private key (default: that of the embedded default)")
	return cmd
}

func staffCmd(o *options) *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "List the people", Args: cobra.NoArgs,
		RunE: withStaff(o, func(cmd *cobra.Command, d *staff.Directory, _ string, _ []string) error {
			people, err := d.People(cmd.Context())
			if err != nil {
				return err
			}
			var rows [][]string
			for _, p := range people {
				rows = append(rows, []string{p.ID, p.Name, fmt.Sprint(p.Roles), p.Extension, strings.Join(sortedKeys(p.Queues), " ")})
			}
			return table(cmd.OutOrStdout(), "PERSON\tNAME\tROLES\tEXTENSION\tQUEUES", rows)
		})}
	p := staff.Person{Language: "zh"}
	var roles []string
	add := &cobra.Command{Use: "add ID", Short: "Add a person", Args: cobra.ExactArgs(1),
		RunE: withStaff(o, func(cmd *cobra.Command, d *staff.Directory, _ string, args []string) error {
			p.ID = args[0]
			for _, r := range roles {
				p.Roles = append(p.Roles, staff.Role(r))
			}
			if p.Extension != "" {
				p.Queues = map[string]int{"default": 1}
			}
			return d.Add(cmd.Context(), p, me())
		})}
	add.Flags().StringVar(&p.Name, "name", "", "as colleagues write it")
	add.Flags().StringVar(&p.Extension, "extension", "", "the phone on their desk")
	add.Flags().StringSliceVar(&roles, "role", []string{"agent"}, "agent, supervisor, manager, auditor or admin (repeatable)")
	return group("staff", "Keep the people of the line", list, add,
		secretCmd(o, "password ID", "Set a person's console password", func(cmd *cobra.Command, d *staff.Directory, _, id, s string) error {
			return d.SetPassword(cmd.Context(), id, s, me())
		}),
		secretCmd(o, "pin ID", "Set a person's PIN for the phone", func(cmd *cobra.Command, d *staff.Directory, _, id, s string) error {
			return d.SetPIN(cmd.Context(), id, s, me())
		}),
		secretCmd(o, "phone EXTENSION", "Set the secret that an extension's phone registers with", func(cmd *cobra.Command, d *staff.Directory, realm, ext, s string) error {
			return d.SetPhoneSecret(cmd.Context(), ext, realm, s, me())
		}))
}

// withStaff opens the directory of people for a command, beside the gateway if that runs.
func withStaff(o *options, run func(cmd *cobra.Command, d *staff.Directory, realm string, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) (err error) {
		cfg, err := config.Load(o.config, o.sets)
		if err != nil {
			return err
		}
		log, err := audit.Open(cfg.Audit, cfg.AuditDir(), cfg.Session.Node+"-cli", time.Now, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, log.Close()) }()
		d, err := staff.Open(cmd.Context(), cfg.Staff, cfg.Data, log, time.Now, nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.Close()) }()
		return run(cmd, d, cfg.SIP.Registrar.Realm, args)
	}
}

// secretCmd makes a command that reads a secret from standard input, where no list of processes shows it.
func secretCmd(o *options, use, short string, set func(cmd *cobra.Command, d *staff.Directory, realm, id, secret string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short + ", read from standard input", Args: cobra.ExactArgs(1),
		RunE: withStaff(o, func(cmd *cobra.Command, d *staff.Directory, realm string, args []string) error {
			in, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
			if err != nil {
				return err
			}
			return set(cmd, d, realm, args[0], strings.TrimRight(string(in), "\r\n"))
		})}
}
