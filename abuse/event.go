package abuse

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// EventKind is what happened.
type EventKind string

// The events that a [Ledger] folds.
const (
	EventCall         EventKind = "call"
	EventLoad         EventKind = "load"   // of the whole line; in force until the next
	EventRemind       EventKind = "remind" // of a clause
	EventMark         EventKind = "mark"   // by the agent
	EventRequest      EventKind = "request"
	EventPropose      EventKind = "propose"
	EventApprove      EventKind = "approve"
	EventDecision     EventKind = "decision" // a lawful measure made elsewhere
	EventAppeal       EventKind = "appeal"
	EventAppealDecide EventKind = "appeal_decide"
	EventReferPropose EventKind = "refer_propose" // to refer the matter to the police (29(3))
	EventRefer        EventKind = "refer"         // by another person
	EventSurge        EventKind = "surge"         // a declared event (Art. 13)
	EventAccessNeed   EventKind = "access_need"
	EventProtect      EventKind = "protect"
	EventCase         EventKind = "case"
	EventLease        EventKind = "lease" // a heartbeat
	EventRelease      EventKind = "release"
	EventRedis        EventKind = "redis"
	EventSnapshot     EventKind = "snapshot" // the running measures were copied
)

// The clauses that allow a measure.
const (
	Clause1 = "29-1"
	Clause2 = "29-2"
)

// The kinds of a mark.
const (
	markNoRequest = "no_request"
	markAbuse     = "abuse"
	markCriticism = "criticism" // a request (Art. 6(4)), never abuse
)

// overturned is the result of an appeal that restores the caller.
const overturned = "overturned"

// Event is one thing that happened. Which fields it has depends on its kind.
type Event struct {
	At     time.Time `json:"t"`
	Kind   EventKind `json:"e"`
	Caller string    `json:"n,omitzero"`  // a handle, not a number
	ID     string    `json:"id,omitzero"` // of a call or a case

	Identity call.Identity `json:"idc,omitzero"`
	Answered time.Time     `json:"ans,omitzero"`
	Ended    time.Time     `json:"end,omitzero"`
	Outcome  string        `json:"out,omitzero"`
	Agent    string        `json:"ag,omitzero"`
	Topic    string        `json:"topic,omitzero"`
	Evidence string        `json:"evidence,omitzero"` // "none" if the call could not be recorded

	Waiting   int     `json:"waiting,omitzero"`
	Occupancy float64 `json:"occ,omitzero"`

	Call  string `json:"call,omitzero"`
	Staff string `json:"staff,omitzero"`
	What  string `json:"kind,omitzero"` // the clause of a reminder, the kind of a mark
	Auto  bool   `json:"auto,omitzero"` // a recording spoke the reminder
	Scope string `json:"scope,omitzero"`

	Clause string    `json:"clause,omitzero"`
	By     string    `json:"by,omitzero"`
	Role   Role      `json:"role,omitzero"`
	Level  int       `json:"level,omitzero"`
	Until  time.Time `json:"until,omitzero"`
	Result string    `json:"result,omitzero"`
	To     time.Time `json:"to,omitzero"`
	State  string    `json:"state,omitzero"`

	Decision  string        `json:"decision,omitzero"`  // that an appeal is against; the latest one if it names none
	Script    string        `json:"script,omitzero"`    // the recording that spoke a reminder
	Offset    time.Duration `json:"offset,omitzero"`    // in the call's recording, where a reminder or mark begins
	Recipient string        `json:"recipient,omitzero"` // the age key that a referral is sealed to
	Reason    string        `json:"reason,omitzero"`    // of an act, in words, without personal data
}

// QueryKind is what is asked.
type QueryKind string

// The queries that a [Ledger] answers.
const (
	QueryInvite   QueryKind = "invite"
	QueryApprove  QueryKind = "approve"
	QueryReferral QueryKind = "referral"
)

// Query asks for one decision at a time.
type Query struct {
	At     time.Time `json:"t"`
	Kind   QueryKind `json:"q"`
	Caller string    `json:"n"`

	Identity call.Identity `json:"idc"`
	Speech   string        `json:"asr"`    // what was heard
	Keys     string        `json:"dtmf"`   // what was pressed
	Intent   string        `json:"intent"` // what that was taken for
	Topic    string        `json:"topic"`

	By   string `json:"by"`
	Role Role   `json:"role"`
}

// Answer is the word that a query is answered with: one of [session.Decision], or one of those below, or
// "SUSPEND:L<level>:<end>", or "DENY:<reason>".
type Answer string

// The answers on a referral.
const (
	ReferralCandidate Answer = "REFERRAL_CANDIDATE"
	NoReferral        Answer = "NO_REFERRAL"
)

// Reason is why a measure is not approved.
type Reason string

