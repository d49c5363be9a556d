package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
)

// ErrRefused answers an act that the agent's state does not allow.
var ErrRefused = errors.New("queue: the agent's state does not allow this")

// reasonNodeLost is the pause of an agent whose phone's node died; a log-in anew ends it.
const reasonNodeLost = "node_lost"

// Agent is a person at a phone.
type Agent struct {
	ID        string         // the person; letters, digits, '.', '-' and '_', at most 64
	Extension string         // the phone, of the same letters
	Node      string         // the node where the phone is registered; "" is this one
	Queues    map[string]int // level by queue, 1 to 9: the lowest level with an idle agent is rung
}

var agentName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Login lets an agent take calls at a phone. An agent who is logged in moves to the phone, its node and the
// queues named, and keeps the state and the call; a pause that began with the death of the phone's node ends.
func (q *Queue) Login(ctx context.Context, a Agent) error {
	a.Node = cmp.Or(a.Node, q.deps.Node)
	if !agentName.MatchString(a.ID) || !agentName.MatchString(a.Extension) {
		return fmt.Errorf("queue: log in %q at %q: no such names are allowed", a.ID, a.Extension)
	}
	if len(a.Queues) == 0 {
		return fmt.Errorf("queue: log in %q: the agent has no queue", a.ID)
	}
	for name, level := range a.Queues {
		if _, ok := q.queues[name]; !ok {
			return fmt.Errorf("queue: log in %q: there is no queue %q", a.ID, name)
		}
		if level < 1 || level > 9 {
			return fmt.Errorf("queue: log in %q: level %d in %q is not 1 to 9", a.ID, level, name)
		}
	}
	return q.agentStep(ctx, a.ID, "login", "", &a)
}

// Logout ends an agent's shift. In a call it waits for the call's end.
func (q *Queue) Logout(ctx context.Context, id string) error {
	return q.agentStep(ctx, id, "logout", "", nil)
}

// Pause keeps calls from an agent, for a reason shown on the console (at most 64 bytes are kept). In a call it
// waits for the end of the wrap-up.
func (q *Queue) Pause(ctx context.Context, id, reason string) error {
	return q.agentStep(ctx, id, "pause", clip(reason, 64), nil)
}

// Ready lets an agent take calls again: it ends a pause or a wrap-up, and takes back a wish to pause.
func (q *Queue) Ready(ctx context.Context, id string) error {
	return q.agentStep(ctx, id, "ready", "", nil)
}

// FinishWrapUp ends a wrap-up early. Outside a wrap-up it fails with ErrRefused.
func (q *Queue) FinishWrapUp(ctx context.Context, id string) error {
	return q.agentStep(ctx, id, "wrapped", "", nil)
}

func (q *Queue) agentStep(ctx context.Context, id, step, reason string, login *Agent) error {
	args := []any{seed(), id, step, reason}
	if login != nil {
		args = append(args, login.Node, login.Extension, formatQueues(login.Queues), q.deps.Node)
	}
	err := q.act(ctx, func(ctx context.Context) error {
		state, err := q.acted(ctx, q.scripts.agent, args...)
		switch {
		case err == nil && state == "":
			err = ErrRefused
		case err == nil && state == "dead":
			err = fmt.Errorf("%w: the phone's node %s is not there", ErrRefused, login.Node)
		}
		return err
	}, func() error { return q.agentLocal(id, step, reason, login) })
	if err != nil {
		return fmt.Errorf("queue: agent %s: %s: %w", id, step, err)
	}
	return nil
}
