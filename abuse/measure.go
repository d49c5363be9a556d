package abuse

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
)

// The errors of measures.
var (
	ErrUnknown = errors.New("abuse: there is no decision of this number")
	ErrRunning = errors.New("abuse: a measure runs for this caller already; restore it first")
	ErrOver    = errors.New("abuse: the measure has ended already")
	ErrChanged = errors.New("abuse: the caller's measure was changed meanwhile; look at it and decide again")
	ErrAway    = errors.New("abuse: redis is away, and no decision is taken meanwhile")
)

// Measure is a suspension that is decided on.
type Measure struct {
	Number call.Number
	Clause string            // "29-1" or "29-2"
	Level  int               // 1 to 3
	Until  time.Time         // zero takes the level's term; at most that
	Reason string            // the facts, for the record: 1 to 1000 characters, without personal data
	Basis  map[string]string // what it rests on, for the record; nil for a decision that was made elsewhere
}

// SetMeasure suspends a number for a while: recorded first, then in effect. actor is the person who
// decides. Errors: [ErrAway], [ErrRunning], [ErrChanged], those of the audit log, and what is wrong with m.
func (a *Admission) SetMeasure(ctx context.Context, m Measure, actor string) (Case, error) {
	now := a.now().UTC().Truncate(time.Millisecond) // what was noted in this second came before
	if err := a.check(&m, now); err != nil {
		return Case{}, err
	}
	a.syncing.Lock() // the keys are not turned meanwhile
	defer a.syncing.Unlock()
	if !a.keys.ready() {
		return Case{}, errors.Join(ErrAway, errKeys)
	}
	c := &Case{
		Clause: m.Clause, Level: m.Level, From: now, Until: m.Until, Reason: m.Reason, Actor: actor,
		State: Running, Node: a.audit.Node(), Number: m.Number, pseudonym: a.keys.measure(m.Number.E164),
	}
	before, err := a.store.Blocking().HGet(ctx, keyRunning, c.pseudonym).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return Case{}, errors.Join(ErrAway, err)
	}
	if err := a.free(before, now); err != nil {
		return Case{}, err
	}
	a.name(c)
	entry := c.entry(actor, m.Reason)
	maps.Copy(entry.Detail, m.Basis)
	sealed, err := a.keepNumber(c, entry)
	if err != nil {
		return Case{}, err
	}
	if _, err := a.audit.Append(ctx, entry); err != nil {
		return Case{}, errors.Join(err, os.Remove(a.numberFile(c.Decision)))
	}
	a.apply(entry, c.Node)
	changed, err := a.change(ctx, c.pseudonym, before, c.stored(), event{Node: c.Node, Entry: entry, Sealed: sealed})
	switch {
	case err != nil:
		return Case{}, a.void(ctx, *c, errors.Join(ErrAway, err))
	case !changed:
		return Case{}, a.void(ctx, *c, ErrChanged)
	}
	a.remember(c)
	a.log.Info("measure set", "decision", c.Decision, "clause", c.Clause, "level", c.Level, "until", c.Until, "actor", actor)
	return *c, nil
}

// check completes a measure and names what is wrong with it.
func (a *Admission) check(m *Measure, now time.Time) error {
	if m.Number.E164 == "" {
		return errors.New("abuse: a measure needs a whole number; write it as +8613800138000")
	}
	if m.Clause != "29-1" && m.Clause != "29-2" {
		return fmt.Errorf("abuse: clause %q allows no measure; write 29-1 or 29-2", m.Clause)
	}
	if m.Level < 1 || m.Level > len(a.policy.Measure.Terms) {
		return fmt.Errorf("abuse: there is no level %d; write 1 to %d", m.Level, len(a.policy.Measure.Terms))
	}
	if n := len([]rune(m.Reason)); n < 1 || n > 1000 {
		return errors.New("abuse: a measure needs a reason of 1 to 1000 characters")
	}
	last := now.Add(min(a.policy.Measure.Terms[m.Level-1], a.policy.Measure.Longest))
	if m.Until.IsZero() {
		m.Until = last
	}
	m.Until = m.Until.UTC().Truncate(time.Millisecond)
	if !m.Until.After(now) || m.Until.After(last) {
		return fmt.Errorf("abuse: a measure of level %d ends after now and at %v at the latest", m.Level, last.Format(time.RFC3339))
	}
	return nil
}

// free tells whether a number whose measure in Redis is before may be given another.
func (a *Admission) free(before string, now time.Time) error {
	if before == "" {
		return nil
	}
	s, err := readStored(before)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.ledger[s.Decision]; now.Before(s.Until) && (c == nil || !c.State.over()) {
		return ErrRunning
	}
	return nil
}

// name gives a case its number: the day and four digits, short enough to be read aloud.
func (a *Admission) name(c *Case) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for taken := true; taken; _, taken = a.ledger[c.Decision] {
		n, err := rand.Int(rand.Reader, big.NewInt(10_000))
		if err != nil {
			continue // never: crypto/rand does not fail
		}
		c.Decision = fmt.Sprintf("%s-%04d", c.From.Format("20060102"), n)
	}
}

// void records that a measure did not come into effect. Should it have reached Redis all the same, the
// next Sync takes it out.
func (a *Admission) void(ctx context.Context, c Case, cause error) error {
	c.State = Void
	entry := c.entry("node", cause.Error())
	_, err := a.audit.Append(context.WithoutCancel(ctx), entry)
	a.apply(entry, c.Node)
	a.owe()
	return errors.Join(cause, err)
}

