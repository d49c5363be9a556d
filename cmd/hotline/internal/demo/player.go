package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/sip/siptest"
	"github.com/hotline12345/gateway/sip/siptest/softphone"
)

// What phones speak. Callers have one of codecs, in turn; agents speak A-law.
var (
	muOnly, aOnly = []call.Codec{call.PCMU}, []call.Codec{call.PCMA}
	codecs        = [][]call.Codec{{call.PCMA, call.PCMU}, aOnly, {call.PCMU, call.PCMA}}
)

// player is one caller.
type player struct {
	d       *demo
	result  *Result
	broken  bool // its expectation was falsified
	from    string
	codecs  []call.Codec
	info    bool // presses by INFO in place of RFC 4733
	hz      int  // the tone that the caller speaks
	service session.Service

	call     *softphone.Call
	id       string // the gateway's name of the call
	rings    chan *ring
	services chan *softphone.Call
	backs    chan *softphone.Call // the hotline calls back
	beside   sync.WaitGroup       // what goes on beside the scenario; it ends with the call
}

// newPlayer makes a caller; "" gives them a number of their own.
func (d *demo) newPlayer(r *Result, from string) *player {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serial++
	if from == "" {
		from = fmt.Sprintf("1380571%04d", d.serial%10000)
	}
	p := &player{d: d, result: r, from: from, codecs: codecs[d.serial%len(codecs)],
		info: d.serial%3 == 0, hz: 400 + 40*(d.serial%10), rings: make(chan *ring, 4), services: make(chan *softphone.Call, 1),
		backs: make(chan *softphone.Call, 1)}
	d.players[p] = struct{}{}
	return p
}

// leave ends whatever is left of the caller.
func (p *player) leave() {
	if p.call != nil {
		_ = p.call.Hangup() // it may have ended long ago
	}
	p.d.mu.Lock()
	delete(p.d.players, p)
	delete(p.d.claimed, p.id)
	p.d.mu.Unlock()
	p.beside.Wait()
}

// playerOf is the caller of a live call, or nil.
func (d *demo) playerOf(id string) *player {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p := range d.players {
		if p.id == id && id != "" {
			return p
		}
	}
	return nil
}

// withNumber is the caller who has a number, or nil.
func (d *demo) withNumber(number string) *player {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p := range d.players {
		if p.from == number {
			return p
		}
	}
	return nil
}

// mask is a caller's number as people see it.
func (p *player) mask() string { return call.Number{Raw: p.from}.Masked() }

// dial calls the hotline, begins to speak, and learns the gateway's name of the call.
func (p *player) dial(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p.call, err = p.d.carrier.line.Dial(ctx, softphone.Dial{From: p.from, To: hotline, Codecs: p.codecs})
	if err != nil {
		return err
	}
	p.beside.Go(func() { _ = p.call.Tone(p.call.Context(), p.hz) }) // until the call ends
	if p.d.gateway == nil {
		return nil
	}
	return p.watch(ctx, "the call to be seen", func(views []session.View) bool { return p.claim(views) })
}

// claim finds the caller's call among the live ones.
func (p *player) claim(views []session.View) bool {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	for _, v := range views {
		if v.Caller == p.mask() && !p.d.claimed[v.CallID] {
			p.id, p.result.Call = v.CallID, v.CallID
			p.d.claimed[v.CallID] = true
			return true
		}
	}
	return false
}

