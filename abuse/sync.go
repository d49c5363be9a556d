package abuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
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

// Sync brings chains, Redis and copy together: it turns the keys, puts what the stream lacks into it, copies
// what other nodes did into this node's chain, rebuilds an emptied Redis, takes out of it what has ended,
// and keeps a copy of what runs. Run does so every 2 s; the program also before it takes the first call.
func (a *Admission) Sync(ctx context.Context) error {
	a.syncing.Lock()
	defer a.syncing.Unlock()
	now := a.now()
	// Keys and chain are files: that they fail is no reason to let the copy grow old.
	files := errors.Join(a.turnKeys(ctx, now), a.expire(ctx, now), a.lapse(ctx, now), a.retire(ctx, now))
	if !a.keys.ready() {
		return files
	}
	chains, err := a.meet(ctx, now)
	if err != nil {
		return errors.Join(files, err)
	}
	if err := a.copyStream(ctx); err != nil {
		return errors.Join(files, err)
	}
	a.build.sawThrough(chains)
	running, err := a.rebuild(ctx, now)
	if err != nil {
		return errors.Join(files, err)
	}
	return errors.Join(files, a.reconcile(ctx, now, running))
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

// copyStream puts what other nodes did, as far as it is new, into this node's chain.
func (a *Admission) copyStream(ctx context.Context) error {
	for {
		streams, err := a.store.Blocking().XRead(ctx, &redis.XReadArgs{
			Streams: []string{keyStream, a.build.seen}, Count: streamBatch, Block: -1,
		}).Result()
		if errors.Is(err, redis.Nil) || err == nil && len(streams) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		for _, msg := range streams[0].Messages {
			if err := a.copyMessage(ctx, msg); err != nil {
				return err
			}
			a.build.seen = msg.ID
		}
		if len(streams[0].Messages) < streamBatch {
			return nil
		}
	}
}

func (a *Admission) copyMessage(ctx context.Context, msg redis.XMessage) error {
	var e event
	text, _ := msg.Values["e"].(string)
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		a.log.Error("an event of the stream of measures is not readable; it is passed over", "id", msg.ID, "err", err)
		return nil
	}
	if e.Entry.Act == actConfirmed {
		return a.copyConfirmation(ctx, msg.ID, e)
	}
	if strings.HasPrefix(e.Entry.Act, actMatter) {
		return a.copyAct(ctx, msg.ID, e)
	}
	if !validDecision.MatchString(e.Entry.Detail["decision"]) {
		a.log.Error("an event of the stream of measures names no decision; it is passed over", "id", msg.ID)
		return nil
	}
	a.mu.Lock()
	known := !news(a.ledger, e.Entry)
	a.mu.Unlock()
	if known && e.Sealed != "" {
		return a.mend(e.Entry.Detail["decision"], e.Sealed)
	}
	if known {
		return nil
	}
	return a.copyEvent(ctx, msg.ID, e)
}

// validDecision keeps what comes from outside from naming a file elsewhere.
var (
	validDecision = regexp.MustCompile(`^[0-9]{8}-[0-9]{4}$`)
	validSubject  = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

func (a *Admission) copyEvent(ctx context.Context, id string, e event) error {
	decision := e.Entry.Detail["decision"]
	if e.Sealed != "" {
		if err := a.writeNumber(decision, e.Sealed); err != nil {
			return err
		}
	}
	if err := a.copyEntry(ctx, id, e); err != nil {
		return err
	}
	a.apply(e.Entry, e.Node)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rename(a.ledger[decision])
	return nil
}

func (a *Admission) copyEntry(ctx context.Context, id string, e event) error {
	entry := original(e.Entry)
	if entry.Detail == nil {
		entry.Detail = make(map[string]string)
	}
	entry.Detail[detailNode], entry.Detail[detailStream] = e.Node, streamPrefix+id
	if _, err := a.audit.Append(ctx, entry); err != nil {
		return fmt.Errorf("abuse: copy an event: %w", err)
	}
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
		state, name := a.stateOf(s, pseudonym, read)
		if !state.over() {
			running[name] = s
			errs = append(errs, a.move(ctx, pseudonym, text, name))
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

// stateOf is where a measure that Redis has under a pseudonym stands in truth, and under which it belongs.
func (a *Admission) stateOf(s stored, pseudonym string, now time.Time) (State, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.ledger[s.Decision]
	if c != nil && c.named {
		pseudonym = c.pseudonym
	}
	if c != nil && c.State.over() {
		return c.State, pseudonym
	}
	if !now.Before(s.Until) {
		return Expired, pseudonym
	}
	return Running, pseudonym
}

// move puts a measure under the pseudonym where calls look for it.
func (a *Admission) move(ctx context.Context, from, text, to string) error {
	if from == to {
		return nil
	}
	return a.scripts.move.Run(ctx, a.store.Blocking(), []string{keyRunning}, from, text, to).Err()
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
