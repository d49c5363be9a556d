package prompt

import (
	"fmt"
	"regexp"
	"strings"
)

// Prompt is a row of the table: one thing that the line can say.
type Prompt struct {
	ID      string
	Chinese string // "" when the prompt is no part of Mandarin, such as "twelve"
	Say     string // what the synthetic voice is given in place of Chinese; "" is the same
	English string // "" when the prompt is no part of English, such as "两"
	Barge   bool   // a key may end it early; a legal notice is heard out
}

// maxTable bounds the table that ParseTable takes.
const maxTable = 1 << 20

var identity = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

// ParseTable reads prompts.tsv: lines of id, zh, say, en and barge (y or n), parted by tabs, under a
// heading; '#' begins a comment line.
func ParseTable(src []byte) ([]Prompt, error) {
	if len(src) > maxTable {
		return nil, fmt.Errorf("the prompt table has %d bytes; at most %d", len(src), maxTable)
	}
	var list []Prompt
	seen := map[string]int{}
	line := 0
	for row := range strings.Lines(string(src)) {
		line++
		row = strings.TrimRight(row, "\r\n")
		if row == "" || row[0] == '#' || strings.HasPrefix(row, "id\t") {
			continue
		}
		p, err := parseRow(row)
		if err != nil {
			return nil, fmt.Errorf("prompts.tsv:%d: %w", line, err)
		}
		if first, twice := seen[p.ID]; twice {
			return nil, fmt.Errorf("prompts.tsv:%d: %q is on line %d already", line, p.ID, first)
		}
		seen[p.ID] = line
		list = append(list, p)
	}
	return list, nil
}

func parseRow(row string) (Prompt, error) {
	f := strings.Split(row, "\t")
	if len(f) != 5 {
		return Prompt{}, fmt.Errorf("%d fields; write id, zh, say, en and barge, parted by tabs", len(f))
	}
	p := Prompt{ID: f[0], Chinese: f[1], Say: f[2], English: f[3], Barge: f[4] == "y"}
	switch {
	case !identity.MatchString(p.ID):
		return p, fmt.Errorf("%q is no identity; write small letters, digits and _, 40 at most", p.ID)
	case p.Chinese == "" && p.English == "":
		return p, fmt.Errorf("%s: no text in any language", p.ID)
	case f[4] != "y" && f[4] != "n":
		return p, fmt.Errorf("%s: barge is %q; write y or n", p.ID, f[4])
	}
	return p, nil
}
