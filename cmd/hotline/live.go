package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

// group is a verb that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(subs...)
	return cmd
}

// verb is a command that asks the running gateway. Gateways whose rows are missing are named on stderr.
func verb(o *options, use, short string, args cobra.PositionalArgs, run func(cmd *cobra.Command, c *client, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		c, err := dial(o)
		if err != nil {
			return err
		}
		err = run(cmd, c, args)
		for _, m := range c.missing {
			fmt.Fprintln(cmd.ErrOrStderr(), "missing: "+m)
		}
		return err
	}}
}

// table prints rows under a heading.
func table(out io.Writer, heading string, rows [][]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, heading)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

func since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return time.Since(t).Round(time.Second).String()
}

func callCmd(o *options) *cobra.Command {
	list := verb(o, "list", "List live calls, then the latest that ended", cobra.NoArgs, func(cmd *cobra.Command, c *client, _ []string) error {
		var live []session.View
		var ended []journal.Row
		if err := c.get(cmd.Context(), "/calls", &live); err != nil {
			return err
		}
		if err := c.get(cmd.Context(), "/cdrs", &ended); err != nil {
			return err
		}
		var rows [][]string
		for _, v := range live {
			rows = append(rows, []string{v.CallID, string(v.Stage), since(v.Since), v.Trunk, v.Caller, v.Called, v.Queue, v.Agent, "-", v.Gateway})
		}
		for _, r := range ended {
			rows = append(rows, []string{r.CallID, "ended", since(r.Ended), r.Trunk, r.Masked, r.Called, r.Queue, r.Agent, r.Outcome + "/" + r.EndReason, r.Node})
		}
		return table(cmd.OutOrStdout(), "CALL\tSTAGE\tFOR\tTRUNK\tCALLER\tCALLED\tQUEUE\tAGENT\tOUTCOME\tNODE", rows)
	})
	show := verb(o, "show ID", "Show a call's SIP ladder and timeline", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		var rec app.CallRecord
		if err := c.get(cmd.Context(), "/calls/"+url.PathEscape(args[0]), &rec); err != nil {
			return err
		}
		return showCall(cmd.OutOrStdout(), rec)
	})
	return group("call", "Look at calls", list, show)
}

// showCall prints a call's record and its timeline, SIP messages as a ladder in between.
func showCall(out io.Writer, rec app.CallRecord) error {
	if r := rec.CDR; r != nil {
		fmt.Fprintf(out, "call %s  %s → %s  trunk %s  %s/%s  queue %s  agent %s  evidence %s  node %s\n", r.CallID, r.Masked, r.Called,
			r.Trunk, r.Outcome, r.EndReason, r.Queue, r.Agent, r.Evidence, r.Node)
	}
	var start time.Time
	for _, e := range rec.Timeline {
		if start.IsZero() {
			start = e.At
		}
		at := e.At.Sub(start).Seconds()
		if e.Kind != "sip" {
			fmt.Fprintf(out, "%9.3f  %-10s %s%s\n", at, e.Kind, e.Text, attrs(e.Attrs))
			continue
		}
		first, _, _ := strings.Cut(e.Text, "\r\n")
		arrow := "<──"
		if e.Attrs["way"] == "sent" {
			arrow = "──>"
		}
		fmt.Fprintf(out, "%9.3f  %s %-21s  %s\n", at, arrow, e.Attrs["peer"], first)
	}
	return nil
}

func attrs(m map[string]string) string {
	var b strings.Builder
	for _, k := range sortedKeys(m) {
		fmt.Fprintf(&b, "  %s=%s", k, m[k])
	}
	return b.String()
}

