package prompt

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/configs"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// Config is the section prompts.
type Config struct {
	// Dir is where an operator's prompts lie, by language and identity; "" is none.
	Dir string `yaml:"dir"`
}

// Defaults are the built-in voices alone.
func Defaults() Config { return Config{} }

// Validate tells what is wrong with the section.
func (c Config) Validate() error {
	if c.Dir == "" {
		return nil
	}
	if info, err := os.Stat(c.Dir); err != nil || !info.IsDir() {
		return fmt.Errorf("dir: %q is no directory; make it, or write \"\" for the built-in voices", c.Dir)
	}
	return nil
}

// common is where clips lie that are the same in every language.
const common = "common"

// Catalogue is every prompt in every language. It does not change after it was made.
type Catalogue struct {
	list    []Prompt
	byID    map[string]Prompt
	clips   map[string]*call.Clip // by "zh/welcome"
	metrics *metrics
}

var _ session.Prompts = (*Catalogue)(nil)

// New makes the catalogue of the built-in voices and those of the directory. It fails with every
// fault of the directory at once. reg may be nil.
func New(cfg Config, reg prometheus.Registerer) (*Catalogue, error) {
	builtin, err := fs.Sub(configs.Prompts, "prompts")
	if err != nil {
		return nil, err
	}
	table, err := fs.ReadFile(builtin, "prompts.tsv")
	if err != nil {
		return nil, err
	}
	list, err := ParseTable(table)
	if err != nil {
		return nil, err
	}
	c := &Catalogue{list: list, byID: map[string]Prompt{}, clips: map[string]*call.Clip{}}
	for _, p := range list {
		c.byID[p.ID] = p
	}
	for _, id := range []string{"beep", "music", "pause"} {
		c.byID[id] = Prompt{ID: id, Barge: true}
	}
	if err := c.load(builtin); err != nil {
		return nil, err
	}
	if cfg.Dir != "" {
		if err := c.load(os.DirFS(cfg.Dir)); err != nil {
			return nil, fmt.Errorf("prompts in %s: %w", cfg.Dir, err)
		}
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	c.metrics = newMetrics(reg)
	return c, nil
}

// load takes every voice of a tree, in place of one that was there before.
func (c *Catalogue) load(tree fs.FS) error {
	var faults []error
	for _, language := range []string{Chinese, English, common} {
		files, err := fs.ReadDir(tree, language)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, f := range files {
			if f.IsDir() || strings.HasPrefix(f.Name(), ".") {
				continue
			}
			if err := c.take(tree, language, f.Name()); err != nil {
				faults = append(faults, fmt.Errorf("%s/%s: %w", language, f.Name(), err))
			}
		}
	}
	return errors.Join(faults...)
}

func (c *Catalogue) take(tree fs.FS, language, name string) error {
	form := path.Ext(name)
	id := strings.TrimSuffix(name, form)
	p, known := c.byID[id]
	switch {
	case !known:
		return fmt.Errorf("no prompt is named %q; the names are those of prompts.tsv", id)
	case (language == common) != (p.Chinese == "" && p.English == ""):
		return fmt.Errorf("%q belongs in another folder", id)
	}
	alaw, err := read(tree, path.Join(language, name), form)
	if err != nil {
		return err
	}
	if id != "pause" {
		if err := check(alaw); err != nil {
			return err
		}
	}
	key := language + "/" + id
	c.clips[key] = &call.Clip{ID: key, PCMA: alaw, PCMU: muLaw(alaw)}
	return nil
}

func read(tree fs.FS, name, form string) ([]byte, error) {
	info, err := fs.Stat(tree, name)
	if err != nil {
		return nil, err
	}
	if info.Size() > int64(maxFile) {
		return nil, fmt.Errorf("%d bytes; a prompt is at most %s", info.Size(), MaxLength)
	}
	data, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, err
	}
	switch form {
	case ".al":
		return data, nil
	case ".wav":
		return ParseWAV(data)
	}
	return nil, fmt.Errorf("%q is no form of a prompt; write .wav or .al", form)
}

// complete tells which prompts of the table have no voice.
func (c *Catalogue) complete() error {
	var missing []string
	for _, p := range c.list {
		for language, text := range map[string]string{Chinese: p.Chinese, English: p.English} {
			if text != "" && c.clips[language+"/"+p.ID] == nil {
				missing = append(missing, language+"/"+p.ID)
			}
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("prompts without a voice: %s; run go generate ./ivr/prompt", strings.Join(missing, ", "))
	}
	return nil
}

// Say makes clips of prompts and spoken values; see [Words]. What the language lacks is taken from
// the other; what neither has is left out. Both are counted.
func (c *Catalogue) Say(language string, parts ...string) []*call.Clip {
	var clips []*call.Clip
	for _, part := range parts {
		words, err := Words(language, part)
		if err != nil {
			c.metrics.missing.WithLabelValues(label(language), foundNowhere).Inc()
			continue
		}
		for _, id := range words {
			if clip := c.clip(language, id); clip != nil {
				clips = append(clips, clip)
			}
		}
	}
	return clips
}

func (c *Catalogue) clip(language, id string) *call.Clip {
	for _, where := range []string{language, common} {
		if clip := c.clips[where+"/"+id]; clip != nil {
			return clip
		}
	}
	if clip := c.clips[other(language)+"/"+id]; clip != nil {
		c.metrics.missing.WithLabelValues(label(language), foundInOther).Inc()
		return clip
	}
	c.metrics.missing.WithLabelValues(label(language), foundNowhere).Inc()
	return nil
}

// Music is what a waiting caller hears, round and round.
func (c *Catalogue) Music() []*call.Clip { return []*call.Clip{c.clips[common+"/music"]} }

// Has tells whether a part can be said: a prompt of the table, or a spoken value; see [Words].
func (c *Catalogue) Has(part string) error {
	words, err := Words(Chinese, part)
	if err != nil {
		return err
	}
	for _, id := range words {
		if _, ok := c.byID[id]; !ok {
			return fmt.Errorf("no prompt is named %q", id)
		}
	}
	return nil
}

// Barge tells whether a key may end a part early. Only legal and final notices are heard out.
func (c *Catalogue) Barge(part string) bool {
	p, ok := c.byID[part]
	return !ok || p.Barge
}

// Prompts lists the table in its order.
func (c *Catalogue) Prompts() []Prompt { return slices.Clone(c.list) }

// Names lists every prompt's identity, sorted.
func (c *Catalogue) Names() []string { return slices.Sorted(maps.Keys(c.byID)) }

// Text is what parts say, as text.
func (c *Catalogue) Text(language string, parts ...string) string {
	var said []string
	for _, part := range parts {
		words, err := Words(language, part)
		if err != nil {
			continue
		}
		for _, id := range words {
			p := c.byID[id]
			switch {
			case language == English && p.English != "":
				said = append(said, p.English)
			case p.Chinese != "":
				said = append(said, p.Chinese)
			default:
				said = append(said, p.English)
			}
		}
	}
	if language == English {
		return strings.Join(said, " ")
	}
	return strings.Join(said, "")
}

func other(language string) string {
	if language == English {
		return Chinese
	}
	return English
}
