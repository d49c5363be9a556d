package ivr

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

// maxSteps bounds the nodes of one walk; a caller who goes round menus that often gets a person.
const maxSteps = 500

// errStuck ends a stay in a flow that brought nothing new.
var errStuck = errors.New("ivr: no progress")

// walk is one call's way through a flow.
type walk struct {
	engine   *Engine
	flow     *Flow
	voice    session.Voice
	at       session.FlowPoint
	node     *Node
	language string
	menus    []string // that the caller chose in, for back
	message  bool     // one was left
	data     map[string]string
}

// run visits nodes until one leads out.
func (w *walk) run(ctx context.Context) (session.FlowExit, error) {
	seen := map[string]bool{}
	fresh, stop := w.engine.within(ctx, w.engine.cfg.StuckAfter, errStuck)
	defer func() { stop() }()
	for range maxSteps {
		if !seen[w.node.Name] { // progress: the clock starts anew
			seen[w.node.Name] = true
			stop()
			//nolint:fatcontext // made of ctx, not of the clock before
			fresh, stop = w.engine.within(ctx, w.engine.cfg.StuckAfter, errStuck)
		}
		w.engine.metrics.nodes.WithLabelValues(string(w.node.Kind)).Inc()
		w.voice.Node(w.node.Name, w.language)
		if exit, out := w.exit(); out {
			return w.leave(ctx, exit)
		}
		in := fresh
		if w.node.Kind == Message { // it has a limit of its own
			in = ctx
		}
		next, err := w.visit(in)
		switch {
		case ctx.Err() != nil:
			return session.FlowExit{}, context.Cause(ctx)
		case err != nil && errors.Is(context.Cause(fresh), errStuck):
			return w.toPerson(ctx, faultStuck)
		case err != nil:
			return session.FlowExit{}, err
		}
		w.node = w.flow.Node(next)
	}
	return w.toPerson(ctx, faultSteps)
}

// toPerson ends a walk that leads nowhere.
func (w *walk) toPerson(ctx context.Context, fault string) (session.FlowExit, error) {
	w.engine.metrics.faults.WithLabelValues(fault).Inc()
	w.node = w.flow.Node(w.flow.Person)
	w.voice.Node(w.node.Name, w.language)
	exit, _ := w.exit()
	if err := w.say(ctx, "ivr_stuck"); err != nil {
		return session.FlowExit{}, ended(ctx, err)
	}
	return exit, nil
}

// exit is where the node leads out of the flow.
func (w *walk) exit() (session.FlowExit, bool) {
	n := w.node
	x := session.FlowExit{Node: n.Name, Language: w.language, Data: maps.Clone(w.data)}
	switch n.Kind {
	case Queue:
		x.Kind, x.Queue, x.Credit = session.ExitQueue, n.Queue, n.Credit
	case Transfer:
		x.Kind, x.Endpoint = session.ExitTransfer, w.engine.cfg.Targets[n.Endpoint].endpoint()
	case Emergency:
		x.Kind, x.Service = session.ExitEmergency, n.Service
	case Hangup:
		x.Kind = session.ExitHangup
		if w.message {
			x.Kind = session.ExitMessage
		}
	default:
		return session.FlowExit{}, false
	}
	return x, true
}

// leave says what the last node has to say.
func (w *walk) leave(ctx context.Context, x session.FlowExit) (session.FlowExit, error) {
	if err := w.say(ctx, w.node.Say...); err != nil {
		return session.FlowExit{}, ended(ctx, err)
	}
	return x, nil
}

// ended prefers the reason why the call ended to what it did to a prompt.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// visit does what a node does and returns the next one's name.
func (w *walk) visit(ctx context.Context) (string, error) {
	n := w.node
	switch n.Kind {
	case Say:
		return n.Next, w.say(ctx, n.Say...)
	case Menu:
		return w.menu(ctx, n)
	case Collect:
		return w.collect(ctx, n)
	case Language:
		return n.Next, w.chooseLanguage(ctx, n)
	case Hours:
		if n.Schedule.OpenAt(w.at.Now) {
			return n.Open, nil
		}
		return n.Closed, nil
	case Announce:
		return n.Next, w.announce(ctx, n)
	default: // Message: the exits never come here
		return n.Next, w.leaveMessage(ctx, n)
	}
}

