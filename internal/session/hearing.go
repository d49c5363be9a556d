package session

import (
	"context"
	"errors"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// Hearing hears danger in what callers say (package ivr/emergency/ear).
type Hearing interface {
	// Listen begins to hear a caller. An error means that this caller has the keys alone.
	Listen() (Ear, error)
}

// Ear hears one caller. As a sink it must not block; its Close ends the hearing.
type Ear interface {
	call.AudioSink
	// Heard tells what was heard; it is closed after Close. What nobody takes in time is dropped.
	Heard() <-chan Heard
	// Decline says that the caller said no to what was heard: it is not told again for a minute, unless there are
	// other words for it.
	Decline(h Heard)
}

// HeardKind is what words call for.
type HeardKind string

// The kinds of what is heard.
const (
	HeardTransfer HeardKind = "transfer" // danger, and the service is plain
	HeardConfirm  HeardKind = "confirm"  // perhaps danger: the caller is asked
	HeardYes      HeardKind = "yes"      // an answer
	HeardNo       HeardKind = "no"
)

// Heard is what was heard of a caller.
type Heard struct {
	Kind    HeardKind `json:"kind"`
	Service Service   `json:"service,omitempty"` // of danger
	Words   string    `json:"words,omitempty"`   // that say so most, numbers masked
	At      time.Time `json:"at"`
}

// byWords is who asks for a service when the caller's words do.
const byWords = "detector"

// What comes of danger that is heard.
const (
	heardTransfer  = "transfer"  // the service was called
	heardAsked     = "asked"     // the caller was asked
	heardCancelled = "cancelled" // the caller said no
	heardAlert     = "alert"     // a person is on the line, and was told
)

// question is what a caller is asked, and may answer by words.
type question int

const (
	askNothing question = iota
	askWhich            // service
	askWhether          // the service is to be called
)

// lastSpoken is the last of the keys, from 1, that stand for a service that was named in words: no telephone has them.
const lastSpoken = 4

// attend lets an ear hear the caller, for as long as the leg lives. Whatever goes wrong with it leaves the caller the keys.
func (s *story) attend() {
	if s.m.Hearing == nil {
		return
	}
	ear, err := s.m.Hearing.Listen()
	if err == nil {
		if _, err = s.leg.Tap(ear); err != nil {
			ear.Close()
		}
	}
	if err != nil {
		s.m.metrics.faults.WithLabelValues("hearing").Inc()
		s.note("hearing", "the caller is not heard, and has the keys", map[string]string{"err": err.Error()})
		return
	}
	s.mu.Lock()
	s.ear = ear
	s.mu.Unlock()
	s.beside(func() error {
		for h := range ear.Heard() {
			s.heard(h)
		}
		return nil
	})
}

// heard is danger or an answer in the caller's words. Danger takes the way of the emergency key, but where a person
// hears the caller it is an alert: the machine transfers nobody out of a talk.
func (s *story) heard(h Heard) {
	s.mu.Lock()
	asked, stage := s.asked, s.view.Stage
	s.mu.Unlock()
	if key := asked.answeredBy(h); key != 0 {
		s.note("heard", "an answer", map[string]string{"kind": string(h.Kind), "service": string(h.Service)})
		s.pad.give(key)
		return
	}
	if h.Service == "" {
		return // an answer to nothing
	}
	s.update(func(v *View) { v.Alert, v.Heard = true, h })
	s.note("danger", "heard: "+h.Words, map[string]string{"kind": string(h.Kind), "service": string(h.Service)})
	s.mark("danger_heard")
	if stage == StageTalk || stage == StageService {
		s.m.metrics.heard.WithLabelValues(string(h.Service), heardAlert).Inc()
		return
	}
	s.pad.raise(&errDanger{At: h.At, heard: &h})
}

// asks says what the caller's words may answer, until the func that it returns is called.
func (s *story) asks(q question) (over func()) {
	set := func(q question) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked = q
	}
	set(q)
	return func() { set(askNothing) }
}

// answeredBy is the key that words stand for, or 0 when they answer nothing.
func (q question) answeredBy(h Heard) byte {
	switch {
	case q == askWhether && h.Kind == HeardYes:
		return '1'
	case q == askWhether && h.Kind == HeardNo:
		return '2'
	case q == askWhich && h.Kind == HeardNo:
		return '9'
	case q == askWhich && keyOf(h.Service) != 0:
		return keyOf(h.Service) - '0'
	}
	return 0
}

