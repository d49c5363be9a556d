package asterisk

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/renameio/v2"

	"github.com/hotline12345/gateway/internal/call"
)

// sounds is the directory from which Asterisk plays: one file of raw A-law a clip. A file's name is a hash
// of what it holds, so that a prompt that changes is another file and a running playback keeps its own.
type sounds struct {
	dir, path string

	mu   sync.Mutex
	uris map[*call.Clip]string
}

func newSounds(dir, path string) (*sounds, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("sounds_dir: %w; write a directory that the gateway may write to and Asterisk may read", err)
	}
	if path == "" {
		path = dir
	}
	return &sounds{dir: dir, path: path, uris: map[*call.Clip]string{}}, nil
}

// list is clips as ARI names media. Files that are missing are written.
func (s *sounds) list(clips []*call.Clip) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, 0, len(clips))
	for _, c := range clips {
		uri, ok := s.uris[c]
		if !ok {
			sum := sha256.Sum256(c.PCMA)
			name := hex.EncodeToString(sum[:16])
			if err := s.write(name+".alaw", c.PCMA); err != nil {
				return nil, fmt.Errorf("asterisk: the prompt %s: %w", c.ID, err)
			}
			uri = "sound:" + filepath.Join(s.path, name)
			s.uris[c] = uri
		}
		out = append(out, uri)
	}
	return out, nil
}

func (s *sounds) write(name string, audio []byte) error {
	path := filepath.Join(s.dir, name)
	if info, err := os.Stat(path); err == nil && info.Size() == int64(len(audio)) {
		return nil
	} else if err != nil && !os.IsNotExist(err) {
		return err
	}
	return renameio.WriteFile(path, audio, fs.FileMode(0o644))
}
