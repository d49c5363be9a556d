package queue

import (
	"context"
	"time"

	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
)

var _ session.CallBacks = (*Queue)(nil)

// Ledger is a node's durable copy of the call backs (package internal/journal), of which an emptied Redis
// is filled again.
type Ledger interface {
	SaveCallBack(ctx context.Context, r journal.CallBackRecord) error
	CallBackRecords(ctx context.Context) ([]journal.CallBackRecord, error)
}

// CallBack is a caller who is owed a call back: one task a number, from the first missed call to an answer.
type CallBack struct {
	ID         string    `json:"id"` // a pseudonym of the number
	Queue      string    `json:"queue"`
	Language   string    `json:"language"`
	Caller     string    `json:"caller"`  // masked
	CallID     string    `json:"call_id"` // the last missed call
	Why        string    `json:"why"`     // the last miss: abandon, drained, node_lost, full
	Since      time.Time `json:"since"`   // the old place, of the earliest missed call
	Missed     int       `json:"missed"`
	Attempts   int       `json:"attempts"`
	LastMissed time.Time `json:"last_missed"`
	LastTry    time.Time `json:"last_try,omitzero"`
	LastResult string    `json:"last_result,omitempty"` // a session.CallBackResult
	State      string    `json:"state"`                 // open, taken, closed
	By         string    `json:"by,omitempty"`          // the agent who has or had it
	Ending     string    `json:"ending,omitempty"`      // answered, unreached, dismissed (by a person), dropped (too many)
	ClosedBy   string    `json:"closed_by,omitempty"`   // the agent who answered, or the person who dismissed it
	Note       string    `json:"note,omitempty"`        // the reason that person gave
	Closed     time.Time `json:"closed,omitzero"`
}

// TakeCallBack implements [session.CallBacks].
func (q *Queue) TakeCallBack(ctx context.Context, task, agent, callID string) (session.CallBackTask, error) {
	return session.CallBackTask{}, session.ErrNoTask
}

// EndCallBack implements [session.CallBacks].
func (q *Queue) EndCallBack(ctx context.Context, task, callID string, result session.CallBackResult) error {
	return nil
}

// Owe implements [session.CallBacks].
func (q *Queue) Owe(ctx context.Context, o session.OwedCall) error { return nil }

// CallBacks is the tasks: those not closed by their old place, or the closed ones, the latest first; at most
// 1,000. While Redis is away it is this node's copy.
func (q *Queue) CallBacks(ctx context.Context, closed bool) ([]CallBack, error) { return nil, nil }

// CloseCallBack is a person's word that nobody needs to call back, with a reason.
func (q *Queue) CloseCallBack(ctx context.Context, id, by, why string) error { return nil }
