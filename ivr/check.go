package ivr

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hotline12345/gateway/ivr/emergency"
)

// deepest is how many menus may lie between the start and a node before a warning: GB/T 33358 advises
// against menus altogether.
const deepest = 2

// resolve checks that every name of a node is one.
func (p *flowReader) resolve(root *section) {
	var names []string
	for _, n := range p.flow.Nodes {
		names = append(names, n.Name)
	}
	check := func(to string, at position) {
		if to != "" && p.flow.byName[to] == nil {
			p.report(at, fmt.Sprintf("no node is named %q", to), choose(to, names))
		}
	}
	check(p.flow.Start, root.value("start"))
	check(p.flow.Person, root.value("person"))
	if n := p.flow.byName[p.flow.Person]; n != nil && n.Kind != Queue {
		p.report(root.value("person"), fmt.Sprintf("%q is a node of type %s, and no person", n.Name, n.Kind), "name a node of type queue")
	}
	for _, n := range p.flow.Nodes {
		for _, e := range n.edges {
			check(e.to, e.at)
		}
		if to := n.key(emergency.Back); to != "" && n.Kind == Menu {
			p.nine(n, to)
		}
	}
}

// nine holds key 9 to its meaning on the whole line: a person, or back.
func (p *flowReader) nine(n *Node, to string) {
	target := p.flow.byName[to]
	if to == Back || target == nil || target.Kind == Queue {
		return
	}
	for _, e := range n.edges {
		if e.label == "key 9" {
			p.report(e.at, fmt.Sprintf("key 9 leads to %q, which is no person", to), "9 is a queue node, or back; use another key")
		}
	}
}

// walkable checks the flow as a whole, once every name is known to be a node's.
func (p *flowReader) walkable() {
	depth := p.depths()
	for _, n := range p.flow.Nodes {
		menus, reached := depth[n.Name]
		switch {
		case !reached:
			p.report(n.at, fmt.Sprintf("nothing leads to node %q", n.Name), "lead a key or a next to it, or take it out")
		case n.Kind == Menu && menus > deepest-1:
			p.add(n.at, true, fmt.Sprintf("node %q is menu %d in a row", n.Name, menus+1), fmt.Sprintf("callers get lost beyond %d; put them through to a person", deepest))
		}
		if reached && (n.chooses() || n.Name == p.flow.Start) && !p.reaches(n, Queue) {
			p.report(n.at, fmt.Sprintf("from node %q no way leads to a person", n.Name), "lead key 9 or on_fail to a queue node")
		}
	}
	p.loops()
}

// depths are the fewest menus on the way to each node that can be reached.
func (p *flowReader) depths() map[string]int {
	depth := map[string]int{p.flow.Start: 0, p.flow.Person: 0}
	for queue := []string{p.flow.Start, p.flow.Person}; len(queue) > 0; queue = queue[1:] {
		n := p.flow.byName[queue[0]]
		d := depth[n.Name]
		if n.Kind == Menu {
			d++
		}
		for _, e := range n.edges {
			if was, seen := depth[e.to]; !seen || d < was {
				depth[e.to] = d
				queue = append(queue, e.to)
			}
		}
	}
	return depth
}

// reaches tells whether a node of a kind can be reached from n.
func (p *flowReader) reaches(n *Node, kind Kind) bool {
	seen := map[string]bool{n.Name: true}
	for queue := []*Node{n}; len(queue) > 0; queue = queue[1:] {
		if queue[0].Kind == kind {
			return true
		}
		for _, e := range queue[0].edges {
			if !seen[e.to] {
				seen[e.to] = true
				queue = append(queue, p.flow.byName[e.to])
			}
		}
	}
	return false
}

// loops reports ways that come back to a node without a key or a wait between: a call would go round
// for ever.
func (p *flowReader) loops() {
	done := map[string]bool{}
	var trail []string
	var visit func(n *Node)
	visit = func(n *Node) {
		if n.waits() || done[n.Name] {
			return
		}
		trail = append(trail, n.Name)
		for _, e := range n.edges {
			if i := slices.Index(trail, e.to); i >= 0 {
				way := strings.Join(append(slices.Clone(trail[i:]), e.to), " → ")
				p.report(e.at, "flow loop: "+way+" goes round without a key or a wait", "lead it to a menu, a queue or a hangup")
				continue
			}
			visit(p.flow.byName[e.to])
		}
		trail = trail[:len(trail)-1]
		done[n.Name] = true
	}
	for _, n := range p.flow.Nodes {
		visit(n)
	}
}
