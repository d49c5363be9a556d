package app

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/console"
	"github.com/hotline12345/gateway/cmd/hotline/internal/nodes"
	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

const (
	// othersEvery is how often the other gateways are asked for their state and their people.
	othersEvery = 2 * time.Second
	// maxPages bounds what one gateway's people are asked for at a time; the rest follows the next time.
	maxPages = 50
)

// others is what the other gateways said of themselves a moment ago, and what of their people is known.
type others struct {
	app *App

	mu     sync.Mutex
	states map[string]peerState // of those that answer

	cursors map[string]string // of their people; the loop's alone
}

// run asks the other gateways until ctx ends.
func (o *others) run(ctx context.Context) error {
	tick := time.NewTicker(othersEvery)
	defer tick.Stop()
	for {
		o.ask(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (o *others) ask(ctx context.Context) {
	states := map[string]peerState{}
	own := o.app.cluster.Name()
	for _, answer := range nodes.Gather(ctx, o.app.cluster, "/state", func(context.Context) (peerState, error) { return peerState{}, nil }) {
		if answer.Err == nil && answer.Node != own {
			states[answer.Node] = answer.Value
		}
	}
	o.mu.Lock()
	o.states = states
	o.mu.Unlock()
	for name := range states {
		if err := o.people(ctx, name); err != nil && ctx.Err() == nil {
			o.app.log.Warn("the people of another gateway could not be taken over", "node", name, "err", err)
		}
	}
}

// people takes over what changed in another gateway's directory. A change that makes no sense here is told
// and passed over.
func (o *others) people(ctx context.Context, name string) error {
	var errs []error
	for range maxPages {
		var page peerStaff
		since := o.cursors[name]
		if err := o.app.cluster.Ask(ctx, name, http.MethodGet, "/staff?since="+url.QueryEscape(since), nil, &page); err != nil {
			return errors.Join(append(errs, err)...)
		}
		applied, err := o.app.staff.Apply(ctx, page.Changes)
		errs = append(errs, err)
		if applied > 0 {
			o.app.desk.told("")
		}
		if o.cursors[name] = page.Next; page.Next == since {
			break
		}
	}
	return errors.Join(errs...)
}

// each is the states of the other gateways, by name.
func (o *others) each(do func(node string, s peerState)) {
	o.mu.Lock()
	states := maps.Clone(o.states)
	o.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(states)) {
		do(name, states[name])
	}
}

// complete tells whether every other gateway that lives has answered: then what it changed of the people is
// known here.
func (o *others) complete() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !slices.ContainsFunc(o.app.cluster.Peers(), func(name string) bool { _, ok := o.states[name]; return !ok })
}

// everyCall is the live calls of all gateways.
type everyCall struct {
	calls  *session.Manager
	mirror *nodes.Mirror
}

// Views implements console.Calls.
func (e everyCall) Views() []session.View { return append(e.calls.Views(), e.mirror.Views()...) }

// Watch implements console.Calls.
func (e everyCall) Watch() (changed <-chan struct{}, stop func()) {
	here, stopHere := e.calls.Watch()
	there, stopThere := e.mirror.Watch()
	both, quit, done := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			case <-here:
			case <-there:
			}
			select {
			case both <- struct{}{}:
			default: // a notice waits already
			}
		}
	}()
	return both, sync.OnceFunc(func() {
		close(quit)
		<-done
		stopHere()
		stopThere()
	})
}

// everyDesk is what staff do to a live call, at the gateway that has it.
type everyDesk struct {
	callDesk
	app *App
}

// there has an act done by the gateway that has the call, when here says that this one has not.
func (d everyDesk) there(ctx context.Context, callID, act string, o Order, into any, here error) error {
	owner := d.app.mirror.Owner(callID)
	if owner == "" || !errors.Is(here, session.ErrNoCall) {
		return here
	}
	if err := d.app.audit.Record(ctx, o.By, "call."+act, callID, map[string]string{"asked_of": owner}); err != nil {
		return err
	}
	return d.app.askNode(ctx, owner, "/calls/"+url.PathEscape(callID)+"/"+act, o, into)
}

