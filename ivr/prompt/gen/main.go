// Command gen makes the embedded voices: it reads configs/prompts/prompts.tsv, speaks each text with
// espeak-ng, shapes it for a telephone with sox, and writes raw 8 kHz A-law beside the table. It also
// makes the tone and the hold music. Every step is deterministic, so a second run changes nothing.
//
// It needs espeak-ng and sox; run it by `go generate ./ivr/prompt`.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/ivr/prompt"
)

func main() {
	dir := flag.String("dir", "../../configs/prompts", "where prompts.tsv is, and the voices go")
	flag.Parse()
	if err := generate(*dir); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func generate(dir string) error {
	table, err := os.ReadFile(filepath.Join(dir, "prompts.tsv"))
	if err != nil {
		return err
	}
	list, err := prompt.ParseTable(table)
	if err != nil {
		return err
	}
	for _, sub := range []string{"zh", "en", "common"} {
		if err := os.RemoveAll(filepath.Join(dir, sub)); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	for id, pcm := range map[string][]int16{"beep": beep(), "pause": make([]int16, rate/4), "music": music()} {
		if err := os.WriteFile(filepath.Join(dir, "common", id+".al"), prompt.ALaw(pcm), 0o644); err != nil {
			return err
		}
	}
	voices := texts{}
	for _, p := range list {
		voices[p.ID] = p.Chinese
	}
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for _, p := range list {
		if p.Chinese != "" {
			g.Go(func() error { return speak(filepath.Join(dir, "zh", p.ID+".al"), voices.mandarin(p)) })
		}
		if p.English != "" {
			g.Go(func() error { return speak(filepath.Join(dir, "en", p.ID+".al"), english(p.English)) })
		}
	}
	return g.Wait()
}

// utterance is a text and the voice that speaks it.
type utterance struct {
	text, voice   string
	words, pitch  int     // words a minute; 0 to 99
	gap           int     // between words, in 10 ms
	before, after float64 // silence, in seconds
}

// texts are the Chinese texts by identity: the table itself knows how numbers are said.
type texts map[string]string

// mandarin is by the voice cmn-latn-pinyin: the plain cmn reads many syllables as English letters.
func (t texts) mandarin(p prompt.Prompt) utterance {
	text := p.Chinese
	if p.Say != "" {
		text = p.Say
	}
	if en, ok := strings.CutPrefix(text, "en:"); ok {
		return english(en)
	}
	u := utterance{voice: "cmn-latn-pinyin+f2", words: 180, pitch: 45, gap: 1}
	u.text = numeral.ReplaceAllStringFunc(text, t.numeral)
	u.before, u.after = silence(p.Chinese)
	return u
}

var (
	numeral = regexp.MustCompile(`[a-z]+[0-9]|[0-9]+`) // a syllable of pinyin with its tone, or a number
	spelled = regexp.MustCompile(`[0-9]{3,}`)
)

// numeral spells a number as it is said: a key by its name, a telephone number digit by digit, any
// other as a count. Pinyin stays.
func (t texts) numeral(s string) string {
	part := "count:" + s
	switch {
	case s[0] > '9':
		return s
	case len(s) == 1:
		part = "n" + s
	case len(s) > 2:
		part = "digits:" + s
	}
	words, err := prompt.Words("zh", part)
	if err != nil {
		return s
	}
	var said strings.Builder
	for _, id := range words {
		said.WriteString(t[id])
	}
	return said.String()
}

func english(text string) utterance {
	u := utterance{voice: "en-gb+f2", words: 180, pitch: 50, gap: 1}
	u.before, u.after = silence(text)
	u.text = spelled.ReplaceAllStringFunc(text, func(s string) string { return strings.Join(strings.Split(s, ""), " ") })
	return u
}

// silence is what is left around a text: less around a word that is spoken within a row of words,
// which ends in no punctuation.
func silence(text string) (before, after float64) {
	if last, _ := utf8.DecodeLastRuneInString(text); unicode.IsPunct(last) {
		return 0.05, 0.2
	}
	return 0.01, 0.04
}

// speak writes an utterance as raw A-law: silence cut from both ends and
// kept to 0.2 s inside, telephone band, peak at -6 dBFS.
func speak(file string, u utterance) error {
	wav, err := run(nil, "espeak-ng", "-v", u.voice, "-s", fmt.Sprint(u.words), "-p", fmt.Sprint(u.pitch),
		"-g", fmt.Sprint(u.gap), "--stdout", u.text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	_, err = run(wav, "sox", "-R", "-D", "--ignore-length", "-t", "wav", "-", "-r", "8000", "-c", "1", "-e", "a-law", "-t", "al", file,
		"gain", "-3", "silence", "-l", "1", "0.01", "0.4%", "-1", "0.2", "0.4%",
		"reverse", "silence", "1", "0.01", "0.4%", "reverse",
		"highpass", "200", "lowpass", "3400", "gain", "-n", "-6",
		"pad", fmt.Sprint(u.before), fmt.Sprint(u.after))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func run(stdin []byte, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	var out, problem bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &problem
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(problem.Bytes()))
	}
	return out.Bytes(), nil
}
