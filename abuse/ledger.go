package abuse

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// State is where a measure stands.
type State string

// The states of a measure. A measure that was restored or void never runs again.
const (
	Running  State = "running"
	Expired  State = "expired"  // its term is over
	Restored State = "restored" // a person lifted it
	Void     State = "void"     // it was recorded and could not be put into effect
)

// over tells whether the measure has ended, whatever its term.
func (s State) over() bool { return s == Expired || s == Restored || s == Void }

// The acts in the audit log. Their subject is the number's case pseudonym.
const (
	actSet      = "measure.set"
	actRestored = "measure.restored"
	actVoid     = "measure.void"
	actExpired  = "measure.expired"
)

// acts are what brings a measure into a state.
var acts = map[State]string{Running: actSet, Restored: actRestored, Void: actVoid, Expired: actExpired}

// Case is a measure as the audit chain tells of it.
type Case struct {
	Decision string      `json:"decision"` // its number, as the caller is told it
	Clause   string      `json:"clause"`   // "29-1" or "29-2"
	Level    int         `json:"level"`
	From     time.Time   `json:"from"`
	Until    time.Time   `json:"until"`
	Reason   string      `json:"reason"` // the facts, without personal data
	Actor    string      `json:"actor"`  // who decided
	State    State       `json:"state"`
	Node     string      `json:"node"` // the node that recorded it
	Number   call.Number `json:"-"`    // masks itself; empty when the sealed number was destroyed

	pseudonym string
}

// running tells whether the measure is in force at a time.
func (c *Case) running(at time.Time) bool { return c.State == Running && at.Before(c.Until) }

// stored is a measure as Redis has it. It holds no number in clear.
type stored struct {
	Decision string    `json:"decision"`
	Clause   string    `json:"clause"`
	Level    int       `json:"level"`
	From     time.Time `json:"from"`
	Until    time.Time `json:"until"`
}

func (c *Case) stored() string {
	b, _ := json.Marshal(stored{c.Decision, c.Clause, c.Level, c.From, c.Until}) // these types always marshal
	return string(b)
}

func readStored(text string) (stored, error) {
	var s stored
	if err := json.Unmarshal([]byte(text), &s); err != nil || s.Decision == "" {
		return stored{}, fmt.Errorf("abuse: a measure in redis is not readable: %w", err)
	}
	return s, nil
}

func (s stored) told() *session.Measure {
	return &session.Measure{Decision: s.Decision, Clause: s.Clause, Level: s.Level, Until: s.Until}
}

// entry is the entry of the audit log that brings the case into its state.
func (c *Case) entry(actor, reason string) audit.Entry {
	e := audit.Entry{Actor: actor, Act: acts[c.State], Subject: c.pseudonym, Detail: map[string]string{
		"decision": c.Decision, "reason": reason,
	}}
	if c.State == Running {
		e.Detail["clause"] = c.Clause
		e.Detail["level"] = strconv.Itoa(c.Level)
		e.Detail["from"] = c.From.Format(time.RFC3339)
		e.Detail["until"] = c.Until.Format(time.RFC3339)
	}
	return e
}

// apply brings a ledger forward by an entry of a chain. Entries of several nodes may come out of order, so
// an end is kept even before its begin is known, and no begin undoes it.
func apply(ledger map[string]*Case, e audit.Entry, node string) {
	decision := e.Detail["decision"]
	if decision == "" {
		return
	}
	c := ledger[decision]
	if c == nil {
		c = &Case{Decision: decision, pseudonym: e.Subject, Node: node}
	}
	switch e.Act {
	case actSet:
		if c.State == "" {
			c.State = Running
		}
		c.Actor, c.Reason, c.Clause, c.Node = e.Actor, e.Detail["reason"], e.Detail["clause"], node
		c.Level, _ = strconv.Atoi(e.Detail["level"]) // we wrote it, and the chain proves it
		c.From, _ = time.Parse(time.RFC3339, e.Detail["from"])
		c.Until, _ = time.Parse(time.RFC3339, e.Detail["until"])
	case actRestored:
		c.State = Restored
	case actVoid:
		c.State = Void
	case actExpired:
		if c.State != Restored && c.State != Void {
			c.State = Expired
		}
	default:
		return
	}
	ledger[decision] = c
}

// The details that a copied entry has besides its own. The stream's id begins with a number of 13 digits,
// which the log would take for a telephone's; the prefix says otherwise.
const (
	detailNode   = "from_node"
	detailStream = "stream"
	streamPrefix = "id"
)

// replay reads the measures of the node's chain, and how far the stream was copied.
func replay(log *audit.Log) (ledger map[string]*Case, seen string, err error) {
	ledger, seen = make(map[string]*Case), "0"
	for rec, err := range audit.Records(log.Dir(), log.Node()) {
		if err != nil {
			return nil, seen, err
		}
		node := rec.Node
		if from := rec.Detail[detailNode]; from != "" {
			node, seen = from, strings.TrimPrefix(rec.Detail[detailStream], streamPrefix)
		}
		apply(ledger, rec.Entry, node)
	}
	return ledger, seen, nil
}
