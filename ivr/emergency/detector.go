package emergency

import (
	_ "embed"
	"slices"
	"sync"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/ivr/emergency/classify"
)

// The model is made from testdata/authors by the trainer, byte for byte the same every time.
//
//go:generate go run ./gen/train
//go:embed data/model.bin
var modelBytes []byte

// Action is what a caller's words call for.
type Action byte

const (
	None     Action = iota
	Confirm         // ask whether, and which service
	Transfer        // announce the transfer, with a few seconds to cancel
)

func (a Action) String() string { return [...]string{"none", "confirm", "transfer"}[a] }

// Verdict is what an utterance calls for.
type Verdict struct {
	Action  Action
	Service session.Service // empty with None
	// Danger is the calibrated probability, from 0 to 1, that the caller or someone near is in danger now.
	Danger float64
	// Words are the words that say so most: the phrase or rule, or else the strongest n-grams.
	Words string
	// Rules tells that the phrases and rules alone said so; no judge may undo it.
	Rules bool
	// Firm tells that the caller asked for the service, or that an operator's own phrase said so; no
	// classifier may undo it.
	Firm bool
}

// Detector hears danger in words. It is safe for use by several goroutines at once.
type Detector struct {
	lexicon *lexicon
	model   *classify.Model
	scratch sync.Pool
}

// reading is an utterance under examination.
type reading struct {
	scan
	vector
}

// New makes a detector of the package's phrases, rules and model, with an operator's own words.
func New(own ...Word) (*Detector, error) {
	model, err := classify.Load(modelBytes)
	if err != nil {
		return nil, err
	}
	return NewWith(model, own...)
}

// NewWith makes a detector with another model, or, with nil, of the phrases and rules alone.
func NewWith(model *classify.Model, own ...Word) (*Detector, error) {
	l, err := newLexicon(own)
	if err != nil {
		return nil, err
	}
	d := &Detector{lexicon: l, model: model}
	d.scratch.New = func() any { return new(reading) }
	return d, nil
}

// Features is what the classifier sees of an utterance; the trainer needs it.
func (d *Detector) Features(utterance string) []classify.Feature {
	r := d.look(utterance)
	defer d.scratch.Put(r)
	return slices.Clone(r.features)
}

func (d *Detector) look(utterance string) *reading {
	r := d.scratch.Get().(*reading)
	d.lexicon.scan(&r.scan, utterance)
	r.vector.read(&r.scan)
	return r
}

// Layer is a part of the detector that may judge alone, to be measured.
type Layer byte

const (
	Both            Layer = iota
	RulesAlone            // without the classifier
	ClassifierAlone       // the rules' evidence is a feature among others
)

// Detect judges an utterance. It keeps nothing of it.
func (d *Detector) Detect(utterance string) Verdict { return d.DetectBy(Both, utterance) }

// DetectBy judges an utterance by one layer.
func (d *Detector) DetectBy(layer Layer, utterance string) Verdict {
	r := d.look(utterance)
	defer d.scratch.Put(r)
	return d.judge(r, layer)
}

func (d *Detector) judge(r *reading, layer Layer) Verdict {
	if d.model == nil || layer == RulesAlone {
		return r.floor.verdict(r)
	}
	p := d.model.Predict(r.features)
	best := 1
	for c := 2; c < len(p); c++ {
		if p[c] > p[best] {
			best = c
		}
	}
	f := r.floor
	if layer == ClassifierAlone {
		f = floor{}
	}
	v := Verdict{Danger: 1 - p[0], Service: session.Services()[best-1]}
	if v.Action = d.decide(f, v.Danger); v.Action == None {
		return Verdict{Danger: v.Danger}
	}
	if f.firm || f.service == anyService && p[best] < v.Danger/2 {
		v.Service = f.which(session.Police)
	}
	v.Rules, v.Firm = f.action >= v.Action, f.firm
	v.Words = d.strongest(r, best)
	return v
}

// decide is the action of a floor and a probability of danger. A firm floor is never gone below.
func (d *Detector) decide(f floor, danger float64) Action {
	p := float32(danger)
	switch {
	case f.firm && f.action == Transfer, p >= d.model.Transfer, f.action == Transfer && p >= d.model.Floor:
		return Transfer
	case f.firm && f.action == Confirm, p >= d.model.Confirm, f.action != None && p >= d.model.FloorAsk:
		return Confirm
	}
	return None
}

// which is the service of a floor that may name none: the classifier's choice, or the one given.
func (f floor) which(otherwise session.Service) session.Service {
	if f.service == anyService {
		return otherwise
	}
	return session.Service(f.service)
}

// verdict is the floor's own; a cry for help that names no service is for the police, who send the others.
func (f floor) verdict(r *reading) Verdict {
	if f.action == None {
		return Verdict{}
	}
	v := Verdict{Action: f.action, Service: f.which(session.Police), Danger: 1, Rules: true, Firm: f.firm}
	if i := r.decisive(); i >= 0 {
		v.Words = string(r.runes[r.hits[i].start:r.hits[i].end])
	}
	return v
}