func queueCmd(o *options) *cobra.Command {
	queues := func(cmd *cobra.Command, c *client) ([]queue.QueueView, error) {
		var out []queue.QueueView
		return out, c.get(cmd.Context(), "/queues", &out)
	}
	list := verb(o, "list", "List the queues", cobra.NoArgs, func(cmd *cobra.Command, c *client, _ []string) error {
		all, err := queues(cmd, c)
		if err != nil {
			return err
		}
		var rows [][]string
		for _, q := range all {
			rows = append(rows, []string{q.Name, q.Display.ZH, fmt.Sprint(q.Waiting), q.Oldest.Round(time.Second).String(), q.Estimate.Round(time.Second).String()})
		}
		return table(cmd.OutOrStdout(), "QUEUE\tNAME\tWAITING\tOLDEST\tESTIMATE", rows)
	})
	show := verb(o, "show NAME", "List a queue's waiting callers", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		all, err := queues(cmd, c)
		if err != nil {
			return err
		}
		for _, q := range all {
			if q.Name != args[0] {
				continue
			}
			var rows [][]string
			for _, e := range q.Entries {
				rows = append(rows, []string{fmt.Sprint(e.Position), e.CallID, e.Caller, since(e.Since), e.Language, e.Reason, e.Node})
			}
			return table(cmd.OutOrStdout(), "PLACE\tCALL\tCALLER\tWAITED\tLANGUAGE\tREASON\tNODE", rows)
		}
		return fmt.Errorf("there is no queue %q; `hotline queue list` shows them", args[0])
	})
	return group("queue", "Look at the queues", list, show)
}

func agentCmd(o *options) *cobra.Command {
	list := verb(o, "list", "List the agents who are logged in", cobra.NoArgs, func(cmd *cobra.Command, c *client, _ []string) error {
		var agents []queue.AgentView
		if err := c.get(cmd.Context(), "/agents", &agents); err != nil {
			return err
		}
		var rows [][]string
		for _, a := range agents {
			rows = append(rows, []string{a.ID, a.Extension, string(a.State), since(a.Since), a.Reason, a.CallID, a.Node})
		}
		return table(cmd.OutOrStdout(), "AGENT\tEXTENSION\tSTATE\tFOR\tREASON\tCALL\tNODE", rows)
	})
	var extension, reason string
	login := verb(o, "login ID", "Log a person in at an extension, by default the one of their desk", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		return c.post(cmd.Context(), "/agents/"+url.PathEscape(args[0])+"/login", map[string]string{"Extension": extension}, nil)
	})
	login.Flags().StringVar(&extension, "extension", "", "the extension")
	act := func(use, short, what string) *cobra.Command {
		return verb(o, use+" ID", short, cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
			return c.post(cmd.Context(), "/agents/"+url.PathEscape(args[0])+"/"+what, app.Act{By: me(), Reason: reason}, nil)
		})
	}
	pause := act("pause", "Keep calls from an agent", "pause")
	pause.Flags().StringVar(&reason, "reason", "supervisor", "why, as the console shows it")
	return group("agent", "Look at agents, and act for them", list, login, pause,
		act("ready", "Let an agent take calls again", "ready"), act("logout", "End an agent's shift", "logout"))
}

func intakeCmd(o *options) *cobra.Command {
	items := func(what string) func(cmd *cobra.Command, c *client, _ []string) error {
		return func(cmd *cobra.Command, c *client, _ []string) error {
			var items []app.NodeItem
			if err := c.get(cmd.Context(), "/intake/"+what, &items); err != nil {
				return err
			}
			var rows [][]string
			for _, i := range items {
				rows = append(rows, []string{i.ID, i.Target, i.Type, i.CallID, since(i.Since), fmt.Sprint(i.Attempts), i.Node, i.Error})
			}
			return table(cmd.OutOrStdout(), "EVENT\tTARGET\tTYPE\tCALL\tFOR\tTRIES\tNODE\tERROR", rows)
		}
	}
	return group("intake", "Look at the hand-over to case intake",
		verb(o, "list", "List what waits to be delivered", cobra.NoArgs, items("waiting")),
		verb(o, "dead", "List what was given up", cobra.NoArgs, items("dead")),
		verb(o, "retry EVENT", "Take up again what was given up", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
			return c.post(cmd.Context(), "/intake/"+url.PathEscape(args[0])+"/retry", app.Act{By: me()}, nil)
		}))
}
