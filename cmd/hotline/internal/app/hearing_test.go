package app

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hotline12345/gateway/ivr/prompt"
	"github.com/hotline12345/gateway/ivr/speech"
	"github.com/hotline12345/gateway/ivr/speech/speechtest"
)

// TestCallersAreToldThatTheyAreHeard holds what flows say against whether somebody hears: the notice always says that words
// are listened for, and the hint asks for them only while they are.
func TestCallersAreToldThatTheyAreHeard(t *testing.T) {
	prompts, err := prompt.New(prompt.Defaults(), nil)
	if err != nil {
		t.Fatal(err)
	}
	vosk := speechtest.NewVosk(t, speechtest.Hears(1))
	for url, hint := range map[string]string{vosk.URL: "zh/emerg_hint_speech", "ws://127.0.0.1:1": "zh/emerg_hint"} {
		cfg := speech.Defaults()
		cfg.Vosk.URL = url
		r, err := speech.New(cfg, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.Start()
		if err != nil {
			t.Fatal(err)
		}
		l := listening{prompts, r}
		said := func() string {
			var ids []string
			for _, c := range l.Say("zh", "rec_notice", "emerg_hint") {
				ids = append(ids, c.ID)
			}
			return strings.Join(ids, " ")
		}
		want := "zh/rec_notice_speech " + hint
		for end := time.Now().Add(20 * time.Second); said() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("callers hear %q, want %q", said(), want)
			}
		}
		s.Close()
	}
}
