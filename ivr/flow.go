package ivr

import (
	"slices"
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

// Kind is what a node does.
type Kind string

// The kinds of node; the package documentation tells what each takes.
const (
	Say       Kind = "say"
	Menu      Kind = "menu"
	Collect   Kind = "collect"
	Queue     Kind = "queue"
	Transfer  Kind = "transfer"
	Hours     Kind = "hours"
	Language  Kind = "language"
	Announce  Kind = "announce"
	Message   Kind = "message"
	Hangup    Kind = "hangup"
	Emergency Kind = "emergency"
)

// Kinds lists every kind.
func Kinds() []Kind {
	return []Kind{Say, Menu, Collect, Queue, Transfer, Hours, Language, Announce, Message, Hangup, Emergency}
}

// Targets of a menu's key that are no nodes.
const (
	Back   = "back"   // the menu before this one
	Repeat = "repeat" // this menu again
)

// Flow is a checked flow. It does not change.
type Flow struct {
	Name     string // the file's name without .yaml
	Language string // "" leaves it to the call
	Start    string // the first node
	Person   string // the queue node of a caller who is stuck
	Nodes    []*Node

	byName map[string]*Node
}

// Node is a step of a flow. Each kind uses some of its fields.
type Node struct {
	Name string
	Kind Kind
	Say  []string // prompts and spoken values

	Keys    []Key         // menu: where keys lead; language: which language a key chooses
	Timeout time.Duration // menu, language, collect: for a key, or the first digit
	Retries int           // menu, collect: how often it is asked again
	Invalid []string      // menu, collect: said of a wrong key, or of too few digits
	Silent  []string      // menu, collect: said when no key came
	OnFail  string        // menu, collect: where it leads in the end

	Store      string        // collect: the name of what was collected
	Min, Max   int           // collect: how many digits
	Terminator byte          // collect: ends the digits; 0 for none
	Gap        time.Duration // collect: between two digits

	Queue    string        // queue
	Credit   time.Duration // queue: added to the wait
	Endpoint string        // transfer: a target's name
	Schedule Schedule      // hours
	Open     string        // hours
	Closed   string        // hours
	Language string        // language: set to this
	File     string        // announce
	Limit    time.Duration // message
	Service  session.Service

	Next string // say, collect, language, announce, message

	at    position
	edges []edge
}

// Key is a key of a menu, or of a choice of languages.
type Key struct {
	Key byte
	To  string
}

// edge is a way from a node to another, and where the file says so.
type edge struct {
	label string // "next", "key 1"
	to    string
	at    position
}

// waits tells whether a caller must act or time must pass before the node is left.
func (n *Node) waits() bool {
	switch n.Kind {
	case Menu, Collect, Message:
		return true
	case Language:
		return n.Language == ""
	default:
		return false
	}
}

// chooses tells whether the caller chooses something here.
func (n *Node) chooses() bool { return n.waits() && n.Kind != Message }

// key is where a key leads; "" when nowhere.
func (n *Node) key(b byte) string {
	if i := slices.IndexFunc(n.Keys, func(k Key) bool { return k.Key == b }); i >= 0 {
		return n.Keys[i].To
	}
	return ""
}

// Node is a node by its name, or nil.
func (f *Flow) Node(name string) *Node { return f.byName[name] }
