package ivr

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// Catalogue is the prompts that a flow may say (package ivr/prompt).
type Catalogue interface {
	// Has tells what is wrong with a part: no such prompt, or no such spoken value.
	Has(part string) error
	// Names lists every prompt.
	Names() []string
}

// Known is what a flow may refer to. What is nil is not checked.
type Known struct {
	Prompts Catalogue
	Queues  []string
	Targets []string
}

// Check reads a flow and tells everything that is wrong with it, in the file's order. The flow is nil
// when there are faults; warnings alone leave it whole.
func Check(file string, src []byte, known Known) (*Flow, []Problem) {
	r := &reader{file: file, lines: strings.Split(string(src), "\n")}
	f := &Flow{Name: strings.TrimSuffix(path.Base(file), ".yaml"), byName: map[string]*Node{}}
	if root := r.root(src); root != nil {
		p := &flowReader{reader: r, known: known, flow: f}
		p.read(root)
		if len(Faults(r.problems)) == 0 {
			p.walkable()
		}
	}
	slices.SortStableFunc(r.problems, byPlace)
	if len(Faults(r.problems)) > 0 {
		return nil, r.problems
	}
	return f, r.problems
}

// maxNodes bounds a flow.
const maxNodes = 500

type flowReader struct {
	*reader
	known Known
	flow  *Flow
}

func (p *flowReader) read(root *section) {
	f := p.flow
	f.Start = root.must("start", "write start: and the first node's name")
	f.Person = root.must("person", "write person: and the name of a queue node; a caller who is stuck goes there")
	f.Language = p.language(root, "language")
	nodes := root.sub("nodes", "nodes")
	root.rest()
	if nodes == nil {
		root.report(root.at, "the flow has no nodes", "write nodes: and under it one section a node")
		return
	}
	if len(nodes.keys) > maxNodes {
		nodes.report(nodes.at, fmt.Sprintf("%d nodes", len(nodes.keys)), fmt.Sprintf("a flow has at most %d; split it", maxNodes))
		return
	}
	for _, name := range nodes.keys {
		p.node(nodes, name)
	}
	p.resolve(root)
}

func (p *flowReader) node(nodes *section, name string) {
	at := nodes.fields[name].at
	if name == Back || name == Repeat {
		p.report(at, fmt.Sprintf("%q is no name for a node: it is a target of menus", name), "name it otherwise")
	}
	s := p.section(fmt.Sprintf("node %q", name), nodes.fields[name].value)
	if s == nil {
		return
	}
	s.at = at
	n := &Node{Name: name, at: at}
	p.flow.Nodes = append(p.flow.Nodes, n)
	p.flow.byName[name] = n
	n.Kind = Kind(s.must("type", "write type: and one of "+kindList()))
	read, ok := readers[n.Kind]
	if !ok {
		if n.Kind != "" {
			s.report(s.value("type"), fmt.Sprintf("%q is no type of node", n.Kind), choose(string(n.Kind), kindNames()))
		}
		return
	}
	read(p, s, n)
	s.rest()
}

var readers = map[Kind]func(*flowReader, *section, *Node){
	Say: func(p *flowReader, s *section, n *Node) {
		n.Say = p.say(s, "say")
		n.Next = p.way(s, n, "next")
	},
	Menu:     (*flowReader).menu,
	Collect:  (*flowReader).collect,
	Language: (*flowReader).languages,
	Hours:    (*flowReader).hours,
	Queue: func(p *flowReader, s *section, n *Node) {
		n.Say = p.say(s, "say")
		n.Queue = p.among(s, "queue", p.known.Queues)
		n.Credit = s.span("credit", 0, 0, 10*time.Minute)
	},
	Transfer: func(p *flowReader, s *section, n *Node) {
		n.Say = p.say(s, "say")
		n.Endpoint = p.among(s, "endpoint", p.known.Targets)
	},
	Announce: func(p *flowReader, s *section, n *Node) {
		n.File = s.must("file", "write file: and a file name beside the flow, such as events.yaml")
		if n.File != "" && (path.Base(n.File) != n.File || !strings.HasPrefix(n.File, events) || path.Ext(n.File) != ".yaml") {
			s.report(s.value("file"), fmt.Sprintf("%q is no file of announcements", n.File), "write a name that begins with events and ends in .yaml, such as events.yaml")
		}
		n.Next = p.way(s, n, "next")
	},
	Message: func(p *flowReader, s *section, n *Node) {
		n.Say = p.say(s, "say", "leave_msg")
		n.Limit = s.span("limit", 2*time.Minute, 10*time.Second, 5*time.Minute)
		n.Next = p.way(s, n, "next")
	},
	Hangup: func(p *flowReader, s *section, n *Node) { n.Say = p.say(s, "say") },
	Emergency: func(_ *flowReader, s *section, n *Node) {
		n.Service = session.Service(s.text("service", ""))
		if n.Service != "" && !slices.Contains(session.Services(), n.Service) {
			s.report(s.value("service"), fmt.Sprintf("%q is no emergency service", n.Service), "write 110, 119, 120 or 122, or leave the key out: the caller is then asked")
		}
	},
}

func kindNames() []string {
	var names []string
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return names
}

