// Command hotline is the telephony and IVR gateway of a 12345 line.
//
// It has the program's verbs and signals, and nothing else: internal/app wires the parts.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
)

func main() {
	if err := root().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "hotline: "+err.Error())
		os.Exit(1)
	}
}

// options are the flags of every verb.
type options struct {
	config string
	sets   []string
}

func root() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:           "hotline",
		Short:         "The telephony and IVR gateway of a 12345 line",
		Version:       ops.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.PersistentFlags().StringVar(&o.config, "config", "", "configuration file; without one, the embedded default")
	cmd.PersistentFlags().StringArrayVar(&o.sets, "set", nil, "override a setting: path=value (repeatable)")
	cmd.AddCommand(serveCmd(o), demoCmd(o), configCmd(o), flowCmd(o), doctorCmd(o), callCmd(o), queueCmd(o), agentCmd(o),
		callBackCmd(o), nodeCmd(o), abuseCmd(o), recordingCmd(o), auditCmd(o), intakeCmd(o), staffCmd(o), emergencyCmd())
	return cmd
}

// signals makes a context that the first SIGTERM or SIGINT ends, and calls again at the second.
func signals(ctx context.Context, again func()) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	got := make(chan os.Signal, 2)
	signal.Notify(got, syscall.SIGTERM, syscall.SIGINT)
	done := make(chan struct{})
	go func() {
		select {
		case <-got:
			cancel()
		case <-done:
			return
		}
		select {
		case <-got:
			again()
		case <-done:
		}
	}()
	return ctx, func() { // signals stay caught: one that comes while the program leaves must not kill it
		close(done)
		cancel()
	}
}

// onHangup runs reload at each SIGHUP, one after the other, until the returned func is called.
func onHangup(reload func()) (stop func()) {
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGHUP)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-got:
				reload()
			case <-quit:
				return
			}
		}
	}()
	return func() {
		signal.Stop(got)
		close(quit)
		<-done
	}
}
