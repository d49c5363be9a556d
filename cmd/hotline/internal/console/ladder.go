package console

import (
	"fmt"

	"github.com/hotline12345/gateway/internal/journal"
)

// lanes are where an entry of each kind happens; the rest happens on the line itself.
var lanes = map[string]string{
	"digit": "caller", "caller": "caller", "media": "caller",
	"offer": "agent", "agent": "agent", "facts": "agent",
	"emergency": "service", "service": "service",
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
		out = append(out, step{Entry: e, Lane: lane, After: fmt.Sprintf("%.3f", after)})
	}
	return out
}
