package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/staff"
)

//go:embed templates
var templateFS embed.FS

// pages are the views; each has a file of its name in templates.
var pages = []string{"login", "live", "agent", "call", "callbacks", "nodes", "art29", "matter", "message"}

// views is every page, parsed, with its texts.
type views struct {
	pages  map[string]*template.Template
	texts  map[string]texts
	assets string // the version of the static files
}

func newViews() (*views, error) {
	t, err := loadTexts()
	if err != nil {
		return nil, err
	}
	v := &views{pages: map[string]*template.Template{}, texts: t}
	if v.assets, err = digest(staticFS, "static"); err != nil {
		return nil, err
	}
	for _, name := range pages {
		v.pages[name], err = template.ParseFS(templateFS, "templates/layout.html", "templates/"+name+".html")
		if err != nil {
			return nil, fmt.Errorf("console: page %s: %w", name, err)
		}
	}
	return v, nil
}

// digest names the state of a directory.
func digest(files fs.FS, dir string) (string, error) {
	h := sha256.New()
	err := fs.WalkDir(files, dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(files, path)
		h.Write(b)
		return err
	})
	return hex.EncodeToString(h.Sum(nil))[:12], err
}

// page is what a template is given. Its methods are the templates' functions.
type page struct {
	Lang   string
	Path   string // of the page, for the language form
	Person staff.Person
	Now    time.Time
	Assets string
	Flash  Flash
	Data   any
	Ledger bool // there is a page of call backs
	Owed   int  // callers on it who wait for one
	Nodes  bool // there is a page of gateways
	Art29  bool // there are pages of matters
	texts  texts
}

// Flash is the answer to the last act.
type Flash struct {
	Text string // in the visitor's language
	Bad  bool
}

// T is a key's text.
func (p page) T(key string, values ...any) string { return p.texts.text(key, values...) }

// Word is the text of an enumerated value. It takes any string type.
func (p page) Word(kind string, value any) string { return p.texts.word(kind, fmt.Sprint(value)) }

// Warning is a warning with its title or advice in the visitor's language, if it has been translated.
func (p page) Warning(w ops.Warning) ops.Warning {
	if s, ok := p.texts["warning."+w.Code+".title"]; ok {
		w.Title = s
	}
	if s, ok := p.texts["warning."+w.Code+".mend"]; ok {
		w.Mend = s
	}
	return w
}

// Leads says whether the visitor may act on others' calls.
func (p page) Leads() bool { return p.Person.Has(leaders...) }

// Watches and Answers say which pages the visitor has.
func (p page) Watches() bool { return p.Person.Has(watchers...) }
func (p page) Answers() bool { return p.Person.Has(agents...) }

// Keeps says whether the visitor may act on the gateways.
func (p page) Keeps() bool { return p.Person.Has(keepers...) }

// Other is the language that the visitor may change to.
func (p page) Other() string {
	if p.Lang == "zh" {
		return "en"
	}
	return "zh"
}

// HTMLLang is the language's tag (WCAG 3.1.1).
func (p page) HTMLLang() string {
	if p.Lang == "zh" {
		return "zh-CN"
	}
	return "en"
}

// Elapsed is the time since a moment: 4:05, 1:02:03.
func (p page) Elapsed(t time.Time) string { return clock(p.Now.Sub(t)) }

// Remaining is the time to a moment, 0:00 once it is past.
func (p page) Remaining(t time.Time) string { return clock(t.Sub(p.Now)) }

// Offset is a place in a recording.
func (p page) Offset(d time.Duration) string { return clock(d) }

// Millis is a duration in whole milliseconds.
func (p page) Millis(d time.Duration) int64 { return d.Milliseconds() }

// Clock is a moment of today, Moment one of any day; both in the line's own zone.
func (p page) Clock(t time.Time) string  { return t.Local().Format("15:04:05.000") }
func (p page) Moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// Short is a moment without its seconds, and without the day if it is today.
func (p page) Short(t time.Time) string {
	t, now := t.Local(), p.Now.Local()
	if t.Year() == now.Year() && t.YearDay() == now.YearDay() {
		return t.Format("15:04")
	}
	return t.Format("01-02 15:04")
}

// Unix is a moment for the page's running clocks, in milliseconds.
func (p page) Unix(t time.Time) int64 { return t.UnixMilli() }

func clock(d time.Duration) string {
	s := int(max(d, 0).Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// model is a page's data for a visitor.
func (c *Console) model(v *visit, data any) page {
	return page{Lang: v.lang, Path: v.URL.Path, Person: v.person, Now: c.now(), Assets: c.views.assets,
		Data: data, texts: c.views.texts[v.lang],
		Ledger: c.deps.CallBacks != nil, Owed: int(c.owed.Load()), Nodes: c.deps.Nodes != nil, Art29: c.deps.Article29 != nil}
}

// render makes a template of a page, whole or a part. A page that fails is never half sent.
func (c *Console) render(name, part string, m page) ([]byte, error) {
	var b bytes.Buffer
	if err := c.views.pages[name].ExecuteTemplate(&b, part, m); err != nil {
		return nil, fmt.Errorf("console: page %s: %w", name, err)
	}
	return b.Bytes(), nil
}

func (c *Console) page(w http.ResponseWriter, v *visit, status int, name string, data any) {
	c.send(w, status, name, "layout", c.model(v, data))
}

func (c *Console) send(w http.ResponseWriter, status int, name, part string, m page) {
	b, err := c.render(name, part, m)
	if err != nil {
		c.log.Error("page failed", slog.String("page", name), slog.Any("error", err))
		http.Error(w, "500", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the visitor has gone: nothing is left to tell them
}

// message answers with a page, or a line on the page, that says one thing.
func (c *Console) message(w http.ResponseWriter, v *visit, status int, key string) {
	m := c.model(v, key)
	m.Flash = Flash{Text: m.T(key), Bad: status >= 400}
	if v.htmx {
		c.send(w, status, "message", "flash", m)
		return
	}
	c.send(w, status, "message", "layout", m)
}

func (c *Console) notFound(w http.ResponseWriter, r *http.Request) {
	v := &visit{Request: r, lang: language(r)}
	if p, err := c.deps.Staff.Session(r.Context(), sessionToken(r)); err == nil {
		v.person = p
	}
	c.message(w, v, http.StatusNotFound, "error.notfound")
}

// With is the page with other data, for a part that shows one thing.
func (p page) With(data any) page {
	p.Data = data
	return p
}

// Add is for numbers that people count from one.
func (p page) Add(a, b int) int { return a + b }
