package recording

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hotline12345/gateway/internal/session"
)

// Recover returns every recording that was not settled, those of a killed process among them: it
// cuts a torn last frame off and writes the manifest, marked partial. Each must be settled once its
// hand-over is durable, or it comes again at the next start. A recording that cannot be read is logged,
// counted, and stays where it is: it must not keep the others from being handed over.
func (r *Recorder) Recover(ctx context.Context) ([]session.Recovered, error) {
	entries, err := os.ReadDir(filepath.Join(r.cfg.Dir, markers))
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	var all []session.Recovered
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return all, fmt.Errorf("recording: recover: %w", err)
		}
		id, err := parseID(e.Name())
		if err != nil || r.isOpen(e.Name()) {
			continue
		}
		m, err := r.recover(id)
		if errors.Is(err, ErrNotFound) { // killed before it had begun
			if err = r.remove(id); err == nil {
				continue
			}
		}
		if err != nil {
			r.met.recordings.WithLabelValues("failed").Inc()
			r.log.Error("a recording could not be recovered", "recording", id, "err", err)
			continue
		}
		r.unsettled(m.Facts.CallID, m.ID)
		all = append(all, session.Recovered{Sealed: m.Sealed(), Facts: m.Facts})
	}
	return all, nil
}

func (r *Recorder) recover(id ulid.ULID) (Manifest, error) {
	m, err := r.manifest(id)
	if err != nil || !m.Ended.IsZero() {
		return m, err
	}
	f, err := os.OpenFile(r.path(id, audioFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%w: %s has no audio", ErrNotFound, id)
	}
	if err != nil {
		return m, fmt.Errorf("recording: %w", err)
	}
	defer f.Close()
	size, err := survey(f, &m)
	if errors.Is(err, errTorn) && size == 0 {
		return m, fmt.Errorf("%w: %s has no whole header", ErrNotFound, id)
	}
	if err != nil && !errors.Is(err, errTorn) {
		return m, fmt.Errorf("recording: recover %s: %w", id, err)
	}
	if err := f.Truncate(size); err != nil {
		return m, fmt.Errorf("recording: recover %s: %w", id, err)
	}
	if err := f.Sync(); err != nil {
		return m, fmt.Errorf("recording: recover %s: %w", id, err)
	}
	if m.SHA256Sealed, err = hashOf(io.NewSectionReader(f, 0, size)); err != nil {
		return m, fmt.Errorf("recording: recover %s: %w", id, err)
	}
	m.Partial, m.Why = true, "killed"
	m.Ended = time.Now().UTC()
	if err := r.putManifest(id, m); err != nil {
		return m, err
	}
	r.met.recordings.WithLabelValues("recovered").Inc()
	return m, nil
}

// survey reads the whole frames of a file into a manifest and returns where they end. It needs no
// key: each frame carries the hash of the audio up to its end.
func survey(f io.Reader, m *Manifest) (size int64, err error) {
	s, err := newScanner(f)
	if err != nil {
		return 0, err
	}
	if s.id.String() != m.ID {
		return 0, fmt.Errorf("the file is that of %s", s.id)
	}
	audio := sha256.Sum256(nil)
	m.Samples, m.Segments, m.Marks = 0, nil, nil
	for {
		at := s.offset
		fr, err := s.next()
		if err != nil {
			m.Bytes, m.SHA256Audio = at, hex.EncodeToString(audio[:])
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return at, err
		}
		audio = fr.audio
		switch fr.kind {
		case frameAudio:
			m.Samples = fr.start + int64(fr.samples)
			m.Segments = append(m.Segments, segmentOf(fr, at, fr.encode()))
		case frameMark:
			var mark Mark
			if err := json.Unmarshal(fr.body, &mark); err != nil {
				return at, errTorn
			}
			m.Marks = append(m.Marks, mark)
		}
	}
}

func hashOf(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// SettleCall settles every recording of a call. The call's checkpoint is dropped at that moment; a
// recording that cannot be settled comes again at the next start, which does no harm twice.
func (r *Recorder) SettleCall(callID string) {
	r.mu.Lock()
	ids := r.calls[callID]
	delete(r.calls, callID)
	r.mu.Unlock()
	for _, id := range ids {
		if err := r.Settle(id); err != nil {
			r.log.Error("a recording was not settled", "call", callID, "recording", id, "err", err)
		}
	}
}

func (r *Recorder) unsettled(callID, id string) {
	r.mu.Lock()
	r.calls[callID] = append(r.calls[callID], id)
	r.mu.Unlock()
}

// Settle says that a recording's hand-over is durable elsewhere, or that it needs none: Recover does
// not return it again. A second call does nothing.
func (r *Recorder) Settle(id string) error {
	u, err := parseID(id)
	if err != nil {
		return err
	}
	if err := os.Remove(r.marker(u)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("recording: settle: %w", err)
	}
	return nil
}
