package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// ErrForked answers a copy whose chain is not the beginning of the log's: one of the two was rewritten, or
// the end of the log cut off.
var ErrForked = errors.New("audit: the copy and the log differ")

// Run copies the chain into the second directory at once and then every CopyEvery, until ctx ends. A copy
// that fails is logged and counted, and tried again.
func (l *Log) Run(ctx context.Context, log *slog.Logger) error {
	if l.cfg.CopyDir == "" {
		<-ctx.Done()
		return nil
	}
	again := time.NewTicker(l.cfg.CopyEvery)
	defer again.Stop()
	for {
		if err := l.Copy(ctx, l.cfg.CopyDir); err != nil && ctx.Err() == nil {
			l.metrics.copies.WithLabelValues("failed").Inc()
			log.Error("the audit log was not copied", "dir", l.cfg.CopyDir, "err", err)
		} else {
			l.metrics.copies.WithLabelValues("done").Inc()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

// Copy brings a copy of the chain in another directory up to what is on disk now. It only ever adds: a copy
// that is not the beginning of the log is left as it is, and is an [ErrForked] that names the file. A kept
// copy shows what the chain alone cannot: that its end was cut off.
func (l *Log) Copy(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	l.io.Lock()
	files, err := chainFiles(l.dir, l.node)
	size := l.size
	l.io.Unlock()
	if err != nil {
		return err
	}
	for i, file := range files {
		most := int64(-1)
		if i == len(files)-1 {
			most = size // what is behind it is being written
		}
		if err := errors.Join(ctx.Err(), copyFile(file, filepath.Join(dir, filepath.Base(file)), most)); err != nil {
			return err
		}
	}
	copies, err := chainFiles(dir, l.node)
	if err == nil && len(copies) > len(files) {
		err = fmt.Errorf("%w: the log lacks %s", ErrForked, filepath.Base(copies[len(files)]))
	}
	return errors.Join(err, syncDir(dir))
}

// copyFile appends to a copy what it lacks of a file's first bytes; most below 0 is all of them.
func copyFile(from, to string, most int64) (err error) {
	whole, err := os.ReadFile(from) // a file has a bound, and MaxBytes of memory are at hand once a day
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if most >= 0 {
		whole = whole[:min(most, int64(len(whole)))]
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	had, err := io.ReadAll(out)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if !bytes.HasPrefix(whole, had) {
		return fmt.Errorf("%w: %s is not the beginning of %s", ErrForked, to, from)
	}
	if _, err := out.Write(whole[len(had):]); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return out.Sync()
}
