package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hotline12345/gateway/cmd/hotline/internal/console"
	"github.com/hotline12345/gateway/cmd/hotline/internal/nodes"
	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/queue"
)

// knownErrors are those that gateways know by name when one tells the other, so that a page says the same
// whoever has the call.
var knownErrors = map[string]error{
	"no_call": session.ErrNoCall, "not_yours": session.ErrNotYours, "bad_facts": session.ErrBadFacts,
	"not_in_talk": session.ErrNotInTalk, "no_task": session.ErrNoTask, "task_taken": session.ErrTaskTaken,
	"agent_busy": session.ErrAgentBusy, "call_back_off": session.ErrCallBackOff, "call_backs_full": session.ErrCallBacksFull,
	"no_agent": console.ErrNoAgent, "extension_busy": staff.ErrExtensionBusy, "no_extension": staff.ErrNoExtension,
	"refused": queue.ErrRefused, "not_found": journal.ErrNotFound, "node_unknown": store.ErrNodeUnknown,
	"node_alive": store.ErrNodeAlive,
}

// makeCluster makes the keys that the gateways share, and the list of gateways that this one is on.
func (a *App) makeCluster(ctx context.Context) (err error) {
	if a.keys, err = nodes.OpenKeys(a.cfg.Nodes, a.cfg.Data); err != nil {
		return err
	}
	config, err := a.cfg.Hash()
	if err != nil {
		return err
	}
	policy, err := a.cfg.PolicyHash()
	if err != nil {
		return err
	}
	a.same = store.Node{Name: a.cfg.Session.Node, Version: ops.Version(), ConfigHash: config, PolicyHash: policy}
	deps := nodes.Deps{Keys: a.keys, Self: a.self, Handler: http.HandlerFunc(a.servePeers), Errors: knownErrors,
		Log: a.log.With("room", "nodes"), Reg: a.reg}
	if a.cfg.Nodes.Clustered() {
		deps.Registry = store.NewNodes(a.store)
		if a.vault, err = store.NewVault(a.store, a.keys.For(nodes.Vault)); err != nil {
			return err
		}
	}
	if a.cluster, err = nodes.New(a.cfg.Nodes, deps); err != nil {
		return err
	}
	if err := a.cluster.Open(ctx); err != nil {
		return err
	}
	a.closing(a.cluster.Close)
	a.mirror = nodes.NewMirror(a.cluster)
	a.others = &others{app: a, states: map[string]peerState{}, cursors: map[string]string{}}
	return nil
}

// self is what this gateway says of itself with each heartbeat.
func (a *App) self() store.Node {
	n := a.same
	n.Draining = a.drains()
	if a.line != nil { // before the switch is made the list is asked, and nobody told
		n.SIP = a.line.NodeAddr()
		n.Calls, _, _ = a.line.Calls()
	}
	return n
}

// join says that this gateway lives, and seeds the people of a first start: in a cluster the one gateway
// that they agree on does, and the others take its people over.
func (a *App) join(ctx context.Context) error {
	if err := a.cluster.Join(ctx); err != nil {
		return err
	}
	return a.cluster.While(ctx, func(ctx context.Context) error {
		mine, err := a.seeds(ctx)
		if err != nil || !mine {
			return err
		}
		a.Newcomers, err = a.staff.Seed(ctx, a.cfg.SIP.Registrar.Realm)
		return err
	})
}

// firstStart is the name under which the gateways agree on who seeds.
const firstStart = "first-start"

// seeds tells whether this gateway makes the people of a first start.
func (a *App) seeds(ctx context.Context) (bool, error) {
	if a.cluster.Alone() {
		return true, nil
	}
	people, err := a.staff.People(ctx)
	if err != nil || len(people) > 0 {
		return false, err
	}
	name := []byte(a.cluster.Name())
	chosen, err := a.vault.Agree(ctx, firstStart, name)
	// Who is chosen joined before. So who sees nobody after that finds it gone, and nobody else has its people; of two who
	// look, the later sees the other.
	if err == nil && !bytes.Equal(chosen, name) && a.cluster.Look(ctx) && len(a.cluster.Peers()) == 0 {
		if err = a.vault.Forget(ctx, firstStart); err == nil {
			chosen, err = a.vault.Agree(ctx, firstStart, name)
		}
	}
	switch {
	case errors.Is(err, store.ErrVaultKey):
		return false, fmt.Errorf("nodes.secret_file: the cluster on this Redis has another secret; give this gateway the same: %w", err)
	case err != nil:
		a.log.Warn("this gateway has no people, and cannot ask the others for them yet; if it is the first of all, start it again when Redis is there", "err", err)
		return false, nil
	case !bytes.Equal(chosen, name):
		a.log.Info("the people come from another gateway", "node", string(chosen))
		return false, nil
	}
	return true, nil
}

// drains tells whether this gateway takes no new calls, for its end or by order.
func (a *App) drains() bool {
	select {
	case <-a.draining:
		return true
	default:
		return a.drained.Load()
	}
}

// drain lets this gateway take no new calls, or take them again. Its calls and its phones go on.
func (a *App) drain(on bool) {
	if a.drained.Swap(on) == on {
		return
	}
	a.line.Drain(on)
	a.log.Info("new calls are refused by order", "draining", on)
	a.cluster.Tell()
	a.desk.told("")
}

// everyNode is the gateways as the console and the command line reach them.
type everyNode struct{ app *App }

// List implements console.Nodes.
func (e everyNode) List(context.Context) ([]console.Node, error) {
	members := e.app.cluster.Members()
	out := make([]console.Node, len(members))
	for i, n := range members {
		out[i] = console.Node{Name: n.Name, Version: n.Version, API: n.API, SIP: n.SIP, Started: n.Started, ConfigHash: n.ConfigHash,
			PolicyHash: n.PolicyHash, Draining: n.Draining, Calls: n.Calls, Seen: n.Seen, Alive: n.Alive, Self: n.Name == e.app.cluster.Name()}
	}
	return out, nil
}

// Drain implements console.Nodes.
func (e everyNode) Drain(ctx context.Context, name, by string) error {
	return e.turn(ctx, name, by, true)
}

// Resume implements console.Nodes.
func (e everyNode) Resume(ctx context.Context, name, by string) error {
	return e.turn(ctx, name, by, false)
}

func (e everyNode) turn(ctx context.Context, name, by string, drain bool) error {
	if name == e.app.cluster.Name() {
		e.app.drain(drain)
		return nil
	}
	path := "/resume"
	if drain {
		path = "/drain"
	}
	return e.app.askNode(ctx, name, path, Order{By: by}, nil)
}

// Forget implements console.Nodes.
func (e everyNode) Forget(ctx context.Context, name, _ string) error {
	return e.app.cluster.Forget(ctx, name)
}

// askNode asks another gateway to do something, in the errors that the console knows.
func (a *App) askNode(ctx context.Context, node, path string, o Order, into any) error {
	err := a.cluster.Ask(ctx, node, http.MethodPost, path, o, into)
	if errors.Is(err, nodes.ErrAway) {
		return fmt.Errorf("%w: %w", console.ErrNodeAway, err)
	}
	return err
}
