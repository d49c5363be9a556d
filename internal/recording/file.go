package recording

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"github.com/hotline12345/gateway/internal/session"
)

// file is a recording's sealed file as its writer knows it.
type file struct {
	f        *os.File
	size     int64
	sealer   sealer
	index    uint32 // of the next audio frame
	end      int64  // samples
	sealed   hash.Hash
	audio    hash.Cloner
	manifest Manifest
}

// create makes the recording's files. The marker comes first: whatever a kill leaves, Recover finds.
func (rec *recording) create() error {
	err := rec.makeFiles()
	rec.wrap = ""
	if err == nil && rec.state.CompareAndSwap(creating, created) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("recording: nobody waits for it any more: %w", ErrClosed)
	}
	if rec.file.f != nil {
		_ = rec.file.f.Close() // it is being thrown away
	}
	return errors.Join(err, rec.r.remove(rec.id))
}

func (rec *recording) makeFiles() error {
	r, dir := rec.r, filepath.Dir(rec.r.path(rec.id, audioFile))
	if err := os.WriteFile(r.marker(rec.id), nil, 0o600); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	if err := syncDir(filepath.Dir(r.marker(rec.id))); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	key, err := seal([]byte(rec.wrap), r.to...)
	if err != nil {
		return fmt.Errorf("recording: seal the recording's key: %w", err)
	}
	if err := renameio.WriteFile(r.path(rec.id, keyFile), key, 0o600); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	if err := rec.openFile(); err != nil {
		return err
	}
	if err := r.putManifest(rec.id, rec.file.manifest); err != nil { // syncs the directory, for all three
		return err
	}
	return r.syncDay(filepath.Dir(dir))
}

// syncDay makes a new name in a day's directory durable, and the day's own name once.
func (r *Recorder) syncDay(day string) error {
	if err := syncDir(day); err != nil {
		return err
	}
	r.dayMu.Lock()
	defer r.dayMu.Unlock()
	if r.day == day {
		return nil
	}
	for d := day; len(d) > len(filepath.Clean(r.cfg.Dir)); {
		d = filepath.Dir(d) // the month, the year, Dir
		if err := syncDir(d); err != nil {
			return err
		}
	}
	r.day = day
	return nil
}

func (rec *recording) openFile() error {
	path := rec.r.path(rec.id, audioFile)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	rec.file.f = f
	rec.file.sealed = sha256.New()
	rec.file.audio = sha256.New().(hash.Cloner)
	if err := rec.file.append(append([]byte(magic), rec.id[:]...)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	return nil
}

// append writes b by one write. What a failed write left is cut off again.
func (fl *file) append(b []byte) error {
	n, err := fl.f.Write(b)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, fl.f.Truncate(fl.size))
		}
		_, seek := fl.f.Seek(fl.size, 0)
		return fmt.Errorf("recording: write: %w", errors.Join(err, seek))
	}
	fl.size += int64(n)
	fl.sealed.Write(b)
	return nil
}

// writeSegment seals a segment and writes its frame.
func (rec *recording) writeSegment(seg segment) {
	fl := &rec.file
	body, err := fl.sealer.seal(plaintext(rec.id, fl.index, seg.start, seg.audio))
	if err != nil {
		rec.lost(err)
		return
	}
	audio, err := fl.audio.Clone() // kept only if the write succeeds
	if err != nil {
		rec.lost(err)
		return
	}
	hashSilence(audio, seg.start-fl.end)
	audio.Write(seg.audio)
	f := frame{kind: frameAudio, start: seg.start, samples: uint32(len(seg.audio) / 2), body: body}
	audio.Sum(f.audio[:0])
	b := f.encode()
	at := fl.size
	if err := fl.append(b); err != nil {
		rec.lost(err)
		return
	}
	fl.audio, fl.end = audio, seg.end()
	fl.index++
	fl.manifest.Segments = append(fl.manifest.Segments, segmentOf(f, at, b))
	rec.dirty.Store(true)
	rec.r.met.segments.WithLabelValues("written").Inc()
}

func segmentOf(f frame, at int64, b []byte) Segment {
	sum := sha256.Sum256(b)
	return Segment{Start: f.start, Samples: f.samples, Offset: at, Bytes: int64(len(b)), SHA256: hex.EncodeToString(sum[:])}
}

// writeMark writes a mark's frame. The manifest gets it at the end, too.
func (rec *recording) writeMark(m Mark) {
	fl := &rec.file
	body, err := json.Marshal(m)
	if err == nil {
		f := frame{kind: frameMark, start: samples(time.Duration(m.AtMS) * time.Millisecond), body: body}
		fl.audio.Sum(f.audio[:0])
		err = fl.append(f.encode())
	}
	if err != nil {
		rec.r.met.marksDropped.Inc()
		rec.log.Error("a mark of a recording is lost", "kind", m.Kind, "err", err)
		return
	}
	fl.manifest.Marks = append(fl.manifest.Marks, m)
	rec.dirty.Store(true)
}

// hashSilence adds n samples of silence on both channels.
func hashSilence(h hash.Hash, n int64) {
	for n *= 2; n > 0; n -= int64(len(quiet)) {
		h.Write(quiet[:min(n, int64(len(quiet)))])
	}
}

var quiet = func() (b [8192]byte) {
	for i := range b {
		b[i] = silence
	}
	return b
}()

// sync makes what was written survive a power loss.
func (rec *recording) sync() {
	if err := rec.file.f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		rec.r.met.syncErrors.Inc()
		rec.log.Error("a recording could not be synced", "err", err)
	}
}

// close syncs the file and writes the last manifest. It may be called again after an error.
func (rec *recording) close() (session.Sealed, error) {
	fl := &rec.file
	m := fl.manifest
	if err := fl.f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		return session.Sealed{}, fmt.Errorf("recording: sync: %w", err)
	}
	rec.mu.Lock()
	m.Counts = rec.counts
	full := rec.full
	rec.mu.Unlock()
	switch {
	case m.Counts.Lost > 0:
		m.Partial, m.Why = true, "lost_segments"
	case full:
		m.Partial, m.Why = true, "max_length"
	}
	m.Ended = time.Now().UTC()
	m.Samples, m.Bytes = fl.end, fl.size
	m.SHA256Sealed = hex.EncodeToString(fl.sealed.Sum(nil))
	m.SHA256Audio = hex.EncodeToString(fl.audio.Sum(nil))
	if err := rec.r.putManifest(rec.id, m); err != nil {
		return session.Sealed{}, err
	}
	if err := fl.f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return session.Sealed{}, fmt.Errorf("recording: close: %w", err)
	}
	return m.Sealed(), nil
}

// abandonToRecovery writes what is held when the recorder stops before the call.
func (rec *recording) abandonToRecovery() {
	for _, seg := range rec.take() {
		rec.writeSegment(seg)
	}
	rec.sync()
	_ = rec.file.f.Close() // synced above; Recover reads it again
}
