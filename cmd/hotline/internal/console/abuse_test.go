package console

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hotline12345/gateway/abuse"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// worldMatters is one matter with a proposal, one that is watched, a measure that runs and its appeal.
type worldMatters struct{ did []string }

const matterID = "0123456789abcdef0123456789abcdef"

func (*worldMatters) Matters() []abuse.Matter {
	at := noon
	events := []abuse.Event{
		{At: at.Add(-20 * time.Minute), Kind: abuse.EventCall, ID: "OLD", Agent: "1001", Outcome: "no_request"},
		{At: at.Add(-19 * time.Minute), Kind: abuse.EventLoad, Waiting: 3},
		{At: at.Add(-15 * time.Minute), Kind: abuse.EventRemind, Call: "OLD", Staff: "1001", What: abuse.Clause1, Offset: 65 * time.Second},
		{At: at.Add(-12 * time.Minute), Kind: abuse.EventMark, Call: "OLD", Staff: "1001", What: "no_request", Offset: 190 * time.Second},
		{At: at.Add(-10 * time.Minute), Kind: abuse.EventPropose, Call: "OLD", By: "1001", Clause: abuse.Clause1},
	}
	proposed := abuse.Matter{ID: matterID, Number: call.Number{E164: "+8613812345678"}, Caller: "138****5678", Stage: abuse.StageProposed,
		Clause: abuse.Clause1, Proposal: &events[4], Level: 1, Approvers: []abuse.Role{abuse.Supervisor, abuse.Manager}, Events: events}
	watched := abuse.Matter{ID: "f" + matterID[1:], Caller: "139****0000", Stage: abuse.StageGrace, Clause: abuse.Clause1, Level: 2,
		Approvers: []abuse.Role{abuse.Manager}, Grace: at.Add(90 * time.Second), Lacks: abuse.ReasonGrace, Confirmed: 3, Refer: true, Shadow: &abuse.ShadowStanding{Stage: abuse.StageReminded, Level: 2}, Events: events[:3],
		Cases: []abuse.Case{{Decision: "20260302-0001", State: abuse.Running, Until: at.Add(time.Hour)}}}
	return []abuse.Matter{proposed, watched}
}

func (w *worldMatters) Matter(id string) (abuse.Matter, error) {
	all := w.Matters()
	if i := slices.IndexFunc(all, func(m abuse.Matter) bool { return m.ID == id }); i >= 0 {
		return all[i], nil
	}
	return abuse.Matter{}, abuse.ErrUnknown
}

func (*worldMatters) Appeals() []abuse.Appealed {
	return []abuse.Appealed{{Case: abuse.Case{Decision: "20260302-0001", Clause: abuse.Clause1, State: abuse.Running}, At: noon.Add(-time.Hour), Due: noon.Add(23 * time.Hour), ID: "f" + matterID[1:]}}
}

func (*worldMatters) List() []abuse.Case {
	return []abuse.Case{{Decision: "20260302-0001", Clause: abuse.Clause1, Level: 1, Until: noon.Add(time.Hour), Actor: "chief", State: abuse.Running, Number: call.Number{E164: "+8613900000000"}}}
}

func (*worldMatters) Shadow() *abuse.Shadow {
	return &abuse.Shadow{Version: "P1-trial", Since: noon.Add(-time.Hour), Invites: []abuse.ShadowCount{
		{Act: "invite", Live: "ADMIT", Shadow: "ADMIT", N: 812}, {Act: "invite", Live: "ADMIT", Shadow: "ADMIT_WATCH", N: 31}},
		Acts: []abuse.ShadowCount{{Act: "approve", Shadow: string(abuse.ReasonRole), N: 1}}}
}

func (w *worldMatters) Propose(_ context.Context, id, clause, by string) error {
	w.did = append(w.did, "propose "+id+" "+clause+" "+by)
	return nil
}

func (w *worldMatters) Approve(_ context.Context, id, by string, role abuse.Role, reason string) (abuse.Case, error) {
	if by == "boss" {
		return abuse.Case{}, &session.Refusal{Why: string(abuse.ReasonConflict)}
	}
	w.did = append(w.did, strings.Join([]string{"approve", id, by, string(role), reason}, " "))
	return abuse.Case{Decision: "20260302-0002"}, nil
}

func (w *worldMatters) Appeal(_ context.Context, decision, _ string) error {
	w.did = append(w.did, "appeal "+decision)
	return nil
}

func (w *worldMatters) DecideAppeal(_ context.Context, decision string, overturn bool, reason, by string, _ abuse.Role) (abuse.Case, error) {
	if overturn {
		reason += " overturned"
	}
	w.did = append(w.did, strings.Join([]string{"decide", decision, reason, by}, " "))
	return abuse.Case{Decision: decision}, nil
}

func (w *world) NoteConduct(_ context.Context, id, by string, kind session.ConductKind, clause string, played bool) error {
	return w.do(id, by, fmt.Sprint(kind, clause, played))
}

// worldSound is a recording of ten seconds.
type worldSound struct{}

func (worldSound) Play(_ context.Context, w io.Writer, id string) error {
	_, err := io.WriteString(w, "RIFF"+id+strings.Repeat("\xd5", 1000))
	return err
}

