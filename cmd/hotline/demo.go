package main

import "github.com/spf13/cobra"

func demoCmd(o *options) *cobra.Command {
	return &cobra.Command{Use: "demo", Short: "Play carrier, callers, agents and case intake"}
}