// The reasons, in the order in which they are looked for. Each is one that must be gone before the next counts.
const (
	ReasonNone        Reason = ""
	ReasonSuspended   Reason = "already_suspended"     // a measure runs, or ran when this one was proposed
	ReasonNoProposal  Reason = "no_proposal"           // none is waiting, or it no longer stands
	ReasonNoReminder  Reason = "no_reminder"           // none since the last measure that the caller can have heard
	ReasonNotStaff    Reason = "not_staff_reminder"    // a machine's
	ReasonOtherClause Reason = "reminder_other_clause" // it is valid for its own clause alone
	ReasonIdentity    Reason = "identity_not_verified" // the number is not known to be one person's
	ReasonNoEvidence  Reason = "no_evidence"           // the call could not be recorded
	ReasonRequest     Reason = "request_in_scope"      // one came after the reminder
	ReasonNotRepeated Reason = "threshold_not_met"     // neither repeated dialling nor long occupation
	ReasonNoHindrance Reason = "no_impact_on_others"   // nobody waited, and agents were free
	ReasonNotAbuse    Reason = "not_abuse"             // criticism, or nothing that was marked as abuse
	ReasonNotAfter    Reason = "not_marked_after"      // no agent marked "still no request" after the reminder
	ReasonStopped     Reason = "stopped_after_reminder"
	ReasonOldReminder Reason = "reminder_expired"
	ReasonGrace       Reason = "grace_not_elapsed"
	ReasonProtected   Reason = "protected" // a case conference instead
	ReasonConflict    Reason = "approver_conflict"
	ReasonRole        Reason = "approver_role"
)

// Reasons lists every reason.
func Reasons() []Reason {
	return []Reason{ReasonSuspended, ReasonNoProposal, ReasonNoReminder, ReasonNotStaff, ReasonOtherClause, ReasonIdentity,
		ReasonNoEvidence, ReasonRequest, ReasonNotRepeated, ReasonNoHindrance, ReasonNotAbuse, ReasonNotAfter, ReasonStopped,
		ReasonOldReminder, ReasonGrace, ReasonProtected, ReasonConflict, ReasonRole}
}

func deny(r Reason) Answer { return Answer("DENY:" + string(r)) }

func suspend(m *measure) Answer {
	return Answer(fmt.Sprintf("SUSPEND:L%d:%s", m.level, m.until.Format(time.RFC3339Nano)))
}

// outcomes are the events' words where they differ from ours.
var outcomes = map[string]session.Outcome{"dropped_by_us": session.OutcomeFault, "in_scope": session.OutcomeRegistered}

func outcomeOf(word string) session.Outcome {
	if o, ok := outcomes[word]; ok {
		return o
	}
	return session.Outcome(word) // one that we do not know counts against nobody
}

// inScope are the outcomes of a call in which the caller came with a request under Art. 6.
var inScope = []session.Outcome{session.OutcomeRegistered, session.OutcomeConsultation, session.OutcomeProgress}

// ownHandle tells whether a handle stands for the hotline's own number: a case names callers by handles,
// so this one has a name.
func ownHandle(n string) bool {
	return strings.HasSuffix(n, "12345") || slices.Contains([]string{"own", "own-number", "hotline"}, strings.ToLower(n))
}

// dangerKeys mean danger in what a caller pressed: the key of the emergency exit, and the numbers of the
// services; star-zero does within a run of digits.
func dangerKeys(keys string) bool {
	return keys == "0" || strings.Contains(keys, "*0") || slices.Contains([]string{"110", "119", "120", "122"}, keys)
}

// dangerWords mean danger, or a person in crisis, wherever they are said. A word too many costs a caller
// nothing but a question; one too few may cost a life.
var dangerWords = []string{
	"救命", "着火", "起火", "失火", "发生火灾", "烧起来", "烧着了", "浓烟", "爆炸", "煤气泄", "煤气漏", "煤气味", "燃气泄", "燃气漏", "天然气泄",
	"中毒", "触电", "溺水", "被困", "塌了", "倒塌", "杀人", "砍人", "捅人", "在打我", "打死人", "持刀", "拿刀", "拿着刀", "抢劫", "绑架", "报警",
	"跳楼", "跳河", "跳江", "自杀", "轻生", "不想活", "活不下去", "晕倒", "昏迷", "没有呼吸", "没呼吸", "没有意识", "不省人事", "心脏病发", "心梗",
	"大出血", "流血", "急救", "救护车", "要生了", "抽搐", "噎住", "喘不过气", "车祸", "撞人", "撞了人", "打110", "打119", "打120", "打122", "紧急求助",
	"help me", "emergency", "on fire", "gas leak", "ambulance", "suicide", "kill myself", "call the police",
}

func dangerSaid(speech string) bool {
	speech = strings.ToLower(speech)
	return slices.ContainsFunc(dangerWords, func(w string) bool { return strings.Contains(speech, w) })
}

// danger tells whether the query carries an emergency word or key, or a caller in crisis.
func (q Query) danger() bool {
	return q.Intent == "emergency" || q.Intent == "crisis" || dangerKeys(q.Keys) || dangerSaid(q.Speech)
}