func TestMattersPages(t *testing.T) {
	b := newBench(t, noon)
	chief := b.as("chief")
	session, err := w2{b.world}.Login(t.Context(), "chief", "secret-chief", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, lang := range languages {
		for path, want := range map[string][]string{
			"/art29":                       {"138****5678", "139****0000", "/art29/" + matterID, "20260302-0001", "data-until", "P1-trial", "812"},
			"/art29/" + matterID:           {"138****5678", "/audio/OLD#t=65", "/calls/OLD", "/approve", "1:05"},
			"/art29/" + "f" + matterID[1:]: {"139****0000", "/decide", "20260302-0001"},
		} {
			resp, page := b.request("GET", path, nil, "Cookie", sessionCookie+"="+session.Token+"; "+languageCookie+"="+lang)
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d", path, resp.StatusCode)
			}
			for _, w := range want {
				if !strings.Contains(page, w) {
					t.Errorf("%s in %s: no %q", path, lang, w)
				}
			}
			for _, clear := range []string{"13812345678", "13900000000", "event29.", "lacks.", "stage29.", "decision."} {
				if strings.Contains(page, clear) {
					t.Errorf("%s in %s shows %q", path, lang, clear)
				}
			}
		}
	}
	if resp, _ := chief("GET", "/art29/nothing", nil); resp.StatusCode != http.StatusConflict {
		t.Errorf("an unknown matter: %d", resp.StatusCode)
	}
	resp, sound := chief("GET", "/art29/"+matterID+"/audio/OLD", nil)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "audio/wav" || !strings.HasPrefix(sound, "RIFF") {
		t.Errorf("the recording: %d %q", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	if log := b.world.logged(); len(log) != 1 || log[0].what != "recording.play" || log[0].on != "OLD" || log[0].by != "chief" {
		t.Errorf("listening is not audited: %v", log)
	}
	if resp, _ := chief("GET", "/art29/"+matterID+"/audio/C9", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a call of another matter: %d", resp.StatusCode)
	}
}

func TestMatterActs(t *testing.T) {
	b := newBench(t, noon)
	chief := b.as("chief")
	in := func(pairs ...string) url.Values {
		v := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	for _, c := range []struct {
		act    string
		form   url.Values
		status int
	}{
		{"propose", in("clause", "29-2"), http.StatusSeeOther},
		{"approve", in("reason", "six calls, no request"), http.StatusSeeOther},
		{"approve", in("reason", " "), http.StatusUnprocessableEntity},
		{"approve", in("reason", "13812345678 again"), http.StatusUnprocessableEntity},
		{"appeal", in("decision", "20260302-0001"), http.StatusSeeOther},
		{"decide", in("decision", "20260302-0001", "result", "overturned", "reason", "not heard"), http.StatusSeeOther},
		{"decide", in("decision", "20260302-0001", "result", "upheld", "reason", "it stands"), http.StatusSeeOther},
	} {
		if resp, _ := chief("POST", "/art29/"+matterID+"/"+c.act, c.form); resp.StatusCode != c.status {
			t.Errorf("%s %v: %d", c.act, c.form, resp.StatusCode)
		}
	}
	want := []string{"propose " + matterID + " 29-2 chief", "approve " + matterID + " chief supervisor six calls, no request", "appeal 20260302-0001",
		"decide 20260302-0001 not heard overturned chief", "decide 20260302-0001 it stands chief"}
	got := b.c.deps.Article29.(*worldMatters).did
	if !slices.Equal(got, want) {
		t.Errorf("did %q", got)
	}
}

func TestConductOfOnesOwnCall(t *testing.T) {
	b := newBench(t, noon)
	agent := b.as("1001")
	for act, status := range map[string]int{"abuse": http.StatusSeeOther, "remind 29-1 played": http.StatusSeeOther, "propose": http.StatusSeeOther} {
		if resp, _ := agent("POST", "/agent/calls/C2/conduct", url.Values{"act": {act}}); resp.StatusCode != status {
			t.Errorf("%s: %d", act, resp.StatusCode)
		}
	}
	if resp, _ := agent("POST", "/agent/calls/C1/conduct", url.Values{"act": {"abuse"}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("another's call: %d", resp.StatusCode)
	}
	_, page := agent("GET", "/agent", nil)
	for _, w := range []string{`value="criticism"`, `value="remind 29-2 played"`, `value="propose"`} {
		if !strings.Contains(page, w) {
			t.Errorf("the agent's page has no %s", w)
		}
	}
}

// TestEveryWordOfArticle29HasText: what the rules refuse for, and every stage, is told in words.
func TestEveryWordOfArticle29HasText(t *testing.T) {
	all, err := loadTexts()
	if err != nil {
		t.Fatal(err)
	}
	for kind, words := range map[string][]string{
		"lacks":   append(strs(abuse.Reasons()), "no_number", "in_file", "no_appeal", "unheard", "failed"),
		"stage29": strs(abuse.Stages()), "conduct": strs(session.ConductKinds()), "clause": {abuse.Clause1, abuse.Clause2},
		"measure": strs([]abuse.State{abuse.Running, abuse.Expired, abuse.Lapsed, abuse.Restored, abuse.Void}),
		"role":    strs([]abuse.Role{abuse.Supervisor, abuse.Manager}), "result": {"overturned", "upheld"},
		"event29": strs([]abuse.EventKind{abuse.EventCall, abuse.EventLoad, abuse.EventRemind, abuse.EventMark, abuse.EventRequest,
			abuse.EventPropose, abuse.EventDecision, abuse.EventAppeal, abuse.EventAppealDecide}),
	} {
		for _, w := range words {
			if all["en"][kind+"."+w] == "" {
				t.Errorf("no text for %s.%s", kind, w)
			}
		}
	}
}
