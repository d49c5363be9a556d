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
// says the time of each text, and calls [Listener.Due] when [Listener.Wait] has passed. A verdict is given
// once; after it the same service is named again only in another sentence, or where asking becomes
// transferring. It is not safe for use by several goroutines at once.
type Listener struct {
	detector *Detector
	done     string    // the finished sentences still in reach
	pending  Verdict   // of the sentence that goes on
	since    time.Time // of pending; zero if nothing waits
	given    Verdict   // in this sentence
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

// Partial takes the words of a sentence that goes on; a later text replaces it. The answer's action is
// [None] until the verdict has been the same for [Stable].
func (l *Listener) Partial(sentence string, at time.Time) Verdict {
	v := l.judge(sentence)
	switch {
	case !l.new(v, at):
		l.since = time.Time{}
	case l.since.IsZero() || v.Service != l.pending.Service || v.Action != l.pending.Action:
		l.since = at
	}
	l.pending = v
	return l.Due(at)
}

// Final takes a finished sentence. It needs no wait, since it is not taken back; the next is judged by
// itself and as its continuation.
func (l *Listener) Final(sentence string, at time.Time) Verdict {
	v := l.judge(sentence)
	fresh := l.new(v, at)
	l.done = tail(l.done + sentence + "，")
	l.pending, l.given, l.since = Verdict{}, Verdict{}, time.Time{}
	if !fresh {
		return Verdict{Danger: v.Danger}
	}
	l.done = ""
	return v
}

// judge takes the graver of what a sentence says by itself and with what was said before: long talk before
// it must not hide a cry, nor a pause divide one.
func (l *Listener) judge(sentence string) Verdict {
	v := l.detector.Detect(sentence)
	if l.done == "" {
		return v
	}
	if w := l.detector.Detect(l.done + sentence); w.Action > v.Action {
		return w
	}
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
	l.since, l.given = time.Time{}, l.pending
	return l.pending
}

// Decline says that the caller cancelled a verdict: its service is not offered again for [CoolDown], unless
// other words call for a transfer.
func (l *Listener) Decline(v Verdict, at time.Time) {
	l.declined[v.Service] = refusal{at, v.Words}
	l.done, l.since = "", time.Time{}
}

// new tells whether a verdict was neither given in this sentence nor declined a short time ago.
func (l *Listener) new(v Verdict, at time.Time) bool {
	if v.Action == None || v.Service == l.given.Service && v.Action <= l.given.Action {
		return false
	}
	return !l.Declined(v, at)
}

// Declined tells whether the caller said no to a verdict a short time ago: to these words, or to a question.
func (l *Listener) Declined(v Verdict, at time.Time) bool {
	r, ok := l.declined[v.Service]
	return ok && at.Sub(r.at) < CoolDown && (v.Action != Transfer || v.Words == r.words)
}
