package session

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// emergency helps a caller in danger (Art. 9(1)): a service of their choice at once, or else the
// first agent who is free. It returns as served does.
func (s *story) emergency(ctx context.Context, d *errDanger) error {
	before := s.snapshot().Stage
	s.reason, s.outcome = "", OutcomeNone
	heard := s.pad.set(keysHeeded)
	defer heard()
	s.stage(StageEmergency, 2*(s.m.cfg.Emergency.Choose+speaking))
	s.record("danger")
	if d.tried {
		heard()
		return s.unreached(ctx, d.Service)
	}
	choice, err := s.choose(ctx, d)
	switch {
	case err != nil:
		return err
	case choice.back:
		heard()
		if err := s.declines(ctx, choice.heard); err != nil {
			return err
		}
		return s.resume(ctx, before)
	case choice.service == "":
		s.update(func(v *View) { v.Alert = true })
		heard()
		return s.front(ctx)
	}
	s.lasts(0) // a service rings for as long as its carrier lets it
	if choice.heard != nil {
		s.m.metrics.heard.WithLabelValues(string(choice.service), heardTransfer).Inc()
		s.inDanger(choice.service, byWords)
		if joined, err := s.together(ctx, choice); joined {
			return err
		}
		choice.at = time.Now() // the wait for an agent is over
	} else {
		s.inDanger(choice.service, "caller")
	}
	leg, err := s.reach(ctx, choice.service, choice.at)
	defer s.hangup(leg)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		s.note("emergency", "no route answered", map[string]string{"err": err.Error()})
		heard()
		return s.unreached(ctx, choice.service)
	}
	return s.serve(ctx, parties{service: leg})
}

// serve joins a caller in danger with the service that answered.
func (s *story) serve(ctx context.Context, p parties) error {
	defer s.hangup(p.service)
	s.dropOrders()
	s.phase(PhaseTalk)
	if s.cdr.Connected.IsZero() {
		s.cdr.Connected = time.Now()
	}
	s.stage(StageService, 0)
	s.record("talk")
	return s.converse(ctx, p)
}

// choice is what a caller in danger asked for.
type choice struct {
	service Service
	back    bool
	at      time.Time // of the key
	heard   *Heard    // that led here, and that going back declines; nil for a key
}

// choose asks which service. Silence, and a second wrong key, mean a person.
func (s *story) choose(ctx context.Context, d *errDanger) (choice, error) {
	if d.heard != nil && d.heard.Kind == HeardTransfer {
		return s.whether(ctx, *d.heard)
	}
	if d.Service != "" {
		return choice{service: d.Service, at: d.At}, nil
	}
	defer s.pad.set(keysRaw)()
	defer s.asks(askWhich)()
	s.voice.pending = nil
	ask := []string{"em_which"}
	if d.heard != nil {
		s.m.metrics.heard.WithLabelValues(string(d.heard.Service), heardAsked).Inc()
		ask = []string{"em_heard", "em_which"}
	}
	for range 2 {
		if err := s.say(ctx, true, ask...); err != nil {
			return choice{}, err
		}
		key, err := s.voice.Key(ctx, s.m.cfg.Emergency.Choose)
		switch {
		case errors.Is(err, ErrNoKey):
			return choice{}, nil
		case err != nil:
			return choice{}, err
		case key == '9':
			return choice{back: true, heard: d.heard}, nil
		case key <= lastSpoken:
			return s.whether(ctx, Heard{Kind: HeardTransfer, Service: serviceOf(key + '0'), Words: s.snapshot().Heard.Words, At: time.Now()})
		case serviceOf(key) != "":
			return choice{service: serviceOf(key), at: time.Now()}, nil
		}
	}
	return choice{}, nil
}

// resume takes a caller who is not in danger after all back to where they were.
func (s *story) resume(ctx context.Context, before Stage) error {
	s.update(func(v *View) { v.Alert, v.Heard = false, Heard{} })
	switch before {
	case StageQueue, StageRing:
		return s.queued(ctx, QueueEntry{Queue: s.cdr.Queue, Credit: s.flow.Credit, Reason: s.flow.Node})
	case StageSuspended:
		return s.suspended(ctx)
	case StageReserve:
		return s.reserve(ctx)
	case StageLeaseWait:
		return s.admitted(ctx)
	default:
		v := s.snapshot()
		return s.walk(ctx, FlowPoint{Node: v.Node, Language: v.Language})
	}
}

