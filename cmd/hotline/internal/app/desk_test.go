package app

import (
	"testing"

	"github.com/hotline12345/gateway/queue"
)

func TestPhoneThatComesAndGoes(t *testing.T) {
	for _, c := range []struct {
		name  string
		agent queue.AgentView
		here  bool
		want  queue.AgentState
	}{
		{"idle, gone", queue.AgentView{State: queue.Idle}, false, queue.Paused},
		{"in talk, gone", queue.AgentView{State: queue.Talk}, false, queue.Paused},
		{"in talk and going home, gone", queue.AgentView{State: queue.Talk, Wish: "logout"}, false, ""},
		{"at lunch, gone", queue.AgentView{State: queue.Paused, Reason: "lunch"}, false, ""},
		{"at lunch, back", queue.AgentView{State: queue.Paused, Reason: "lunch"}, true, ""},
		{"paused by the phone, back", queue.AgentView{State: queue.Paused, Reason: reasonPhone}, true, queue.Idle},
		{"in talk, back", queue.AgentView{State: queue.Talk, Wish: "pause:" + reasonPhone}, true, queue.Idle},
		{"writing up, back", queue.AgentView{State: queue.Wrapup, Wish: "pause:" + reasonPhone}, true, ""},
		{"idle, back", queue.AgentView{State: queue.Idle}, true, ""},
	} {
		if got := owed(c.agent, c.here); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
