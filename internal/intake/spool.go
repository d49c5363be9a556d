package intake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// entry is a file of the spool, or of the dead.
type entry struct {
	Since    time.Time `json:"since"`
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next"` // no try before it
	Error    string    `json:"error,omitempty"`
	Event    Event     `json:"event"`
}

// receipt is what a target answered for the newest revision of a request.
type receipt struct {
	Revision     int       `json:"revision"`
	At           time.Time `json:"at"`
	SHA256Sealed string    `json:"sha256_sealed,omitempty"`
}

// spool is a target's files.
type spool struct{ waiting, dead, receipts string }

func openSpool(dir, target string) (spool, error) {
	s := spool{
		waiting:  filepath.Join(dir, "spool", target),
		dead:     filepath.Join(dir, "dead", target),
		receipts: filepath.Join(dir, "receipts", target),
	}
	for _, d := range []string{s.waiting, s.dead, s.receipts} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return s, fmt.Errorf("intake: %w", err)
		}
	}
	return s, nil
}

func (s spool) put(e entry) error {
	return putJSON(filepath.Join(s.waiting, e.Event.key()+".json"), e)
}

func (s spool) get(key string) (entry, error) {
	return getJSON[entry](filepath.Join(s.waiting, key+".json"))
}

func (s spool) getDead(key string) (entry, error) {
	return getJSON[entry](filepath.Join(s.dead, key+".json"))
}

// receive keeps a receipt and takes the event out. After a kill in between, the event is found with
// its receipt and goes without being sent again.
func (s spool) receive(e Event, at time.Time) error {
	r := receipt{Revision: e.Revision, At: at}
	if e.Recording != nil {
		r.SHA256Sealed = e.Recording.SHA256Sealed
	}
	if err := putJSON(filepath.Join(s.receipts, e.RequestID+".json"), r); err != nil {
		return err
	}
	return s.drop(e.key())
}

func (s spool) drop(key string) error {
	if err := os.Remove(filepath.Join(s.waiting, key+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("intake: %w", err)
	}
	return nil
}

// received is the newest revision of a request that the target has; 0 is none.
func (s spool) received(request string) (int, error) {
	r, err := getJSON[receipt](filepath.Join(s.receipts, request+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return r.Revision, err
}

// bury moves an event to the dead, and revive moves it back.
func (s spool) bury(key string) error   { return moveFile(s.waiting, s.dead, key+".json") }
func (s spool) revive(key string) error { return moveFile(s.dead, s.waiting, key+".json") }

// forget deletes the receipts before a time.
func (s spool) forget(before time.Time) error {
	names, err := os.ReadDir(s.receipts)
	if err != nil {
		return fmt.Errorf("intake: %w", err)
	}
	for _, n := range names {
		info, err := n.Info()
		if err != nil || !info.ModTime().Before(before) {
			continue
		}
		if err := os.Remove(filepath.Join(s.receipts, n.Name())); err != nil {
			return fmt.Errorf("intake: %w", err)
		}
	}
	return nil
}

// list reads the entries of a directory. Files that do not read are returned by name; the others are
// returned all the same.
func list(dir string) (entries []entry, broken []string, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, nil, fmt.Errorf("intake: %w", err)
	}
	for _, name := range names {
		e, err := getJSON[entry](name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // delivered meanwhile
		case err != nil || e.Event.key()+".json" != filepath.Base(name):
			broken = append(broken, name)
		default:
			entries = append(entries, e)
		}
	}
	return entries, broken, nil
}

func getJSON[T any](path string) (v T, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return v, fmt.Errorf("intake: %w", err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("intake: %s: %w", path, err)
	}
	return v, nil
}

// putJSON writes a file that is whole or absent, whenever the power fails.
func putJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("intake: encode: %w", err)
	}
	return putFile(path, b)
}

func putFile(path string, b []byte) error {
	if err := renameio.WriteFile(path, b, 0o600); err != nil { // writes, syncs, renames
		return fmt.Errorf("intake: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func moveFile(from, to, name string) error {
	if err := os.Rename(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
		return fmt.Errorf("intake: %w", err)
	}
	return errors.Join(syncDir(to), syncDir(from))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("intake: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("intake: sync %s: %w", dir, err)
	}
	return nil
}
