package calltest

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// Backends are the backends in the order of the table that compares them.
var Backends = []string{"sip", "asterisk"}

// Column holds a backend's column of a table in Markdown to what its run of the suite showed; with update it
// writes the column anew.
func Column(t *testing.T, path, backend string, shown Shown, update bool) {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, table, _ := bytes.Cut(src, []byte("\n| "))
	known := rows("| " + string(table))
	at := slices.Index(Backends, backend) + 1
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n| | %s |\n|---%s|\n", head, strings.Join(Backends, " | "), strings.Repeat("|---", len(Backends)))
	for _, c := range cases {
		row := known[c.name]
		for len(row) <= len(Backends) {
			row = append(row, "not shown")
		}
		row[at] = map[bool]string{true: "yes", false: "no"}[shown[c.name]]
		fmt.Fprintf(&b, "| %s | %s |\n", c.name, strings.Join(row[1:], " | "))
	}
	switch {
	case b.String() == string(src):
	case update:
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s does not say what the suite showed of %s; run this test with -update", path, backend)
	}
}

// rows are a table's rows by their first cell.
func rows(table string) map[string][]string {
	out := map[string][]string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		out[cells[0]] = cells
	}
	return out
}
