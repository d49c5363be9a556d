package ivr

import (
	"fmt"
	"slices"
	"strings"
)

// Render draws a flow for people: each node in a line of text, then the same as a Mermaid chart.
func Render(f *Flow) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\nstarts at %s; a caller who is stuck goes to %s\n\n", f.Name, f.Start, f.Person)
	for _, n := range f.Nodes {
		fmt.Fprintf(&b, "- %s: %s\n", n.Name, n.summary())
		for _, e := range n.ways() {
			fmt.Fprintf(&b, "  - %s → %s\n", e.label, e.to)
		}
	}
	b.WriteString("\n```mermaid\nflowchart TD\n")
	fmt.Fprintf(&b, "  start((call)) --> %s\n", f.id(f.Start))
	for _, n := range f.Nodes {
		open, shut := n.shape()
		fmt.Fprintf(&b, "  %s%s\"%s<br>%s\"%s\n", f.id(n.Name), open, n.Name, escape(n.summary()), shut)
	}
	for _, n := range f.Nodes {
		for _, e := range n.ways() {
			if f.byName[e.to] != nil {
				fmt.Fprintf(&b, "  %s -->|%s| %s\n", f.id(n.Name), escape(e.label), f.id(e.to))
			}
		}
	}
	b.WriteString("```\n")
	return b.String()
}

// id is a node's name as Mermaid takes it, whatever the flow calls it.
func (f *Flow) id(name string) string {
	for i, n := range f.Nodes {
		if n.Name == name {
			return fmt.Sprintf("n%d", i)
		}
	}
	return "start"
}

func escape(s string) string {
	return strings.NewReplacer(`"`, "#quot;", "|", "#124;", "*", "#42;", "<", "#lt;", ">", "#gt;").Replace(s)
}

// ways are a node's edges with those that lead to no node: back and repeat.
func (n *Node) ways() []edge {
	ways := n.edges
	for _, k := range n.Keys {
		if n.Kind == Menu && (k.To == Back || k.To == Repeat) {
			ways = append(slices.Clip(ways), edge{label: "key " + string(k.Key), to: k.To})
		}
	}
	return ways
}

// shape is Mermaid's outline for a kind: a choice is a rhombus, an end is a stadium.
func (n *Node) shape() (open, shut string) {
	switch n.Kind {
	case Menu, Language, Hours:
		return "{", "}"
	case Queue, Transfer, Hangup, Emergency:
		return "([", "])"
	default:
		return "[", "]"
	}
}

func (n *Node) summary() string {
	words := []string{string(n.Kind)}
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch n.Kind {
	case Queue:
		add("%s", n.Queue)
		if n.Credit > 0 {
			add("credit %s", n.Credit)
		}
	case Transfer:
		add("to %s", n.Endpoint)
	case Language:
		add("%s", n.languages())
	case Announce:
		add("from %s", n.File)
	case Message:
		add("up to %s", n.Limit)
	case Emergency:
		if n.Service == "" {
			add("ask which service")
		} else {
			add("to %s", n.Service)
		}
	case Collect:
		add("%d to %d digits as %s", n.Min, n.Max, n.Store)
	default: // the others are told by what they say and where they lead
	}
	if said := strings.Join(n.Say, ", "); n.Kind == Say {
		add("%s", said)
	} else if said != "" {
		add("say %s", said)
	}
	return strings.Join(words, " ")
}

func (n *Node) languages() string {
	if n.Language != "" {
		return n.Language
	}
	var choices []string
	for _, k := range n.Keys {
		choices = append(choices, fmt.Sprintf("%c %s", k.Key, k.To))
	}
	return "by key: " + strings.Join(choices, ", ")
}
