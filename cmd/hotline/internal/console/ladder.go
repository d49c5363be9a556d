package console

import (
	"fmt"
	"strings"

	"github.com/hotline12345/gateway/internal/journal"
)

// lanes are where an entry of each kind happens; the rest happens on the line itself.
var lanes = map[string]string{
	"digit": "caller", "danger": "caller", "message": "caller",
	"offer": "agent", "talk": "agent", "facts": "agent",
	"emergency": "service", "transfer": "service",
}

// told are the attributes that the ladder shows, in this order. Others are for programs alone, and none
// of these holds what a caller said or typed.
var told = []string{"queue", "agent", "by", "why", "reason", "service", "trunk", "form", "step", "err"}

// details is what an entry's attributes say to people.
func details(attrs map[string]string) string {
	var out []string
	for _, name := range told {
		if v := attrs[name]; v != "" {
			out = append(out, name+" "+v)
		}
	}
	return strings.Join(out, " · ")
}

// Lanes lists the lanes of the ladder from left to right.
func (callData) Lanes() []string { return []string{"caller", "line", "agent", "service"} }

// steps puts entries on the ladder. An entry may name its lane itself by the attribute "lane".
func steps(entries []journal.Entry) []step {
	out := make([]step, 0, len(entries))
	for _, e := range entries {
		lane := e.Attrs["lane"]
		if lane == "" {
			lane = lanes[e.Kind]
		}
		if lane == "" {
			lane = "line"
		}
		after := e.At.Sub(entries[0].At).Seconds()
		out = append(out, step{Entry: e, Lane: lane, After: fmt.Sprintf("%.3f", after), Details: details(e.Attrs)})
	}
	return out
}
