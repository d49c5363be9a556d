package classify

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
)

// examples of classes that a feature each tells, among noise.
func examples(n int) (all []Example) {
	random := rand.New(rand.NewPCG(3, 4))
	for i := range n {
		e := Example{Class: i % Classes, Features: []Feature{{Bucket(uint64(i % Classes)), 1}}}
		for range 5 {
			e.Features = append(e.Features, Feature{Bucket(100 + random.Uint64N(50)), 0.5})
		}
		all = append(all, e)
	}
	return all
}

var short = Training{Epochs: 2, Rate: 0.1, L2: 1e-4, Seed: 7}

func TestTrainLearns(t *testing.T) {
	m := Train(examples(500), short)
	for _, e := range examples(100) {
		p := m.Predict(e.Features)
		sum := 0.0
		for _, v := range p {
			sum += v
		}
		if math.Abs(sum-1) > 1e-9 || p[e.Class] < 0.5 {
			t.Fatalf("class %d has %v", e.Class, p)
		}
	}
	if own, other := m.Weight(Feature{Bucket(2), 1}, 2), m.Weight(Feature{Bucket(2), 1}, 3); own <= other {
		t.Errorf("the feature of class 2 weighs %v for it and %v for another", own, other)
	}
}

// The same seed gives the same bytes, another seed others; a model is what its file says.
func TestTrainIsReproducible(t *testing.T) {
	file := func(seed uint64) []byte {
		p := short
		p.Seed = seed
		b, err := Train(examples(200), p).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one := file(7)
	if !bytes.Equal(one, file(7)) {
		t.Error("the same training gives another model")
	}
	if bytes.Equal(one, file(8)) {
		t.Error("the seed does not matter")
	}
	m, err := Load(one)
	if err != nil {
		t.Fatal(err)
	}
	e := examples(1)[0]
	if m.Predict(e.Features) != Train(examples(200), short).Predict(e.Features) {
		t.Error("a model from its file predicts otherwise")
	}
}

func TestLoadRefuses(t *testing.T) {
	good, err := Train(examples(10), short).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"empty": nil, "short": good[:len(good)-1], "long": append(bytes.Clone(good), 0), "other": append([]byte("xxxx"), good[4:]...)} {
		if _, err := Load(b); err == nil {
			t.Errorf("%s is loaded", name)
		}
	}
}

func TestPredictAllocatesNothing(t *testing.T) {
	m := Train(examples(10), short)
	e := examples(1)[0]
	if n := testing.AllocsPerRun(100, func() { m.Predict(e.Features) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
