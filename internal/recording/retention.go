package recording

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"
)

// Hold forbids the deletion of a recording, and says why.
func (r *Recorder) Hold(id, why string) error {
	if _, err := r.Manifest(id); err != nil {
		return err
	}
	u, err := parseID(id)
	if err != nil {
		return err
	}
	return replaceFile(r.path(u, holdFile), []byte(why+"\n"))
}

// Release lifts a legal hold.
func (r *Recorder) Release(id string) error {
	u, err := parseID(id)
	if err != nil {
		return err
	}
	if err := os.Remove(r.path(u, holdFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("recording: release: %w", err)
	}
	return syncDir(filepath.Dir(r.path(u, holdFile)))
}

// Delete deletes a recording by its key. It returns [ErrHeld], [ErrUnsettled] or [ErrUnfinished] when
// that must not be, and nothing was touched then.
func (r *Recorder) Delete(id string) error { return r.delete(id, "request") }

func (r *Recorder) delete(id, why string) error {
	u, err := parseID(id)
	if err != nil {
		return err
	}
	switch {
	case r.isOpen(id):
		return fmt.Errorf("%w: %s", ErrUnfinished, id)
	case exists(r.path(u, holdFile)):
		return fmt.Errorf("%w: %s", ErrHeld, id)
	case exists(r.marker(u)):
		return fmt.Errorf("%w: %s", ErrUnsettled, id)
	case !exists(filepath.Dir(r.path(u, keyFile))):
		return fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	if err := r.remove(u); err != nil {
		return err
	}
	r.met.deleted.WithLabelValues(why).Inc()
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// remove destroys the key, and then what it sealed. A kill in between leaves noise that the next
// sweep clears away.
func (r *Recorder) remove(id ulid.ULID) error {
	if err := destroy(r.path(id, keyFile)); err != nil {
		return fmt.Errorf("recording: destroy the key of %s: %w", id, err)
	}
	if err := os.RemoveAll(filepath.Dir(r.path(id, keyFile))); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	return r.Settle(id.String())
}

// destroy overwrites a file and removes its name, each durably. A disk may keep old blocks all the
// same; that is why the file holds only a key, and one sealed to the agency.
func destroy(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(make([]byte, info.Size()), 0)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func (r *Recorder) sweepForever(ctx context.Context) {
	sweep := func() {
		if _, err := r.Sweep(ctx, time.Now()); err != nil && ctx.Err() == nil {
			r.log.Error("old recordings could not all be deleted", "err", err)
		}
	}
	sweep()
	every(ctx, sweepEvery, sweep)
}

// Sweep deletes the recordings whose time is over at now, but for those held or unsettled, and tells
// how many. Whole days are looked at: a recording is deleted at most a day after its time.
func (r *Recorder) Sweep(ctx context.Context, now time.Time) (deleted int, err error) {
	days, err := filepath.Glob(filepath.Join(r.cfg.Dir, "[0-9]*", "[0-9]*", "[0-9]*"))
	if err != nil {
		return 0, fmt.Errorf("recording: sweep: %w", err)
	}
	var errs []error
	for _, dir := range days {
		day, err := r.dayOf(dir)
		if err != nil || !day.Add(24*time.Hour+r.cfg.Retention).Before(now) {
			continue
		}
		entries, err := os.ReadDir(dir)
		errs = append(errs, err)
		for _, e := range entries {
			if ctx.Err() != nil {
				return deleted, errors.Join(append(errs, ctx.Err())...)
			}
			switch err := r.delete(e.Name(), "retention"); {
			case err == nil:
				deleted++
			case !errors.Is(err, ErrHeld) && !errors.Is(err, ErrUnsettled) && !errors.Is(err, ErrUnfinished):
				errs = append(errs, err)
			}
		}
		_ = os.Remove(dir) // succeeds when it is empty, as meant
	}
	return deleted, errors.Join(errs...)
}

func (r *Recorder) dayOf(dir string) (time.Time, error) {
	rel, err := filepath.Rel(r.cfg.Dir, dir)
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse("2006/01/02", filepath.ToSlash(rel))
}
