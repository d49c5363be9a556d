package asterisk

import (
	"slices"
	"sync"

	"github.com/hotline12345/gateway/internal/call"
)

// steps tells the steps of a dial in their order, each once, and none after its end.
type steps struct {
	mu   sync.Mutex
	told int // how many of stepOrder are past
	f    func(call.Progress)
}

var stepOrder = []call.Progress{call.Sent, call.Trying, call.Ringing, call.EarlyMedia}

func newSteps(f func(call.Progress)) *steps { return &steps{f: f} }

func (s *steps) tell(p call.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(stepOrder, p)
	if s.f == nil || i < s.told {
		return
	}
	if i > 0 && s.told == 0 { // Asterisk may tell of the ringing before it answered our request
		s.f(call.Sent)
	}
	s.told = i + 1
	s.f(p)
}

func (s *steps) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.f = nil
}
