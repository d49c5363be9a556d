package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/console"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
	"github.com/hotline12345/gateway/queue"
)

// reasonPhone is the pause of an agent whose phone is not registered; it ends when the phone is back.
// reasonNodeLost is that of one whose phone's gateway died; the queue ends it at a new log-in.
const (
	reasonPhone    = "phone"
	reasonNodeLost = "node_lost"
)

// desk is where people, phones and the queue meet: staff says who sits at which extension, the
// registrar at which gateways the phone is, and the queue is told of both. An agent belongs to one gateway
// that has the phone.
type desk struct {
	app      *App
	phones   chan struct{}        // a notice that phones came or went; newer ones join it
	unseated map[string]time.Time // since when people with a phone here are no agents; the loop's alone
}

// told hears of a phone that came or went; it must not block the registrar.
func (d *desk) told(string) {
	select {
	case d.phones <- struct{}{}:
	default:
	}
}

// The rhythm of the desk.
const (
	// lookEvery is how often agents and phones are compared, for what no news told: a phone that came back
	// in mid-call, or while its agent sat down.
	lookEvery = 5 * time.Second
	// seatAfter is how long somebody with a phone in a cluster is no agent before they are seated: who has
	// just logged out at another gateway sits here until its people are asked.
	seatAfter = 3 * othersEvery
)

// run seats the people who were logged in when the last process ended, then follows the phones and the other
// gateways.
func (d *desk) run(ctx context.Context) error {
	looked, stop := d.app.cluster.Watch()
	defer stop()
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	for standing := ""; ; {
		if err := d.look(ctx); err != nil && ctx.Err() == nil {
			d.app.log.Warn("agents and their phones could not be compared", "err", err)
		}
		for news := false; !news; {
			select {
			case <-ctx.Done():
				return nil
			case <-d.phones:
				news = true
			case <-again.C:
				news = true
			case <-looked:
				now := d.standing()
				standing, news = now, now != standing
			}
		}
	}
}

// look compares agents, people and phones.
func (d *desk) look(ctx context.Context) error {
	agents, err := d.app.queue.Agents(ctx)
	if err != nil {
		return err
	}
	return errors.Join(d.seatAll(ctx, agents), d.alignAll(ctx, agents))
}

// standing is which gateways take calls.
func (d *desk) standing() string {
	var b strings.Builder
	for _, n := range d.app.cluster.Members() {
		fmt.Fprint(&b, n.Name, n.Alive, n.Draining, " ")
	}
	return b.String()
}

// seatAll seats the people who sit at a phone and are no agents: after a start, or because Redis lost them.
// In a cluster the gateway that has the phone does, once nobody else can know better.
func (d *desk) seatAll(ctx context.Context, agents []queue.AgentView) error {
	alone := d.app.cluster.Alone()
	if !alone && (!d.app.queue.Online() || !d.app.others.complete()) {
		return nil
	}
	bound, err := d.app.staff.Bindings(ctx)
	if err != nil {
		return err
	}
	for _, a := range agents {
		delete(bound, a.ID)
	}
	maps.DeleteFunc(d.unseated, func(id string, _ time.Time) bool { return bound[id] == "" })
	var errs []error
	for id, extension := range bound {
		if !alone && d.home(ctx, extension, "") != d.app.cluster.Name() {
			continue
		}
		if _, seen := d.unseated[id]; !seen {
			d.unseated[id] = time.Now()
		}
		if !alone && time.Since(d.unseated[id]) < seatAfter {
			continue
		}
		if err := d.login(ctx, id, extension); err != nil {
			errs = append(errs, fmt.Errorf("seat %s: %w", id, err))
			continue
		}
		d.told("") // their phone is looked at
	}
	return errors.Join(errs...)
}

// seat makes a bound person an agent of the queue. Without a phone the agent is paused.
func (d *desk) seat(ctx context.Context, id, extension string) error {
	if err := d.login(ctx, id, extension); err != nil {
		return err
	}
	return d.align(ctx)
}

