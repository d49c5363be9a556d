package abuse

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

// Shadow is what another policy would have done on the same line since this node started. It touches nobody: it is
// asked beside the policy in force, of the same facts, and what it answers is counted and shown. An INVITE's facts
// are those that the policy in force has gathered, which calls count and who has a place among them.
type Shadow struct {
	Version string        `json:"version"`
	Since   time.Time     `json:"since"`
	Invites []ShadowCount `json:"invites"` // those of which both say the same among them
	Acts    []ShadowCount `json:"acts"`    // proposals and approvals
}

// ShadowCount is how often the policy in force said one thing and the shadow another, or the same.
type ShadowCount struct {
	Act    string `json:"act"`    // "invite", "propose" or "approve"
	Live   string `json:"live"`   // a decision on an INVITE; of an act what it lacked, "" if nothing
	Shadow string `json:"shadow"` // likewise
	N      int    `json:"n"`
}

// Differs tells whether the two policies part.
func (c ShadowCount) Differs() bool { return c.Live != c.Shadow }

// ShadowStanding is where a matter would stand under the shadow.
type ShadowStanding struct {
	Stage Stage         `json:"stage"`
	Lacks Reason        `json:"lacks,omitempty"`
	Level int           `json:"level"`
	Term  time.Duration `json:"term"`
}

// The acts that a shadow is asked about.
const (
	shadowInvite  = "invite"
	shadowPropose = "propose"
	shadowApprove = "approve"
)

// shadow is the other policy and what it has said. Its keys are of closed sets, so it does not grow.
type shadow struct {
	policy Policy
	since  time.Time
	mu     sync.Mutex
	counts map[ShadowCount]int // N is 0 in a key
}

func newShadow(p *Policy, now time.Time) *shadow {
	if p == nil {
		return nil
	}
	return &shadow{policy: *p, since: now, counts: make(map[ShadowCount]int)}
}

func (s *shadow) count(act, live, other string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[ShadowCount{Act: act, Live: live, Shadow: other}]++
}

// shadowInvite asks the shadow of an INVITE.
func (a *Admission) shadowInvite(f Facts, live session.Decision) {
	if a.shadow == nil {
		return
	}
	other := Decide(a.shadow.policy, f).Decision
	a.shadow.count(shadowInvite, string(live), string(other))
	a.metrics.shadow.WithLabelValues(shadowInvite, sameOr(live == other)).Inc()
}

// shadowAct asks the shadow of a proposal or an approval on a docket.
func (a *Admission) shadowAct(act string, d *docket, e164 string, at time.Time, live Reason, judge func(*Ledger, *matter) Reason) {
	if a.shadow == nil {
		return
	}
	l := a.foldBy(a.shadow.policy, d, e164)
	other := judge(l, l.matter(d.id, at))
	a.shadow.count(act, string(live), string(other))
	a.metrics.shadow.WithLabelValues(act, sameOr(live == other)).Inc()
}

func sameOr(same bool) string {
	if same {
		return "same"
	}
	return "differs"
}

// shadowOf is where a matter would stand under the shadow; nil without one.
func (a *Admission) shadowOf(d *docket, e164 string, now time.Time) *ShadowStanding {
	if a.shadow == nil {
		return nil
	}
	p := a.shadow.policy
	l := a.foldBy(p, d, e164)
	f := l.matter(d.id, now)
	s := &ShadowStanding{Stage: f.stage, Level: f.level(p, now)}
	s.Term = p.term(s.Level)
	if f.stage != StageProposed {
		f.proposal = &Event{At: now, Kind: EventPropose}
		if r := l.stands(f, "", now); r != nil {
			f.proposal.Clause = r.What
		}
	}
	s.Lacks = l.lacks(f, now)
	return s
}

// Shadow tells what the other policy would have done; nil without one.
func (a *Admission) Shadow() *Shadow {
	if a.shadow == nil {
		return nil
	}
	out := &Shadow{Version: a.shadow.policy.Version, Since: a.shadow.since}
	a.shadow.mu.Lock()
	defer a.shadow.mu.Unlock()
	for c, n := range a.shadow.counts {
		c.N = n
		if c.Act == shadowInvite {
			out.Invites = append(out.Invites, c)
		} else {
			out.Acts = append(out.Acts, c)
		}
	}
	for _, list := range [][]ShadowCount{out.Invites, out.Acts} {
		slices.SortFunc(list, func(x, y ShadowCount) int {
			return cmp.Or(cmp.Compare(x.Act, y.Act), cmp.Compare(y.N, x.N), cmp.Compare(x.Live, y.Live), cmp.Compare(x.Shadow, y.Shadow))
		})
	}
	return out
}
