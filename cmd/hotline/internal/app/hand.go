package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hotline12345/gateway/abuse"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

// The acts of this file are for a program that runs a gateway of its own and plays the people at it, as
// the demo does. What the pages and the command line do goes by way of them.

// Calls are the live calls.
func (a *App) Calls() []session.View { return a.calls.Views() }

// WatchCalls tells of changes of [App.Calls]; see [session.Manager.Watch].
func (a *App) WatchCalls() (changed <-chan struct{}, stop func()) { return a.calls.Watch() }

// Ended is the record of an ended call with its timeline; [journal.ErrNotFound] while it goes on.
func (a *App) Ended(ctx context.Context, id string) (CallRecord, error) {
	row, err := a.journal.Call(ctx, id)
	if err != nil {
		return CallRecord{}, err
	}
	timeline, err := a.journal.Timeline(ctx, id)
	return CallRecord{CDR: &row, Timeline: timeline}, err
}

// SetPhoneSecret sets the secret by which an extension's phone registers.
func (a *App) SetPhoneSecret(ctx context.Context, extension, secret, by string) error {
	return a.staff.SetPhoneSecret(ctx, extension, a.cfg.SIP.Registrar.Realm, secret, by)
}

// Seat logs a person in at an extension, as the agent's page does.
func (a *App) Seat(ctx context.Context, person, extension string) error {
	return pageDesk{a.desk}.Login(ctx, person, extension)
}

// Seated tells at which extension a person is logged in; "" is nowhere.
func (a *App) Seated(ctx context.Context, person string) (string, error) {
	return a.staff.ExtensionOf(ctx, person)
}

// WriteUp writes an ended call up as its agent, and ends the write-up, so that it is handed over at once.
// It waits for the wrap-up to begin.
func (a *App) WriteUp(ctx context.Context, id, person string, f session.Facts) error {
	if err := a.calls.SetFacts(ctx, id, person, f); err != nil {
		return fmt.Errorf("facts: %w", err)
	}
	changed, stop := a.calls.Watch()
	defer stop()
	for {
		switch v, ok := a.live(id); {
		case !ok:
			return nil // the time for it was over
		case v.Stage == session.StageWrapUp:
			err := a.calls.FinishWrapUp(ctx, id, person)
			if err == nil || errors.Is(err, session.ErrNoCall) {
				return nil
			}
			if !errors.Is(err, session.ErrNotInTalk) { // the facts are still being kept
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-time.After(50 * time.Millisecond): // an act that was carried out changes nothing that is watched
		}
	}
}

func (a *App) live(id string) (session.View, bool) {
	for _, v := range a.calls.Views() {
		if v.CallID == id {
			return v, true
		}
	}
	return session.View{}, false
}

// CallBacks are the callers who are owed a call back, or those of the last days who are not any more.
func (a *App) CallBacks(ctx context.Context, closed bool) ([]queue.CallBack, error) {
	return callBacks{a}.List(ctx, closed)
}

// CallBack calls one of them back, as the agent's page does; see [session.Manager.CallBack].
func (a *App) CallBack(ctx context.Context, task, person string) (callID string, err error) {
	return callBacks{a}.Call(ctx, task, person)
}

// MeasureOrder is a measure that was decided on elsewhere.
type MeasureOrder struct {
	Number string
	Clause string
	Level  int
	Reason string
	By     string
}

// Suspend sets a measure on a number, in whatever form it was written, and returns its decision. It is a scene's
// beginning: on the line a measure comes of a proposal and another person's approval alone.
func (a *App) Suspend(ctx context.Context, o MeasureOrder) (decision string, err error) {
	c, err := a.admission.SetMeasure(ctx, abuse.Measure{Number: a.plan.Parse(o.Number), Clause: o.Clause, Level: o.Level, Reason: o.Reason}, o.By)
	return c.Decision, err
}

// Restore lifts a measure.
func (a *App) Restore(ctx context.Context, decision string, why Act) error {
	_, err := a.admission.Restore(ctx, decision, why.Reason, why.By)
	return err
}