func (d *desk) login(ctx context.Context, id, extension string) error {
	p, err := d.app.staff.Person(ctx, id)
	if err != nil {
		return err
	}
	return d.app.queue.Login(ctx, queue.Agent{ID: id, Extension: extension, Queues: p.Queues,
		Node: d.home(ctx, extension, d.app.cluster.Name())})
}

// home is the gateway where an agent belongs: the present one while it has the phone and takes calls, else
// another that does, else one that has the phone and drains; "" when none that lives has it.
func (d *desk) home(ctx context.Context, extension, present string) string {
	for _, draining := range []bool{false, true} {
		var fit []string
		for _, name := range d.owners(ctx, extension) {
			if n, ok := d.app.cluster.Member(name); ok && n.Alive && n.Draining == draining {
				fit = append(fit, name)
			}
		}
		if slices.Contains(fit, present) {
			return present
		}
		if len(fit) > 0 {
			return slices.Min(fit) // the same for all who ask
		}
	}
	return ""
}

// owners is the gateways that have an extension's phone; of the others what was last known.
func (d *desk) owners(ctx context.Context, extension string) []string {
	names, err := d.app.line.Owners(ctx, extension)
	if err != nil {
		names = nil
	}
	if own := d.app.cluster.Name(); d.owns(extension) && !slices.Contains(names, own) {
		names = append(names, own)
	}
	return names
}

// align looks at where the agents and their phones are now.
func (d *desk) align(ctx context.Context) error {
	agents, err := d.app.queue.Agents(ctx)
	if err != nil {
		return err
	}
	return d.alignAll(ctx, agents)
}

// alignAll brings the agents of this gateway to where their phones are, pauses those who have none, makes
// those ready whom that alone had paused, and takes over who is better off here.
func (d *desk) alignAll(ctx context.Context, agents []queue.AgentView) error {
	own, taken := d.app.cluster.Name(), false
	var errs []error
	for _, a := range agents {
		here := d.owns(a.Extension)
		if home := d.moves(ctx, a, here); home != "" {
			taken = taken || home == own
			errs = append(errs, d.app.queue.Login(ctx, queue.Agent{ID: a.ID, Extension: a.Extension, Queues: a.Queues, Node: home}))
			continue
		}
		if a.Node != own {
			continue
		}
		switch owed(a, here) {
		case queue.Paused:
			errs = append(errs, d.app.queue.Pause(ctx, a.ID, reasonPhone))
		case queue.Idle:
			errs = append(errs, d.app.queue.Ready(ctx, a.ID))
		default:
		}
	}
	if taken {
		d.told("") // who was taken over with a pause for the phone's sake is looked at again
	}
	return errors.Join(errs...)
}

// moves is the gateway that an agent is to be moved to by this one, or "". Who is with a caller stays.
func (d *desk) moves(ctx context.Context, a queue.AgentView, here bool) string {
	own := d.app.cluster.Name()
	if d.app.cluster.Alone() || !d.app.queue.Online() || a.State == queue.Offered || a.State == queue.Talk || a.State == queue.LoggedOut {
		return ""
	}
	lost := a.State == queue.Paused && a.Reason == reasonNodeLost
	if a.Node == own {
		if here && !d.app.drains() && !lost {
			return ""
		}
		if home := d.home(ctx, a.Extension, own); home != own || lost {
			return home
		}
		return ""
	}
	n, _ := d.app.cluster.Member(a.Node)
	stranded := !n.Alive || n.Draining || lost || a.State == queue.Paused && a.Reason == reasonPhone
	if here && stranded && d.home(ctx, a.Extension, a.Node) == own {
		return own
	}
	return ""
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
func (d *desk) owns(extension string) bool { return d.app.line.Local(extension) }

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
	if errors.Is(err, staff.ErrUnknown) { // who has just logged in at another gateway is an agent already
		agents, listErr := d.app.queue.Agents(ctx)
		if i := slices.IndexFunc(agents, func(a queue.AgentView) bool { return a.Extension == extension }); listErr == nil && i >= 0 {
			return act(agents[i].ID)
		}
	}
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
