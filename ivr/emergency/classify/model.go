// Package classify is a linear classifier over hashed features: softmax, trained by AdaGrad, kept in 8 bits.
//
// It knows nothing of what the features mean. A prediction allocates nothing and a [Model] is safe for use by
// several goroutines at once.
package classify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

const (
	Classes = 5 // none, then the services in the order of their keys
	bits    = 18
	Buckets = 1 << bits
)

// Feature is a property of what is classified. Two that share a bucket are one to the model.
type Feature struct {
	Bucket uint32
	Value  float32
}

// Bucket spreads a hash over the buckets.
func Bucket(hash uint64) uint32 {
	hash ^= hash >> 32
	return uint32(hash * 0x9E3779B97F4A7C15 >> (64 - bits))
}

// Settings are what a model was fitted to besides its weights.
type Settings struct {
	Source      [16]byte // of what it was trained from: see the trainer
	Temperature float32  // divides the scores, so that a probability is a frequency
	Bias        [Classes]float32
	Transfer    float32 // the least probability of danger for a transfer
	Confirm     float32 // and for a question
	Floor       float32 // and for a transfer where the rules say so as well
	FloorAsk    float32 // and for a question where the rules say so as well
}

// Model gives each class a probability.
type Model struct {
	Settings
	scale   float32
	weights []byte // of int8, by bucket and class
}

var magic = [4]byte{'h', 'l', 'e', '1'}

// header is the beginning of a model's file, little-endian.
type header struct {
	Magic [4]byte
	Settings
	Scale float32
}

// Load reads a model, whose bytes it keeps.
func Load(b []byte) (*Model, error) {
	var h header
	if _, err := binary.Decode(b, binary.LittleEndian, &h); err != nil {
		return nil, fmt.Errorf("classify: the model has no header: %w", err)
	}
	weights := b[binary.Size(h):]
	if h.Magic != magic || len(weights) != Buckets*Classes || h.Temperature <= 0 {
		return nil, errors.New("classify: the model is of another version; make it anew with go generate")
	}
	return &Model{h.Settings, h.Scale, weights}, nil
}

// Bytes is the model's file.
func (m *Model) Bytes() ([]byte, error) {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, header{magic, m.Settings, m.scale}); err != nil {
		return nil, err
	}
	b.Write(m.weights)
	return b.Bytes(), nil
}

// Weight is what a feature's bucket says for a class, in units of the score.
func (m *Model) Weight(f Feature, class int) float32 {
	return float32(int8(m.weights[int(f.Bucket)*Classes+class])) * m.scale * f.Value
}

// Predict gives the classes' probabilities.
func (m *Model) Predict(features []Feature) (p [Classes]float64) {
	var score [Classes]float32
	for _, f := range features {
		w := m.weights[int(f.Bucket)*Classes:][:Classes]
		for c := range score {
			score[c] += float32(int8(w[c])) * f.Value
		}
	}
	for c := range score {
		p[c] = float64((score[c]*m.scale + m.Bias[c]) / m.Temperature)
	}
	return softmax(p)
}

func softmax(p [Classes]float64) [Classes]float64 {
	most, sum := p[0], 0.0
	for _, v := range p {
		most = max(most, v)
	}
	for c, v := range p {
		p[c] = math.Exp(v - most)
		sum += p[c]
	}
	for c := range p {
		p[c] /= sum
	}
	return p
}