// announced are the prompts that tell which service is about to be called.
var announced = map[Service]string{Police: "em_police", Fire: "em_fire", Medical: "em_med", Road: "em_traffic"}

// whether gives a caller whose words call for a service the time to say no. Silence is no no.
func (s *story) whether(ctx context.Context, h Heard) (choice, error) {
	defer s.pad.set(keysRaw)()
	defer s.asks(askWhether)()
	s.voice.pending = nil
	s.lasts(2 * (s.m.cfg.Emergency.Cancel + speaking))
	for range 2 {
		if err := s.say(ctx, true, announced[h.Service]); ctx.Err() != nil {
			return choice{}, context.Cause(ctx)
		} else if err != nil {
			s.log.Error("the transfer could not be announced", "err", err)
		}
		key, err := s.voice.Key(ctx, s.m.cfg.Emergency.Cancel)
		switch {
		case errors.Is(err, ErrNoKey), key == '1', key == '0':
			return choice{service: h.Service, at: time.Now(), heard: &h}, nil
		case err != nil:
			return choice{}, err
		case key == '2', key == '9':
			return choice{back: true, heard: &h}, nil
		}
	}
	return choice{service: h.Service, at: time.Now(), heard: &h}, nil // two keys that mean nothing are no no either
}

// declines lets the ear know what the caller said no to; nil is nothing.
func (s *story) declines(ctx context.Context, h *Heard) error {
	if h == nil {
		return nil
	}
	s.m.metrics.heard.WithLabelValues(string(h.Service), heardCancelled).Inc()
	s.note("danger", "the caller says no", map[string]string{"service": string(h.Service)})
	s.mu.Lock()
	ear := s.ear
	s.mu.Unlock()
	ear.Decline(*h)
	if err := s.say(ctx, false, "em_cancel"); ctx.Err() != nil {
		return context.Cause(ctx)
	} else if err != nil {
		s.log.Warn("the cancel could not be confirmed", "err", err)
	}
	return nil
}

// together joins the caller whose words called for a service with the first free agent, and the service with both.
// Without an agent in time joined is false, and the service is called alone.
func (s *story) together(ctx context.Context, c choice) (joined bool, err error) {
	offer, agent := s.firstAgent(ctx)
	if agent == nil {
		s.stage(StageEmergency, 0)
		return false, nil
	}
	again, err := s.talk(ctx, offer, parties{agent: agent, wanted: c.service, asked: time.Now()})
	if again {
		err = s.queued(ctx, QueueEntry{Queue: s.m.cfg.DefaultQueue, Front: true, Reason: "agent_lost"})
	}
	return true, err
}

// firstAgent waits a short time before everyone else; a nil leg is none.
func (s *story) firstAgent(ctx context.Context) (Offer, call.Leg) {
	if s.m.cfg.Emergency.AgentWithin == 0 {
		return Offer{}, nil
	}
	ctx, stop := context.WithTimeoutCause(ctx, s.m.cfg.Emergency.AgentWithin, errLimit)
	defer stop()
	s.stage(StageQueue, s.m.cfg.Emergency.AgentWithin)
	if s.placed.IsZero() {
		s.placed = time.Now()
	}
	e := s.waiting(QueueEntry{Queue: s.m.cfg.DefaultQueue, Front: true, Reason: "emergency"})
	ticket, err := s.m.Queue.Enter(ctx, e)
	if err != nil {
		s.note("queue", "no place in the queue", map[string]string{"err": err.Error()})
		return Offer{}, nil
	}
	s.ticket, s.cdr.Queue = ticket, e.Queue
	s.update(func(v *View) { v.Queue, v.Reason, v.Agent, v.Extension = e.Queue, e.Reason, "", "" })
	offer, agent, err := s.hunt(ctx, ticket)
	if err == nil {
		return offer, agent
	}
	s.ticket = nil
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := ticket.Leave(after, LeaveEmergency); err != nil {
		s.log.Warn("the place in the queue was not given back; the sweep will", "err", err)
	}
	return Offer{}, nil
}
