package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/ivr/emergency"
	"github.com/hotline12345/gateway/ivr/emergency/classify"
)

// The shares of harmless utterances that may be transferred, and asked about, by authors left out. They
// are below what is promised (1 and 3 in 100), since strangers do worse than those.
const (
	mayTransfer = 0.006
	mayAsk      = 0.024
)

// fit chooses the temperature and thresholds.
func fit(examples []example) classify.Settings {
	s := classify.Settings{Temperature: temperature(examples)}
	for i := range examples {
		examples[i].blind = cooled(examples[i].blind, s.Temperature)
	}
	best := -1
	for _, shift := range []float64{0, 0.5, 1, 1.5, 2, 3} { // how much the rules' word is worth, in log-odds
		t := threshold(examples, emergency.Transfer, shift, mayTransfer)
		a := min(t, threshold(examples, emergency.Confirm, shift, mayTransfer+mayAsk))
		try := s
		try.Transfer, try.Confirm, try.Floor, try.FloorAsk = logistic(t), logistic(a), logistic(t-shift), logistic(a-shift)
		heard := 0
		for i := range examples {
			if examples[i].Danger() && decide(&examples[i], try) != emergency.None {
				heard++
			}
		}
		if heard > best {
			best, s = heard, try
		}
	}
	return s
}

// temperature is what makes the probabilities frequencies: the one of the least surprise.
func temperature(examples []example) float32 {
	best, least := float32(1), math.Inf(1)
	for t := float32(0.3); t < 4; t += 0.05 {
		sum := 0.0
		for i := range examples {
			sum -= math.Log(max(1e-9, cooled(examples[i].blind, t)[examples[i].Class]))
		}
		if sum < least {
			best, least = t, sum
		}
	}
	return best
}

func cooled(p [classify.Classes]float64, t float32) [classify.Classes]float64 {
	sum := 0.0
	for c := range p {
		p[c] = math.Pow(p[c], 1/float64(t))
		sum += p[c]
	}
	for c := range p {
		p[c] /= sum
	}
	return p
}

// odds is the log-odds of danger, with the shift added where the rules say as much as the action.
func odds(e *example, least emergency.Action, shift float64) float64 {
	o := math.Log((1 - e.blind[0] + 1e-9) / (e.blind[0] + 1e-9))
	if e.floor >= least {
		o += shift
	}
	return o
}

// threshold is the least log-odds above which at most a share of the harmless lie.
func threshold(examples []example, action emergency.Action, shift, may float64) float64 {
	var harmless []float64
	for i := range examples {
		if !examples[i].Danger() {
			harmless = append(harmless, odds(&examples[i], action, shift))
		}
	}
	slices.SortFunc(harmless, func(a, b float64) int { return cmp.Compare(b, a) })
	return harmless[min(len(harmless)-1, int(may*float64(len(harmless))))] + 1e-6
}

func logistic(x float64) float32 { return float32(1 / (1 + math.Exp(-x))) }

func decide(e *example, s classify.Settings) emergency.Action {
	p := float32(1 - e.blind[0])
	switch {
	case p >= s.Transfer, e.floor == emergency.Transfer && p >= s.Floor:
		return emergency.Transfer
	case p >= s.Confirm, e.firm, e.floor != emergency.None && p >= s.FloorAsk:
		return emergency.Confirm
	}
	return emergency.None
}

// report tells how the models do with the authors left out.
func report(w io.Writer, examples []example, s classify.Settings, faults bool) error {
	type count struct{ dangers, heard, wrong, harmless, transferred, asked int }
	by := map[string]*count{}
	var authors []string
	for i := range examples {
		e := &examples[i]
		for _, name := range []string{e.Author, "all"} {
			if by[name] == nil {
				by[name] = &count{}
				authors = append(authors, name)
			}
			n, action := by[name], decide(e, s)
			best := 1
			for c := range e.blind[1:] {
				if e.blind[c+1] > e.blind[best] {
					best = c + 1
				}
			}
			wrong := e.Danger() && best != e.Class
			switch {
			case e.Danger() && action != emergency.None:
				n.dangers, n.heard = n.dangers+1, n.heard+1
				if wrong {
					n.wrong++
				}
			case e.Danger():
				n.dangers++
			default:
				n.harmless++
				if action == emergency.Transfer {
					n.transferred++
				} else if action == emergency.Confirm {
					n.asked++
				}
			}
			if faults && name == "all" && (e.Danger() != (action != emergency.None) || wrong && e.Danger()) {
				fmt.Fprintf(w, "%s:%d\t%s\t%s\t%v %s %.3f\tfloor %v\t%s\n", e.Author, e.Line, e.Service, e.Kind, action, session.Services()[best-1], 1-e.blind[0], e.floor, e.Text)
			}
		}
	}
	slices.Sort(authors)
	for _, name := range authors {
		n := by[name]
		_, err := fmt.Fprintf(w, "%-16s dangers %5d heard %5.1f %% wrong service %4.1f %%, harmless %5d transferred %5.2f %% asked %5.2f %%\n", name, n.dangers,
			percent(n.heard, n.dangers), percent(n.wrong, n.dangers), n.harmless, percent(n.transferred, n.harmless), percent(n.asked, n.harmless))
		if err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "temperature %.2f, transfer %.3f (%.3f with the rules), confirm %.3f (%.3f)\n", s.Temperature, s.Transfer, s.Floor, s.Confirm, s.FloorAsk)
	return err
}

func percent(part, whole int) float64 { return 100 * float64(part) / max(1, float64(whole)) }
