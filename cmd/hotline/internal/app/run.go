package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/journal"
)

// loadEvery is how often the queues' load is written down: the evidence of hindrance (Art. 29).
const loadEvery = 5 * time.Second

// errRoom ends the whole when a room failed: a gateway with a part missing takes no calls.
type errRoom struct {
	room string
	err  error
}

func (e *errRoom) Error() string { return e.room + ": " + e.err.Error() }
func (e *errRoom) Unwrap() error { return e.err }

// Run serves until ctx ends, then drains: new calls are refused, running ones finish within drain_for
// or until [App.EndNow]. It returns when everything has stopped.
func (a *App) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, a.close()) }()
	if err := a.calls.Pledge(ctx); err != nil {
		return fmt.Errorf("the talks of the last run are not known: %w", err)
	}
	// The ground outlives the calls, so that the last of them can keep its books.
	ground, stopGround := context.WithCancel(context.WithoutCancel(ctx))
	defer stopGround()
	// A room that fails ends the calls; the other rooms stay until the last call has its books.
	whole, fail := context.WithCancelCause(ground)
	defer fail(nil)
	var rooms errgroup.Group
	for name, run := range map[string]func(context.Context) error{
		"store": a.store.Run, "journal": a.journal.Run, "recording": a.recorder.Run, "intake": a.outbox.Run,
		"queue": a.queue.Run, "abuse": a.admission.Run, "console": a.console.Run, "http": a.http.Run,
		"control": a.control.Run, "desk": a.desk.run, "load": a.sampleLoad,
		"audit":  func(ctx context.Context) error { return a.audit.Run(ctx, a.log.With("room", "audit")) },
		"speech": a.recognise, "nodes": a.cluster.Run, "mirror": a.mirror.Run, "others": a.others.run,
	} {
		rooms.Go(func() error {
			err := run(ground)
			if err == nil && ground.Err() == nil {
				err = errors.New("ended by itself")
			}
			if err == nil || errors.Is(err, context.Canceled) {
				return nil
			}
			failed := &errRoom{name, err}
			fail(failed)
			return failed
		})
	}
	serveErr := a.serve(ctx, whole)
	stopGround()
	return errors.Join(serveErr, rooms.Wait())
}

// serve brings the line up, serves calls, and drains them. whole ends when a room failed.
func (a *App) serve(ctx, whole context.Context) error {
	if err := a.admission.Sync(whole); err != nil { // Redis may be away: it is tried again
		a.log.Warn("measures could not be compared with Redis yet", "err", err)
	}
	if err := a.calls.Recover(whole); err != nil {
		return fmt.Errorf("what the last run left could not be closed: %w", err)
	}
	if keeps, ok := a.line.(call.Adopter); ok {
		if err := keeps.Adopt(whole, a.calls.Cut); err != nil {
			return fmt.Errorf("calls that outlived the last run cannot be taken up: %w", err)
		}
	}
	serving, stop := context.WithCancel(whole)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- a.line.Serve(serving, a.calls.Handle) }()
	carriers, phones, pages := a.Addrs()
	a.log.Info("the line is open", "carriers", carriers, "phones", phones, "console", "http://"+pages, "data", a.cfg.Data)
	select {
	case err := <-done:
		return err
	case <-whole.Done(): // no new calls, and no waiting for those that run
		a.log.Error("a part of the gateway failed; calls are ended", "err", context.Cause(whole))
	case <-ctx.Done():
		close(a.draining)
		a.calls.DrainBy(time.Now().Add(a.cfg.DrainFor))
		a.cluster.Tell()
		a.log.Info("draining: no new calls; running ones may finish", "for", a.cfg.DrainFor)
	}
	stop()
	deadline := time.NewTimer(a.cfg.DrainFor)
	defer deadline.Stop()
	select {
	case err := <-done: // what is left is to keep the books
		done <- err
	case <-deadline.C:
	case <-a.last:
	case <-whole.Done():
	}
	a.calls.Drain()
	a.line.EndAll(call.CauseCongestion)
	err := <-done
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, a.calls.Wait(late))
}

// EndNow ends every call at once: the second signal.
func (a *App) EndNow() { a.endOnce.Do(func() { close(a.last) }) }

// sampleLoad writes each queue's load down.
func (a *App) sampleLoad(ctx context.Context) error {
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			a.sample(ctx, now)
		}
	}
}

func (a *App) sample(ctx context.Context, now time.Time) {
	states, err := a.queues.now(ctx)
	if err != nil {
		a.log.Warn("the load could not be sampled", "err", err)
		return
	}
	for _, s := range states {
		err := a.journal.SaveLoad(journal.LoadSample{At: now, Queue: s.Name, Waiting: s.Waiting,
			Oldest: age(s.Oldest, now).Seconds(), Ready: s.Ready, Talking: s.Talking, Occupied: occupied(s.Ready, s.Talking)})
		if err != nil {
			a.log.Warn("a load sample was not kept", "err", err)
		}
	}
}

func age(since, now time.Time) time.Duration {
	if since.IsZero() {
		return 0
	}
	return now.Sub(since)
}

func occupied(ready, talking int) float64 {
	if ready+talking == 0 {
		return 0
	}
	return float64(talking) / float64(ready+talking)
}

// checks are what /readyz and the console look at.
func (a *App) checks() []ops.Check {
	return append([]ops.Check{
		{Code: "draining", Title: "This gateway takes no new calls", Mend: "Send calls to another gateway; hotline node resume NAME ends a drain by order.", Blocks: true,
			Test: func(context.Context) error {
				if a.drains() {
					return errors.New("draining")
				}
				return nil
			}},
		{Code: "redis-away", Title: "Redis does not answer", Mend: "Callers are admitted and queued on this node alone until it is back; look at the Redis server and at store.addrs.",
			Test: func(context.Context) error {
				if a.store.Healthy() {
					return nil
				}
				return errors.New("no answer")
			}},
		{Code: "measures-wait", Title: "Measures wait to be imposed again on a Redis that was emptied", Mend: "Start the gateways that are named, or let a manager confirm: hotline abuse rebuild.",
			Test: func(context.Context) error {
				if waits, missing := a.admission.Rebuilding(); waits {
					return fmt.Errorf("the chains of %s were not seen", strings.Join(missing, ", "))
				}
				return nil
			}},
		{Code: "intake-dead", Title: "Case intake gave no receipt for a day", Mend: "See `hotline intake dead`, mend the receiver, then `hotline intake retry ID`.",
			Test: func(context.Context) error {
				dead, err := a.outbox.Dead()
				if err == nil && len(dead) > 0 {
					err = fmt.Errorf("%d events", len(dead))
				}
				return err
			}},
		{Code: "trial-key", Title: "Recordings are sealed to a key on this machine", Mend: "Set recording.recipients to the agency's public keys, and keep the private ones elsewhere.",
			Test: func(context.Context) error {
				if a.cfg.Recording.ListeningKeyFile == a.cfg.AgencyKey() {
					return errors.New("trial key in use")
				}
				return nil
			}},
	}, append(a.speechChecks(), a.cluster.Checks()...)...)
}
