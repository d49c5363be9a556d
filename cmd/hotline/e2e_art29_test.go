package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hotline12345/gateway/abuse"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

// TestArticle29 is the story of one caller over SIP: insults, the agent's reminder by feature code, insults
// that go on, a proposal, the approval by another person, the notice on the automatic path, an appeal by key,
// and the restoration by a third person. All of it is in the audit log, and the number in no file that is
// not sealed.
func TestArticle29(t *testing.T) {
	t.Parallel()
	const number = "13800138000"
	g := startGateway(t)
	g.run("staff", "add", "boss", "--name", "boss", "--role", "manager")
	agent := newPhone(t, "1001", g.phones).answering(1100)
	agent.register(g.people["1001"].secret)
	g.login("1001")
	g.awaitAgent("1001", queue.Idle)

	caller := newPhone(t, number, g.carriers)
	first := caller.dial("12345")
	first.connected()
	first.press("9")
	desk := receive(t, "the agent's phone rings", agent.incoming)
	call := g.awaitStage(session.StageTalk)
	for _, act := range []struct {
		keys, what string
		ok         func(session.Standing) bool
	}{
		{"*22", "abuse is marked", func(s session.Standing) bool { return s.Mark == "abuse" }},
		{"*29", "a proposal without a reminder is refused", func(s session.Standing) bool { return s.Problem == string(abuse.ReasonNoReminder) }},
		{"*26", "the reminder stands", func(s session.Standing) bool {
			return s.Stage == string(abuse.StageReminded) && s.Clause == abuse.Clause2
		}},
		{"*29", "a proposal without abuse after it is refused", func(s session.Standing) bool { return s.Problem == string(abuse.ReasonStopped) }},
		{"*22", "abuse goes on", func(s session.Standing) bool {
			return s.Lacks == "" && s.Problem == "" && s.Stage == string(abuse.StageReminded)
		}},
		{"*29", "a suspension is proposed", func(s session.Standing) bool { return s.Proposed }},
	} {
		g.awaitStanding(call.CallID, act.what, func() { desk.press(act.keys) }, act.ok)
	}
	first.hangup()

	var matters []abuse.Matter
	g.get("/matters", &matters)
	if len(matters) != 1 || matters[0].Stage != abuse.StageProposed || matters[0].Caller != "138****8000" {
		t.Fatalf("matters %+v", matters)
	}
	id := matters[0].ID
	g.run("abuse", "approve", id, "--by", "admin", "--reason", "insults went on after the reminder")

	second := caller.dial("12345")
	second.connected()
	g.awaitStage(session.StageSuspended)
	second.press("2")
	var appeals []abuse.Appealed
	until(t, 20*time.Second, "the appeal is recorded", func() bool {
		appeals = nil
		g.get("/appeals", &appeals)
		return len(appeals) == 1
	})
	second.hangup()
	g.run("abuse", "decide", appeals[0].Case.Decision, "--overturn", "--by", "boss", "--reason", "the reminder cannot be understood")
	until(t, 20*time.Second, "the suspended call has ended", func() bool { return len(g.calls()) == 0 })

	third := caller.dial("12345")
	third.connected()
	if v := g.awaitStage(session.StageFlow); v.Decision != session.Admit {
		t.Errorf("after the restoration: %s", v.Decision)
	}
	third.hangup()
	t.Logf("the matter:\n%s", g.run("abuse", "matters", id))
	t.Logf("the audit log: %s", g.run("audit", "verify"))
	g.stop()
	g.unread(number)
}

// awaitStanding acts until the matter of a call's caller stands as wanted: again when nothing comes of it, as a person does.
func (g *gateway) awaitStanding(callID, what string, act func(), ok func(session.Standing) bool) {
	g.t.Helper()
	var acted time.Time
	until(g.t, 20*time.Second, what, func() bool {
		if time.Since(acted) > 6*time.Second {
			act()
			acted = time.Now()
		}
		return slices.ContainsFunc(g.calls(), func(v session.View) bool { return v.CallID == callID && ok(v.Standing) })
	})
}

// unread looks for a number in clear in all that the gateway wrote, its log included.
func (g *gateway) unread(number string) {
	g.t.Helper()
	if strings.Contains(g.log.text(), number) {
		g.t.Errorf("the log has %s in clear", number)
	}
	err := filepath.WalkDir(filepath.Join(g.data(), "audit"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), number) {
			err = fmt.Errorf("%s has %s in clear", path, number)
		}
		return err
	})
	if err != nil {
		g.t.Error(err)
	}
}
