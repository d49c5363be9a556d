package abuse

import (
	"math/rand/v2"
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
