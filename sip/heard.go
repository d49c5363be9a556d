package sip

import (
	"bytes"
	"sync"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
)

// heard tells provisional responses to those who dial, as the wire brings them: sipgo handles each
// message in a goroutine of its own, and drops a 180 that the 200 overtakes on that way.
type heard struct {
	mu    sync.Mutex
	steps map[string]chan<- call.Progress // by Call-ID
}

func newHeard() *heard { return &heard{steps: map[string]chan<- call.Progress{}} }

func (h *heard) set(callID string, steps chan<- call.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.steps[callID] = steps
}

func (h *heard) drop(callID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.steps, callID)
}

// tell tells the steps that a provisional response to an INVITE means. It does not block: what finds no
// room was told before.
func (h *heard) tell(m dialog.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	steps, ok := h.steps[m.CallID]
	if !ok {
		return
	}
	all := []call.Progress{call.Trying}
	if code := string(m.Raw[8:11]); code >= "180" && code <= "183" {
		all = append(all, call.Ringing)
	}
	if _, body, _ := bytes.Cut(m.Raw, []byte("\r\n\r\n")); len(body) > 0 {
		all = append(all, call.EarlyMedia)
	}
	for _, p := range all {
		select {
		case steps <- p:
		default:
		}
	}
}
