package session

import (
	"errors"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// Stage is where a call stands: a closed set shared by checkpoint, metric label and console.
type Stage string

// The stages of a call.
const (
	StageScreened  Stage = "screened"  // admitted, not answered yet
	StageFlow      Stage = "flow"      // in the IVR
	StageLeaseWait Stage = "leasewait" // a third call of one number waits
	StageSuspended Stage = "suspended" // the automatic path of a measure
	StageReserve   Stage = "reserve"   // all else is full: 20 s with the emergency exit
	StageQueue     Stage = "queue"
	StageRing      Stage = "ring" // an agent's phone rings
	StageTalk      Stage = "talk"
	StageEmergency Stage = "emergency" // choosing, or on the way to a service
	StageService   Stage = "service"   // joined with an emergency service
	StageWrapUp    Stage = "wrapup"    // the caller has gone; the agent writes up
)

// Stages lists every stage.
func Stages() []Stage {
	return []Stage{StageScreened, StageFlow, StageLeaseWait, StageSuspended, StageReserve, StageQueue,
		StageRing, StageTalk, StageEmergency, StageService, StageWrapUp}
}

// View is a live call as the console shows it. It holds no number in clear.
type View struct {
	CallID    string        `json:"call_id"`
	Stage     Stage         `json:"stage"`
	Since     time.Time     `json:"since"` // of the stage
	Started   time.Time     `json:"started"`
	Trunk     string        `json:"trunk"`
	Caller    string        `json:"caller"` // masked
	Identity  call.Identity `json:"identity"`
	Called    string        `json:"called"`
	Language  string        `json:"language"`
	Node      string        `json:"node"`    // of the flow
	Gateway   string        `json:"gateway"` // the gateway that has the call
	Queue     string        `json:"queue"`
	Position  int           `json:"position"`
	Agent     string        `json:"agent"` // the person
	Extension string        `json:"extension"`
	Reason    string        `json:"reason"` // why the caller is here
	Decision  Decision      `json:"decision"`
	Banner    Banner        `json:"banner"`
	Emergency Service       `json:"emergency"`
	Alert     bool          `json:"alert"`          // the caller pressed the emergency key, or spoke of danger
	Heard     Heard         `json:"heard,omitzero"` // the words of danger that were heard last
	Evidence  string        `json:"evidence"`       // "" while there is nothing to record, "recorded", or "none" when it failed
	Facts     Facts         `json:"facts"`
	Standing  Standing      `json:"standing,omitzero"` // under Article 29, once an agent has noted something
}

// Kind is one of the five kinds of request of Art. 6.
type Kind string

// The kinds of request (Art. 6, paragraphs 1 to 5).
const (
	KindConsultation Kind = "consultation" // asking for public information
	KindReport       Kind = "report"       // asking an agency to look into a breach of law
	KindOpinion      Kind = "opinion"      // on the economy, the city, services, the environment
	KindCriticism    Kind = "criticism"    // of public bodies and their staff: a request, never abuse
	KindOther        Kind = "other"
)

// Kinds lists the kinds in the order of the regulation.
func Kinds() []Kind {
	return []Kind{KindConsultation, KindReport, KindOpinion, KindCriticism, KindOther}
}

// Facts is what the agent writes of a call (Art. 7 and 8).
type Facts struct {
	Outcome  Outcome   `json:"outcome"`
	Feedback bool      `json:"feedback"` // the caller wants an answer; Art. 7 then asks for Name and Contact
	Name     string    `json:"name"`     // personal data, sealed in the hand-over
	Contact  string    `json:"contact"`  // a way to reach the caller; personal data
	Requests []Request `json:"requests"` // each a hand-over of its own (Art. 8)
	Note     string    `json:"note"`
	By       string    `json:"by"` // the person who wrote it
}

// Request is one matter of a call. Art. 8: several matters in one call are registered one by one.
type Request struct {
	ID      string        `json:"id"` // a ULID, made when the request is first saved
	Kind    Kind          `json:"kind"`
	Summary string        `json:"summary"` // personal data may stand in it: sealed
	Urgent  string        `json:"urgent"`  // why, or ""
	Mark    time.Duration `json:"mark"`    // where in the recording it begins
}

// The errors of acts on a live call.
var (
	ErrNoCall    = errors.New("session: no such live call on this node")
	ErrNotYours  = errors.New("session: the call is with another agent")
	ErrBadFacts  = errors.New("session: the facts do not hold")
	ErrNotInTalk = errors.New("session: the call is not in talk")
)
