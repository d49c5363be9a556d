package emergency

// automaton finds many words at once in one pass over a text (Aho and Corasick, 1975). Its symbols are
// characters or syllables. It does not change once built, and is safe for use by several goroutines.
type automaton struct {
	next  map[edge]int32
	nodes []node
}

type edge struct {
	from   int32
	symbol rune
}

type node struct {
	fail int32   // the longest proper suffix that is a node too
	more int32   // the nearest suffix that is a word
	ends []int32 // the words that end here
}

func newAutomaton() *automaton { return &automaton{next: map[edge]int32{}, nodes: make([]node, 1)} }

// add makes the automaton find a word; build comes after the last one.
func (a *automaton) add(word []rune, id int) {
	at := int32(0)
	for _, r := range word {
		to, ok := a.next[edge{at, r}]
		if !ok {
			to = int32(len(a.nodes))
			a.next[edge{at, r}] = to
			a.nodes = append(a.nodes, node{})
		}
		at = to
	}
	a.nodes[at].ends = append(a.nodes[at].ends, int32(id))
}

func (a *automaton) build() {
	children := make([][]edge, len(a.nodes))
	for e, to := range a.next {
		children[e.from] = append(children[e.from], edge{to, e.symbol})
	}
	queue := []int32{0}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, c := range children[at] {
			to := c.from
			fail := int32(0)
			if at != 0 {
				fail = a.step(a.nodes[at].fail, c.symbol)
			}
			a.nodes[to].fail = fail
			a.nodes[to].more = a.nodes[fail].more
			if len(a.nodes[fail].ends) > 0 {
				a.nodes[to].more = fail
			}
			queue = append(queue, to)
		}
	}
}

func (a *automaton) step(at int32, symbol rune) int32 {
	for {
		if to, ok := a.next[edge{at, symbol}]; ok {
			return to
		}
		if at == 0 {
			return 0
		}
		at = a.nodes[at].fail
	}
}

// find calls found for every word in the symbols, with the index after its last symbol.
func (a *automaton) find(symbols []rune, found func(id, end int)) {
	at := int32(0)
	for i, r := range symbols {
		at = a.step(at, r)
		for n := at; n != 0; n = a.nodes[n].more {
			for _, id := range a.nodes[n].ends {
				found(int(id), i+1)
			}
		}
	}
}
