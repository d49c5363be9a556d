package media

import (
	"context"
	"errors"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// playback is a run of clips that is being spoken. The clips are shared and never written to.
type playback struct {
	clips []*call.Clip
	loop  bool
	at    int // the clip
	off   int // the next byte of it
	done  chan error
}

func newPlayback(loop bool, clips []*call.Clip) *playback {
	return &playback{clips: clips, loop: loop, done: make(chan error, 1)}
}

// audible is the length of one round in bytes.
func audible(clips []*call.Clip) (n int) {
	for _, c := range clips {
		n += min(len(c.PCMA), len(c.PCMU))
	}
	return n
}

// ended tells that the last frame was handed out.
func (p *playback) ended() bool { return p.at == len(p.clips) }

// read fills b, going over from clip to clip without a gap; silence pads the last frame.
func (p *playback) read(b []byte, l law) {
	for n := 0; n < len(b); {
		if p.ended() {
			fill(b[n:], l.silence())
			return
		}
		body := l.payload(p.clips[p.at])
		if p.off < len(body) {
			k := copy(b[n:], body[p.off:])
			n, p.off = n+k, p.off+k
		}
		if p.off >= len(body) {
			p.off = 0
			if p.at++; p.ended() && p.loop {
				p.at = 0
			}
		}
	}
}

// finish tells who waits for the playback how it ended. On nil it does nothing.
func (p *playback) finish(err error) {
	if p != nil {
		select {
		case p.done <- err:
		default:
		}
	}
}

// Play speaks clips one after the other and returns when the last was heard, which is when its
// last packet's time has passed. A later Play or Loop replaces it: it then returns
// [call.ErrReplaced]. It returns the context's cause, [ErrClosed], or [call.ErrNotAnswered] before
// the first Remote. A prompt keeps its time while the party holds the call. Without a clip it
// silences whatever plays.
func (s *Session) Play(ctx context.Context, clips ...*call.Clip) error {
	return s.play(ctx, false, clips)
}

// Loop plays clips round and round until ctx ends or something replaces it, and returns as Play does.
func (s *Session) Loop(ctx context.Context, clips ...*call.Clip) error {
	return s.play(ctx, true, clips)
}

func (s *Session) play(ctx context.Context, loop bool, clips []*call.Clip) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	length := audible(clips)
	if loop && length == 0 {
		return errors.New("media: nothing to play round and round")
	}
	p := newPlayback(loop, clips)
	if err := s.tx.begin(p, length); err != nil {
		return err
	}
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		s.tx.cancel(p)
		return context.Cause(ctx)
	}
}

// begin gives the word to p, which has it at the next tick.
func (t *sender) begin(p *playback, length int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return ErrClosed
	case !t.known:
		return call.ErrNotAnswered
	}
	t.clip.finish(call.ErrReplaced)
	t.clip = p
	if length == 0 {
		t.clip = nil
		p.finish(nil)
	}
	return nil
}

// cancel takes the word from p, if it still has it.
func (t *sender) cancel(p *playback) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clip == p {
		t.clip = nil
	}
}

// speak sends the next frame of p.
func (t *sender) speak(p *playback, due time.Time, out *outbox) {
	var b [frame]byte
	p.read(b[:], t.law)
	t.pace(fromClip, due, b[:], out)
}
