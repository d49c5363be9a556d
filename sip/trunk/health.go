package trunk

import "time"

// pingTimeout is how long one OPTIONS may take.
const pingTimeout = 4 * time.Second

// missedMax is how many OPTIONS in a row go unanswered before a trunk is down.
const missedMax = 2

// State is whether a trunk is there.
type State string

// The states of a trunk.
const (
	Unknown State = "unknown" // not asked yet, or never
	Up      State = "up"
	Down    State = "down"
)

// Health is what the OPTIONS say of a trunk.
type Health struct {
	State  State
	RTT    time.Duration // of the last answer
	Status int           // of the last answer, or 0
	At     time.Time     // of the last question
}

// Health is the trunk's state.
func (t *Trunk) Health() Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.health
	if h.State == "" {
		h.State = Unknown
	}
	return h
}

// pinged notes the outcome of one OPTIONS. Any final answer but 408 and 503 shows a living peer
// (RFC 3261 section 11.2: an INVITE would get the same).
func (t *Trunk) pinged(status int, err error, at time.Time, rtt time.Duration) (was, is State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was = t.health.State
	if was == "" {
		was = Unknown
	}
	t.health.At, t.health.Status = at, status
	if err == nil && status >= 200 && status != 408 && status != 503 {
		t.missed, t.health.State, t.health.RTT = 0, Up, rtt
		t.metrics.rtt.WithLabelValues(t.Name).Set(rtt.Seconds())
		t.metrics.up.WithLabelValues(t.Name).Set(1)
		return was, Up
	}
	t.missed++
	if t.missed >= missedMax || status == 503 {
		t.health.State = Down
		t.metrics.up.WithLabelValues(t.Name).Set(0)
		return was, Down
	}
	return was, was
}
