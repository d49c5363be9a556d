package session

import (
	"context"
	"errors"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// The interfaces of this file are what a call needs of the rooms above. The rooms implement them;
// this package imports none of them.

// Screener is admission and Article 29 (package abuse).
type Screener interface {
	// Screen decides on a call at its INVITE, and again while it waits for a lease; it is
	// idempotent by CallID. It never fails: with the store away it admits and says FailOpen.
	Screen(ctx context.Context, r ScreenRequest) Verdict
	// Count tells a call's outcome once, when it is known; it is idempotent by CallID.
	Count(ctx context.Context, o CallOutcome)
}

// ScreenRequest is what admission knows of a call.
type ScreenRequest struct {
	CallID    string
	Caller    call.Number
	Identity  call.Identity
	OwnNumber bool
	Trunk     string
	Called    string
	At        time.Time
}

// Decision is admission's word on a call; the words are those of the worked cases.
type Decision string

// The decisions on an INVITE.
const (
	Admit      Decision = "ADMIT"
	AdmitWatch Decision = "ADMIT_WATCH" // the agent sees a banner; nothing else changes
	IVROnly    Decision = "IVR_ONLY"    // a running measure: the automatic path
	QueueLease Decision = "QUEUE_LEASE" // two calls of this number are up: told, and waits
	RejectNet  Decision = "REJECT_NET"  // the hotline's own number claimed by a caller (Art. 28)
	CalledBack Decision = "CALL_BACK"   // nobody was admitted: the line called
)

// Verdict is a decision with what follows from it.
type Verdict struct {
	Decision Decision
	FailOpen bool     // the store was away; the call was admitted and counted as such
	Banner   Banner   // with AdmitWatch
	Measure  *Measure // with IVROnly
	Lease    Lease    // never nil with Admit, AdmitWatch and IVROnly; nil otherwise
}

// Banner is what the agent is shown of a watched caller.
type Banner string

// The banners.
const (
	NoBanner     Banner = ""
	BannerRepeat Banner = "repeat" // counted calls over the policy's number
	BannerLong   Banner = "long"   // occupied seconds over the policy's number
)

// Measure is a running suspension, as the caller is told of it.
type Measure struct {
	Decision string    `json:"decision"` // the decision's number
	Clause   string    `json:"clause"`   // "29-1" or "29-2"
	Level    int       `json:"level"`    // 1 to 3
	Until    time.Time `json:"until"`    // half-open: at this instant it has ended
}

// Phase is what a call occupies the line with.
type Phase string

// The phases of occupation.
const (
	PhaseIVR   Phase = "ivr"
	PhaseQueue Phase = "queue"
	PhaseTalk  Phase = "talk"
)

// Lease is a call's place among its number's calls. Its heartbeat runs until Release.
type Lease interface {
	// Phase says what the seconds from now on count as.
	Phase(p Phase)
	// Banners tells of a banner that rises in mid-call. It is never closed.
	Banners() <-chan Banner
	// Release gives the place back; a second call does nothing.
	Release()
}

// CallOutcome is what a call turned out to be, for the counters.
type CallOutcome struct {
	CallID   string
	Caller   call.Number
	Identity call.Identity
	Outcome  Outcome
	Started  time.Time
	Answered time.Time // by an agent; zero if none
	Ended    time.Time
	Agent    string
	Topic    string // a declared surge topic, which never counts
	Evidence string // "recorded" or "none"
}

// Outcome is what a call was: a closed set shared by CDR, counters and console.
type Outcome string

// The outcomes. Only no_request, silent, oos_told and abuse can count against a caller, and only when
// an agent answered.
const (
	OutcomeNone         Outcome = ""
	OutcomeRegistered   Outcome = "registered"   // a request within scope (Art. 6 to 8)
	OutcomeConsultation Outcome = "consultation" // answered at once (Art. 11)
	OutcomeProgress     Outcome = "progress"     // told how a case stands (Art. 14)
	OutcomeUnclear      Outcome = "unclear"      // asked, and still not clear enough to register (Art. 8)
	OutcomeNoRequest    Outcome = "no_request"
	OutcomeSilent       Outcome = "silent"
	OutcomeOOSTold      Outcome = "oos_told" // out of scope, reason and channel told (Art. 9)
	OutcomeAbuse        Outcome = "abuse"
	OutcomeEmergency    Outcome = "emergency"
	OutcomeMessage      Outcome = "message"
	OutcomeAbandoned    Outcome = "abandoned" // left before an agent answered
	OutcomeSuspended    Outcome = "suspended" // took the automatic path
	OutcomeRefused      Outcome = "refused"
	OutcomeFault        Outcome = "fault" // cut by our fault; never counts
)

// Outcomes lists every outcome.
func Outcomes() []Outcome {
	return []Outcome{OutcomeRegistered, OutcomeConsultation, OutcomeProgress, OutcomeUnclear, OutcomeNoRequest,
		OutcomeSilent, OutcomeOOSTold, OutcomeAbuse, OutcomeEmergency, OutcomeMessage,
		OutcomeAbandoned, OutcomeSuspended, OutcomeRefused, OutcomeFault}
}

// Flow is what a caller hears and presses (package ivr).
type Flow interface {
	// Run walks the flow from a point to an exit. It ends early with context.Cause(ctx) when ctx
	// ends (the caller hung up, an emergency). Its errors are faults of the flow; the session then
	// sends the caller to a person.
	Run(ctx context.Context, v Voice, at FlowPoint) (FlowExit, error)
}

// FlowPoint is where a flow starts, or goes on.
type FlowPoint struct {
	Flow     string // the flow's name; "" is the one that the called number is routed to
	Node     string // "" is the start
	Language string // "zh" or "en"
	Called   string
	Trunk    string
	Caller   call.Number
	Now      time.Time
}

// ExitKind is how a flow ends.
type ExitKind string

// The exits of a flow.
const (
	ExitQueue     ExitKind = "queue"     // to an agent, by Queue
	ExitTransfer  ExitKind = "transfer"  // to Endpoint
	ExitHangup    ExitKind = "hangup"    // said all
	ExitMessage   ExitKind = "message"   // a message was left
	ExitEmergency ExitKind = "emergency" // by Service, or ask which
)

// FlowExit is where a flow leads.
type FlowExit struct {
	Kind     ExitKind
	Queue    string
	Credit   time.Duration // added to the caller's wait, never a class of its own
	Language string
	Endpoint call.Endpoint
	Service  Service
	Node     string            // the node that led out, for the timeline
	Data     map[string]string // what was collected, by the node's name; goes to intake
}

// Voice is the caller as a flow sees them. The session implements it, and keeps the emergency key
// alive in all of it: outside Collect key 0, inside it *0, end ctx with an emergency.
type Voice interface {
	// Say plays clips. With barge a key ends the clips early and waits for Key or Collect.
	Say(ctx context.Context, barge bool, clips ...*call.Clip) error
	// Key waits for one key; ErrNoKey after the time-out. The time starts when nothing is played.
	Key(ctx context.Context, timeout time.Duration) (byte, error)
	// Collect waits for a run of digits; ErrNoKey when none came in time.
	Collect(ctx context.Context, c Collect) (string, error)
	// Message lets the caller leave a message: it ends at '#', at the limit, or with the call. It
	// returns its length.
	Message(ctx context.Context, limit time.Duration) (time.Duration, error)
	// Node tells the node that the flow stands in and the language: the checkpoint of the stage.
	Node(node, language string)
}

// Collect bounds a run of digits.
type Collect struct {
	Max         int           // at most this many, 1 to 32
	Terminator  byte          // ends the run and is not part of it; 0 for none
	First, Next time.Duration // the longest wait for the first digit, and between two
	// Ask says what is asked for. A key pressed meanwhile is a digit already: who types a number ahead
	// is not in danger for a 0 in it. It may be nil.
	Ask func(ctx context.Context) error
}

// ErrNoKey is returned when no key came in time.
var ErrNoKey = errors.New("session: no key in time")

// KeyWatch finds danger in one caller's keys (package ivr/emergency).
type KeyWatch interface {
	// Press tells whether a key means danger; collecting says that a run of digits is being taken.
	Press(key byte, at time.Time, collecting bool) bool
}

// Prompts is the prompt catalogue (package ivr/prompt).
type Prompts interface {
	// Say makes clips of prompt identities and spoken values: "q_pos_a", "count:3", "digits:12345",
	// "minutes:5", "time:2026-03-03T09:00:00+08:00". What is missing in a language is taken from
	// the other and counted.
	Say(language string, parts ...string) []*call.Clip
	// Music is what a waiting caller hears.
	Music() []*call.Clip
}

// Queue is agents and waiting callers (package queue).
type Queue interface {
	// Enter puts a caller in a queue. It fails with ErrQueueFull or ErrNoQueue; with the store away
	// the node queues locally and Enter still succeeds.
	Enter(ctx context.Context, e QueueEntry) (Ticket, error)
	// Resume holds a talk of an earlier process, by the identity that its entry had, with its agent: neither is
	// offered to others until Complete.
	Resume(ctx context.Context, e QueueEntry, o Offer) (Ticket, error)
}

// The errors of a queue.
var (
	ErrQueueFull = errors.New("session: the queue is full")
	ErrNoQueue   = errors.New("session: no such queue")
	// ErrFenced answers an act on an offer that is not in force any more: another took its place.
	ErrFenced = errors.New("session: the offer is no longer in force")
)

// QueueEntry is a caller who waits.
type QueueEntry struct {
	CallID   string
	Queue    string
	Language string
	Caller   call.Number
	Credit   time.Duration
	Front    bool      // in danger: before everyone
	Arrived  time.Time // zero is now; an earlier time keeps an old place
	Reason   string    // why the caller is here, for the agent: a flow node or "emergency"
}

// Ticket is a waiting caller's place.
type Ticket interface {
	// Entry is the identity of the place, kept over restarts.
	Entry() string
	// Updates tells of positions and offers, the newest winning; it is never closed.
	Updates() <-chan QueueUpdate
	// Accept says that the agent answered. ErrFenced: end the agent's leg and wait on.
	Accept(ctx context.Context, o Offer) error
	// Decline says that the agent did not; the caller keeps the old place.
	Decline(ctx context.Context, o Offer, why DeclineReason) error
	// Complete says that the talk ended: the agent goes to wrap-up.
	Complete(ctx context.Context, o Offer, by call.EndReason) error
	// Leave takes the caller out.
	Leave(ctx context.Context, why LeaveReason) error
}

// QueueUpdate is news for a waiting caller.
type QueueUpdate struct {
	Position int           // 1 is next
	Wait     time.Duration // the estimate; 0 when there is none worth telling
	Offer    *Offer        // an agent who should be rung now, or nil
}

// Offer is an agent reserved for a caller.
type Offer struct {
	Agent     string // the person
	Extension string
	Token     string // 128 random bits; compared for equality
	Ring      time.Duration
	Node      string // the node that owns the phone
	// Holder is, for a Decline with DeclineEngaged, the call that has the agent's phone; "" when nobody knows it.
	Holder string
}

// CallBacks is the ledger of callers who are owed a call back (package queue).
type CallBacks interface {
	// TakeCallBack reserves a task and its agent for a call that begins now under callID. It fails with
	// ErrNoTask, ErrTaskTaken or ErrAgentBusy, and while the store is away.
	TakeCallBack(ctx context.Context, task, agent, callID string) (CallBackTask, error)
	// EndCallBack says how the attempt came out; it is idempotent by callID.
	EndCallBack(ctx context.Context, task, callID string, result CallBackResult) error
	// Owe notes a caller whom no queue has noted: one who found no place in it, or whose node was killed.
	// It is idempotent by CallID, and does nothing when the number was answered later than Left.
	Owe(ctx context.Context, o OwedCall) error
}

// The errors of a call back.
var (
	ErrNoTask    = errors.New("session: there is no such call back any more")
	ErrTaskTaken = errors.New("session: another agent is calling this number back")
	ErrAgentBusy = errors.New("session: the agent is not free to call back")
	// ErrCallBackOff answers a click on a node that has no trunk for it, no ledger, or no time left.
	ErrCallBackOff = errors.New("session: this node calls nobody back; set session.call_back.trunk, or ask another node if this one drains")
	// ErrCallBacksFull answers a click when as many callers are being called back as a node bears.
	ErrCallBacksFull = errors.New("session: too many callers are being called back; try again in a minute")
)

// CallBackTask is a caller who is called back.
type CallBackTask struct {
	ID     string
	Entry  QueueEntry // with the old place in Arrived
	Number call.Number
	Ticket Ticket // reserved for Offer: Accept when the agent answers and Complete at the end, or Decline
	Offer  Offer
}

// CallBackResult is how an attempt to call back came out.
type CallBackResult string

// The results of an attempt. Answered closes the task; the others leave it open until the attempts are used
// up, and AgentMissed does not count as one.
const (
	CallBackAnswered    CallBackResult = "answered"
	CallBackNoAnswer    CallBackResult = "noanswer"
	CallBackBusy        CallBackResult = "busy"
	CallBackFailed      CallBackResult = "failed"
	CallBackAgentMissed CallBackResult = "agent_missed"
)

// CallBackResults lists every result.
func CallBackResults() []CallBackResult {
	return []CallBackResult{CallBackAnswered, CallBackNoAnswer, CallBackBusy, CallBackFailed, CallBackAgentMissed}
}

// OwedCall is a caller who left without an agent.
type OwedCall struct {
	CallID   string
	Queue    string
	Language string
	Caller   call.Number
	Arrived  time.Time // the old place
	Left     time.Time
	Why      string // one of the reasons below
}

// Why a caller is owed a call that no queue has noted.
const (
	OwedFull      = "full"      // no place in the queue, or on the line
	OwedNodeLost  = "node_lost" // the node was killed
	OwedDrained   = "drained"   // the node left before the caller was served
	OwedFault     = "fault"     // a fault of ours cut the call
	OwedEmergency = "emergency" // in danger, and gone before anybody answered
)

// DeclineReason is why an offer came to nothing.
type DeclineReason string

// The reasons of a decline.
const (
	DeclineNoAnswer    DeclineReason = "noanswer"
	DeclineRejected    DeclineReason = "reject"
	DeclineUnreachable DeclineReason = "unreachable"
	DeclineCancelled   DeclineReason = "cancel"  // the caller left while it rang; the agent is not at fault
	DeclineEngaged     DeclineReason = "engaged" // the phone was not rung, since it is in another call; nor is the agent
)

// LeaveReason is why a caller left a queue without an agent.
type LeaveReason string

// The reasons of leaving.
const (
	LeaveAbandon   LeaveReason = "abandon"
	LeaveTimeout   LeaveReason = "timeout"
	LeaveEmergency LeaveReason = "emergency"
	LeaveOverflow  LeaveReason = "overflow"
	LeaveDrained   LeaveReason = "drained"
)

// Recorder keeps calls (package internal/recording).
type Recorder interface {
	// Start opens a recording. It fails with ErrNoSpace when the disk is at its mark: the call goes
	// on unrecorded, marked evidence=none.
	Start(ctx context.Context, f RecordingFacts) (Recording, error)
	// SealFacts encrypts personal data of an unrecorded call to the agency's recipients.
	SealFacts(facts []byte) ([]byte, error)
	// Recover finishes what a killed process left: a torn tail is cut and the rest sealed, marked
	// partial. It runs once, before the first Start.
	Recover(ctx context.Context) ([]Recovered, error)
}

// ErrNoSpace says that there is no room for a recording.
var ErrNoSpace = errors.New("session: no space for a recording")

// RecordingFacts is what a recording's manifest says of its call. It holds no number.
type RecordingFacts struct {
	CallID  string    `json:"call_id"`
	Trunk   string    `json:"trunk"`
	Called  string    `json:"called"`
	Started time.Time `json:"started"`
	Node    string    `json:"node"`
}

// Recording is one call's recording.
type Recording interface {
	ID() string
	// Sink makes a sink for Leg.Tap on the caller's leg; the caller is left, what they hear right.
	Sink() call.AudioSink
	// Offset is the length so far.
	Offset() time.Duration
	// Mark notes an event at the present offset.
	Mark(kind, note string)
	// SealFacts encrypts personal data to the recording's key.
	SealFacts(facts []byte) ([]byte, error)
	// Finish seals the file and its manifest. It is durable when it returns.
	Finish(ctx context.Context) (Sealed, error)
}

// Sealed is a finished recording.
type Sealed struct {
	ID           string        `json:"id"`
	SHA256Sealed string        `json:"sha256_sealed"` // of what is handed over
	SHA256Audio  string        `json:"sha256_audio"`  // of the G.711 inside
	Bytes        int64         `json:"bytes"`
	Duration     time.Duration `json:"duration"`
	Partial      bool          `json:"partial"` // the node was killed: up to 2 s are missing at the end
}

// Intake is the outbox to case intake (package internal/intake).
type Intake interface {
	// Submit is durable when it returns; delivery follows in its own time.
	Submit(ctx context.Context, h HandOver) error
}

// HandOverType is the kind of event that case intake gets.
type HandOverType string

// The hand-over events.
const (
	RequestUrgent   HandOverType = "request.urgent"
	RequestRecorded HandOverType = "request.recorded"
	RequestAmended  HandOverType = "request.amended"
)

// HandOver is one event to case intake. Its key is RequestID and Revision.
type HandOver struct {
	Type      HandOverType
	RequestID string // a ULID
	Revision  int    // 1 and up
	CallID    string
	At        time.Time
	Urgent    string         // why it is urgent, or ""
	Facts     map[string]any // no personal data
	Sealed    []byte         // personal data, encrypted to the recording's key
	Recording *Sealed        // nil for urgent events and unrecorded calls
	Evidence  string         // "recorded", "partial" or "none"
}

// Service is an emergency service.
type Service string

// The services of Art. 9(1).
const (
	Police  Service = "110"
	Fire    Service = "119"
	Medical Service = "120"
	Road    Service = "122"
)

// Services lists the services in the order of their keys, 1 to 4.
func Services() []Service { return []Service{Police, Fire, Medical, Road} }
