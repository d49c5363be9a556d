package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/hotline12345/gateway/abuse"
)

// errCases ends a run over cases that are not all well formed; each was told of on standard error.
var errCases = errors.New("not every case could be read")

// simulateCmd answers worked cases with the engine that the live line uses. It asks no gateway.
func simulateCmd() *cobra.Command {
	var cases, policy string
	cmd := &cobra.Command{
		Use:   "simulate --cases FILE",
		Short: "Decide worked cases, and print id and decision a line",
		Long: "Simulate decides each case of a file by the rules of Article 29, and prints its id and the decision, set\n" +
			"apart by a tab. It talks to no gateway and changes nothing. The file is UTF-8 text with a case a line, its\n" +
			"columns set apart by tabs and named in the first line: id, given_events_json, query_json; others are\n" +
			"passed over, and so are lines that begin with #. A case that cannot be read is told of on standard\n" +
			"error with its line and what to write, the others are decided, and the program ends with 1.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := abuse.Config{PolicyFile: policy}.Policy()
			if err != nil {
				return err
			}
			f, err := os.Open(cases)
			if err != nil {
				return fmt.Errorf("%w; write the path of a file of cases", err)
			}
			defer func() { _ = f.Close() }()
			out, wrong := bufio.NewWriter(cmd.OutOrStdout()), error(nil)
			for s, err := range abuse.ReadScenarios(f, cases) {
				if err != nil {
					wrong = errCases
					_, _ = fmt.Fprintln(cmd.ErrOrStderr(), err)
					continue
				}
				_, _ = fmt.Fprintf(out, "%s\t%s\n", s.ID, abuse.Simulate(p, s.Events, s.Query)) // Flush tells of an error
			}
			return errors.Join(out.Flush(), wrong)
		},
	}
	cmd.Flags().StringVar(&cases, "cases", "", "file of worked cases (required)")
	cmd.Flags().StringVar(&policy, "policy", "", "policy file to decide by; without one, the embedded P0")
	_ = cmd.MarkFlagRequired("cases") // the flag exists
	return cmd
}
