package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a run that judges has to say.
type Report struct {
	Calls   []*Result `json:"calls"`
	LeftOut []string  `json:"left_out"` // scenarios that a target's gateway cannot be asked for
	Summary Summary   `json:"summary"`
}

// Summary is the report in numbers.
type Summary struct {
	Calls   int     `json:"calls"`
	OK      int     `json:"ok"`
	Broken  int     `json:"broken"`
	Seconds float64 `json:"seconds"`
}

// report prints what was seen; the error says that an expectation was not met.
func (d *demo) report(results []*Result, took time.Duration) error {
	_, left := d.fit()
	rep := Report{Calls: results, LeftOut: append([]string{}, left...), Summary: Summary{Calls: len(results), Seconds: took.Seconds()}}
	for _, r := range results {
		if r.OK {
			rep.Summary.OK++
		}
	}
	rep.Summary.Broken = rep.Summary.Calls - rep.Summary.OK
	write := writeTable
	if d.opts.JSON {
		write = writeJSON
	}
	if err := write(d.opts.Out, rep); err != nil {
		return err
	}
	if rep.Summary.Broken > 0 {
		return fmt.Errorf("%w: %d of %d", ErrBroken, rep.Summary.Broken, rep.Summary.Calls)
	}
	return nil
}

func writeJSON(out io.Writer, rep Report) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(rep)
}

func writeTable(out io.Writer, rep Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "#\tCALL\tSCENARIO\tOK\tOUTCOME\tSEEN\tEXPECTATION")
	for _, r := range rep.Calls {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Number, dash(r.Call), r.Scenario, mark(r.OK), dash(r.Outcome), r.seen(), r.Expectation)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range rep.Calls {
		if r.Fault != "" {
			fmt.Fprintf(out, "\n#%d %s: %s", r.Number, r.Scenario, r.Fault)
		}
	}
	if len(rep.LeftOut) > 0 {
		fmt.Fprintf(out, "\nleft out, since the gateway is somebody else's: %s", strings.Join(rep.LeftOut, ", "))
	}
	s := rep.Summary
	_, err := fmt.Fprintf(out, "\n%d calls, %d as expected, %d not, in %.0f s\n", s.Calls, s.OK, s.Broken, s.Seconds)
	return err
}

func mark(ok bool) string {
	if ok {
		return "ok"
	}
	return "BROKEN"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// seen are the notes of a call on one line.
func (r *Result) seen() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(r.Seen)) {
		parts = append(parts, k+"="+r.Seen[k])
	}
	return dash(strings.Join(parts, " "))
}

// tell prints one call of a demo that goes on.
func (d *demo) tell(r *Result) {
	line := fmt.Sprintf("%s  #%d  %-20s %-6s %s  %s", time.Now().Format(time.TimeOnly), r.Number, r.Scenario, mark(r.OK), dash(r.Outcome), r.seen())
	if r.Fault != "" {
		line += "  " + r.Fault
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintln(d.opts.Out, line)
}
