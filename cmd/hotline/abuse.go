package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/hotline12345/gateway/abuse"
	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
)

func abuseCmd(o *options) *cobra.Command {
	list := verb(o, "list", "List the measures under Article 29", cobra.NoArgs, func(cmd *cobra.Command, c *client, _ []string) error {
		var cases []abuse.Case
		if err := c.get(cmd.Context(), "/measures", &cases); err != nil {
			return err
		}
		var rows [][]string
		for _, m := range cases {
			rows = append(rows, caseRow(m))
		}
		return table(cmd.OutOrStdout(), caseHeading, rows)
	})
	show := verb(o, "show DECISION", "Show a measure", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		var m abuse.Case
		if err := c.get(cmd.Context(), "/measures/"+url.PathEscape(args[0]), &m); err != nil {
			return err
		}
		if err := table(cmd.OutOrStdout(), caseHeading, [][]string{caseRow(m)}); err != nil {
			return err
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "facts:", m.Reason)
		return err
	})
	rebuild := verb(o, "rebuild", "Impose the measures that wait on an emptied Redis without the gateways that are missing", cobra.NoArgs, func(cmd *cobra.Command, c *client, _ []string) error {
		return c.post(cmd.Context(), "/measures/rebuild", app.Act{By: me()}, nil)
	})
	return group("abuse", "Measures under Article 29", list, show, rebuild,
		mattersCmd(o), proposeCmd(o), approveCmd(o), appealCmd(o), decideCmd(o), referralCmd(o), listsCmd(o), simulateCmd())
}

const caseHeading = "DECISION\tCLAUSE\tLEVEL\tSTATE\tFROM\tUNTIL\tBY"

func caseRow(m abuse.Case) []string {
	return []string{m.Decision, m.Clause, fmt.Sprint(m.Level), string(m.State), m.From.Format(time.RFC3339), m.Until.Format(time.RFC3339), m.Actor}
}
