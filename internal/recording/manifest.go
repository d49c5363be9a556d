package recording

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/oklog/ulid/v2"

	"github.com/hotline12345/gateway/internal/session"
)

const (
	format = "hotline-recording/1"

	markers      = "open"
	audioFile    = "audio.hlr"
	keyFile      = "key.age"
	manifestFile = "manifest.json"
	holdFile     = "hold"
)

// Manifest is what manifest.json says of a recording. It is written at the start, and again at the
// end: Ended is zero in between.
type Manifest struct {
	Format       string                 `json:"format"`
	ID           string                 `json:"id"`
	Facts        session.RecordingFacts `json:"facts"`
	Began        time.Time              `json:"began"`
	Ended        time.Time              `json:"ended,omitzero"`
	PublicKey    string                 `json:"public_key"`
	Recipients   []string               `json:"recipients"`
	Samples      int64                  `json:"samples"` // on each channel
	Bytes        int64                  `json:"bytes"`
	SHA256Sealed string                 `json:"sha256_sealed"`
	SHA256Audio  string                 `json:"sha256_audio"`
	Partial      bool                   `json:"partial"`
	Why          string                 `json:"why,omitempty"` // killed, lost_segments or max_length
	Counts       Counts                 `json:"counts"`
	Marks        []Mark                 `json:"marks"`
	Segments     []Segment              `json:"segments"`
}

// Segment is an audio frame as the manifest lists it.
type Segment struct {
	Start   int64  `json:"start"` // samples
	Samples uint32 `json:"samples"`
	Offset  int64  `json:"offset"` // of the frame in the file
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"` // of the frame
}

// Sealed is the manifest's end in the session's words.
func (m Manifest) Sealed() session.Sealed {
	return session.Sealed{
		ID:           m.ID,
		SHA256Sealed: m.SHA256Sealed,
		SHA256Audio:  m.SHA256Audio,
		Bytes:        m.Bytes,
		Duration:     duration(m.Samples),
		Partial:      m.Partial,
	}
}

// path is where a file of a recording lies. The identity is a ULID, so it can name no other place.
func (r *Recorder) path(id ulid.ULID, name string) string {
	day := ulid.Time(id.Time()).UTC()
	return filepath.Join(r.cfg.Dir, day.Format("2006/01/02"), id.String(), name)
}

func (r *Recorder) marker(id ulid.ULID) string {
	return filepath.Join(r.cfg.Dir, markers, id.String())
}

func parseID(id string) (ulid.ULID, error) {
	u, err := ulid.ParseStrict(id)
	if err != nil || u.String() != id {
		return ulid.ULID{}, fmt.Errorf("%w: %q is not a recording's identity", ErrNotFound, id)
	}
	return u, nil
}

// Manifest reads a recording's manifest.
func (r *Recorder) Manifest(id string) (Manifest, error) {
	u, err := parseID(id)
	if err != nil {
		return Manifest{}, err
	}
	return r.manifest(u)
}

func (r *Recorder) manifest(id ulid.ULID) (Manifest, error) {
	b, err := os.ReadFile(r.path(id, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("recording: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return Manifest{}, fmt.Errorf("recording: manifest of %s: %w", id, err)
	}
	return m, nil
}

func (r *Recorder) putManifest(id ulid.ULID, m Manifest) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("recording: write a manifest: %w", err)
	}
	return replaceFile(r.path(id, manifestFile), b)
}

// replaceFile writes a file that is whole or absent, whenever the power fails.
func replaceFile(path string, b []byte) error {
	if err := renameio.WriteFile(path, b, 0o600); err != nil { // writes, syncs, renames
		return fmt.Errorf("recording: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("recording: sync %s: %w", dir, err)
	}
	return nil
}
