package emergency

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Every word that a plain search finds, the automaton finds, and nothing else.
func TestAutomatonFindsAll(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	letters := []rune("着火了啊")
	word := func(most int) []rune {
		w := make([]rune, 1+random.IntN(most))
		for i := range w {
			w[i] = letters[random.IntN(len(letters))]
		}
		return w
	}
	for range 300 {
		a := newAutomaton()
		var words [][]rune
		for id := range 12 {
			words = append(words, word(5))
			a.add(words[id], id)
		}
		a.build()
		line := word(30)
		var got, want []string
		a.find(line, func(id, end int) { got = append(got, fmt.Sprint(id, end)) })
		for id, w := range words {
			for end := len(w); end <= len(line); end++ {
				if strings.HasSuffix(string(line[:end]), string(w)) {
					want = append(want, fmt.Sprint(id, end))
				}
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("in %s of %v: %v; want %v", string(line), words, got, want)
		}
	}
}
