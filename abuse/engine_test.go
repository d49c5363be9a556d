package abuse

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

func p0(t testing.TB) Policy {
	t.Helper()
	p, err := Defaults().Policy()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// caseEvent is an event of the worked cases, as far as an INVITE depends on it.
type caseEvent struct {
	T     time.Time     `json:"t"`
	E     string        `json:"e"`
	ID    string        `json:"id"`
	N     string        `json:"n"`
	IDC   call.Identity `json:"idc"`
	Ans   time.Time     `json:"ans"`
	End   time.Time     `json:"end"`
	Out   string        `json:"out"`
	Topic string        `json:"topic"`
	Level int           `json:"level"`
	Until time.Time     `json:"until"`
	State string        `json:"state"`
}

// outcomes are the words of the cases where they differ from ours.
var outcomes = map[string]session.Outcome{"dropped_by_us": session.OutcomeFault, "in_scope": session.OutcomeRegistered}

// facts gathers from a case's events what an INVITE of caller n at a time is decided on.
func facts(p Policy, events []caseEvent, query caseEvent) Facts {
	f := Facts{At: query.T, Identity: query.IDC}
	for _, e := range events {
		switch {
		case e.E == "snapshot":
			f.CopyAge = query.T.Sub(e.T)
		case e.E == "redis":
			f.Copy = e.State == "down"
		case e.N != query.N:
		case e.E == "decision":
			f.Measure, f.From = &session.Measure{Level: e.Level, Until: e.Until}, e.T
		case e.E == "call":
			outcome := session.Outcome(e.Out)
			if o, ok := outcomes[e.Out]; ok {
				outcome = o
			}
			if Counts(p, session.CallOutcome{
				Caller: call.Number{E164: "+1" + e.N}, Identity: e.IDC, Outcome: outcome, Answered: e.Ans, Topic: e.Topic,
			}) {
				f.Counted = append(f.Counted, Counted{e.T, e.Ans, e.End})
			}
		}
	}
	return f
}

func TestWorkedCases(t *testing.T) {
	b, err := os.ReadFile("testdata/art29.tsv")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		field := strings.Split(strings.TrimSpace(line), "\t")
		if strings.HasPrefix(line, "#") || field[0] == "id" {
			continue
		}
		n++
		t.Run(field[0], func(t *testing.T) {
			var events []caseEvent
			var query caseEvent
			if err := json.Unmarshal([]byte(field[4]), &events); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(field[5]), &query); err != nil {
				t.Fatal(err)
			}
			p := p0(t)
			if got := Decide(p, facts(p, events, query)); string(got.Decision) != field[6] {
				t.Errorf("%s: %v, want %s: %s", field[3], got, field[6], field[7])
			}
		})
	}
	if n != 9 {
		t.Errorf("%d cases, want 9", n)
	}
}

var at = time.Date(2026, 3, 2, 10, 0, 0, 0, time.FixedZone("CST", 8*3600))

// counted makes calls that began so long before at, each with an agent for so long.
func counted(talk time.Duration, before ...time.Duration) []Counted {
	var out []Counted
	for _, d := range before {
		out = append(out, Counted{at.Add(-d), at.Add(-d), at.Add(-d + talk)})
	}
	return out
}

func every(step time.Duration, n int, last time.Duration) []time.Duration {
	var out []time.Duration
	for i := range n {
		out = append(out, last+time.Duration(i)*step)
	}
	return out
}

func TestDecideOrderAndBounds(t *testing.T) {
	p := p0(t)
	measure := &session.Measure{Decision: "d", Until: at.Add(time.Hour)}
	long := counted(20*time.Minute, time.Hour)
	for name, c := range map[string]struct {
		f    Facts
		want session.Decision
		rule Rule
	}{
		"own number before all":   {Facts{OwnNumber: true, Identity: call.Verified, Measure: measure, Place: Refused}, session.RejectNet, RuleOwnNumber},
		"shared is never barred":  {Facts{Identity: call.Shared, Measure: measure, Counted: long}, session.Admit, RuleNone},
		"spoof is answered":       {Facts{Identity: call.Spoof, Measure: measure}, session.Admit, RuleNone},
		"measure before lease":    {Facts{Identity: call.Verified, Measure: measure, Place: Refused}, session.IVROnly, RuleMeasure},
		"measure not yet begun":   {Facts{Identity: call.Verified, Measure: measure, From: at.Add(1)}, session.Admit, RuleNone},
		"measure begins now":      {Facts{Identity: call.Verified, Measure: measure, From: at}, session.IVROnly, RuleMeasure},
		"lease before watch":      {Facts{Identity: call.Verified, Place: Refused, Counted: long}, session.QueueLease, RuleLease},
		"copy of 299 s":           {Facts{Identity: call.Verified, Measure: measure, Copy: true, CopyAge: 299 * time.Second}, session.IVROnly, RuleMeasure},
		"copy of 300 s":           {Facts{Identity: call.Verified, Measure: measure, Copy: true, CopyAge: 300 * time.Second}, session.IVROnly, RuleMeasure},
		"copy of 301 s":           {Facts{Identity: call.Verified, Measure: measure, Copy: true, CopyAge: 301 * time.Second}, session.Admit, RuleNone},
		"six in the hour":         {Facts{Identity: call.Verified, Counted: counted(0, every(time.Minute, 6, time.Minute)...)}, session.AdmitWatch, RuleRepeat},
		"five in the hour":        {Facts{Identity: call.Verified, Counted: counted(0, every(time.Minute, 5, time.Minute)...)}, session.Admit, RuleNone},
		"the sixth an hour ago":   {Facts{Identity: call.Verified, Counted: counted(0, every(12*time.Minute, 6, 0)...)}, session.Admit, RuleNone},
		"the sixth just within":   {Facts{Identity: call.Verified, Counted: counted(0, append(every(time.Minute, 5, 0), time.Hour-1)...)}, session.AdmitWatch, RuleRepeat},
		"ten in the day":          {Facts{Identity: call.Verified, Counted: counted(0, every(2*time.Hour, 10, time.Hour)...)}, session.AdmitWatch, RuleRepeat},
		"the tenth a day ago":     {Facts{Identity: call.Verified, Counted: counted(0, append(every(2*time.Hour, 9, time.Hour), 24*time.Hour)...)}, session.Admit, RuleNone},
		"1200 s in one call":      {Facts{Identity: call.Verified, Counted: long}, session.AdmitWatch, RuleLong},
		"1199 s in one call":      {Facts{Identity: call.Verified, Counted: counted(1199*time.Second, time.Hour)}, session.Admit, RuleNone},
		"3600 s in the day":       {Facts{Identity: call.Verified, Counted: counted(15*time.Minute, every(2*time.Hour, 4, time.Hour)...)}, session.AdmitWatch, RuleLong},
		"3600 s, some a day ago":  {Facts{Identity: call.Verified, Counted: counted(15*time.Minute, append(every(2*time.Hour, 3, time.Hour), 24*time.Hour+time.Minute)...)}, session.Admit, RuleNone},
		"a call after the INVITE": {Facts{Identity: call.Verified, Counted: counted(0, every(time.Second, 6, -10*time.Second)...)}, session.Admit, RuleNone},
	} {
		t.Run(name, func(t *testing.T) {
			c.f.At = at
			if got := Decide(p, c.f); got.Decision != c.want || got.Rule != c.rule {
				t.Errorf("%+v, want %s by %s", got, c.want, c.rule)
			}
		})
	}
}

