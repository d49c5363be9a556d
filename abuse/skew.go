package abuse

import (
	"sync/atomic"
	"time"
)

// skew sets a node's clock right by that of Redis. A measure then begins and ends at one instant on every
// node, however wrong the clock of one is, and a reminder is before what came of it wherever each was noted.
type skew struct {
	wall  func() time.Time
	heed  bool
	ahead atomic.Int64 // of the node's clock, ns: how far Redis is
}

const (
	// skewIgnored is what clocks that are kept right differ by, the way to Redis and back included.
	skewIgnored = time.Second
	// skewAskedIn bounds how long an answer may have taken that says what time it is.
	skewAskedIn = time.Second
)

// now is the clock that all times of the room are of.
func (a *Admission) now() time.Time { return a.skew.right(a.skew.wall()) }

// right is a time of the node's clock by that of Redis. The zero time is not known, and stays so.
func (s *skew) right(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(time.Duration(s.ahead.Load()))
}

// learn takes what Redis's clock said when it was asked at a time of the node's own. It tells how far the
// clocks differ if that is news.
func (s *skew) learn(asked, said time.Time) (differ time.Duration, news bool) {
	took := s.wall().Sub(asked)
	if !s.heed || took > skewAskedIn {
		return 0, false
	}
	differ = said.Sub(asked.Add(took / 2))
	if differ.Abs() < skewIgnored {
		differ = 0
	}
	before := time.Duration(s.ahead.Load())
	if (differ-before).Abs() < skewIgnored && differ != 0 {
		return before, false // it is as it was; time does not jump for less
	}
	s.ahead.Store(int64(differ))
	return differ, differ != before
}
