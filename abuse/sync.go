package abuse

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/audit"
)

// snapshot is a copy of the running measures, for when Redis is away.
type snapshot struct {
	at      time.Time         // before it was read
	running map[string]stored // by case pseudonym
}

// event is what the stream tells of a measure.
type event struct {
	Node   string      `json:"node"`
	Entry  audit.Entry `json:"entry"`
	Sealed string      `json:"sealed,omitempty"` // the number, with a new measure
}

// streamBatch bounds how many events are copied at once.
const streamBatch = 256

// Sync brings chain, Redis and copy together: it begins a new epoch of keys when it is time, rebuilds an
// empty Redis, copies what other nodes did into this node's chain, takes out of Redis what has ended, and
// keeps a copy of what runs. Run does so every 2 s; the program also before it takes the first call.
func (a *Admission) Sync(ctx context.Context) error {
	now := a.now()
	// Keys and chain are files: that they fail is no reason to let the copy grow old.
	files := errors.Join(a.keys.rotate(now), a.expire(ctx, now))
	if err := a.rebuild(ctx, now); err != nil {
		return errors.Join(files, err)
	}
	running, events, err := a.read(ctx)
	if err != nil {
		return errors.Join(files, err)
	}
	return errors.Join(files, a.copyEvents(ctx, events), a.reconcile(ctx, now, running))
}

// expire records the ends of the terms that this node's decisions set.
func (a *Admission) expire(ctx context.Context, now time.Time) error {
	a.mu.Lock()
	var ended []Case
	for _, c := range a.ledger {
		if c.State == Running && c.Node == a.audit.Node() && !c.running(now) {
			ended = append(ended, *c)
		}
	}
	a.mu.Unlock()
	for _, c := range ended {
		c.State = Expired
		entry := c.entry("node", "the term is over")
		if _, err := a.audit.Append(ctx, entry); err != nil {
			return err
		}
		a.apply(entry, c.Node)
	}
	return nil
}

// rebuild puts the measures of the chain into a Redis that has none of the generation's mark: a new one, one
// that was emptied, or the embedded one after a restart. Where the mark stands, Redis is believed: a
// measure that it lost is not imposed again.
func (a *Admission) rebuild(ctx context.Context, now time.Time) error {
	marked, err := a.store.Blocking().Exists(ctx, keyGeneration).Result()
	if err != nil || marked == 1 {
		return err
	}
	args := []any{hex.EncodeToString(randomBytes(16))}
	a.mu.Lock()
	for _, c := range a.ledger {
		if c.running(now) {
			args = append(args, c.pseudonym, c.stored())
		}
	}
	a.mu.Unlock()
	built, err := a.scripts.rebuild.Run(ctx, a.store.Blocking(), []string{keyRunning, keyGeneration}, args...).Int()
	if err == nil && built == 1 {
		a.log.Info("measures restored from the audit chain", "measures", len(args)/2)
	}
	return err
}

// read reads the running measures and what is new in the stream.
func (a *Admission) read(ctx context.Context) (map[string]string, []redis.XMessage, error) {
	a.mu.Lock()
	seen := a.seen
	a.mu.Unlock()
	running, err := a.store.Blocking().HGetAll(ctx, keyRunning).Result()
	if err != nil {
		return nil, nil, err
	}
	streams, err := a.store.Blocking().XRead(ctx, &redis.XReadArgs{
		Streams: []string{keyStream, seen}, Count: streamBatch, Block: -1,
	}).Result()
	if errors.Is(err, redis.Nil) || err == nil && len(streams) == 0 {
		return running, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return running, streams[0].Messages, nil
}

// copyEvents puts what other nodes did into this node's chain.
func (a *Admission) copyEvents(ctx context.Context, events []redis.XMessage) error {
	for _, msg := range events {
		var e event
		text, _ := msg.Values["e"].(string)
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			a.log.Error("an event of the stream of measures is not readable; it is passed over", "id", msg.ID, "err", err)
		} else if e.Node != a.audit.Node() {
			if err := a.copyEvent(ctx, msg.ID, e); err != nil {
				return err
			}
		}
		a.mu.Lock()
		a.seen = msg.ID
		a.mu.Unlock()
	}
	return nil
}

// validDecision keeps what comes from outside from naming a file elsewhere.
var validDecision = regexp.MustCompile(`^[0-9]{8}-[0-9]{4}$`)

func (a *Admission) copyEvent(ctx context.Context, id string, e event) error {
	decision := e.Entry.Detail["decision"]
	if !validDecision.MatchString(decision) {
		a.log.Error("an event of the stream of measures names no decision; it is passed over", "id", id)
		return nil
	}
	if e.Sealed != "" {
		if err := a.writeNumber(decision, e.Sealed); err != nil {
			return err
		}
	}
	entry := e.Entry
	entry.Detail = maps.Clone(entry.Detail)
	entry.Detail[detailNode], entry.Detail[detailStream] = e.Node, streamPrefix+id
	if _, err := a.audit.Append(ctx, entry); err != nil {
		return fmt.Errorf("abuse: copy an event: %w", err)
	}
	a.apply(entry, e.Node)
	return nil
}

// reconcile takes out of Redis what has ended, by its term or by an entry in the chain, and makes the copy
// of the rest.
func (a *Admission) reconcile(ctx context.Context, read time.Time, texts map[string]string) error {
	var errs []error
	running := make(map[string]stored, len(texts))
	for pseudonym, text := range texts {
		s, err := readStored(text)
		if err != nil {
			a.log.Error("a measure in redis is not readable; it is taken out", "err", err)
			s = stored{Until: read}
		}
		state := a.stateOf(s, read)
		if !state.over() {
			running[pseudonym] = s
			continue
		}
		end := Case{Decision: s.Decision, State: state, pseudonym: pseudonym}
		e := event{Node: a.audit.Node(), Entry: end.entry("node", "taken out of redis")}
		_, err = a.change(ctx, pseudonym, text, "", e)
		errs = append(errs, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.snapshot = snapshot{at: read, running: running}
	a.metrics.measures.Set(float64(len(running)))
	a.metrics.age.Set(float64(read.UnixNano()) / 1e9)
	return errors.Join(errs...)
}

// stateOf is where a measure that Redis has stands in truth.
func (a *Admission) stateOf(s stored, now time.Time) State {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.ledger[s.Decision]; c != nil && c.State.over() {
		return c.State
	}
	if !now.Before(s.Until) {
		return Expired
	}
	return Running
}

// remember and forget keep the copy true to what this node itself has done, without waiting for Sync.
func (a *Admission) remember(c *Case) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.snapshot.running == nil {
		return // never read: its age forbids its use
	}
	a.snapshot.running[c.pseudonym] = stored{c.Decision, c.Clause, c.Level, c.From, c.Until}
}

func (a *Admission) forget(pseudonym string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.snapshot.running, pseudonym)
}

// Rebuilding tells whether measures wait to be put into a Redis that came back empty, and for the chains
// of which nodes.
func (a *Admission) Rebuilding() (waits bool, missing []string) { return false, nil }

// ConfirmRebuild lets the measures that wait take effect without the missing chains; actor is a manager.
func (a *Admission) ConfirmRebuild(ctx context.Context, actor string) error { return nil }