// unreached helps a caller whom no route could help: with words, and with the first agent who is free.
func (s *story) unreached(ctx context.Context, svc Service) error {
	if err := s.guide(ctx, svc); err != nil {
		return err
	}
	return s.front(ctx)
}

// front puts the caller before everyone else who waits.
func (s *story) front(ctx context.Context) error {
	if err := s.say(ctx, false, "em_agent"); err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.queued(ctx, QueueEntry{Queue: s.m.cfg.DefaultQueue, Front: true, Reason: "emergency"})
}

// guide tells a caller whom no route could help to dial the service themselves.
func (s *story) guide(ctx context.Context, svc Service) error {
	err := s.say(ctx, false, "em_fail", "em_dial_direct", "digits:"+string(svc))
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		s.log.Error("the guidance could not be played", "err", err)
	}
	return nil
}

// reach calls the service while the caller is told so.
func (s *story) reach(ctx context.Context, svc Service, pressed time.Time) (call.Leg, error) {
	telling, stop := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		_ = s.m.contain(s.id, func() error { // the service is called whatever the caller hears
			if err := s.say(telling, false, going[svc]); err != nil {
				return err
			}
			return s.leg.Loop(telling, s.m.Prompts.Music()...)
		})
	}()
	leg, err := s.summon(ctx, svc, pressed)
	stop()
	<-told
	return leg, err
}

// going are the prompts that tell which service is called.
var going = map[Service]string{Police: "em_police_going", Fire: "em_fire_going", Medical: "em_med_going", Road: "em_traffic_going"}

// inDanger writes that a service is needed, and tells case intake at once (Art. 22).
func (s *story) inDanger(svc Service, by string) {
	s.cdr.Emergency, s.outcome = string(svc), OutcomeEmergency
	s.update(func(v *View) { v.Emergency, v.Alert, v.Position = svc, true, 0 })
	s.note("emergency", string(svc), map[string]string{"by": by})
	s.m.metrics.emergencies.WithLabelValues(string(svc), by).Inc()
	if s.urgent {
		return
	}
	s.urgent = true
	h := HandOver{Type: RequestUrgent, RequestID: s.id, Revision: revisionUrgent, CallID: s.id,
		At: time.Now(), Urgent: "emergency " + string(svc), Facts: s.publicFacts(), Sealed: s.sealed(Request{}),
		Evidence: s.cdr.Evidence}
	s.done.Go(func() {
		if err := s.m.Intake.Submit(context.WithoutCancel(s.leg.Context()), h); err != nil {
			s.m.metrics.faults.WithLabelValues("intake").Inc()
			s.log.Error("the urgent hand-over was not kept", "err", err)
		}
	})
}

// errNoRoute is returned when every route to a service failed.
var errNoRoute = errors.New("session: no route to the service answered")

// attempt is one route being tried.
type attempt struct {
	route  Route
	cancel context.CancelFunc
}

// attemptNews is what an attempt tells: slow asks for the next route beside it, else it is over.
type attemptNews struct {
	i    int
	slow bool
	leg  call.Leg
	err  error
}

// summon calls a service by its routes in order. A route that gives no response in time, or fails, is
// replaced by the next; one that does not ring in time is joined by the next, and the first answer wins.
func (s *story) summon(ctx context.Context, svc Service, pressed time.Time) (call.Leg, error) {
	routes := s.m.cfg.Emergency.RoutesTo(svc)
	news := make(chan attemptNews, 2*len(routes))
	var tries []attempt
	start := func() bool {
		if len(tries) == len(routes) {
			return false
		}
		trying, cancel := context.WithCancel(ctx)
		try := attempt{routes[len(tries)], cancel}
		i := len(tries)
		tries = append(tries, try)
		s.m.late.Go(func() { s.try(trying, i, try, svc, pressed, news) })
		return true
	}
	running := 0
	if start() {
		running++
	}
	won := -1
	defer func() { s.clear(tries, won, running, news) }()
	for running > 0 {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case n := <-news:
			switch {
			case n.leg != nil:
				won = n.i
				running--
				return n.leg, nil
			case !n.slow:
				running--
			}
			if start() {
				running++
			}
		}
	}
	return nil, errNoRoute
}

