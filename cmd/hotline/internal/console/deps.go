package console

import (
	"context"
	"errors"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
	"github.com/hotline12345/gateway/queue"
)

// The interfaces of this file are what the console needs of the rest. The program wires them.

// Deps are the parts that the console stands on. All must be set but those that say what nil means.
type Deps struct {
	Calls   Calls
	Desk    Desk
	Agents  Agents
	Queues  Queues
	Trunks  Trunks
	Journal Journal
	Staff   Staff
	Audit   Audit
	Health  Health // nil shows no warnings
	// CallBacks may be nil: nobody is called back, and the page of it is hidden.
	CallBacks CallBacks
	// Nodes may be nil: this gateway stands alone, and the page of the gateways is hidden.
	Nodes Nodes
	// Article29 may be nil: no matters are kept, and their pages are hidden.
	Article29 Article29
	// Recordings may be nil: nothing can be listened to.
	Recordings Recordings
}

// Calls is the live calls of this node.
type Calls interface {
	// Views is every live call, in no order.
	Views() []session.View
	// Watch gives a channel that gets a value after a change; several changes may share one.
	Watch() (changed <-chan struct{}, stop func())
}

// Desk is what staff do to a live call. The console has checked that the person may: an agent acts
// on their own call, a supervisor may hang up any. The errors are session.ErrNoCall, ErrNotYours,
// ErrBadFacts and ErrNotInTalk, wrapped or not.
type Desk interface {
	SetFacts(ctx context.Context, callID, by string, f session.Facts) error
	FinishWrapUp(ctx context.Context, callID, by string) error
	Emergency(ctx context.Context, callID, by string, s session.Service) error
	Hangup(ctx context.Context, callID, by string) error
	// Mark is the present offset of the call's recording.
	Mark(callID, by string) (time.Duration, error)
}

// Holder is a Desk that can put a caller on hold. The buttons are shown only when Desk is one.
type Holder interface {
	Hold(ctx context.Context, callID, by string) error
	Resume(ctx context.Context, callID, by string) error
}

// Agent is an agent as the queues know them.
type Agent struct {
	ID        string           `json:"id"` // the person
	Name      string           `json:"name"`
	Extension string           `json:"extension"`
	State     queue.AgentState `json:"state"`
	Since     time.Time        `json:"since"`            // of the state
	Until     time.Time        `json:"until,omitzero"`   // the end of wrap-up; zero if it has none
	Reason    string           `json:"reason,omitempty"` // of a pause
	CallID    string           `json:"call_id,omitempty"`
	Queues    []string         `json:"queues"`
}

// Agents is the agents' states (package queue).
type Agents interface {
	List(ctx context.Context) ([]Agent, error)
	// Login binds a person to a phone and makes them ready.
	Login(ctx context.Context, person, extension string) error
	Logout(ctx context.Context, person string) error
	// Pause takes an agent out of the hunt; in talk it takes force after the call.
	Pause(ctx context.Context, person, reason string) error
	Ready(ctx context.Context, person string) error
}

// ErrNoAgent answers an act on a person who is not logged in on a phone.
var ErrNoAgent = errors.New("console: not logged in on a phone")

// QueueState is a queue now, and what it did today.
type QueueState struct {
	Name      string        `json:"name"`
	Display   queue.Display `json:"display"` // the name for people
	Waiting   int           `json:"waiting"`
	Oldest    time.Time     `json:"oldest,omitzero"` // when the longest waiter came; zero if nobody waits
	Ready     int           `json:"ready"`
	Talking   int           `json:"talking"`
	Offered   int           `json:"offered"`   // callers who entered today
	Answered  int           `json:"answered"`  // of them, joined with an agent
	InTime    int           `json:"in_time"`   // of those, within 15 s
	Abandoned int           `json:"abandoned"` // of them, gone before an agent
}

// Queues tells how the queues stand (package queue).
type Queues interface {
	Queues(ctx context.Context) ([]QueueState, error)
}

