package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

// order is a flow that only the keys 1 2 3 4, in this order, walk round: each is the key of one menu,
// and any other leads to a person.
func orderFlow() string {
	flow := "start: odd1\nperson: person\nnodes:\n  person: {type: queue, queue: default}\n"
	nodes := []string{"odd1", "odd2", "odd3", "odd4", "even1", "even2", "even3", "even4"}
	for i, name := range nodes {
		flow += fmt.Sprintf("  %s: {type: menu, say: [beep], keys: {%d: %s}, timeout: 60s, retries: 0, on_fail: person}\n",
			name, i%4+1, nodes[(i+1)%len(nodes)])
	}
	return flow
}

// TestInfoDigits sends the keys 1 2 3 4 by INFO back to back, two hundred times with the race detector: each run is four
// requests on the wire before the first is answered, and a flow through the whole gateway that only
// this order walks. HOTLINE_SOAK=1 does it a thousand times.
func TestInfoDigits(t *testing.T) {
	t.Parallel()
	callers, runs := 20, soak(50, 40)
	flows := t.TempDir()
	if err := os.WriteFile(filepath.Join(flows, "order.yaml"), []byte(orderFlow()), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, "ivr.flows="+flows, "ivr.default=order")
	var lines []*line
	for n := range callers {
		l := newPhone(t, fmt.Sprintf("138%08d", n), g.carriers).dial("12345")
		l.connected()
		lines = append(lines, l)
	}
	arrived := func(node string) (done, lost int) {
		for _, v := range g.calls() {
			switch {
			case v.Stage != session.StageFlow:
				lost++
			case v.Node == node:
				done++
			}
		}
		return done, lost
	}
	until(t, 10*time.Second, "every caller is in the flow", func() bool { n, _ := arrived("odd1"); return n == callers })
	right := 0
	for run := range runs {
		for _, l := range lines {
			l.info("1234")
		}
		node := []string{"even1", "odd1"}[run%2]
		until(t, 10*time.Second, fmt.Sprintf("run %d brings every caller to %s", run, node), func() bool {
			done, lost := arrived(node)
			if lost > 0 {
				t.Fatalf("run %d: the keys of %d callers came in another order", run, lost)
			}
			return done == callers
		})
		right += callers
	}
	t.Logf("the keys came in order in %d of %d runs", right, callers*runs)
	g.stop()
}
