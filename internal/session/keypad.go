package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// errDanger interrupts a stage: the caller pressed the emergency key, chose a service, or spoke of danger.
type errDanger struct {
	Service Service // "" asks which
	At      time.Time
	tried   bool   // the service was called, and nobody answered
	heard   *Heard // nil for a key
}

func (e *errDanger) Error() string { return "session: the caller is in danger" }

// keyMode says what the keys of a caller mean at the moment.
type keyMode int

const (
	keysPlain      keyMode = iota // 0 is danger; other keys go to the stage
	keysCollecting                // *0 is danger; every key goes to the stage
	keysRaw                       // no key is danger: a service is being chosen, or a phone is no caller's
	keysHeeded                    // 0 is danger and told, but interrupts nothing: help is there, or on the way
)

// keypad reads a caller's keys for as long as the leg lives, so that the emergency key is alive at
// every moment, and gives the others to whoever waits for them.
type keypad struct {
	keys chan byte // 32; a full pad drops the newest, as a caller who presses 33 keys ahead is lost anyway

	mu        sync.Mutex
	mode      keyMode
	watch     KeyWatch                         // nil on an agent's phone: no key there is danger
	interrupt context.CancelCauseFunc          // of the stage that runs
	held      error                            // danger between two stages: the next one is interrupted
	danger    func(*errDanger)                 // told of every danger key
	told      func(d call.Digit, private bool) // told of every key; one of a run of digits is private
}

// run hands keys on until the leg ends.
func (k *keypad) run(leg call.Leg) {
	for {
		select {
		case <-leg.Context().Done():
			return
		case d := <-leg.Digits():
			if leg.Context().Err() != nil {
				return // a key that nobody waits for any more, and that no mode says the meaning of
			}
			k.press(d)
		}
	}
}

func (k *keypad) press(d call.Digit) {
	e := &errDanger{At: d.At}
	k.mu.Lock()
	danger := k.isDanger(d)
	private := k.mode == keysCollecting || k.mode == keysHeeded
	k.mu.Unlock()
	k.told(d, private)
	if danger {
		k.danger(e)
		k.raise(e)
		return
	}
	k.give(d.Key)
}

// raise interrupts the stage that runs or, between two stages, the next one.
func (k *keypad) raise(e *errDanger) {
	k.mu.Lock()
	interrupt := k.interrupt
	if interrupt == nil && k.mode != keysHeeded {
		k.held = e
	}
	k.mu.Unlock()
	discard(k.keys) // what was pressed before is no choice of a service; what follows may be
	if interrupt != nil {
		interrupt(e)
	}
}

// give hands a key on to whoever waits for one.
func (k *keypad) give(key byte) {
	select {
	case k.keys <- key:
	default:
	}
}

func (k *keypad) isDanger(d call.Digit) bool {
	return k.mode != keysRaw && k.watch != nil && k.watch.Press(d.Key, d.At, k.mode == keysCollecting)
}

// set changes the meaning of keys and returns a func that changes it back.
func (k *keypad) set(m keyMode) (restore func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.mode
	k.mode = m
	if m == keysHeeded {
		k.held = nil
	}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.mode = old
	}
}

// guard lets the emergency key interrupt ctx until release is called.
func (k *keypad) guard(ctx context.Context) (guarded context.Context, release func()) {
	guarded, cancel := context.WithCancelCause(ctx)
	k.mu.Lock()
	k.interrupt = cancel
	if k.held != nil {
		cancel(k.held)
		k.held = nil
	}
	k.mu.Unlock()
	return guarded, func() {
		k.mu.Lock()
		k.interrupt = nil
		k.mu.Unlock()
		cancel(nil)
	}
}

// cut interrupts the stage that runs, if any.
func (k *keypad) cut(why error) {
	k.mu.Lock()
	interrupt := k.interrupt
	k.mu.Unlock()
	if interrupt != nil {
		interrupt(why)
	}
}

// voice is the caller as a flow sees them.
type voice struct {
	leg  call.Leg
	pad  *keypad
	node func(node, language string)
	// record begins the recording of a message, and marks it.
	record func(kind string)
	// lasts says how long the caller may be silent now.
	lasts   func(time.Duration)
	contain func(func() error) error
	pending []byte // keys that ended a prompt early
}

func (v *voice) Node(node, language string) { v.node(node, language) }

// Say plays clips; see [Voice].
func (v *voice) Say(ctx context.Context, barge bool, clips ...*call.Clip) error {
	if len(clips) == 0 || barge && len(v.pending) > 0 {
		return context.Cause(ctx)
	}
	playing, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- v.contain(func() error { return v.leg.Play(playing, clips...) }) }()
	keys := v.pad.keys
	if !barge {
		keys = nil
	}
	select {
	case err := <-done:
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	case k := <-keys:
		v.pending = append(v.pending, k)
		stop()
		_ = <-done // a key ended it
		return context.Cause(ctx)
	}
}

// Key waits for one key; see [Voice].
func (v *voice) Key(ctx context.Context, timeout time.Duration) (byte, error) {
	if len(v.pending) > 0 {
		k := v.pending[0]
		v.pending = v.pending[1:]
		return k, nil
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case k := <-v.pad.keys:
		return k, nil
	case <-t.C:
		return 0, ErrNoKey
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// Collect waits for a run of digits; see [Voice].
func (v *voice) Collect(ctx context.Context, c Collect) (string, error) {
	defer v.pad.set(keysCollecting)()
	if c.Ask != nil {
		if err := c.Ask(ctx); err != nil {
			return "", err
		}
	}
	var run []byte
	wait := c.First
	for len(run) < c.Max {
		k, err := v.Key(ctx, wait)
		switch {
		case errors.Is(err, ErrNoKey) && len(run) > 0:
			return string(run), nil
		case err != nil:
			return "", err
		case c.Terminator != 0 && k == c.Terminator:
			return string(run), nil
		}
		run = append(run, k)
		wait = c.Next
	}
	return string(run), nil
}

// Message lets the caller speak until # or the limit; see [Voice].
func (v *voice) Message(ctx context.Context, limit time.Duration) (time.Duration, error) {
	v.record("message")
	v.lasts(limit)
	start := time.Now()
	for {
		k, err := v.Key(ctx, limit-time.Since(start))
		switch {
		case errors.Is(err, ErrNoKey) || k == '#':
			return time.Since(start), nil
		case err != nil:
			return time.Since(start), err
		}
	}
}