// Trunk is a carrier as a gateway sees it.
type Trunk struct {
	Name     string        `json:"name"`
	Node     string        `json:"node,omitempty"` // the gateway that tells; "" when it stands alone
	Up       bool          `json:"up"`
	Since    time.Time     `json:"since"`
	RTT      time.Duration `json:"rtt"` // of the last OPTIONS, nanoseconds; 0 if none was answered
	Channels int           `json:"channels"`
	Limit    int           `json:"limit"`             // 0 is no limit
	Problem  string        `json:"problem,omitempty"` // the last failure, in words
}

// Trunks tells how the trunks stand (package sip/trunk).
type Trunks interface {
	Trunks(ctx context.Context) ([]Trunk, error)
}

// Journal is what is known of a call, live or ended: a *journal.Journal.
type Journal interface {
	// Call is a call's record; journal.ErrNotFound while there is none.
	Call(ctx context.Context, callID string) (journal.Row, error)
	// Timeline is a call's entries by time.
	Timeline(ctx context.Context, callID string) ([]journal.Entry, error)
}

// Staff is people, their sessions on the pages, and their tokens for the API: a *staff.Directory.
type Staff interface {
	Login(ctx context.Context, id, password, source string) (staff.Session, error)
	Session(ctx context.Context, token string) (staff.Person, error)
	Token(ctx context.Context, token string) (staff.Person, error)
	Logout(ctx context.Context, token string) error
}

// Audit writes acts to the tamper-evident log: an *audit.Log. An act that cannot be written is not done.
type Audit interface {
	Record(ctx context.Context, actor, act, subject string, detail map[string]string) error
}

// Health tells what is wrong now: an *ops.Health.
type Health interface {
	Warnings(ctx context.Context) []ops.Warning
}

// CallBacks is the ledger of callers who are owed a call back. Its acts have been checked and audited.
type CallBacks interface {
	// List is who is owed a call back, or the closed tasks of the last days, in no order.
	List(ctx context.Context, closed bool) ([]queue.CallBack, error)
	// Call rings a person's phone and then the caller; it returns once both are reserved. The errors are
	// session.ErrNoTask, ErrTaskTaken and ErrAgentBusy, and ErrNoAgent, wrapped or not.
	Call(ctx context.Context, id, person string) (callID string, err error)
	// Close takes a task off the list without a call.
	Close(ctx context.Context, id, person, why string) error
}

// Node is a gateway of the cluster.
type Node struct {
	Name       string    `json:"name"`
	Version    string    `json:"version"`
	API        string    `json:"api"` // where the others reach it; "" if they cannot
	SIP        string    `json:"sip"`
	Started    time.Time `json:"started"`
	ConfigHash string    `json:"config_hash"`
	PolicyHash string    `json:"policy_hash"`
	Draining   bool      `json:"draining"`
	Calls      int       `json:"calls"`
	Seen       time.Time `json:"seen"`  // its last heartbeat
	Alive      bool      `json:"alive"` // the heartbeat is fresh
	Self       bool      `json:"self"`  // it is the gateway that answers
}

// Nodes is the gateways of the cluster. Its acts have been checked and audited.
type Nodes interface {
	// List is every gateway, present or absent, by name.
	List(ctx context.Context) ([]Node, error)
	// Drain lets a gateway take no new calls and keep those it has; Resume lets it take calls again. The
	// errors are store.ErrNodeUnknown and ErrNodeAway, wrapped or not.
	Drain(ctx context.Context, name, by string) error
	Resume(ctx context.Context, name, by string) error
	// Forget takes an absent gateway off the list; store.ErrNodeAlive when it is not absent.
	Forget(ctx context.Context, name, by string) error
}

// ErrNodeAway answers an act on a gateway, or on a call of one, that does not answer.
var ErrNodeAway = errors.New("console: the gateway does not answer")
