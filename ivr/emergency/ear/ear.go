// Package ear listens to callers for danger: a recogniser's words, the detector's judgement of them as they grow, a judge's
// second opinion where there is one, and the short answers of a caller who was asked. What comes of it is the session's.
//
//	tap → speech.Stream → words → emergency.Listener → (judge) → session.Heard
//
// An ear has a goroutine of its own: neither the recogniser nor the judge can hold up the call, and whoever is slow to take
// what was heard loses answers, never sound.
package ear

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/ivr/emergency"
	"github.com/hotline12345/gateway/ivr/speech"
)

// Stream is a caller who is recognised (package speech).
type Stream interface {
	Write(alaw []byte)
	Results() <-chan speech.Result
	Close()
}

// Judge gives a second opinion (package judge).
type Judge interface {
	Review(ctx context.Context, utterance string, v emergency.Verdict) emergency.Verdict
}

// Hearing makes an ear for each caller.
type Hearing struct {
	// Start begins to recognise a caller.
	Start    func() (Stream, error)
	Detector *emergency.Detector
	Judge    Judge // nil for none
	// Contain runs what works for one caller and keeps a panic of it from the others ([speech.Recogniser.Contain]).
	Contain func(func() error) error
	// Untaken counts what was heard and not taken in time ([NewUntaken]).
	Untaken prometheus.Counter
}

// NewUntaken makes the counter of what was heard of callers and dropped, since the call was busy with four others.
func NewUntaken(reg prometheus.Registerer) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_emergency_untaken_total",
		Help: "Dangers and answers that were heard in callers' words and dropped, since the call was busy with those before."})
	reg.MustRegister(c)
	return c
}

// Listen implements [session.Hearing].
func (h Hearing) Listen() (session.Ear, error) {
	stream, err := h.Start()
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	e := &Ear{stream: stream, judge: h.Judge, untaken: h.Untaken, heard: make(chan session.Heard, 4), end: end,
		listener: emergency.NewListener(h.Detector), last: map[session.Service]emergency.Verdict{}}
	go func() { _ = h.Contain(func() error { e.run(ctx); return nil }) }() // which tells of it
	return e, nil
}

// Ear hears one caller, until Close.
type Ear struct {
	stream  Stream
	judge   Judge
	untaken prometheus.Counter
	heard   chan session.Heard
	end     context.CancelFunc

	mu       sync.Mutex
	listener *emergency.Listener
	told     bool                                  // something was heard in the sentence that goes on
	last     map[session.Service]emergency.Verdict // that was told
}

// Write takes what the caller says; what they hear is none of it.
func (e *Ear) Write(track call.Track, _ uint32, payload []byte) {
	if track == call.TrackIn {
		e.stream.Write(payload)
	}
}

// Gap is nothing to a recogniser.
func (e *Ear) Gap(call.Track) {}

// Close ends the hearing.
func (e *Ear) Close() {
	e.end()
	e.stream.Close()
}

// Heard tells what was heard.
func (e *Ear) Heard() <-chan session.Heard { return e.heard }

// Decline says that the caller said no.
func (e *Ear) Decline(h session.Heard) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v := e.last[h.Service] // with the words as they were heard
	v.Service = h.Service
	e.listener.Decline(v, time.Now())
}

// run follows the words until the stream has ended.
func (e *Ear) run(ctx context.Context) {
	defer close(e.heard)
	wait := time.NewTimer(time.Hour)
	defer wait.Stop()
	for {
		select {
		case r, more := <-e.stream.Results():
			if !more {
				return
			}
			e.take(ctx, r)
		case now := <-wait.C:
			e.tell(e.due(now), now)
		}
		wait.Reset(e.wait())
	}
}

// wait is how long nothing happens of itself.
func (e *Ear) wait() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d := e.listener.Wait(time.Now()); d > 0 {
		return d
	}
	return time.Hour
}

func (e *Ear) due(now time.Time) emergency.Verdict {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.listener.Due(now)
}

// take is a text of the recogniser.
func (e *Ear) take(ctx context.Context, r speech.Result) {
	v, told := e.follow(r)
	if r.Final && !told && e.judge != nil && (v.Action == emergency.None || v.Action == emergency.Confirm) {
		v = e.review(ctx, r, v)
	}
	e.tell(v, r.At)
	if !r.Final {
		return
	}
	if !told && v.Action == emergency.None {
		e.answer(r)
	}
	e.mu.Lock()
	e.told = false // the next sentence is another
	e.mu.Unlock()
}

// follow judges the words as far as they came; told tells whether their sentence was told of before.
func (e *Ear) follow(r speech.Result) (v emergency.Verdict, told bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.Final {
		return e.listener.Final(r.Text, r.At), e.told
	}
	return e.listener.Partial(r.Text, r.At), e.told
}

// review asks the judge about a whole sentence of which nothing was told yet.
func (e *Ear) review(ctx context.Context, r speech.Result, v emergency.Verdict) emergency.Verdict {
	reviewed := e.judge.Review(ctx, r.Text, v)
	if v.Action == emergency.None && reviewed.Action != emergency.None {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.listener.Declined(reviewed, r.At) {
			return v
		}
	}
	return reviewed
}

// tell hands on what a verdict calls for.
func (e *Ear) tell(v emergency.Verdict, at time.Time) {
	if v.Action == emergency.None {
		return
	}
	kind := session.HeardConfirm
	if v.Action == emergency.Transfer {
		kind = session.HeardTransfer
	}
	e.mu.Lock()
	e.told, e.last[v.Service] = true, v
	e.mu.Unlock()
	e.hand(session.Heard{Kind: kind, Service: v.Service, Words: emergency.Mask(v.Words), At: at})
}

// answer hands on a yes or no.
func (e *Ear) answer(r speech.Result) {
	switch emergency.ReadAnswer(r.Text) {
	case emergency.Yes:
		e.hand(session.Heard{Kind: session.HeardYes, At: r.At})
	case emergency.No:
		e.hand(session.Heard{Kind: session.HeardNo, At: r.At})
	}
}

func (e *Ear) hand(h session.Heard) {
	select {
	case e.heard <- h:
	default: // four wait already: the call is busy with them
		e.untaken.Inc()
	}
}
