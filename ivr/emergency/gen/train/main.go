// Command train makes data/model.bin from the utterances of testdata/authors/author-*.tsv. The files named
// test-*.tsv are never read here: they tell how the detector does with authors whom it does not know.
//
// It trains without each group of authors in turn, and chooses the temperature and the thresholds by what
// those models say of the authors left out; the model itself is then trained of all. Run it by
// `go generate ./ivr/emergency`; a second run changes nothing.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/ivr/emergency"
	"github.com/hotline12345/gateway/ivr/emergency/classify"
	"github.com/hotline12345/gateway/ivr/emergency/measure"
)

// training are the parameters that did best on authors left out.
var training = classify.Training{Epochs: 8, Rate: 0.1, L2: 1e-4, Seed: 12345}

func main() {
	from := flag.String("authors", "testdata/authors", "where the authors' files are")
	to := flag.String("o", "data/model.bin", "the model to write; empty is none")
	faults := flag.Bool("faults", false, "print the errors on the authors left out")
	flag.IntVar(&training.Epochs, "epochs", training.Epochs, "how often each utterance is seen")
	rate := flag.Float64("rate", float64(training.Rate), "the step of a training")
	l2 := flag.Float64("l2", float64(training.L2), "the pull of weights to nothing")
	flag.Parse()
	training.Rate, training.L2 = float32(*rate), float32(*l2)
	if err := run(*from, *to, *faults, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "train:", err)
		os.Exit(1)
	}
}

// example is an utterance with what the classifier sees of it, and what a model that does not know its
// author says.
type example struct {
	measure.Case
	classify.Example
	blind [classify.Classes]float64
	floor emergency.Action
	firm  bool
}

func run(from, to string, faults bool, out io.Writer) error {
	examples, source, err := load(from)
	if err != nil {
		return err
	}
	leaveOut(examples)
	settings := fit(examples)
	settings.Source = source
	if err := report(out, examples, settings, faults); err != nil || to == "" {
		return err
	}
	all := make([]classify.Example, len(examples))
	for i := range examples {
		all[i] = examples[i].Example
	}
	model := classify.Train(all, training)
	settings.Bias = model.Bias
	model.Settings = settings
	b, err := model.Bytes()
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// load reads the authors as the classifier sees them, and tells the source of the model.
func load(dir string) ([]example, [16]byte, error) {
	cases, source, err := measure.Authors(dir)
	if err != nil {
		return nil, source, err
	}
	d, err := emergency.NewWith(nil)
	if err != nil {
		return nil, source, err
	}
	examples := make([]example, len(cases))
	for i, c := range cases {
		class := 1 + slices.Index(session.Services(), session.Service(c.Service)) // none is in no list
		v := d.Detect(c.Text)
		examples[i] = example{Case: c, Example: classify.Example{Features: d.Features(c.Text), Class: class}, floor: v.Action, firm: v.Firm}
	}
	return examples, source, nil
}

// folds is how many groups of authors are left out in turn.
const folds = 5

// leaveOut lets each author be judged by a model that was trained of others.
func leaveOut(examples []example) {
	var authors []string
	for _, e := range examples {
		if !slices.Contains(authors, e.Author) {
			authors = append(authors, e.Author)
		}
	}
	var running sync.WaitGroup
	for fold := range min(folds, len(authors)) {
		running.Go(func() {
			left := func(e *example) bool { return slices.Index(authors, e.Author)%folds == fold }
			var rest []classify.Example
			for i := range examples {
				if !left(&examples[i]) {
					rest = append(rest, examples[i].Example)
				}
			}
			model := classify.Train(rest, training)
			for i := range examples {
				if left(&examples[i]) {
					examples[i].blind = model.Predict(examples[i].Features)
				}
			}
		})
	}
	running.Wait()
}
