package calltest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// Backends are the backends in the order of the table that compares them.
var Backends = []string{"sip", "asterisk"}

// Column holds a backend's column of a table in Markdown to what its run of the suite showed, at the end of the
// test; with update it writes the column anew. A run of a part of the suite says nothing.
func Column(t *testing.T, path, backend string, shown *Shown, update bool) {
	t.Helper()
	t.Cleanup(func() {
		if len(shown.by) < len(cases) {
			return
		}
		src, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			return
		}
		switch now := shown.column(string(src), backend); {
		case now == string(src):
		case update:
			if err := os.WriteFile(path, []byte(now), 0o600); err != nil {
				t.Error(err)
			}
		default:
			t.Errorf("%s does not say what the suite showed of %s; run this test with -update", path, backend)
		}
	})
}

// column is the text with the backend's column as it was shown.
func (s *Shown) column(src, backend string) string {
	head, table, _ := strings.Cut(src, "\n| ")
	known := rows("| " + table)
	at := slices.Index(Backends, backend) + 1
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n| | %s |\n|---%s|\n", head, strings.Join(Backends, " | "), strings.Repeat("|---", len(Backends)))
	for _, c := range cases {
		row := known[c.name]
		for len(row) <= len(Backends) {
			row = append(row, "not shown")
		}
		row[at] = map[bool]string{true: "yes", false: "no"}[s.by[c.name]]
		fmt.Fprintf(&b, "| %s | %s |\n", c.name, strings.Join(row[1:], " | "))
	}
	return b.String()
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
