package app

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/google/renameio/v2"

	"github.com/hotline12345/gateway/cmd/hotline/internal/console"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

// reasonPhone is the pause of an agent whose phone is not registered; it ends when the phone is back.
const reasonPhone = "phone"

// desk is where people, phones and the queue meet: staff says who sits at which extension, the
// registrar whether the phone is there, and the queue is told of both.
type desk struct {
	app    *App
	phones chan struct{} // a notice that phones came or went; newer ones join it
}

// told hears of a phone that came or went; it must not block the registrar.
func (d *desk) told(string) {
	select {
	case d.phones <- struct{}{}:
	default:
	}
}

// run seats the people who were logged in when the last process ended, then follows the phones.
func (d *desk) run(ctx context.Context) error {
	bound, err := d.app.staff.Bindings(ctx)
	if err != nil {
		return err
	}
	for id, extension := range bound {
		if err := d.seat(ctx, id, extension); err != nil {
			d.app.log.Warn("an agent could not be seated again", "person", id, "err", err)
		}
	}
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.phones:
		case <-again.C:
		}
		if err := d.align(ctx); err != nil && ctx.Err() == nil {
			d.app.log.Warn("agents and their phones could not be compared", "err", err)
		}
	}
}

// lookEvery is how often agents and phones are compared, for what no news told: a phone that came back
// in mid-call, or while its agent sat down.
const lookEvery = 5 * time.Second

// seat makes a bound person an agent of the queue. Without a phone the agent is paused.
func (d *desk) seat(ctx context.Context, id, extension string) error {
	p, err := d.app.staff.Person(ctx, id)
	if err != nil {
		return err
	}
	if err := d.app.queue.Login(ctx, queue.Agent{ID: id, Extension: extension, Queues: p.Queues}); err != nil {
		return err
	}
	return d.align(ctx)
}

// align pauses the agents of this node whose phone is gone, and makes those ready whom that alone had
// paused.
func (d *desk) align(ctx context.Context) error {
	agents, err := d.app.queue.Agents(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range agents {
		if a.Node != d.app.cfg.Session.Node {
			continue
		}
		switch owed(a, d.owns(a.Extension)) {
		case queue.Paused:
			errs = append(errs, d.app.queue.Pause(ctx, a.ID, reasonPhone))
		case queue.Idle:
			errs = append(errs, d.app.queue.Ready(ctx, a.ID))
		default:
		}
	}
	return errors.Join(errs...)
}

// owed is the state that an agent should be in for their phone's sake, or "". A pause of the agent's own
// stays what it is, and so does a wish to log out.
func owed(a queue.AgentView, here bool) queue.AgentState {
	switch {
	case here && (a.State == queue.Paused && a.Reason == reasonPhone || a.State != queue.Wrapup && a.Wish == "pause:"+reasonPhone):
		return queue.Idle
	case !here && a.State != queue.Paused && a.State != queue.LoggedOut && a.Wish == "":
		return queue.Paused
	}
	return ""
}

// owns tells whether an extension's phone is registered here.
func (d *desk) owns(extension string) bool {
	found, err := d.app.sip.Registrar().Lookup(context.Background(), extension)
	return err == nil && len(found) > 0
}

func (d *desk) leave(ctx context.Context, id, by string) error {
	return errors.Join(d.app.queue.Logout(ctx, id), d.app.staff.Unbind(ctx, id, by))
}

// phoneDesk is the desk as an agent's phone reaches it, by feature codes.
type phoneDesk struct{ *desk }

func (d phoneDesk) Login(ctx context.Context, extension, person, pin string) error {
	p, err := d.app.staff.LoginPhone(ctx, extension, person, pin)
	if err != nil {
		return err
	}
	return d.seat(ctx, p.ID, extension)
}

func (d phoneDesk) at(ctx context.Context, extension string, act func(id string) error) error {
	p, err := d.app.staff.PersonAt(ctx, extension)
	if err != nil {
		return err
	}
	return act(p.ID)
}

func (d phoneDesk) Logout(ctx context.Context, extension string) error {
	return d.at(ctx, extension, func(id string) error { return d.leave(ctx, id, id) })
}

func (d phoneDesk) Pause(ctx context.Context, extension, reason string) error {
	return d.at(ctx, extension, func(id string) error { return d.app.queue.Pause(ctx, id, reason) })
}

func (d phoneDesk) Ready(ctx context.Context, extension string) error {
	return d.at(ctx, extension, func(id string) error { return d.app.queue.Ready(ctx, id) })
}

// pageDesk is the desk as the pages, the API and the command line reach it.
type pageDesk struct{ *desk }

func (d pageDesk) Login(ctx context.Context, person, extension string) error {
	if err := d.app.staff.Bind(ctx, person, extension); err != nil {
		return err
	}
	extension, err := d.app.staff.ExtensionOf(ctx, person)
	if err != nil {
		return err
	}
	return d.seat(ctx, person, extension)
}

func (d pageDesk) Logout(ctx context.Context, person string) error {
	return d.leave(ctx, person, person)
}

func (d pageDesk) Pause(ctx context.Context, person, reason string) error {
	return noAgent(d.app.queue.Pause(ctx, person, reason))
}

func (d pageDesk) Ready(ctx context.Context, person string) error {
	return noAgent(d.app.queue.Ready(ctx, person))
}

func noAgent(err error) error {
	if errors.Is(err, queue.ErrRefused) {
		return fmt.Errorf("%w: %w", console.ErrNoAgent, err)
	}
	return err
}

func (d pageDesk) List(ctx context.Context) ([]console.Agent, error) {
	agents, err := d.app.queue.Agents(ctx)
	if err != nil {
		return nil, err
	}
	people, err := d.app.staff.People(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, p := range people {
		names[p.ID] = p.Name
	}
	out := make([]console.Agent, 0, len(agents))
	for _, v := range agents {
		c := console.Agent{ID: v.ID, Name: names[v.ID], Extension: v.Extension, State: v.State, Since: v.Since,
			Until: v.WrapupEnds, Reason: v.Reason, CallID: v.CallID}
		for _, q := range d.app.cfg.Queue.Queues {
			if _, ok := v.Queues[q.Name]; ok {
				c.Queues = append(c.Queues, q.Name)
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// callDesk is what staff do to a live call, as the console reaches it.
type callDesk struct {
	*session.Manager
	queue *queue.Queue
}

// FinishWrapUp ends the write-up of a call, and with it the agent's own wrap-up: who is done is ready.
func (d callDesk) FinishWrapUp(ctx context.Context, callID, by string) error {
	if err := d.Manager.FinishWrapUp(ctx, callID, by); err != nil {
		return err
	}
	if err := d.queue.FinishWrapUp(ctx, by); err != nil && !errors.Is(err, queue.ErrRefused) {
		return err
	}
	return nil
}

// placeKey makes the pseudonym under which a caller's place in a queue is kept for a redial. Its key
// lies outside Redis.
func placeKey(path string) (func(call.Number) string, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		rand.Read(key) // never fails
		err = renameio.WriteFile(path, key, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return func(n call.Number) string {
		if n.E164 == "" {
			return ""
		}
		h := hmac.New(sha256.New, key)
		h.Write([]byte("place\x00" + n.E164))
		return hex.EncodeToString(h.Sum(nil)[:16])
	}, nil
}
