package abuse

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// State is where a measure stands.
type State string

// The states of a measure. A measure that has ended never runs again.
const (
	Running  State = "running"
	Expired  State = "expired"  // its term is over
	Lapsed   State = "lapsed"   // its appeal was left undecided
	Restored State = "restored" // a person lifted it
	Void     State = "void"     // it was recorded and could not be put into effect
)

// over tells whether the measure has ended, whatever its term.
func (s State) over() bool { return s == Expired || s == Lapsed || s == Restored || s == Void }

// The acts in the audit log. Their subject is the number's case pseudonym.
const (
	actSet      = "measure.set"
	actRestored = "measure.restored"
	actVoid     = "measure.void"
	actExpired  = "measure.expired"
	actLapsed   = "measure.lapsed"
)

// acts are what brings a measure into a state.
var acts = map[State]string{Running: actSet, Restored: actRestored, Void: actVoid, Expired: actExpired, Lapsed: actLapsed}

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
	Ended    time.Time   `json:"ended,omitzero"` // before its term was over; zero if it was not
	Node     string      `json:"node"`           // the node that recorded it
	Number   call.Number `json:"-"`              // masks itself; empty when the sealed number was destroyed

	pseudonym string
	named     bool  // by the key in force, rather than by that of the entry
	set, end  *told // what brought it into force, and out of it before its term was over
}

// told is an entry of a chain, with the node whose chain it is.
type told struct {
	node  string
	entry audit.Entry
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
		e.Detail["from"] = c.From.Format(time.RFC3339Nano)
		e.Detail["until"] = c.Until.Format(time.RFC3339Nano)
	}
	if !c.Ended.IsZero() {
		e.Detail["ended"] = c.Ended.UTC().Format(time.RFC3339Nano)
	}
	return e
}

// apply brings a ledger forward by an entry of a chain. Entries of several nodes may come out of order, so
// an end is kept even before its begin is known, and no begin undoes it.
func apply(ledger map[string]*Case, e audit.Entry, node string) {
	decision := e.Detail["decision"]
	if decision == "" || !news(ledger, e) {
		return
	}
	c := ledger[decision]
	if c == nil {
		c = &Case{Decision: decision, pseudonym: e.Subject, Node: node}
		ledger[decision] = c
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
		c.set = &told{node, original(e)}
	case actRestored, actLapsed:
		c.State, c.end = map[string]State{actRestored: Restored, actLapsed: Lapsed}[e.Act], &told{node, original(e)}
		c.Ended, _ = time.Parse(time.RFC3339, e.Detail["ended"]) // as above; one without is of an older version
	case actVoid:
		c.State, c.end = Void, &told{node, original(e)}
	case actExpired:
		c.State = Expired
	}
}

// news tells whether an entry says of its measure what the ledger does not know. A restoration is the last
// word, and nothing but another one's may take its place.
func news(ledger map[string]*Case, e audit.Entry) bool {
	c := ledger[e.Detail["decision"]]
	switch e.Act {
	case actSet:
		return c == nil || c.set == nil
	case actRestored:
		return c == nil || c.State != Restored
	case actVoid:
		return c == nil || c.State != Restored && c.State != Lapsed && c.State != Void
	case actLapsed:
		return c == nil || c.State != Restored && c.State != Lapsed
	case actExpired:
		return c == nil || !c.State.over()
	}
	return false
}

// The details that a copied entry has besides its own. The stream's id begins with a number of 13 digits,
// which the log would take for a telephone's; the prefix says otherwise.
const (
	detailNode   = "from_node"
	detailStream = "stream"
	streamPrefix = "id"
)

// original is an entry as its own chain has it.
func original(e audit.Entry) audit.Entry {
	e.Detail = maps.Clone(e.Detail)
	delete(e.Detail, detailNode)
	delete(e.Detail, detailStream)
	return e
}

// replay reads the measures and the dockets of the node's chain, and the generation of Redis for which a manager's word that
// they may be imposed anew was last recorded.
func replay(log *audit.Log) (ledger map[string]*Case, acts dockets, confirmed string, err error) {
	ledger, acts = make(map[string]*Case), newDockets()
	for rec, err := range audit.Records(log.Dir(), log.Node()) {
		if err != nil {
			return nil, dockets{}, "", err
		}
		if rec.Act == actConfirmed {
			confirmed = rec.Detail[detailGeneration]
		}
		node := rec.Node
		if from := rec.Detail[detailNode]; from != "" {
			node = from
		}
		apply(ledger, rec.Entry, node)
		acts.learn(rec.Entry, node)
	}
	return ledger, acts, confirmed, nil
}
