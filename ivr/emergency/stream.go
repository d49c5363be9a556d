package emergency

import (
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

// Stable is how long a verdict on a partial transcript must last before it counts: recognisers take words
// back, and a caller may go on with 已经灭了.
const Stable = 800 * time.Millisecond

// CoolDown is how long a service is not offered again after the caller declined it, unless something new
// is heard.
const CoolDown = 60 * time.Second

// Listener follows one caller's transcript as it grows. It keeps no clock: whoever reads the recogniser
// says the time of each text, and calls [Listener.Due] when [Listener.Wait] has passed. It is not safe for use by
// several goroutines at once.
type Listener struct {
	detector *Detector
	done     string // the finished sentences still in reach
	pending  Verdict
	since    time.Time // of pending; zero if there is none
	declined map[session.Service]refusal
}

// refusal is a verdict that the caller said no to.
type refusal struct {
	at    time.Time
	words string
}

// NewListener follows a new caller.
func NewListener(d *Detector) *Listener {
	return &Listener{detector: d, declined: map[session.Service]refusal{}}
}

// Partial takes the words of a sentence that goes on; a later text replaces it. The verdict is
// [Verdict] with action None until it has been the same for [Stable].
func (l *Listener) Partial(sentence string, at time.Time) Verdict {
	v := l.detector.Detect(l.done + sentence)
	switch {
	case v.Action == None || l.refused(v, at):
		l.since = time.Time{}
	case l.since.IsZero() || v.Service != l.pending.Service || v.Action < l.pending.Action:
		l.since = at
	}
	l.pending = v
	return l.Due(at)
}

// Final takes a finished sentence. It needs no wait, since it is not taken back; what is heard next is
// judged with it.
func (l *Listener) Final(sentence string, at time.Time) Verdict {
	l.done = tail(l.done + sentence + "，")
	v := l.detector.Detect(l.done)
	if single := l.detector.Detect(sentence); single.Action > v.Action { // long talk before must not hide a cry
		v = single
	}
	l.pending, l.since = v, time.Time{}
	if v.Action == None || l.refused(v, at) {
		return Verdict{Danger: v.Danger}
	}
	l.done = ""
	return v
}

// Wait is how long a verdict has still to last; zero if none is waiting.
func (l *Listener) Wait(at time.Time) time.Duration {
	if l.since.IsZero() {
		return 0
	}
	return max(l.since.Add(Stable).Sub(at), time.Nanosecond)
}

// Due is the verdict that has lasted long enough, once.
func (l *Listener) Due(at time.Time) Verdict {
	if l.since.IsZero() || at.Sub(l.since) < Stable {
		return Verdict{Danger: l.pending.Danger}
	}
	l.since = time.Time{}
	return l.pending
}

// Decline says that the caller cancelled a verdict: the same words do not offer its service again for
// [CoolDown].
func (l *Listener) Decline(v Verdict, at time.Time) {
	l.declined[v.Service] = refusal{at, v.Words}
	l.done, l.since = "", time.Time{}
}

// refused tells whether the caller said no to this a short time ago. New words that transfer are new.
func (l *Listener) refused(v Verdict, at time.Time) bool {
	r, ok := l.declined[v.Service]
	return ok && at.Sub(r.at) < CoolDown && (v.Action != Transfer || v.Words == r.words)
}