// SetFacts implements console.Desk.
func (d everyDesk) SetFacts(ctx context.Context, callID, by string, f session.Facts) error {
	return d.there(ctx, callID, "facts", Order{By: by, Facts: f}, nil, d.callDesk.SetFacts(ctx, callID, by, f))
}

// FinishWrapUp implements console.Desk.
func (d everyDesk) FinishWrapUp(ctx context.Context, callID, by string) error {
	return d.there(ctx, callID, "finish", Order{By: by}, nil, d.callDesk.FinishWrapUp(ctx, callID, by))
}

// Emergency implements console.Desk.
func (d everyDesk) Emergency(ctx context.Context, callID, by string, s session.Service) error {
	return d.there(ctx, callID, "emergency", Order{By: by, Service: s}, nil, d.callDesk.Emergency(ctx, callID, by, s))
}

// Hangup implements console.Desk.
func (d everyDesk) Hangup(ctx context.Context, callID, by string) error {
	return d.there(ctx, callID, "hangup", Order{By: by}, nil, d.callDesk.Hangup(ctx, callID, by))
}

// Mark implements console.Desk.
func (d everyDesk) Mark(callID, by string) (offset time.Duration, err error) {
	offset, here := d.callDesk.Mark(callID, by)
	err = d.there(context.Background(), callID, "mark", Order{By: by}, &offset, here)
	return offset, err
}

// everyJournal is what is known of a call at any gateway.
type everyJournal struct{ app *App }

// Call implements console.Journal.
func (e everyJournal) Call(ctx context.Context, callID string) (journal.Row, error) {
	rec, _, err := e.app.recordOf(ctx, callID)
	if err == nil && rec.CDR == nil {
		err = journal.ErrNotFound
	}
	if err != nil {
		return journal.Row{}, err
	}
	return *rec.CDR, nil
}

// Timeline implements console.Journal.
func (e everyJournal) Timeline(ctx context.Context, callID string) ([]journal.Entry, error) {
	rec, _, err := e.app.recordOf(ctx, callID)
	return rec.Timeline, err
}

// everyTrunk is the carriers as each gateway sees them.
type everyTrunk struct{ app *App }

// Trunks implements console.Trunks.
func (e everyTrunk) Trunks(ctx context.Context) ([]console.Trunk, error) {
	all := e.app.line.Trunks()
	if e.app.cluster.Alone() {
		return all, nil
	}
	for i := range all {
		all[i].Node = e.app.cluster.Name()
	}
	e.app.others.each(func(node string, s peerState) {
		for _, t := range s.Trunks {
			t.Node = node
			all = append(all, t)
		}
	})
	return all, nil
}

// everyHealth is what is wrong anywhere. What is wrong at several gateways is told once, in the words of
// this one.
type everyHealth struct{ app *App }

// Warnings implements console.Health.
func (e everyHealth) Warnings(ctx context.Context) []ops.Warning {
	all := e.app.health.Warnings(ctx)
	e.app.others.each(func(node string, s peerState) {
		for _, w := range s.Warnings {
			if slices.ContainsFunc(all, func(have ops.Warning) bool { return have.Code == w.Code }) {
				continue
			}
			w.Detail = node + ": " + w.Detail
			all = append(all, w)
		}
	})
	return all
}

// everyCall is the calls that the console shows: those of the others too, when there are any.
func (a *App) everyCall() console.Calls {
	if a.cluster.Alone() {
		return a.calls
	}
	return everyCall{a.calls, a.mirror}
}

// callBacks is the ledger of callers who are owed a call back, as the console and the command line reach it.
// It is one for all gateways; the call is this one's.
type callBacks struct{ app *App }

// List implements console.CallBacks.
func (c callBacks) List(ctx context.Context, closed bool) ([]queue.CallBack, error) {
	return c.app.queue.CallBacks(ctx, closed)
}

// Call implements console.CallBacks.
func (c callBacks) Call(ctx context.Context, id, person string) (callID string, err error) {
	callID, err = c.app.calls.CallBack(ctx, id, person)
	return callID, noAgent(err)
}

// Close implements console.CallBacks.
func (c callBacks) Close(ctx context.Context, id, person, why string) error {
	return c.app.queue.CloseCallBack(ctx, id, person, why)
}
