package console

import (
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

//go:embed locales
var localeFS embed.FS

// languages of the pages; the first is the default.
var languages = []string{"zh", "en"}

// texts is a language's texts by key.
type texts map[string]string

func loadTexts() (map[string]texts, error) {
	all := map[string]texts{}
	for _, lang := range languages {
		raw, err := localeFS.ReadFile("locales/" + lang + ".json")
		if err != nil {
			return nil, fmt.Errorf("console: texts: %w", err)
		}
		var t texts
		if err := json.Unmarshal(raw, &t); err != nil {
			return nil, fmt.Errorf("console: texts of %s: %w", lang, err)
		}
		all[lang] = t
	}
	return all, nil
}

// text is a key's text with its values put in; a key that has none shows itself.
func (t texts) text(key string, values ...any) string {
	s, ok := t[key]
	if !ok {
		return key
	}
	if len(values) == 0 {
		return s
	}
	return fmt.Sprintf(s, values...)
}

// word is the text of an enumerated value. A value that is not ours, such as the name of a queue,
// is shown as it is.
func (t texts) word(kind, value string) string {
	if s, ok := t[kind+"."+value]; ok {
		return s
	}
	return value
}

// language is what the visitor chose, or the default.
func language(r *http.Request) string {
	if k, err := r.Cookie(languageCookie); err == nil && slices.Contains(languages, k.Value) {
		return k.Value
	}
	return languages[0]
}
