package staff

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// ErrThrottled answers a log-in after too many failures of its account or its source.
var ErrThrottled = errors.New("staff: too many failed log-ins; wait a little")

// maxThrottled bounds how many accounts and sources are remembered. When full, those whose failures
// have worn off are forgotten; if that frees nothing, an unknown key is refused.
const maxThrottled = 10_000

// throttle counts failures a key. A success costs nothing, so it never slows the work of those who
// know their password.
type throttle struct {
	every time.Duration
	tries int

	mu   sync.Mutex
	keys map[string]*rate.Limiter
}

func newThrottle(every time.Duration, tries int) *throttle {
	return &throttle{every: every, tries: tries, keys: make(map[string]*rate.Limiter)}
}

// allows tells whether one more try may be made.
func (t *throttle) allows(key string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, known := t.keys[key]
	if known {
		return l.TokensAt(now) >= 1
	}
	if len(t.keys) >= maxThrottled {
		t.forget(now)
	}
	return len(t.keys) < maxThrottled
}

// failed notes a failure.
func (t *throttle) failed(key string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, known := t.keys[key]
	if !known {
		l = rate.NewLimiter(rate.Every(t.every), t.tries)
		t.keys[key] = l
	}
	l.AllowN(now, 1)
}

func (t *throttle) forget(now time.Time) {
	for key, l := range t.keys {
		if l.TokensAt(now) >= float64(t.tries) {
			delete(t.keys, key)
		}
	}
}
