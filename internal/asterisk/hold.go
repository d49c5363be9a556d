package asterisk

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// Asterisk does what it was told, and then is silent: a caller who was in the flow when this process died would
// hear nothing. So behind each prompt to a caller lies another playback, the rest: a while of silence, that this
// process winds back as long as it lives, and then the hold prompt.
const (
	restSilence = 3 * time.Second
	rewindEvery = time.Second
	rewinders   = 8 // requests at once
	restNames   = 4 // the identities of a leg's rests by turns
)

// restMedia is the rest as ARI names it; nil is none. Its first file goes on long after the silence, since to wind
// back is to begin the present file anew.
func (s *Switch) restMedia() ([]string, error) {
	if s.deps.Hold == nil {
		return nil, nil
	}
	s.restOnce.Do(func() {
		clips := s.deps.Hold()
		if len(clips) == 0 {
			return
		}
		first := bytes.Repeat([]byte{0xd5}, int(restSilence.Seconds())*call.Rate) // A-law's zero
		for _, c := range clips {
			first = append(first, c.PCMA...)
		}
		s.rest = append([]*call.Clip{{ID: "rest", PCMA: first}}, clips...)
	})
	if s.rest == nil {
		return nil, nil
	}
	media, err := s.sounds.list(s.rest)
	if err != nil {
		return nil, err
	}
	return append(media[:1], repeated(media[1:], s.rest[1:])...), nil
}

func (l *leg) resting(round int) string { return l.channel + "-rest-" + strconv.Itoa(round) }

// lay puts a rest behind what was just begun, in the place of the one before; l.playing is held.
func (l *leg) lay(ctx context.Context) error {
	if l.info.Direction != call.Incoming || l.info.Extension != "" || l.bridged.Load() {
		return nil
	}
	media, err := l.sw.restMedia()
	if err != nil || media == nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // half of it would keep the leg from all that follows
	old := l.rest
	l.rest = l.resting(l.rounds % restNames)
	if err := l.queue(ctx, l.rest, media); err != nil {
		return l.cause(err)
	}
	if old == "" {
		return nil
	}
	return l.cause(l.sw.api.del(ctx, "/playbacks/"+old, nil))
}

// lift takes the rest away; l.playing is held.
func (l *leg) lift(ctx context.Context) error {
	if l.rest == "" {
		return nil
	}
	old := l.rest
	l.rest = ""
	return l.sw.api.del(context.WithoutCancel(ctx), "/playbacks/"+old, nil)
}

// rewind winds the rests back until ctx ends.
func (s *Switch) rewind(ctx context.Context) {
	if s.deps.Hold == nil {
		return
	}
	tick := time.NewTicker(rewindEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !s.up.Load() {
			continue
		}
		var wg sync.WaitGroup
		all := s.all()
		for share := range slices.Chunk(all, max(1, (len(all)+rewinders-1)/rewinders)) {
			wg.Go(func() {
				for _, l := range share {
					l.wind(ctx)
				}
			})
		}
		wg.Wait()
	}
}

// wind begins the leg's rest anew, if it is what plays.
func (l *leg) wind(ctx context.Context) {
	if !l.playing.TryLock() {
		return // a prompt is being begun
	}
	defer l.playing.Unlock()
	l.mu.Lock()
	p := l.play
	l.mu.Unlock()
	if l.rest == "" || l.ctx.Err() != nil || p != nil && l.sw.runs(p.id) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rewindEvery)
	defer cancel()
	err := l.sw.api.post(ctx, "/playbacks/"+l.rest+"/control", query{"operation": "restart"}, nil)
	e, refused := errors.AsType[*StatusError](err)
	if refused && (e.Status == http.StatusNotFound || e.Status == http.StatusConflict) {
		return // it is over, or has yet to begin
	}
	if err != nil && l.ctx.Err() == nil && l.sw.up.Load() {
		l.log.Warn("asterisk: a caller who hears nothing now will hear the hold prompt", "err", err)
	}
}

// runs tells whether a playback has not ended.
func (s *Switch) runs(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.plays[id]
	return ok
}
