package abuse

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/audit"
)

// chainFresh is how long ago a living node's chain may have been seen when measures are imposed anew.
const chainFresh = 300 * time.Second

// actConfirmed is a manager's word that measures may be imposed anew without the chains that are missing.
const actConfirmed = "measure.rebuild_confirmed"

// detailGeneration is the generation of Redis that the word is for.
const detailGeneration = "generation"

// ErrNotHeld answers a confirmation that nothing waits for.
var ErrNotHeld = errors.New("abuse: no measures wait to be imposed anew")

// build is how far this node has come with the generation of Redis that it met. It is used under syncing.
type build struct {
	generation string               // as met
	seen       string               // the newest event of its stream that was copied
	sent       string               // the generation into whose stream this node's ledger was put
	done       string               // the generation into which its measures were put
	confirmed  string               // the generation for which a manager has confirmed
	chains     map[string]time.Time // by node: as of when its whole chain is copied, on this node's clock
}

// meet learns the generation of Redis, puts the ledger into its stream unless it is there, and then says
// that this node's chain can be seen. It tells as of when those of the others can, on this node's clock.
func (a *Admission) meet(ctx context.Context, now time.Time) (map[string]time.Time, error) {
	b := &a.build
	a.mu.Lock()
	if a.unsent {
		a.unsent, b.sent = false, ""
	}
	a.mu.Unlock()
	for {
		generation, chains, err := a.greet(ctx, now)
		if err != nil {
			return nil, err
		}
		if generation != b.generation {
			b.generation, b.seen = generation, firstID
		}
		if b.sent == generation {
			return chains, nil
		}
		if err := a.publish(ctx, now); err != nil {
			return nil, err
		}
		b.sent = generation
	}
}

// greet runs the script meet.
func (a *Admission) greet(ctx context.Context, now time.Time) (generation string, chains map[string]time.Time, err error) {
	asked := a.skew.wall()
	answer, err := a.scripts.meet.Run(ctx, a.store.Blocking(), []string{keyGeneration, keyChains},
		hex.EncodeToString(randomBytes(16)), a.audit.Node(), a.build.sent).Slice()
	if err != nil {
		return "", nil, err
	}
	if len(answer) != 3 {
		return "", nil, fmt.Errorf("abuse: meet answered %d values", len(answer))
	}
	head, err := texts(answer[:2])
	if err != nil {
		return "", nil, err
	}
	list, err := texts(answer[2])
	if err != nil {
		return "", nil, err
	}
	at, err := strconv.ParseInt(head[1], 10, 64)
	if err != nil {
		return "", nil, fmt.Errorf("abuse: meet: %w", err)
	}
	if differ, news := a.skew.learn(asked, time.UnixMilli(at)); news {
		a.log.Warn("the clock of this node is not that of redis; measures follow the latter", "redis_is_ahead", differ)
	}
	chains = make(map[string]time.Time)
	for pair := range slices.Chunk(list, 2) {
		if ms, err := strconv.ParseInt(pair[len(pair)-1], 10, 64); err == nil {
			chains[pair[0]] = now.Add(-time.Duration(at-ms) * time.Millisecond)
		}
	}
	return head[0], chains, nil
}

