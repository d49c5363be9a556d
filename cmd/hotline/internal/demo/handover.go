package demo

import (
	"context"
	"errors"
	"fmt"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/sip/siptest"
)

// handedOver waits for the event of the call's recording, and checks it: one event, whose hash is that of
// what case intake fetched, with the caller on the left and the far side's tone on the right.
func (p *player) handedOver(ctx context.Context, farHz int) error {
	got, err := p.event(ctx, session.RequestRecorded)
	if err != nil {
		return err
	}
	r := got.Event.Recording
	if r == nil || got.Event.Evidence != "recorded" {
		return fmt.Errorf("%w a recording, the evidence is %q", errUnmet, got.Event.Evidence)
	}
	p.result.note("sha256_sealed", r.SHA256Sealed[:16]+"…")
	if len(p.d.cfg.Recording.Recipients) > 0 { // the agency's key is not ours
		return p.want("the hash of the recording", got.Hash, r.SHA256Sealed)
	}
	return errors.Join(p.want("the hash of the recording", got.Hash, r.SHA256Sealed),
		heldOn("left", got.Left, p.hz), heldOn("right", got.Right, farHz))
}

// urgent checks that case intake was told of the emergency at once, and got the recording once.
func (p *player) urgent(ctx context.Context) error {
	_, err := p.event(ctx, session.RequestUrgent)
	if err == nil {
		err = p.handedOver(ctx, serviceHz)
	}
	return err
}

// event waits for the one event of a type.
func (p *player) event(ctx context.Context, kind session.HandOverType) (*delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	var found []*delivery
	err := p.d.intake.await(ctx, func() bool {
		found = p.d.intake.of(p.id, string(kind))
		return len(found) > 0
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for %s: %w", kind, err)
	}
	return found[0], nil
}

// once checks, when all is over, that no event of the call came twice.
func (in *intake) once(callID string) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, kind := range []session.HandOverType{session.RequestUrgent, session.RequestRecorded} {
		found := in.of(callID, string(kind))
		if len(found) > 1 || len(found) == 1 && found[0].Times > 1 {
			return fmt.Errorf("%w one %s, it came again", errUnmet, kind)
		}
	}
	return nil
}

// heldOn tells whether a quarter of a second of a channel is a tone.
func heldOn(side string, audio []byte, hz int) error {
	const window = call.Rate / 4
	best := 0.0
	for at := 0; at+window <= len(audio); at += window / 4 {
		best = max(best, siptest.Share(siptest.FromALaw(audio[at:at+window]), float64(hz)))
	}
	if best < 0.8 {
		return fmt.Errorf("%w %d Hz on the %s of the recording, its share is %.2f of %.1f s", errUnmet, hz, side, best,
			float64(len(audio))/call.Rate)
	}
	return nil
}
