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

// throttle lets a key try so often. A try is paid for before the secret is checked, so that many at once
// gain nothing, and paid back when the secret was right, so that those who know it never wait.
type throttle struct {
	every time.Duration
	tries int

	mu   sync.Mutex
	keys map[string]*rate.Limiter
}

func newThrottle(every time.Duration, tries int) *throttle {
	return &throttle{every: every, tries: tries, keys: make(map[string]*rate.Limiter)}
}

// take pays for a try; refund pays it back. ok is false when the key must wait.
func (t *throttle) take(key string, now time.Time) (refund func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, known := t.keys[key]
	if !known {
		if len(t.keys) >= maxThrottled {
			t.forget(now)
		}
		if len(t.keys) >= maxThrottled {
			return nil, false
		}
		l = rate.NewLimiter(rate.Every(t.every), t.tries)
		t.keys[key] = l
	}
	r := l.ReserveN(now, 1)
	if r.DelayFrom(now) > 0 {
		r.CancelAt(now)
		return nil, false
	}
	return func() { r.CancelAt(now) }, true
}

func (t *throttle) forget(now time.Time) {
	for key, l := range t.keys {
		if l.TokensAt(now) >= float64(t.tries) {
			delete(t.keys, key)
		}
	}
}