// publish puts into the stream what the ledger has of measures whose term is not over, whoever set and
// ended them. Who knows an event already passes it over.
func (a *Admission) publish(ctx context.Context, now time.Time) error {
	a.mu.Lock()
	var events []event
	for _, c := range a.ledger {
		if c.set != nil && !now.Before(c.Until) {
			continue
		}
		for _, t := range []*told{c.set, c.end} {
			if t != nil {
				events = append(events, event{Node: t.node, Entry: t.entry})
			}
		}
	}
	events = append(events, a.untold(now)...)
	a.mu.Unlock()
	for _, e := range events {
		if e.Entry.Act == actSet {
			decision := e.Entry.Detail["decision"]
			if text, err := a.openNumber(decision); err == nil { // a destroyed one is no error
				if e.Sealed, err = a.keys.sealText(decision, text); err != nil {
					return err
				}
			}
		}
		if err := a.tell(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// tell puts an event into the stream that changes nothing in Redis.
func (a *Admission) tell(ctx context.Context, e event) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return a.store.Blocking().XAdd(ctx, &redis.XAddArgs{
		Stream: keyStream, MaxLen: streamLength, Approx: true, Values: []any{"e", text},
	}).Err()
}

// sawThrough notes that the chains are copied as of the times that were met before the stream was read.
func (b *build) sawThrough(chains map[string]time.Time) {
	for node, at := range chains {
		b.chains[node] = at
	}
}

// missing are the living nodes whose chains were not seen lately: one of them may hold a restoration.
func (a *Admission) missing(now time.Time) []string {
	return slices.DeleteFunc(a.peers.heard(), func(n string) bool {
		at, seen := a.build.chains[n]
		return seen && now.Sub(at) <= chainFresh
	})
}

// rebuild imposes the measures of the ledger on a Redis that has lost them: a new one, one that was emptied,
// or the embedded one after a restart. Each node does so once in a generation of Redis, and no sooner than
// every living node's chain was seen or a manager has confirmed. After that Redis is believed: a measure
// that it lost is not imposed again. rebuild returns what runs, by pseudonym.
func (a *Admission) rebuild(ctx context.Context, now time.Time) (map[string]string, error) {
	if b := &a.build; b.done != b.generation {
		if err := a.impose(ctx, now); err != nil {
			return nil, err
		}
	}
	return a.store.Blocking().HGetAll(ctx, keyRunning).Result()
}

func (a *Admission) impose(ctx context.Context, now time.Time) error {
	b := &a.build
	args := []any{a.audit.Node(), b.seen}
	a.mu.Lock()
	for _, c := range a.ledger {
		if c.running(now) {
			args = append(args, c.pseudonym, c.stored())
		}
	}
	a.mu.Unlock()
	waiting := len(args)/2 - 1
	missing := a.missing(now)
	if b.confirmed == b.generation {
		missing = nil
	}
	a.hold(waiting, missing)
	if len(missing) > 0 {
		return nil
	}
	built, err := a.scripts.rebuild.Run(ctx, a.store.Blocking(), []string{keyRunning, keyStream, keyBuilt}, args...).Int()
	if err != nil || built < 0 { // newer events are read by the next Sync
		return err
	}
	b.done = b.generation
	if built == 1 {
		a.log.Info("measures restored from the audit chain", "measures", waiting)
	}
	return nil
}

// hold notes whether measures wait, and for whose chains.
func (a *Admission) hold(waiting int, missing []string) {
	if len(missing) == 0 {
		waiting = 0
	}
	a.metrics.held.Set(float64(waiting))
	a.mu.Lock()
	defer a.mu.Unlock()
	if waiting > 0 && !slices.Equal(missing, a.held) {
		a.log.Warn("redis was emptied; measures wait until every living node's chain was seen, or a manager confirms",
			"measures", waiting, "missing", missing)
	}
	a.held = nil
	if waiting > 0 {
		a.held = missing
	}
}

// Rebuilding tells whether measures wait to be imposed anew on a Redis that was emptied, and for the chains of
// which living nodes.
func (a *Admission) Rebuilding() (waits bool, missing []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.held) > 0, slices.Clone(a.held)
}

// ConfirmRebuild has the measures that wait imposed on every node without the chains that are missing; actor
// is the manager who decides so. A restoration that is seen later wins all the same. Errors: [ErrNotHeld],
// [ErrAway], those of the audit log.
func (a *Admission) ConfirmRebuild(ctx context.Context, actor string) error {
	a.syncing.Lock()
	err := a.confirm(ctx, actor)
	a.syncing.Unlock()
	if err != nil {
		return err
	}
	return a.Sync(ctx)
}

// confirm records the word, tells the other nodes of it, and heeds it.
func (a *Admission) confirm(ctx context.Context, actor string) error {
	_, missing := a.Rebuilding()
	if len(missing) == 0 {
		return ErrNotHeld
	}
	entry := audit.Entry{Actor: actor, Act: actConfirmed, Detail: map[string]string{
		detailGeneration: a.build.generation, "missing": strings.Join(missing, ", "),
	}}
	if _, err := a.audit.Append(ctx, entry); err != nil {
		return err
	}
	a.build.confirmed = a.build.generation
	if err := a.tell(ctx, event{Node: a.audit.Node(), Entry: entry}); err != nil {
		return errors.Join(ErrAway, err)
	}
	return nil
}

// copyConfirmation heeds a manager's word that came on another node.
func (a *Admission) copyConfirmation(ctx context.Context, id string, e event) error {
	generation := e.Entry.Detail[detailGeneration]
	if generation != a.build.generation || a.build.confirmed == generation {
		return nil
	}
	if err := a.copyEntry(ctx, id, e); err != nil {
		return err
	}
	a.build.confirmed = generation
	return nil
}
