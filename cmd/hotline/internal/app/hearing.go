package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/ivr/emergency"
	"github.com/hotline12345/gateway/ivr/emergency/ear"
	"github.com/hotline12345/gateway/ivr/emergency/judge"
	"github.com/hotline12345/gateway/ivr/prompt"
	"github.com/hotline12345/gateway/ivr/speech"
)

// makeHearing makes what listens for danger in callers' words, when a recogniser is configured.
func (a *App) makeHearing(context.Context) error {
	if !a.cfg.Speech.On() {
		return nil
	}
	words, err := a.cfg.Emergency.Words()
	if err != nil {
		return err
	}
	detector, err := emergency.New(words...)
	if err != nil {
		return fmt.Errorf("emergency.words_file: %w", err)
	}
	if a.speech, err = speech.New(a.cfg.Speech, a.log.With("room", "speech"), a.reg); err != nil {
		return err
	}
	h := ear.Hearing{Detector: detector, Contain: a.speech.Contain, Untaken: ear.NewUntaken(a.reg), Start: func() (ear.Stream, error) {
		stream, err := a.speech.Start()
		if err != nil {
			return nil, err
		}
		return stream, nil
	}}
	if a.cfg.Emergency.Judge.URL != "" {
		j, err := judge.New(a.cfg.Emergency.Judge, a.reg)
		if err != nil {
			return fmt.Errorf("emergency.judge: %w", err)
		}
		a.closing(func() error { j.Close(); return nil })
		h.Judge = j
	}
	a.hearing = h
	return nil
}

// recognise looks after the recogniser until ctx ends.
func (a *App) recognise(ctx context.Context) error {
	if a.speech == nil {
		<-ctx.Done()
		return nil
	}
	return a.speech.Run(ctx)
}

// speechChecks are what /readyz looks at of the recogniser.
func (a *App) speechChecks() []ops.Check {
	if a.speech == nil {
		return nil
	}
	return []ops.Check{{Code: "speech-away", Title: "The recogniser does not hear callers", Mend: "Callers in danger have key 0 and the agents until it is back; look at its server and at speech.vosk.url.",
		Test: func(context.Context) error {
			if a.speech.Away() {
				return errors.New("no connection")
			}
			return nil
		}}}
}

// listening is the catalogue as flows use it where callers are listened to: the notice says so, and the hint asks them to
// say what happens for as long as somebody hears it.
type listening struct {
	*prompt.Catalogue
	speech *speech.Recogniser
}

// Say implements ivr.Prompts.
func (l listening) Say(language string, parts ...string) []*call.Clip {
	said := make([]string, len(parts))
	for i, p := range parts {
		switch {
		case p == "rec_notice":
			p = "rec_notice_speech"
		case p == "emerg_hint" && !l.speech.Away():
			p = "emerg_hint_speech"
		}
		said[i] = p
	}
	return l.Catalogue.Say(language, said...)
}
