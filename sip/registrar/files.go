package registrar

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// Files is bindings of one process that outlive it: one file a phone, so that after a kill agents are
// rung at once and not only when their phones register again. A disk that fails is logged; the phones
// are in memory all the same.
type Files struct {
	*Memory
	dir string
	log *slog.Logger
}

// NewFiles makes a store of limit bindings at most, and takes up those that lie in dir. Phones on a
// connection are forgotten: it ended with the process.
func NewFiles(dir string, limit int, log *slog.Logger) (*Files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f := &Files{Memory: NewMemory(limit), dir: dir, log: log}
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := f.load(name, time.Now()); err != nil {
			f.log.Warn("a phone's binding was not taken up; it comes back when the phone registers", "file", name, "err", err)
		}
	}
	return f, nil
}

func (f *Files) load(name string, now time.Time) error {
	src, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var b Binding
	if err := json.Unmarshal(src, &b); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	if expired(now)(b) || b.Transport != "udp" {
		return os.Remove(name)
	}
	return f.Memory.Put(context.Background(), b)
}

// Put implements [Bindings].
func (f *Files) Put(ctx context.Context, b Binding) error {
	if err := f.Memory.Put(ctx, b); err != nil {
		return err
	}
	src, err := json.Marshal(b)
	if err == nil {
		err = renameio.WriteFile(f.path(b.Extension, b.Key()), src, 0o600)
	}
	if err != nil {
		f.log.Error("a phone's binding is in memory alone", "extension", b.Extension, "err", err)
	}
	return nil
}

// Remove implements [Bindings].
func (f *Files) Remove(ctx context.Context, extension, key string) error {
	if err := os.Remove(f.path(extension, key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.log.Error("a phone's binding is still on the disk", "extension", extension, "err", err)
	}
	return f.Memory.Remove(ctx, extension, key)
}

// path is a binding's file. The name is a hash, since a contact may hold anything.
func (f *Files) path(extension, key string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s", extension, key))
	return filepath.Join(f.dir, hex.EncodeToString(sum[:12])+".json")
}