// owe has the next Sync tell the stream all that the ledger has: something did not come there.
func (a *Admission) owe() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unsent = true
}

// Restore lifts a measure at once. It holds as soon as it is recorded: this node heeds it even while
// Redis is away, and the others when it is back. Errors: [ErrUnknown], [ErrOver], those of the audit log.
func (a *Admission) Restore(ctx context.Context, decision, reason, actor string) (Case, error) {
	a.mu.Lock()
	known := a.ledger[decision]
	var c Case
	if known != nil {
		c = *known
	}
	a.mu.Unlock()
	switch {
	case known == nil:
		return Case{}, ErrUnknown
	case !c.running(a.now()):
		return Case{}, ErrOver
	}
	c.State = Restored
	return a.lift(ctx, c, reason, actor)
}

// lift ends a measure before its term, in the state that the case says.
func (a *Admission) lift(ctx context.Context, c Case, reason, actor string) (Case, error) {
	c.Ended = a.now().UTC().Truncate(time.Millisecond)
	entry := c.entry(actor, reason)
	if _, err := a.audit.Append(ctx, entry); err != nil {
		return Case{}, err
	}
	a.apply(entry, a.audit.Node())
	a.forget(c.pseudonym)
	changed, err := a.change(ctx, c.pseudonym, c.stored(), "", event{Node: a.audit.Node(), Entry: entry})
	if err != nil {
		a.log.Warn("a restoration waits for redis; this node heeds it already", "decision", c.Decision, "err", err)
	}
	if !changed { // or the measure is not in Redis: the others learn of its end all the same
		a.owe()
	}
	a.log.Info("measure lifted", "decision", c.Decision, "state", c.State, "actor", actor)
	return c, nil
}

// List lists the measures of the chain, the latest first.
func (a *Admission) List() []Case {
	now := a.now()
	a.mu.Lock()
	list := make([]Case, 0, len(a.ledger))
	for _, c := range a.ledger {
		if !c.From.IsZero() { // an end whose begin another node has
			list = append(list, *c)
		}
	}
	a.mu.Unlock()
	for i := range list {
		a.complete(&list[i], now)
	}
	slices.SortFunc(list, func(x, y Case) int {
		return cmp.Or(y.From.Compare(x.From), cmp.Compare(x.Decision, y.Decision))
	})
	return list
}

// Show returns a measure by its decision's number, or [ErrUnknown].
func (a *Admission) Show(decision string) (Case, error) {
	a.mu.Lock()
	known := a.ledger[decision]
	if known == nil {
		a.mu.Unlock()
		return Case{}, ErrUnknown
	}
	c := *known
	a.mu.Unlock()
	a.complete(&c, a.now())
	return c, nil
}

// complete adds what the ledger does not hold: the number, and that a term is over.
func (a *Admission) complete(c *Case, now time.Time) {
	if c.State == Running && !c.running(now) {
		c.State = Expired
	}
	if number, err := a.readNumber(c.Decision); err == nil { // a destroyed one is no error
		c.Number = number
	}
}

// change compares-and-sets a number's measure in Redis, with its event.
func (a *Admission) change(ctx context.Context, pseudonym, before, after string, e event) (bool, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return false, err
	}
	n, err := a.scripts.change.Run(ctx, a.store.Blocking(), []string{keyRunning, keyStream},
		pseudonym, before, after, text, streamLength).Int()
	return n == 1, err
}

func (a *Admission) apply(e audit.Entry, node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	apply(a.ledger, e, node)
}

// private is what is kept aside of a case, sealed: destroying it leaves the chain without personal data.
type private struct {
	E164 string `json:"e164"`
	Salt string `json:"salt"` // opens the commitment in the entry
}

func (a *Admission) numberFile(decision string) string {
	return filepath.Join(a.dir, decision+".sealed")
}

// keepNumber puts the sealed number aside, and a commitment to it into the entry.
func (a *Admission) keepNumber(c *Case, e audit.Entry) (sealed string, err error) {
	commitment, salt := audit.Commit(c.Number.E164)
	e.Detail["number"] = string(commitment)
	e.Detail["policy"] = a.policy.Version
	text, err := json.Marshal(private{c.Number.E164, salt})
	if err != nil {
		return "", err
	}
	if sealed, err = a.keys.sealText(c.Decision, string(text)); err != nil {
		return "", err
	}
	return sealed, a.writeNumber(c.Decision, sealed)
}

func (a *Admission) writeNumber(decision, sealed string) error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return fmt.Errorf("abuse: %w", err)
	}
	if err := renameio.WriteFile(a.numberFile(decision), []byte(sealed), 0o600); err != nil {
		return fmt.Errorf("abuse: %w", err)
	}
	return nil
}

func (a *Admission) openNumber(decision string) (text string, err error) {
	sealed, err := os.ReadFile(a.numberFile(decision))
	if err != nil {
		return "", err
	}
	return a.keys.openText(decision, string(sealed))
}

func (a *Admission) readNumber(decision string) (call.Number, error) {
	text, err := a.openNumber(decision)
	if err != nil {
		return call.Number{}, err
	}
	var p private
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return call.Number{}, err
	}
	return call.Number{E164: p.E164}, nil
}
