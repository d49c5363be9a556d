package app

import (
	"context"
	"fmt"
	"net/url"
	"slices"

	"github.com/hotline12345/gateway/cmd/hotline/internal/nodes"
	"github.com/hotline12345/gateway/internal/intake"
)

// MissingHeader names, on an answer to the command line, each gateway whose rows are missing from it, and
// why.
const MissingHeader = "Hotline-Missing"

// everyRow is the rows of all gateways, and which gateways' are missing.
func everyRow[T any](ctx context.Context, a *App, path string, own func(context.Context) ([]T, error)) (rows []T, missing []string, err error) {
	for _, answer := range nodes.Gather(ctx, a.cluster, path, own) {
		switch {
		case answer.Err == nil:
			rows = append(rows, answer.Value...)
		case answer.Node == a.cluster.Name():
			return nil, nil, answer.Err
		default:
			missing = append(missing, answer.Err.Error())
		}
	}
	return rows, missing, nil
}

// missing names the gateways whose live calls are not known here.
func (a *App) missing() (out []string) {
	for _, n := range a.cluster.Members() {
		if why := a.mirror.Missing(n.Name); why != nil {
			out = append(out, why.Error())
		}
	}
	return out
}

// apart says that what only Redis knows of the others is not known.
func (a *App) apart() []string {
	if a.cluster.Alone() || a.queue.Online() {
		return nil
	}
	return []string{"Redis is away: the callers and agents of the other gateways are not shown"}
}

// items is what all gateways have for case intake, each event with its gateway.
func (a *App) items(ctx context.Context, path string, own func() ([]intake.Item, error)) (all []NodeItem, missing []string, err error) {
	for _, answer := range nodes.Gather(ctx, a.cluster, path, func(context.Context) ([]intake.Item, error) { return own() }) {
		switch {
		case answer.Err == nil:
			for _, i := range answer.Value {
				all = append(all, NodeItem{answer.Node, i})
			}
		case answer.Node == a.cluster.Name():
			return nil, nil, answer.Err
		default:
			missing = append(missing, answer.Err.Error())
		}
	}
	return all, missing, nil
}

// retry takes an event up again at the gateway that has it.
func (a *App) retry(ctx context.Context, id, by string) error {
	dead, missing, err := a.items(ctx, "/intake/dead", a.outbox.Dead)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(dead, func(d NodeItem) bool { return d.ID == id })
	switch {
	case i < 0 && len(missing) > 0:
		return fmt.Errorf("no gateway that answers has given up event %s; %s", id, missing[0])
	case i < 0 || dead[i].Node == a.cluster.Name():
		return a.outbox.Retry(id)
	}
	return a.audited(ctx, by, "intake.retry", id, map[string]string{"asked_of": dead[i].Node}, func() error {
		return a.askNode(ctx, dead[i].Node, "/intake/"+url.PathEscape(id)+"/retry", Order{By: by}, nil)
	})
}

// recordOf is all that is known of a call, wherever it was: this gateway looks first at what it has.
func (a *App) recordOf(ctx context.Context, id string) (CallRecord, []string, error) {
	rec, err := a.record(ctx, id)
	if err != nil || rec.known() {
		return rec, nil, err
	}
	var silent []string
	for _, answer := range nodes.Gather(ctx, a.cluster, "/calls/"+url.PathEscape(id), func(context.Context) (CallRecord, error) { return rec, nil }) {
		switch {
		case answer.Err != nil:
			silent = append(silent, answer.Err.Error())
		case answer.Value.known():
			return answer.Value, nil, nil
		}
	}
	return rec, silent, nil
}
