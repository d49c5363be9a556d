package intake

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// grants lets the receiver of an event fetch the event's recording for a time, and nothing else.
type grants struct {
	key  []byte
	base string
	life time.Duration
}

var (
	errDenied  = errors.New("intake: not granted")
	errExpired = errors.New("intake: the grant has expired")
)

// openGrants reads the key, or makes one.
func openGrants(file string, cfg Config) (grants, error) {
	g := grants{base: strings.TrimRight(cfg.AudioURL, "/"), life: cfg.GrantFor}
	key, err := os.ReadFile(file)
	switch {
	case err == nil && len(key) >= 32:
		g.key = key
		return g, nil
	case err == nil:
		return g, fmt.Errorf("intake: %s is not a key of 32 bytes; remove it and a new one is made", file)
	case !errors.Is(err, fs.ErrNotExist):
		return g, fmt.Errorf("intake: %w", err)
	}
	g.key = make([]byte, 32)
	rand.Read(g.key) // never fails
	return g, putFile(file, g.key)
}

// url is where a recording is fetched for an event.
func (g grants) url(recording, event string, now time.Time) string {
	until := strconv.FormatInt(now.Add(g.life).Unix(), 10)
	grant := strings.Join([]string{event, until, g.mac(recording, event, until)}, "~")
	return g.base + "/" + url.PathEscape(recording) + "?grant=" + url.QueryEscape(grant)
}

func (g grants) mac(recording, event, until string) string {
	m := hmac.New(sha256.New, g.key)
	fmt.Fprintf(m, "hotline audio grant 1\n%s\n%s\n%s", recording, event, until)
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

func (g grants) check(recording, grant string, now time.Time) error {
	part := strings.Split(grant, "~")
	if len(part) != 3 || !hmac.Equal([]byte(g.mac(recording, part[0], part[1])), []byte(part[2])) {
		return errDenied
	}
	until, err := strconv.ParseInt(part[1], 10, 64)
	if err != nil {
		return errDenied
	}
	if now.Unix() >= until {
		return errExpired
	}
	return nil
}

// AudioHandler serves sealed recordings at …/{recording}?grant=…, by GET and HEAD, in ranges if asked.
// Without a grant that holds the answer is 403 and does not say whether there is such a recording.
func (o *Outbox) AudioHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.met.audio.WithLabelValues(o.serveAudio(w, r)).Inc()
	})
}

func (o *Outbox) serveAudio(w http.ResponseWriter, r *http.Request) (result string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return "denied"
	}
	id := path.Base(r.URL.Path)
	switch err := o.grants.check(id, r.URL.Query().Get("grant"), time.Now()); {
	case errors.Is(err, errExpired):
		http.Error(w, "the grant has expired", http.StatusForbidden)
		return "expired"
	case err != nil:
		http.Error(w, "forbidden", http.StatusForbidden)
		return "denied"
	}
	f, err := o.rec.Open(id)
	if err != nil {
		o.log.Error("a granted recording cannot be opened", "recording", id, "err", err)
		http.Error(w, "gone", http.StatusGone)
		return "missing"
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="`+id+`.hlr"`)
	w.Header().Set("ETag", `"`+id+`"`) // a sealed file never changes
	http.ServeContent(w, r, "", time.Time{}, f)
	return "served"
}
