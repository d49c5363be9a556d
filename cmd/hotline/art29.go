package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/hotline12345/gateway/abuse"
	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
)

func mattersCmd(o *options) *cobra.Command {
	return verb(o, "matters [ID]", "List the matters under Article 29, or show one with all that was noted of it", cobra.MaximumNArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		if len(args) == 1 {
			return showMatter(cmd, c, args[0])
		}
		var matters []abuse.Matter
		if err := c.get(cmd.Context(), "/matters", &matters); err != nil {
			return err
		}
		var rows [][]string
		for _, m := range matters {
			rows = append(rows, []string{m.ID, m.Caller, string(m.Stage), m.Clause, fmt.Sprint(m.Level), string(m.Lacks), fmt.Sprint(m.Confirmed)})
		}
		return table(cmd.OutOrStdout(), "MATTER\tCALLER\tSTAGE\tCLAUSE\tLEVEL\tLACKS\tDECISIONS", rows)
	})
}

// showMatter prints what happened in a matter, an event a line.
func showMatter(cmd *cobra.Command, c *client, id string) error {
	var m abuse.Matter
	if err := c.get(cmd.Context(), "/matters/"+url.PathEscape(id), &m); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "caller %s, stage %s, lacks %q\n", m.Caller, m.Stage, m.Lacks); err != nil {
		return err
	}
	var rows [][]string
	for _, e := range m.Events {
		by, what := e.Staff+e.By+e.Agent, e.What+e.Clause+e.Result+e.Outcome
		rows = append(rows, []string{e.At.Local().Format(time.DateTime), string(e.Kind), what, by, e.ID + e.Decision, e.Script, e.Offset.String()})
	}
	return table(cmd.OutOrStdout(), "TIME\tEVENT\tWHAT\tBY\tOF\tPLAYED\tAT", rows)
}

// acting adds the flag that says who acts: a person, since two have to.
func acting(cmd *cobra.Command, by *string) *cobra.Command {
	cmd.Flags().StringVar(by, "by", "", "the person of the staff who acts (required)")
	_ = cmd.MarkFlagRequired("by") // the flag exists
	return cmd
}

// because adds the flag that says why, which the record needs.
func because(cmd *cobra.Command, reason *string) *cobra.Command {
	cmd.Flags().StringVar(reason, "reason", "", "why, without personal data (required)")
	_ = cmd.MarkFlagRequired("reason") // the flag exists
	return cmd
}

func proposeCmd(o *options) *cobra.Command {
	var p app.Proposal
	cmd := verb(o, "propose MATTER", "Propose a measure; another person approves it", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		return c.post(cmd.Context(), "/matters/"+url.PathEscape(args[0])+"/propose", p, nil)
	})
	cmd.Flags().StringVar(&p.Clause, "clause", "", "29-1 or 29-2; by default that of the reminder that stands")
	return acting(cmd, &p.By)
}

func approveCmd(o *options) *cobra.Command {
	var act app.Act
	return because(acting(verb(o, "approve MATTER", "Approve the proposal that waits, as another person of the right role", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		return postCase(cmd.Context(), cmd, c, "/matters/"+url.PathEscape(args[0])+"/approve", act)
	}), &act.By), &act.Reason)
}

func appealCmd(o *options) *cobra.Command {
	return verb(o, "appeal DECISION", "Enter an appeal that the caller made in writing or on the web", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		return c.post(cmd.Context(), "/measures/"+url.PathEscape(args[0])+"/appeal", app.Act{By: me()}, nil)
	})
}

func decideCmd(o *options) *cobra.Command {
	var r app.Ruling
	cmd := verb(o, "decide DECISION", "Decide on the appeal against a decision, as a manager who had no part in it", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		return postCase(cmd.Context(), cmd, c, "/measures/"+url.PathEscape(args[0])+"/decide", r)
	})
	cmd.Flags().BoolVar(&r.Overturn, "overturn", false, "restore the caller at once; without it the measure is upheld")
	return because(acting(cmd, &r.By), &r.Reason)
}

// referralCmd refers a matter to the police, by two persons (29(3)).
func referralCmd(o *options) *cobra.Command {
	var r app.Referring
	propose := verb(o, "propose MATTER", "Propose to refer a matter to the police; another person approves it", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		return c.post(cmd.Context(), "/matters/"+url.PathEscape(args[0])+"/referral/propose", r, nil)
	})
	propose.Flags().StringVar(&r.To, "to", "", "the recipient's age key, age1… (required)")
	_ = propose.MarkFlagRequired("to") // the flag exists
	var act app.Act
	var path string
	approve := verb(o, "approve MATTER", "Refer it, as a manager who did not propose it, and write the encrypted file", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // first: a file that cannot be written refers nothing
		if err != nil {
			return err
		}
		var sealed []byte
		if err := c.post(cmd.Context(), "/matters/"+url.PathEscape(args[0])+"/referral/approve", act, &sealed); err != nil {
			return errors.Join(err, out.Close(), os.Remove(path))
		}
		_, err = out.Write(sealed)
		return errors.Join(err, out.Close())
	})
	approve.Flags().StringVar(&path, "out", "", "the file to write, which does not exist yet (required)")
	_ = approve.MarkFlagRequired("out") // the flag exists
	return group("referral", "The file of a matter for the police, by two persons", because(acting(propose, &r.By), &r.Reason), because(acting(approve, &act.By), &act.Reason))
}

// listsCmd is the lists of protected people, access needs, shared numbers and payphones.
func listsCmd(o *options) *cobra.Command {
	export := verb(o, "export", "Print the lists in force as CSV", cobra.NoArgs, func(cmd *cobra.Command, c *client, _ []string) error {
		var l app.Listing
		if err := c.get(cmd.Context(), "/lists", &l); err != nil {
			return err
		}
		_, err := io.WriteString(cmd.OutOrStdout(), l.CSV)
		return err
	})
	load := verb(o, "import FILE", "Put the lists of a CSV file in the place of those in force; - reads standard input", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		read := func() ([]byte, error) { return os.ReadFile(args[0]) }
		if args[0] == "-" {
			read = func() ([]byte, error) { return io.ReadAll(cmd.InOrStdin()) }
		}
		text, err := read()
		if err != nil {
			return err
		}
		var lengths map[abuse.List]int
		if err := c.post(cmd.Context(), "/lists", app.Listing{By: me(), CSV: string(text)}, &lengths); err != nil {
			return err
		}
		var rows [][]string
		for _, name := range abuse.Listings() {
			rows = append(rows, []string{string(name), fmt.Sprint(lengths[name])})
		}
		return table(cmd.OutOrStdout(), "LIST\tLINES", rows)
	})
	return group("lists", "Protected people, access needs, shared numbers and payphones", export, load)
}

// postCase does an act and prints the measure that it is about.
func postCase(ctx context.Context, cmd *cobra.Command, c *client, path string, in any) error {
	var m abuse.Case
	if err := c.post(ctx, path, in, &m); err != nil {
		return err
	}
	return table(cmd.OutOrStdout(), caseHeading, [][]string{caseRow(m)})
}
