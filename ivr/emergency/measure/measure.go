package measure

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/hotline12345/gateway/ivr/emergency"
)

// Count is what a detector made of some cases.
type Count struct {
	Dangers, Transferred, Asked, WrongService int
	Harmless, FalseTransfers, FalseAsked      int
}

// add counts a verdict.
func (n *Count) add(c Case, v emergency.Verdict) {
	if !c.Danger() {
		n.Harmless++
		switch v.Action {
		case emergency.Transfer:
			n.FalseTransfers++
		case emergency.Confirm:
			n.FalseAsked++
		}
		return
	}
	n.Dangers++
	switch v.Action {
	case emergency.Transfer:
		n.Transferred++
	case emergency.Confirm:
		n.Asked++
	default:
		return
	}
	if c.Service != "any" && c.Service != string(v.Service) {
		n.WrongService++
	}
}

// Recall is the share of the dangers that were transferred or asked about.
func (n Count) Recall() float64 { return share(n.Transferred+n.Asked, n.Dangers) }

func share(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// Layers are the layers in the order of the table.
var Layers = []emergency.Layer{emergency.RulesAlone, emergency.ClassifierAlone, emergency.Both}

var layerNames = map[emergency.Layer]string{emergency.RulesAlone: "rules alone", emergency.ClassifierAlone: "classifier alone", emergency.Both: "both"}

// Fault is a case that a detector got wrong.
type Fault struct {
	Case
	Verdict emergency.Verdict
}

// Report is how well a detector hears the cases.
type Report struct {
	By     map[emergency.Layer]Count
	Kinds  map[string]Count // of both layers; the key begins with danger or harmless
	Faults []Fault          // of both layers
}

// Measure judges the cases.
func Measure(d *emergency.Detector, cases []Case) Report {
	r := Report{By: map[emergency.Layer]Count{}, Kinds: map[string]Count{}}
	for _, c := range cases {
		for _, layer := range Layers {
			n := r.By[layer]
			n.add(c, d.DetectBy(layer, c.Text))
			r.By[layer] = n
		}
		v := d.Detect(c.Text)
		group := "harmless " + c.Kind
		if c.Danger() {
			group = "danger " + c.Service + " " + c.Kind
		}
		n := r.Kinds[group]
		n.add(c, v)
		r.Kinds[group] = n
		if c.Danger() != (v.Action != emergency.None) || c.Danger() && c.Service != "any" && c.Service != string(v.Service) {
			r.Faults = append(r.Faults, Fault{c, v})
		}
	}
	return r
}

// Print writes the tables.
func (r Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LAYER\tDANGERS\tRECALL\tTRANSFERRED\tASKED\tWRONG SERVICE\tHARMLESS\tFALSE TRANSFERS\tPER 10,000\tFALSE CONFIRMS")
	for _, layer := range Layers {
		n := r.By[layer]
		fmt.Fprintf(t, "%s\t%s\t%d (%.2f %%)\n", layerNames[layer], n.row(), n.FalseAsked, 100*share(n.FalseAsked, n.Harmless))
	}
	fmt.Fprintln(t, "\nKIND (both)\tDANGERS\tRECALL\tTRANSFERRED\tASKED\tWRONG SERVICE\tHARMLESS\tFALSE TRANSFERS\tPER 10,000\tFALSE CONFIRMS")
	for _, kind := range slices.Sorted(maps.Keys(r.Kinds)) {
		n := r.Kinds[kind]
		fmt.Fprintf(t, "%s\t%s\t%d (%.2f %%)\n", kind, n.row(), n.FalseAsked, 100*share(n.FalseAsked, n.Harmless))
	}
	return t.Flush()
}

func (n Count) row() string {
	return fmt.Sprintf("%d\t%.1f %%\t%d\t%d\t%d (%.1f %%)\t%d\t%d (%.2f %%)\t%.0f", n.Dangers, 100*n.Recall(), n.Transferred, n.Asked,
		n.WrongService, 100*share(n.WrongService, n.Dangers), n.Harmless, n.FalseTransfers, 100*share(n.FalseTransfers, n.Harmless), 1e4*share(n.FalseTransfers, n.Harmless))
}

// PrintFaults writes what went wrong, false transfers first.
func (r Report) PrintFaults(w io.Writer) error {
	sorted := slices.SortedStableFunc(slices.Values(r.Faults), func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service)*-1, cmp.Compare(b.Verdict.Action, a.Verdict.Action), cmp.Compare(b.Verdict.Danger, a.Verdict.Danger))
	})
	for _, f := range sorted {
		_, err := fmt.Fprintf(w, "%s:%d\t%s\t%s\t%s %s %.2f\t%s\n", f.Author, f.Line, f.Service, f.Kind, f.Verdict.Action, f.Verdict.Service, f.Verdict.Danger, f.Text)
		if err != nil {
			return err
		}
	}
	return nil
}