// watch waits until seen is true of the live calls.
func (p *player) watch(ctx context.Context, what string, seen func([]session.View) bool) error {
	changed, stop := p.d.gateway.WatchCalls()
	defer stop()
	for !seen(p.d.gateway.Calls()) {
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

// view is the call as the console shows it.
func (p *player) view() (session.View, bool) {
	for _, v := range p.d.gateway.Calls() {
		if v.CallID == p.id {
			return v, true
		}
	}
	return session.View{}, false
}

// reach waits until the call stands in one of the stages.
func (p *player) reach(ctx context.Context, stages ...session.Stage) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	at := session.Stage("none")
	err := p.watch(ctx, fmt.Sprint("stage ", stages), func([]session.View) bool {
		v, ok := p.view()
		if !ok {
			at = "ended"
			cancel()
			return false
		}
		at = v.Stage
		return slices.Contains(stages, v.Stage)
	})
	if err != nil {
		return errors.Join(fmt.Errorf("%w, the call is at %s", err, at), p.taken())
	}
	return nil
}

// press presses keys after a moment's thought.
func (p *player) press(ctx context.Context, keys string) error {
	if err := wait(ctx, p.d.pace.think); err != nil {
		return err
	}
	return p.keys(ctx, keys)
}

// keys presses keys at once.
func (p *player) keys(ctx context.Context, keys string) error {
	if p.info {
		return p.call.PressInfo(ctx, keys)
	}
	return p.call.Press(ctx, keys)
}

// wait lets time pass.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hears waits until the last half second at a phone is a tone.
func hears(ctx context.Context, who string, c *softphone.Call, hz int) error {
	return listen(ctx, fmt.Sprintf("%s to hear %d Hz", who, hz), c, func(heard []byte) bool {
		const half = call.Rate / 2
		return len(heard) >= half && siptest.Share(siptest.FromALaw(heard[len(heard)-half:]), float64(hz)) > 0.8
	})
}

// hearsClips waits until a piece of one of the clips came, bit by bit. The phone must speak A-law, so that
// nothing is transcoded on the way.
func hearsClips(ctx context.Context, what string, c *softphone.Call, clips []*call.Clip) error {
	return listen(ctx, "the caller to hear "+what, c, func(heard []byte) bool {
		const piece = 2 * call.Rate / 5
		for _, clip := range clips {
			for at := piece; at+piece <= len(clip.PCMA); at += piece {
				if part := clip.PCMA[at : at+piece]; loud(part) && bytes.Contains(heard, part) {
					return true
				}
			}
		}
		return false
	})
}

// loud tells a piece of speech from a pause.
func loud(part []byte) bool {
	for _, v := range siptest.FromALaw(part) {
		if v > 2000 || v < -2000 {
			return true
		}
	}
	return false
}

// hearing is how often a phone's ear is asked.
const hearing = 100 * time.Millisecond

func listen(ctx context.Context, what string, c *softphone.Call, found func([]byte) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !found(c.Heard()) {
		select {
		case <-time.After(hearing):
		case <-c.Context().Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(c.Context()))
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

// errGuest says that somebody who looks on took the call on a phone of their own.
var errGuest = errors.New("answered by a phone that is none of the demo's")

// withGuest stays on the line with whoever took the call: there is nothing to judge.
func (p *player) withGuest(ctx context.Context, who error) {
	p.result.Outcome = who.Error()
	select {
	case <-p.call.Context().Done():
	case <-time.After(guestFor):
	case <-ctx.Done():
	}
}

// taken is an errGuest when a phone that is none of the demo's has the call.
func (p *player) taken() error {
	if v, ok := p.view(); ok && v.Stage == session.StageTalk && !p.d.ours(v.Agent) {
		return fmt.Errorf("%w: %s", errGuest, v.Agent)
	}
	return nil
}

// rung waits until an agent's phone rings for the caller.
func (p *player) rung(ctx context.Context) (*ring, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*patience+4*p.d.pace.talk)
	defer cancel()
	changed, stop := p.d.gateway.WatchCalls()
	defer stop()
	for {
		if err := p.taken(); err != nil {
			return nil, err
		}
		select {
		case r := <-p.rings:
			return r, nil
		case <-changed:
		case <-p.call.Context().Done():
			return nil, fmt.Errorf("waiting for an agent: %w", context.Cause(p.call.Context()))
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for an agent: %w", context.Cause(ctx))
		}
	}
}

// ours tells whether an agent is one of the demo's.
func (d *demo) ours(person string) bool {
	for _, a := range d.agents {
		if a.extension == person {
			return true
		}
	}
	return false
}

// join has the agent answer, waits until each has heard the other, and lets them talk.
func (p *player) join(ctx context.Context, r *ring) error {
	if err := r.Answer(ctx); err != nil {
		return fmt.Errorf("the agent's answer: %w", err)
	}
	p.beside.Go(func() { _ = r.Tone(r.Context(), r.agent.hz) }) // until the call ends
	p.result.note("agent", r.agent.extension)
	if err := hears(ctx, "the caller", p.call, r.agent.hz); err != nil {
		return err
	}
	if err := hears(ctx, "the agent", r.Call, p.hz); err != nil {
		return err
	}
	return wait(ctx, p.d.pace.talk)
}

// record waits for the record of the ended call.
func (p *player) record(ctx context.Context) (rec app.CallRecord, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if rec, err = p.d.gateway.Ended(ctx, p.id); err == nil {
			return rec, nil
		}
		if wait(ctx, hearing) != nil {
			return rec, fmt.Errorf("waiting for the call's record: %w", err)
		}
	}
}

// timeline tells whether an entry of a kind has a text that begins so, and returns its attributes.
func timeline(rec app.CallRecord, kind, text string) (map[string]string, bool) {
	for _, e := range rec.Timeline {
		if e.Kind == kind && strings.HasPrefix(e.Text, text) {
			return e.Attrs, true
		}
	}
	return nil, false
}