func TestWatchRisesInMidCall(t *testing.T) {
	p := p0(t)
	for _, c := range []struct {
		talk, all time.Duration
		counted   []Counted
		want      session.Banner
	}{
		{1199 * time.Second, 1199 * time.Second, nil, session.NoBanner},
		{1200 * time.Second, 1200 * time.Second, nil, session.BannerLong},
		{600 * time.Second, 3600 * time.Second, nil, session.BannerLong},
		{600 * time.Second, 600 * time.Second, counted(1000*time.Second, 2*time.Hour, 4*time.Hour, 6*time.Hour), session.BannerLong},
		{0, 0, counted(0, every(time.Minute, 6, time.Minute)...), session.BannerRepeat},
	} {
		if got := Watch(p, at, c.counted, c.talk, c.all); got != c.want {
			t.Errorf("talk %v of %v: %q, want %q", c.talk, c.all, got, c.want)
		}
	}
}

func TestCounts(t *testing.T) {
	p := p0(t)
	good := session.CallOutcome{
		Caller: call.Number{E164: "+8613800138000"}, Identity: call.Verified, Outcome: session.OutcomeSilent, Answered: at,
	}
	if !Counts(p, good) {
		t.Error("a silent call counts")
	}
	for name, harm := range map[string]func(*session.CallOutcome){
		"no agent":  func(o *session.CallOutcome) { o.Answered = time.Time{} },
		"shared":    func(o *session.CallOutcome) { o.Identity = call.Shared },
		"surge":     func(o *session.CallOutcome) { o.Topic = "water-0302" },
		"no number": func(o *session.CallOutcome) { o.Caller = call.Number{} },
	} {
		o := good
		harm(&o)
		if Counts(p, o) {
			t.Errorf("%s counts", name)
		}
	}
	counting := 0
	for _, outcome := range session.Outcomes() {
		o := good
		o.Outcome = outcome
		if Counts(p, o) {
			counting++
		}
	}
	if counting != 4 {
		t.Errorf("%d outcomes count, want 4", counting)
	}
}

// TestAnEmergencyIsNeverBlocked: whatever the facts, the call is answered, and so has its emergency exit,
// unless it claims the hotline's own number; and a measure touches none but a verified number.
func TestAnEmergencyIsNeverBlocked(t *testing.T) {
	p := p0(t)
	r := rand.New(rand.NewPCG(29, 12345))
	answered := map[session.Decision]bool{session.Admit: true, session.AdmitWatch: true, session.IVROnly: true, session.QueueLease: true}
	identities := []call.Identity{call.Verified, call.Shared, call.Anonymous, call.Spoof, ""}
	for range 20_000 {
		f := Facts{
			At: at, OwnNumber: r.IntN(8) == 0, Identity: identities[r.IntN(len(identities))], From: at.Add(-time.Duration(r.IntN(100)) * time.Hour),
			Copy: r.IntN(2) == 0, CopyAge: time.Duration(r.IntN(600)) * time.Second, Place: Place(r.IntN(3)),
		}
		if r.IntN(2) == 0 {
			f.Measure = &session.Measure{Until: at.Add(time.Duration(r.IntN(200)-100) * time.Hour)}
		}
		for range r.IntN(12) {
			start := at.Add(-time.Duration(r.IntN(90_000)) * time.Second)
			f.Counted = append(f.Counted, Counted{start, start, start.Add(time.Duration(r.IntN(2000)) * time.Second)})
		}
		got := Decide(p, f)
		if !f.OwnNumber && !answered[got.Decision] {
			t.Fatalf("%+v is not answered: %+v", f, got)
		}
		if f.Identity != call.Verified && got.Decision != session.Admit && got.Decision != session.RejectNet {
			t.Fatalf("identity %q: %+v", f.Identity, got)
		}
		if outcomesOf[got.Rule] != got.Decision {
			t.Fatalf("rule %s ruled %s, which its metric does not know", got.Rule, got.Decision)
		}
	}
}