// clear ends the attempts that did not win. One may have been answered meanwhile; it is hung up.
func (s *story) clear(tries []attempt, won, running int, news <-chan attemptNews) {
	for _, t := range tries {
		t.cancel()
	}
	s.m.late.Go(func() {
		for running > 0 {
			n := <-news
			if n.slow {
				continue
			}
			running--
			if n.leg != nil && n.i != won {
				_ = n.leg.Hangup(context.WithoutCancel(n.leg.Context()), call.CauseElsewhere)
			}
		}
	})
}

// try calls a service by one route. It outlives the call when it lost, and whatever goes wrong in it
// leaves the other routes alone.
func (s *story) try(ctx context.Context, i int, t attempt, svc Service, pressed time.Time, news chan<- attemptNews) {
	defer t.cancel()
	var leg call.Leg
	var form call.CallerForm
	err := s.m.contain(s.id, func() (err error) {
		leg, form, err = s.tryForms(ctx, i, t, svc, pressed, news)
		return err
	})
	if err != nil {
		s.note("emergency", "the route failed", map[string]string{"trunk": t.route.Trunk, "err": err.Error()})
		news <- attemptNews{i: i, err: err}
		return
	}
	s.note("emergency", "answered", map[string]string{"trunk": t.route.Trunk, "form": string(form)})
	news <- attemptNews{i: i, leg: leg}
	if form == call.FormSpoken {
		_ = s.m.contain(s.id, func() error { s.readNumber(leg); return nil })
	}
}

// tryForms walks the caller-number forms of one route.
func (s *story) tryForms(ctx context.Context, i int, t attempt, svc Service, pressed time.Time,
	news chan<- attemptNews) (call.Leg, call.CallerForm, error) {
	last := errNoRoute
	for _, form := range t.route.Forms {
		leg, err := s.dialService(ctx, i, t, form, svc, pressed, news)
		if err == nil {
			return leg, form, nil
		}
		last = err
		if refused, ok := errors.AsType[*call.DialError](err); !ok || !refusedForm(refused.Status) {
			break
		}
	}
	return nil, "", last
}

// refusedForm tells whether a route refused the caller's number rather than the call.
func refusedForm(status int) bool { return status == 403 || status == 404 || status == 484 }

// dialService is one INVITE to a service, under its two timers.
func (s *story) dialService(ctx context.Context, i int, t attempt, form call.CallerForm, svc Service, pressed time.Time, news chan<- attemptNews) (call.Leg, error) {
	noTrying := time.AfterFunc(s.m.cfg.Emergency.NoTrying, t.cancel)
	defer noTrying.Stop()
	noRinging := time.AfterFunc(s.m.cfg.Emergency.NoRinging, func() {
		select {
		case news <- attemptNews{i: i, slow: true}:
		default: // asked already
		}
	})
	defer noRinging.Stop()
	to := call.Endpoint{Kind: call.ToTrunk, Name: t.route.Trunk, Number: t.route.Number}
	return s.m.Switch.Dial(ctx, to, call.DialOptions{
		Caller: s.info.Caller, Form: form, Token: s.id, Emergency: true,
		OnProgress: func(p call.Progress) {
			switch p {
			case call.Sent:
				took := time.Since(pressed)
				s.m.metrics.emergencySeconds.Observe(took.Seconds())
				s.note("emergency", "INVITE to the service", map[string]string{"service": string(svc),
					"trunk": t.route.Trunk, "number": t.route.Number, "form": string(form),
					"ms_after_key": strconv.FormatInt(took.Milliseconds(), 10)})
			case call.Trying:
				noTrying.Stop()
			case call.Ringing, call.EarlyMedia:
				noTrying.Stop()
				noRinging.Stop()
			}
		},
	})
}

// readNumber tells the service who calls, on a route that cannot show the number.
func (s *story) readNumber(leg call.Leg) {
	parts := []string{"em_service_unknown"}
	if n := s.info.Caller.National(); n != "" {
		parts = []string{"em_service_intro", "digits:" + n}
	}
	_ = leg.Play(leg.Context(), s.m.Prompts.Say("zh", parts...)...) // the talk goes on without it
}
