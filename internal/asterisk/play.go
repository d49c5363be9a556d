package asterisk

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// A loop is one long playback, so that music goes on in Asterisk while the gateway is away.
const (
	loopLength = 10 * time.Minute
	loopMost   = 400 // files
)

// playback is what a leg is played.
type playback struct {
	id       string
	media    []string
	over     chan struct{} // closed when Asterisk says that it ended
	replaced chan struct{} // closed when another took its place
}

// Play implements [call.Leg].
func (l *leg) Play(ctx context.Context, clips ...*call.Clip) error {
	media, err := l.sw.sounds.list(clips)
	if err != nil {
		return err
	}
	_, err = l.once(ctx, nil, media)
	return err
}

// Loop implements [call.Leg].
func (l *leg) Loop(ctx context.Context, clips ...*call.Clip) error {
	media, err := l.sw.sounds.list(clips)
	if err != nil {
		return err
	}
	for p, err := l.once(ctx, nil, repeated(media, clips)); ; p, err = l.once(ctx, p, repeated(media, clips)) {
		if err != nil {
			return err
		}
	}
}

// repeated is a round of media as often as it fits into a loop's length.
func repeated(media []string, clips []*call.Clip) []string {
	var round time.Duration
	for _, c := range clips {
		round += c.Duration()
	}
	times := 1
	if round > 0 {
		times = max(1, min(int(loopLength/round), loopMost/max(1, len(media))))
	}
	return slices.Repeat(media, times)
}

// once plays media to its end. after is the round before it in a loop: should another playback have taken
// the loop's place since, this one does not begin.
func (l *leg) once(ctx context.Context, after *playback, media []string) (*playback, error) {
	p := &playback{media: media, over: make(chan struct{}), replaced: make(chan struct{})}
	if err := l.begin(ctx, after, p); err != nil {
		return p, err
	}
	select {
	case <-p.over:
		if l.ctx.Err() != nil {
			return p, context.Cause(l.ctx)
		}
		return p, ctx.Err()
	case <-p.replaced:
		return p, call.ErrReplaced
	case <-l.ctx.Done():
		l.sw.played(p.id)
		return p, context.Cause(l.ctx)
	case <-ctx.Done():
		l.stop(p)
		return p, context.Cause(ctx)
	}
}

// begin starts a playback in the place of the one that runs.
func (l *leg) begin(ctx context.Context, after, p *playback) error {
	l.playing.Lock()
	defer l.playing.Unlock()
	l.mu.Lock()
	old, ready := l.play, l.media
	if after != nil && old != after {
		l.mu.Unlock()
		return call.ErrReplaced
	}
	l.play = p
	l.mu.Unlock()
	switch {
	case l.ctx.Err() != nil:
		return context.Cause(l.ctx)
	case !ready:
		return call.ErrNotAnswered
	}
	if old != nil && old != after {
		close(old.replaced)
		l.delete(old)
	}
	return l.ask(ctx, p)
}

// ask has Asterisk play; l.playing is held.
func (l *leg) ask(ctx context.Context, p *playback) error {
	l.rounds = (l.rounds + 1) % playbackNames
	p.id = l.playback(l.rounds)
	l.sw.mu.Lock()
	l.sw.plays[p.id] = p.over
	l.sw.mu.Unlock()
	if err := l.queue(ctx, p.id, p.media); err != nil {
		l.sw.played(p.id)
		return l.cause(err)
	}
	return l.lay(ctx)
}

// queue puts a playback behind those that Asterisk has for the leg.
func (l *leg) queue(ctx context.Context, id string, media []string) error {
	// An order that is taken back on its way would be carried out, and nobody would know.
	return l.sw.api.post(context.WithoutCancel(ctx), "/channels/"+l.channel+"/play/"+id, nil, map[string]any{"media": media})
}

// between does what Asterisk does on a channel only when it plays nothing, such as a move to a bridge. What
// played begins again after it.
func (l *leg) between(ctx context.Context, do func() error) error {
	l.playing.Lock()
	defer l.playing.Unlock()
	l.mu.Lock()
	p := l.play
	l.mu.Unlock()
	if err := l.lift(ctx); err != nil {
		return err
	}
	if p == nil || !l.sw.interrupt(p.id) {
		return do()
	}
	if err := l.sw.api.del(ctx, "/playbacks/"+p.id, nil); err != nil {
		return err
	}
	return errors.Join(do(), l.ask(ctx, p))
}

// interrupt forgets a playback that runs, so that its end is not taken for that of what was to be played.
func (s *Switch) interrupt(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, runs := s.plays[id]
	delete(s.plays, id)
	return runs
}

// playbackNames is how many identities the playbacks of a leg have by turns. They are few, so that an adopted
// leg's running playback can be found, and enough that the late end of one is not taken for another's.
const playbackNames = 8

func (l *leg) playback(round int) string { return l.channel + "-play-" + strconv.Itoa(round) }

// quiet ends what an earlier process plays to an adopted leg.
func (l *leg) quiet(ctx context.Context) {
	for round := range playbackNames {
		l.sw.drop(ctx, "/playbacks/"+l.playback(round))
	}
	for round := range restNames {
		l.sw.drop(ctx, "/playbacks/"+l.resting(round))
	}
}

// stop ends a playback, if it still is the leg's.
func (l *leg) stop(p *playback) {
	l.playing.Lock()
	defer l.playing.Unlock()
	l.mu.Lock()
	if l.play == p {
		l.play = nil
	}
	l.mu.Unlock()
	l.delete(p)
}

// delete ends a playback in Asterisk. One that is over is gone there.
func (l *leg) delete(p *playback) {
	select {
	case <-p.over:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.sw.cfg.Timeout)
	defer cancel()
	if err := l.sw.api.del(ctx, "/playbacks/"+p.id, nil); err != nil && l.ctx.Err() == nil {
		l.log.Warn("asterisk: a prompt was not stopped", "err", err)
	}
	l.sw.played(p.id)
}
