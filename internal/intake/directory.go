package intake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// directory hands over into a directory: first the sealed recording, then the event that names it, each
// whole or absent.
type directory struct {
	o   *Outbox
	dir string
}

func newDirectory(o *Outbox, t Target) (*directory, error) {
	if err := os.MkdirAll(t.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("intake: %s: %w", t.Name, err)
	}
	return &directory{o: o, dir: t.Dir}, nil
}

func (d *directory) send(ctx context.Context, e Event) error {
	if err := d.o.addKey(&e); err != nil {
		return err
	}
	if e.Recording != nil {
		r := *e.Recording
		r.File = r.ID + ".hlr"
		e.Recording = &r
		if err := d.copy(ctx, r); err != nil {
			return err
		}
	}
	b, err := e.cloudEvent(d.o.cfg.Source)
	if err != nil {
		return err
	}
	return putFile(filepath.Join(d.dir, e.key()+".json"), b)
}

// copy copies a sealed recording. The hash of what was written is the receipt.
func (d *directory) copy(ctx context.Context, r Recording) (err error) {
	from, err := d.o.rec.Open(r.ID)
	if err != nil {
		return fmt.Errorf("intake: %w", err)
	}
	defer from.Close()
	to, err := renameio.NewPendingFile(filepath.Join(d.dir, r.File), renameio.WithPermissions(0o600))
	if err != nil {
		return fmt.Errorf("intake: %w", err)
	}
	defer func() { err = errors.Join(err, to.Cleanup()) }()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(to, sum), contextReader{ctx, from}); err != nil {
		return fmt.Errorf("intake: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != r.SHA256Sealed {
		return &failure{result: "mismatch", err: fmt.Errorf("intake: the recording's hash is %s, the event says %s", got, r.SHA256Sealed)}
	}
	if err := to.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("intake: %w", err)
	}
	return nil // the event's own sync of the directory follows
}

// addKey adds the key that opens what the event has sealed.
func (o *Outbox) addKey(e *Event) (err error) {
	if len(e.Sealed) > 0 {
		if e.WrappedKey, err = o.rec.KeyOf(e.Sealed); err != nil {
			return fmt.Errorf("intake: %w", err)
		}
	}
	if e.WrappedKey == nil && e.Recording != nil {
		if e.WrappedKey, err = o.rec.WrappedKey(e.Recording.ID); err != nil {
			return fmt.Errorf("intake: %w", err)
		}
	}
	return nil
}

// contextReader ends a long read with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