func kindList() string { return strings.Join(kindNames(), ", ") }

// say is a list of prompts, each of which the catalogue must have.
func (p *flowReader) say(s *section, key string, fallback ...string) []string {
	parts := s.list(key, fallback...)
	if p.known.Prompts == nil || !slices.Contains(s.keys, key) {
		return parts
	}
	for i, part := range parts {
		if err := p.known.Prompts.Has(part); err != nil {
			mend := "write an identity of prompts.tsv, or a spoken value such as count:3"
			if m := meant(part, p.known.Prompts.Names()); m != "" {
				mend = fmt.Sprintf("did you mean %q?", m)
			}
			s.report(s.item(key, i), err.Error(), mend)
		}
	}
	return parts
}

// way is a key that names the node it leads to.
func (p *flowReader) way(s *section, n *Node, key string) string {
	to := s.must(key, fmt.Sprintf("write %s: and the name of a node", key))
	if to != "" {
		n.edges = append(n.edges, edge{key, to, s.value(key)})
	}
	return to
}

// among is a name out of a closed list.
func (p *flowReader) among(s *section, key string, names []string) string {
	name := s.must(key, fmt.Sprintf("write %s: and a name of the configuration", key))
	if name != "" && names != nil && !slices.Contains(names, name) {
		s.report(s.value(key), fmt.Sprintf("no %s is named %q", key, name), cmp.Or(choose(name, names), "name it in the configuration first"))
	}
	return name
}

func (p *flowReader) language(s *section, key string) string {
	l := s.text(key, "")
	if l != "" && l != "zh" && l != "en" {
		s.report(s.value(key), fmt.Sprintf("%q is no language of the line", l), "write zh or en")
	}
	return l
}

func (p *flowReader) menu(s *section, n *Node) {
	n.Say = p.say(s, "say")
	p.keys(s, n)
	p.asking(s, n)
}

// asking is what menus and collections share: a time-out, retries, and where it all ends.
func (p *flowReader) asking(s *section, n *Node) {
	n.Timeout = s.span("timeout", 5*time.Second, time.Second, time.Minute)
	n.Retries = s.number("retries", 2, 0, 5)
	n.Invalid = p.say(s, "invalid", "invalid_key")
	n.Silent = p.say(s, "silent", "no_input")
	n.OnFail = s.must("on_fail", "a caller who presses nothing must get somewhere: write on_fail: and a node, best a queue")
	if n.OnFail != "" {
		n.edges = append(n.edges, edge{"on_fail", n.OnFail, s.value("on_fail")})
	}
}

func (p *flowReader) keys(s *section, n *Node) {
	keys := s.sub("keys", "keys of "+s.name)
	if keys == nil || len(keys.keys) == 0 {
		s.report(s.where("keys"), s.name+" has no keys", "write keys: and under it lines such as 1: node")
		return
	}
	for _, name := range keys.keys {
		if !p.validKey(keys, name) {
			continue
		}
		to := keys.text(name, "")
		if to == "" {
			continue
		}
		n.Keys = append(n.Keys, Key{name[0], to})
		if to != Back && to != Repeat {
			n.edges = append(n.edges, edge{"key " + name, to, keys.value(name)})
		}
	}
}

func (p *flowReader) validKey(keys *section, name string) bool {
	at := keys.fields[name].at
	switch {
	case name == "0":
		p.report(at, "key 0 is kept for emergencies on the whole line", "use another key; 9 is a person")
	case len(name) != 1 || !call.ValidDigit(name[0]):
		p.report(at, fmt.Sprintf("%q is no key of a telephone", name), "write 1 to 9, or \"*\" or \"#\" in quotes")
	default:
		return true
	}
	return false
}

func (p *flowReader) collect(s *section, n *Node) {
	n.Say = p.say(s, "say")
	n.Store = s.text("store", n.Name)
	n.Max = s.number("max", 20, 1, 32)
	n.Min = s.number("min", 1, 1, 32)
	if n.Min > n.Max {
		s.report(s.value("min"), fmt.Sprintf("min %d is more than max %d", n.Min, n.Max), "make min smaller or max larger")
	}
	switch t := s.text("terminator", "#"); t {
	case "#", "*":
		n.Terminator = t[0]
	case "none":
	default:
		s.report(s.value("terminator"), fmt.Sprintf("%q ends no digits", t), `write "#", "*" or none`)
	}
	n.Gap = s.span("gap", 5*time.Second, time.Second, time.Minute)
	p.asking(s, n)
	n.Next = p.way(s, n, "next")
}

func (p *flowReader) languages(s *section, n *Node) {
	n.Next = p.way(s, n, "next")
	if slices.Contains(s.keys, "set") {
		n.Language = p.language(s, "set")
		return
	}
	n.Say = p.say(s, "say")
	n.Timeout = s.span("timeout", 5*time.Second, time.Second, time.Minute)
	keys := s.sub("keys", "keys of "+s.name)
	if keys == nil {
		s.report(s.at, s.name+" chooses no language", "write set: en, or keys: and lines such as 1: zh")
		return
	}
	for _, name := range keys.keys {
		if p.validKey(keys, name) {
			n.Keys = append(n.Keys, Key{name[0], p.language(keys, name)})
		}
	}
}
