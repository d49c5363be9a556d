package sip

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/hotline12345/gateway/sip/dialog"
)

// spool keeps one small file a dialog. It survives the death of the process, which is what it is for;
// nothing is synced, since a dialog does not outlive the machine.
type spool struct{ dir *os.Root }

type spooled struct {
	ID    string             `json:"id"`
	State dialog.DialogState `json:"state"`
}

func openSpool(dir string) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool_dir: %w; write a directory that the gateway may write to", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("spool_dir: %w; write a directory that the gateway may write to", err)
	}
	return &spool{dir: root}, nil
}

func spoolName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16]) + ".dialog"
}

// Save implements [dialog.Spool].
func (s *spool) Save(id string, d dialog.DialogState) error {
	b, err := json.Marshal(spooled{id, d})
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if err := s.dir.WriteFile(spoolName(id), b, 0o600); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// Delete implements [dialog.Spool].
func (s *spool) Delete(id string) error {
	if err := s.dir.Remove(spoolName(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// All implements [dialog.Spool]. A file that a kill cut short is dropped.
func (s *spool) All() (map[string]dialog.DialogState, error) {
	all := map[string]dialog.DialogState{}
	entries, err := fs.ReadDir(s.dir.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".dialog") {
			continue
		}
		b, err := s.dir.ReadFile(e.Name())
		var d spooled
		if err == nil && json.Unmarshal(b, &d) == nil && spoolName(d.ID) == e.Name() {
			all[d.ID] = d.State
			continue
		}
		_ = s.dir.Remove(e.Name())
	}
	return all, nil
}
