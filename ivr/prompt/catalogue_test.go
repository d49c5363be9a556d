package prompt

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
)

var loaded = sync.OnceValues(func() (*Catalogue, error) { return New(Defaults(), nil) })

func builtIn(t testing.TB) *Catalogue {
	t.Helper()
	c, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ids(clips []*call.Clip) (ids []string) {
	for _, c := range clips {
		ids = append(ids, c.ID)
	}
	return ids
}

func TestBuiltInVoices(t *testing.T) {
	c := builtIn(t)
	total := 0
	for id, clip := range c.clips {
		total += len(clip.PCMA)
		if len(clip.PCMA) != len(clip.PCMU) {
			t.Errorf("%s: %d bytes of A-law, %d of µ-law", id, len(clip.PCMA), len(clip.PCMU))
		}
		if limit := 30 * time.Second; clip.Duration() > limit && id != "common/music" {
			t.Errorf("%s lasts %s; want at most %s", id, clip.Duration(), limit)
		}
		if level := loudness(clip.PCMA); id != "common/pause" && (level < -30 || level > -10) {
			t.Errorf("%s speaks at %.1f dB; want -30 to -10", id, level)
		}
	}
	if limit := 7 << 20; total > limit {
		t.Errorf("%d bytes of voices; want at most %d", total, limit)
	}
	t.Logf("%d clips, %d bytes", len(c.clips), total)
}

func TestServiceKeysAreThoseOfTheLine(t *testing.T) {
	c := builtIn(t)
	for _, id := range []string{"em_which", "agent_em_which"} {
		text, from := c.Text(Chinese, id), 0
		for _, choice := range []string{"报警请按1", "火警请按2", "急救请按3", "交通事故请按4", "返回请按9"} {
			i := strings.Index(text[from:], choice)
			if i < 0 {
				t.Errorf("%s does not say %s in its place: %s", id, choice, text)
				continue
			}
			from += i
		}
	}
}

func TestSay(t *testing.T) {
	c := builtIn(t)
	got := ids(c.Say(Chinese, "q_pos_a", "count:12", "q_pos_b", "beep"))
	if diff := cmp.Diff([]string{"zh/q_pos_a", "zh/n10", "zh/n2", "zh/q_pos_b", "common/beep"}, got); diff != "" {
		t.Error(diff)
	}
	got = ids(c.Say(English, "minutes:5"))
	if diff := cmp.Diff([]string{"en/n5", "en/minutes"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestMissingPrompts(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	c, err := New(Defaults(), reg)
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(c.Say(English, "n1yao")); len(got) != 1 || got[0] != "zh/n1yao" {
		t.Errorf("said %v; want the other language's", got)
	}
	if got := c.Say(Chinese, "nope", "count:x", "goodbye"); len(got) != 1 {
		t.Errorf("said %v; want the one that there is", ids(got))
	}
	if got := c.Say("fr", "goodbye"); len(got) != 1 {
		t.Errorf("said %v to a language that the line does not speak", ids(got))
	}
	want := `# HELP hotline_prompt_missing_total Prompts that a language lacked, by where they were found: the other language, or none (left out).
# TYPE hotline_prompt_missing_total counter
hotline_prompt_missing_total{found="none",language="en"} 0
hotline_prompt_missing_total{found="none",language="zh"} 2
hotline_prompt_missing_total{found="other",language="en"} 1
hotline_prompt_missing_total{found="other",language="zh"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

func TestOverrides(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, data []byte) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	own := wave(wavePCM, 1, 8000, 16, tone(700, 2, 20))
	alaw, err := ParseWAV(own)
	if err != nil {
		t.Fatal(err)
	}
	put("zh/welcome.wav", own)
	put("en/goodbye.al", alaw)
	put("common/music.wav", own)
	put("zh/.keep", nil)
	c, err := New(Config{Dir: dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, clip := range append(append(c.Say(Chinese, "welcome"), c.Say(English, "goodbye")...), c.Music()...) {
		if power(clip.PCMA, 700) < 0.98 || clip.Duration() != 2*time.Second {
			t.Errorf("%s is not the operator's", clip.ID)
		}
	}
	if clip := c.Say(English, "welcome")[0]; power(clip.PCMA, 700) > 0.5 {
		t.Error("the other language is replaced too")
	}

	put("zh/welcom.wav", own)
	put("zh/beep.wav", own)
	put("common/goodbye.wav", own)
	put("en/goodbye.mp3", own)
	put("en/welcome.wav", []byte("RIFF"))
	put("en/rec_notice.wav", make([]byte, maxFile+1))
	_, err = New(Config{Dir: dir}, nil)
	for _, want := range []string{
		`zh/welcom.wav: no prompt is named "welcom"`, `zh/beep.wav: "beep" belongs in another folder`,
		`common/goodbye.wav: "goodbye" belongs in another folder`, `en/goodbye.mp3: ".mp3" is no form of a prompt`,
		`en/welcome.wav: not a WAV file`, `en/rec_notice.wav: 1985537 bytes; a prompt is at most 2m0s`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

func TestConfig(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{Dir: t.TempDir()}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{Dir: "/none"}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "dir: ") {
		t.Errorf("%v; want a fault of dir", err)
	}
}

func TestParseTable(t *testing.T) {
	good := "# a comment\nid\tzh\tsay\ten\tbarge\na\t甲\t\tA\ty\n"
	list, err := ParseTable([]byte(good))
	if diff := cmp.Diff([]Prompt{{ID: "a", Chinese: "甲", English: "A", Barge: true}}, list); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for src, want := range map[string]string{
		good + "b\t乙\n":                      "prompts.tsv:4: 2 fields",
		good + "a\t乙\t\tB\ty\n":              `prompts.tsv:4: "a" is on line 3 already`,
		"B\t乙\t\tB\ty\n":                     `prompts.tsv:1: "B" is no identity`,
		"b\t\t\t\ty\n":                       "b: no text in any language",
		"b\t乙\t\tB\tyes\n":                   `b: barge is "yes"; write y or n`,
		strings.Repeat("#", maxTable) + "\n": "at most",
	} {
		if _, err := ParseTable([]byte(src)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

func TestMusicHasNoSeam(t *testing.T) {
	music := builtIn(t).Music()[0]
	if d := music.Duration(); d < 30*time.Second || d > time.Minute {
		t.Errorf("the music lasts %s; want 30 s to 60 s", d)
	}
	pcm := linear(music.PCMA)
	biggest := 0
	for i := range len(pcm) - 1 {
		biggest = max(biggest, abs(int(pcm[i+1])-int(pcm[i])))
	}
	if seam := abs(int(pcm[0]) - int(pcm[len(pcm)-1])); seam > biggest {
		t.Errorf("the loop's seam jumps by %d; within, %d at most", seam, biggest)
	}
	if got := power(builtIn(t).Say(Chinese, "beep")[0].PCMA, 1000); got < 0.9 {
		t.Errorf("%.2f of the tone is at 1 kHz; want 0.9", got)
	}
}

func abs(n int) int { return max(n, -n) }

func TestText(t *testing.T) {
	c := builtIn(t)
	if got := c.Text(Chinese, "q_pos_a", "count:2", "q_pos_b"); got != "您前面还有两位市民在等待。" {
		t.Error(got)
	}
	if len(c.Prompts()) == 0 || c.Has("welcome") != nil || c.Has("nope") == nil || c.Has("count:x") == nil {
		t.Error("the table is not what it says")
	}
	if !c.Barge("welcome") || c.Barge("rec_notice") || !c.Barge("count:3") {
		t.Error("notices of law are heard out, and nothing else")
	}
}
