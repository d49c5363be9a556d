package classify

import (
	"math"
	"math/rand/v2"
)

// Example is a classified one.
type Example struct {
	Features []Feature
	Class    int
}

// Training are the parameters of a training.
type Training struct {
	Epochs int
	Rate   float32 // AdaGrad's step
	L2     float32 // the pull of a weight to nothing, at each touch
	Seed   uint64
}

// Train fits a model to the examples. The same examples, parameters and seed give the same bytes: it runs
// in one goroutine, and each product is rounded before it is added, so that no processor fuses the two.
func Train(examples []Example, t Training) *Model {
	weights := make([]float32, Buckets*Classes)
	squares := make([]float32, Buckets*Classes)
	mean := make([]float32, Buckets*Classes)
	var bias, biasSquares [Classes]float32
	order := rand.New(rand.NewPCG(t.Seed, t.Seed))
	for epoch := range t.Epochs {
		for _, i := range order.Perm(len(examples)) {
			e := &examples[i]
			gradient := softmaxOf(weights, bias, e.Features)
			gradient[e.Class]--
			for c, g := range gradient {
				biasSquares[c] += float32(g * g)
				bias[c] -= float32(0.1 * g * t.Rate / (1e-3 + root(biasSquares[c])))
			}
			for _, f := range e.Features {
				at := int(f.Bucket) * Classes
				for c, g := range gradient {
					g = float32(g*f.Value) + float32(t.L2*weights[at+c])
					squares[at+c] += float32(g * g)
					weights[at+c] -= float32(t.Rate * g / (1e-3 + root(squares[at+c])))
				}
			}
		}
		if epoch >= t.Epochs/2 { // the second half of the way is averaged
			share := 1 / float32(epoch-t.Epochs/2+1)
			for i, w := range weights {
				mean[i] += float32((w - mean[i]) * share)
			}
		}
	}
	return quantise(mean, bias)
}

func root(x float32) float32 { return float32(math.Sqrt(float64(x))) }

func softmaxOf(weights []float32, bias [Classes]float32, features []Feature) (p [Classes]float32) {
	score := bias
	for _, f := range features {
		w := weights[int(f.Bucket)*Classes:][:Classes]
		for c := range score {
			score[c] += float32(w[c] * f.Value)
		}
	}
	var wide [Classes]float64
	for c, s := range score {
		wide[c] = float64(s)
	}
	for c, v := range softmax(wide) {
		p[c] = float32(v)
	}
	return p
}

// quantise keeps the weights in 8 bits; those beyond six standard deviations are cut.
func quantise(weights []float32, bias [Classes]float32) *Model {
	sum, n := 0.0, 0
	for _, w := range weights {
		if w != 0 {
			sum += float64(w) * float64(w)
			n++
		}
	}
	m := &Model{Settings: Settings{Temperature: 1, Bias: bias, Transfer: 0.5, Confirm: 0.5, Floor: 0.5, FloorAsk: 0.5}, scale: 1, weights: make([]byte, len(weights))}
	if n > 0 {
		m.scale = float32(6 * math.Sqrt(sum/float64(n)) / 127)
	}
	for i, w := range weights {
		m.weights[i] = byte(int8(max(-127, min(127, math.Round(float64(w/m.scale))))))
	}
	return m
}
