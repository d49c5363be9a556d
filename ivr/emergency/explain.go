package emergency

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hotline12345/gateway/internal/session"
)

// decisive is the index of the hit that set the floor, or -1.
func (s *scan) decisive() int {
	best := -1
	for i, h := range s.hits {
		if h.off == "" && h.service == s.floor.service && (h.tier == danger || h.tier == weak || h.tier == request) &&
			(best < 0 || h.tier < s.hits[best].tier || h.tier == s.hits[best].tier && !h.rule && s.hits[best].rule) {
			best = i
		}
	}
	return best
}

// strongest are the words that say most for a class.
func (d *Detector) strongest(r *reading, class int) string {
	if i := r.decisive(); i >= 0 {
		return string(r.runes[r.hits[i].start:r.hits[i].end])
	}
	var most float32
	start, end := 0, 0
	for i, f := range r.features {
		o := r.origins[i]
		if o.family > latinWord || o.b-o.a < 2 {
			continue
		}
		if w := d.model.Weight(f, class) - d.model.Weight(f, 0); w > most {
			most, start, end = w, int(o.a), int(o.b)
		}
	}
	return string(r.runes[start:end])
}

// Evidence is one thing that speaks for or against danger.
type Evidence struct {
	What   string  // phrase, rule, suppressor, concept, words …
	Detail string  // the phrase or rule, and the words that it was found in
	Weight float64 // for the service in doubt against none, in units of log-odds; 0 of what the rules say alone
}

// Explanation is a verdict with all that led to it.
type Explanation struct {
	Verdict
	Text     string // as compared
	Floor    string // what the phrases and rules say alone
	Classes  map[string]float64
	Rules    []Evidence
	Features []Evidence // the strongest first
}

// mostEvidence is how many features an explanation names.
const mostEvidence = 12

// Explain judges an utterance and says why.
func (d *Detector) Explain(utterance string) Explanation {
	r := d.look(utterance)
	defer d.scratch.Put(r)
	e := Explanation{Verdict: d.judge(r, Both), Text: r.text.String(), Floor: fmt.Sprintf("%v %s", r.floor.action, r.floor.service), Classes: map[string]float64{}}
	for _, h := range r.hits {
		e.Rules = append(e.Rules, h.evidence(r.runes))
	}
	if d.model == nil {
		return e
	}
	p := d.model.Predict(r.features)
	best := 1
	e.Classes["none"] = p[0]
	for i, svc := range session.Services() {
		e.Classes[string(svc)] = p[i+1]
		if p[i+1] > p[best] {
			best = i + 1
		}
	}
	sums := map[Evidence]float64{} // a word's n-grams and those of its sound are one reason
	for i, f := range r.features {
		w := (d.model.Weight(f, best) - d.model.Weight(f, 0)) / d.model.Temperature
		sums[d.lexicon.tell(r, r.origins[i])] += float64(w)
	}
	for what, w := range sums {
		what.Weight = w
		e.Features = append(e.Features, what)
	}
	slices.SortFunc(e.Features, func(a, b Evidence) int {
		return cmp.Or(cmp.Compare(abs(b.Weight), abs(a.Weight)), cmp.Compare(a.What+a.Detail, b.What+b.Detail))
	})
	e.Features = e.Features[:min(len(e.Features), mostEvidence)]
	return e
}

func abs(x float64) float64 { return max(x, -x) }

func (h hit) evidence(runes []rune) Evidence {
	e := Evidence{What: "phrase", Detail: fmt.Sprintf("%s %s", h.service, h.id)}
	if h.rule {
		e.What = "rule"
	}
	if words := string(runes[h.start:h.end]); words != h.id {
		e.Detail += " in " + words
	}
	switch {
	case h.tier == suppressor:
		e.What = "suppressor"
	case h.off != "":
		e.Detail += ", off: " + h.off
	case h.sound:
		e.Detail += ", by its sound"
	}
	return e
}

// tell says where a feature is from.
func (l *lexicon) tell(r *reading, o origin) Evidence {
	switch o.family {
	case chars, latinWord:
		return Evidence{What: "words", Detail: string(r.runes[o.a:o.b])}
	case skipGram:
		return Evidence{What: "words", Detail: string(r.runes[o.a]) + "…" + string(r.runes[o.b-1])}
	case syllables:
		return Evidence{What: "sound", Detail: string(r.runes[o.a:o.b])}
	case concept:
		return Evidence{What: "concept", Detail: l.concepts[o.a]}
	case conceptPair:
		return Evidence{What: "concepts", Detail: l.concepts[o.a] + ", " + l.concepts[o.b]}
	case floorSaid:
		return Evidence{What: "rules", Detail: fmt.Sprintf("%v %s", r.floor.action, r.floor.service)}
	case ownLength:
		return Evidence{What: "length", Detail: fmt.Sprint(len(r.runes))}
	}
	return r.hits[o.a].evidence(r.runes)
}