// say plays parts. A key ends those that it may, and waits; a notice among them is heard out.
func (w *walk) say(ctx context.Context, parts ...string) error {
	for len(parts) > 0 {
		barge := w.engine.prompts.Barge(parts[0])
		n := slices.IndexFunc(parts, func(p string) bool { return w.engine.prompts.Barge(p) != barge })
		if n < 0 {
			n = len(parts)
		}
		if err := w.voice.Say(ctx, barge, w.engine.prompts.Say(w.language, parts[:n]...)...); err != nil {
			return err
		}
		parts = parts[n:]
	}
	return ctx.Err()
}

func (w *walk) menu(ctx context.Context, n *Node) (string, error) {
	for try := 0; ; try++ {
		if err := w.say(ctx, n.Say...); err != nil {
			return "", err
		}
		key, err := w.voice.Key(ctx, n.Timeout)
		if err != nil && !errors.Is(err, session.ErrNoKey) {
			return "", err
		}
		if to := n.key(key); err == nil && to != "" {
			return w.choose(n, to), nil
		}
		if done, err := w.again(ctx, n, try, err != nil); done || err != nil {
			return n.OnFail, err
		}
	}
}

// choose follows a key of a menu.
func (w *walk) choose(n *Node, to string) string {
	switch last := len(w.menus) - 1; {
	case to == Repeat || to == Back && last < 0:
		return n.Name
	case to == Back:
		to = w.menus[last]
		w.menus = w.menus[:last]
		return to
	}
	w.menus = append(w.menus, n.Name)
	return to
}

// again tells whether the tries are used up; if not, it says what was wrong.
func (w *walk) again(ctx context.Context, n *Node, try int, silent bool) (done bool, err error) {
	reason, words := wrongKey, n.Invalid
	if silent {
		reason, words = noKey, n.Silent
	}
	w.engine.metrics.errors.WithLabelValues(reason).Inc()
	if try >= n.Retries {
		return true, nil
	}
	return false, w.say(ctx, words...)
}

func (w *walk) collect(ctx context.Context, n *Node) (string, error) {
	bounds := session.Collect{Max: n.Max, Terminator: n.Terminator, First: n.Timeout, Next: n.Gap,
		Ask: func(ctx context.Context) error { return w.say(ctx, n.Say...) }}
	for try := 0; ; try++ {
		digits, err := w.voice.Collect(ctx, bounds)
		if err != nil && !errors.Is(err, session.ErrNoKey) {
			return "", err
		}
		if err == nil && len(digits) >= n.Min && strings.Trim(digits, "0123456789") == "" {
			w.data[n.Store] = digits
			return n.Next, nil
		}
		if done, err := w.again(ctx, n, try, err != nil); done || err != nil {
			return n.OnFail, err
		}
	}
}

// chooseLanguage sets the language, or asks once for it; silence and a wrong key leave it as it is.
func (w *walk) chooseLanguage(ctx context.Context, n *Node) error {
	if n.Language != "" {
		w.language = n.Language
		return nil
	}
	if err := w.say(ctx, n.Say...); err != nil {
		return err
	}
	key, err := w.voice.Key(ctx, n.Timeout)
	switch {
	case errors.Is(err, session.ErrNoKey):
		return nil
	case err != nil:
		return err
	}
	if l := n.key(key); l != "" {
		w.language = l
	}
	return nil
}

// shortest is the shortest message that is one: below it the caller said nothing.
const shortest = time.Second

func (w *walk) leaveMessage(ctx context.Context, n *Node) error {
	if err := w.say(ctx, append(slices.Clone(n.Say), "beep")...); err != nil {
		return err
	}
	length, err := w.voice.Message(ctx, n.Limit)
	if err != nil {
		return err
	}
	if length < shortest {
		return w.say(ctx, "msg_none")
	}
	w.message = true
	w.data[n.Name] = length.Round(time.Second).String()
	return w.say(ctx, "msg_saved")
}
