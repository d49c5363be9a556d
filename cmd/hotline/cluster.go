package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
	"github.com/hotline12345/gateway/cmd/hotline/internal/console"
	"github.com/hotline12345/gateway/queue"
)

func nodeCmd(o *options) *cobra.Command {
	list := verb(o, "list", "List the gateways of the cluster", cobra.NoArgs, func(cmd *cobra.Command, c *client, _ []string) error {
		var nodes []console.Node
		if err := c.get(cmd.Context(), "/nodes", &nodes); err != nil {
			return err
		}
		var rows [][]string
		for _, n := range nodes {
			rows = append(rows, []string{n.Name, stateOf(n), fmt.Sprint(n.Calls), n.Version, short(n.ConfigHash), short(n.PolicyHash), since(n.Started), since(n.Seen), n.API, n.SIP})
		}
		return table(cmd.OutOrStdout(), "NODE\tSTATE\tCALLS\tVERSION\tCONFIG\tPOLICY\tUP\tSEEN\tAPI\tSIP", rows)
	})
	act := func(what, short string) *cobra.Command {
		return verb(o, what+" NAME", short, cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
			return c.post(cmd.Context(), "/nodes/"+url.PathEscape(args[0])+"/"+what, app.Act{By: me()}, nil)
		})
	}
	return group("node", "Look at the gateways of the cluster, and act on them", list,
		act("drain", "Let a gateway take no new calls; those it has and its phones go on"),
		act("resume", "Let a drained gateway take calls again"),
		act("forget", "Take an absent gateway off the list"))
}

func stateOf(n console.Node) string {
	switch {
	case !n.Alive:
		return "absent"
	case n.Draining:
		return "draining"
	}
	return "alive"
}

// short is as much of a hash as tells two apart at a glance.
func short(hash string) string { return hash[:min(len(hash), 8)] }

func callBackCmd(o *options) *cobra.Command {
	var closed bool
	list := verb(o, "list", "List the callers who are owed a call back, the oldest place first", cobra.NoArgs, func(cmd *cobra.Command, c *client, _ []string) error {
		var tasks []queue.CallBack
		if err := c.get(cmd.Context(), fmt.Sprintf("/callbacks?closed=%t", closed), &tasks); err != nil {
			return err
		}
		var rows [][]string
		for _, t := range tasks {
			rows = append(rows, []string{t.ID, t.State, t.Queue, t.Caller, since(t.Since), fmt.Sprint(t.Missed), t.Why, fmt.Sprint(t.Attempts), t.LastResult, t.By, t.CallID})
		}
		return table(cmd.OutOrStdout(), "TASK\tSTATE\tQUEUE\tCALLER\tFOR\tMISSED\tWHY\tTRIES\tLAST\tAGENT\tCALL", rows)
	})
	list.Flags().BoolVar(&closed, "closed", false, "list those that were closed in the last days")
	var agent, reason string
	call := verb(o, "call TASK --agent PERSON", "Call a caller back: the agent's phone rings first", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		var callID string
		body := map[string]string{"By": me(), "Agent": agent}
		if err := c.post(cmd.Context(), "/callbacks/"+url.PathEscape(args[0])+"/call", body, &callID); err != nil {
			return err
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), callID)
		return err
	})
	call.Flags().StringVar(&agent, "agent", "", "the person who calls (required)")
	_ = call.MarkFlagRequired("agent") // the flag exists
	dismiss := verb(o, "close TASK --reason WHY", "Close a call back without a call", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client, args []string) error {
		return c.post(cmd.Context(), "/callbacks/"+url.PathEscape(args[0])+"/close", app.Act{By: me(), Reason: reason}, nil)
	})
	dismiss.Flags().StringVar(&reason, "reason", "", "why nobody needs to call back (required)")
	_ = dismiss.MarkFlagRequired("reason") // the flag exists
	return group("callback", "Look at the callers who are owed a call back, and act for them", list, call, dismiss)
}
