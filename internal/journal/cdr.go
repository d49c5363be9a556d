package journal

import (
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// CDR is a call's detail record. Its enums are those of the packages call and session, as text.
type CDR struct {
	CallID     string           `json:"call_id"`
	Node       string           `json:"node"`
	Trunk      string           `json:"trunk"`
	Caller     call.Number      `json:"-"` // stored sealed; shown masked
	Identity   string           `json:"identity"`
	Called     string           `json:"called"`
	Started    time.Time        `json:"started"`
	Answered   time.Time        `json:"answered"` // by the line
	Queued     time.Time        `json:"queued"`
	Connected  time.Time        `json:"connected"` // by an agent or a service
	Ended      time.Time        `json:"ended"`
	Queue      string           `json:"queue"`
	Agent      string           `json:"agent"`
	Decision   string           `json:"decision"` // admission's word
	FailOpen   bool             `json:"fail_open"`
	Outcome    string           `json:"outcome"`
	EndReason  string           `json:"end_reason"`
	Cause      int              `json:"cause"` // Q.850
	Emergency  string           `json:"emergency"`
	Recording  string           `json:"recording"`
	Evidence   string           `json:"evidence"`
	Language   string           `json:"language"`
	CallerLeg  call.MediaStats  `json:"caller_leg"`
	AgentLeg   *call.MediaStats `json:"agent_leg,omitempty"`
	RequestIDs []string         `json:"request_ids"`
}

// Entry is a line of a call's timeline.
type Entry struct {
	CallID string            `json:"call_id"`
	At     time.Time         `json:"at"`
	Kind   string            `json:"kind"`            // e.g. "stage", "queue", "digit", "sip", "offer", "emergency"
	Text   string            `json:"text"`            // one masked line for a person
	Attrs  map[string]string `json:"attrs,omitempty"` // for programs
}

// LoadSample is the state of a queue at a moment. It is evidence of hindrance (art29), so it is kept.
type LoadSample struct {
	At       time.Time `json:"at"`
	Queue    string    `json:"queue"`
	Waiting  int       `json:"waiting"`
	Oldest   float64   `json:"oldest_seconds"`
	Ready    int       `json:"ready"`
	Talking  int       `json:"talking"`
	Occupied float64   `json:"occupied"` // 0 to 1: talking agents of those logged in
}
