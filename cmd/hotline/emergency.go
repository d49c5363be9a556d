package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hotline12345/gateway/ivr/emergency"
	"github.com/hotline12345/gateway/ivr/emergency/measure"
)

func emergencyCmd() *cobra.Command {
	var own string
	var faults bool
	match := &cobra.Command{Use: "match [FILE...]", Short: "Judge utterances from standard input, or measure the detector on files of them",
		Long: "Without files, an utterance a line is read from standard input, and printed with its service and action (transfer, confirm or none).\n" +
			"With files of utterances whose meaning is known (service, kind and text with tabs between), the detector is measured on them.",
		RunE: func(cmd *cobra.Command, files []string) error {
			d, err := detector(own)
			if err != nil {
				return err
			}
			if len(files) == 0 {
				return judgeLines(d, cmd.InOrStdin(), cmd.OutOrStdout())
			}
			return measureFiles(d, files, faults, cmd.OutOrStdout())
		}}
	match.Flags().StringVar(&own, "rules", "", "file of the operator's own words")
	match.Flags().BoolVar(&faults, "errors", false, "print what the detector got wrong")
	explain := &cobra.Command{Use: "explain TEXT", Short: "Judge an utterance and say why", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			d, err := detector(own)
			if err != nil {
				return err
			}
			return explain(d.Explain(strings.Join(words, " ")), cmd.OutOrStdout())
		}}
	explain.Flags().StringVar(&own, "rules", "", "file of the operator's own words")
	return group("emergency", "Hear danger in words (Article 9(1))", match, explain)
}

// detector has the words of a file too, if one is named.
func detector(own string) (*emergency.Detector, error) {
	if own == "" {
		return emergency.New()
	}
	f, err := os.Open(own)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	words, err := emergency.ReadWords(f, own)
	if err != nil {
		return nil, err
	}
	return emergency.New(words...)
}

func judgeLines(d *emergency.Detector, in io.Reader, out io.Writer) error {
	w := bufio.NewWriter(out)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		v := d.Detect(lines.Text())
		service := string(v.Service)
		if v.Action == emergency.None {
			service = "none"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", lines.Text(), service, v.Action) // the writer keeps its error for Flush
	}
	return errors.Join(lines.Err(), w.Flush())
}

func measureFiles(d *emergency.Detector, files []string, faults bool, out io.Writer) error {
	var cases []measure.Case
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		read, err := measure.Read(f, name)
		f.Close() // it was only read
		if err != nil {
			return err
		}
		cases = append(cases, read...)
	}
	r := measure.Measure(d, cases)
	if err := r.Print(out); err != nil || !faults {
		return err
	}
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	return r.PrintFaults(out)
}

func explain(e emergency.Explanation, out io.Writer) error {
	service := string(e.Service)
	if e.Action == emergency.None {
		service = "none"
	}
	rows := [][]string{{"verdict", fmt.Sprintf("%s %s, danger %.3f", e.Action, service, e.Danger), ""},
		{"compared as", e.Text, ""}, {"rules alone", e.Floor, ""}}
	for _, class := range slices.Sorted(maps.Keys(e.Classes)) {
		rows = append(rows, []string{"class " + class, fmt.Sprintf("%.3f", e.Classes[class]), ""})
	}
	for _, r := range e.Rules {
		rows = append(rows, []string{r.What, r.Detail, ""})
	}
	for _, f := range e.Features {
		rows = append(rows, []string{f.What, f.Detail, fmt.Sprintf("%+.2f", f.Weight)})
	}
	return table(out, "EVIDENCE\tDETAIL\tWEIGHT", rows)
}
