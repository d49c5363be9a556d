package dialog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/emiago/sipgo/sip"
	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/internal/call"
)

// Spool keeps confirmed dialogs over a kill of the process.
type Spool interface {
	Save(id string, d DialogState) error
	Delete(id string) error
	// All returns what can be read, and an error for what cannot.
	All() (map[string]DialogState, error)
}

// DialogState is enough of a confirmed dialog to end it (RFC 3261 section 12.2.1.1).
type DialogState struct {
	Listener  string   `json:"listener"` // transport and address, e.g. "UDP 127.0.0.1:5060"
	CallID    string   `json:"call_id"`
	Local     string   `json:"local"`  // our From value, with our tag
	Remote    string   `json:"remote"` // theirs, as our To value
	Target    string   `json:"target"` // their Contact
	Routes    []string `json:"routes,omitempty"`
	Dest      string   `json:"dest,omitempty"` // the next hop when it is not the route's or target's
	LocalCSeq uint32   `json:"local_cseq"`     // of our last request
}

func (l *Layer) name() string { return l.network + " " + l.local.String() }

func (c *Call) spoolID() string { return c.key.callID + ";" + c.key.tag }

// save keeps a confirmed dialog, and each change of it.
func (c *Call) save() {
	spool := c.l.deps.Spool
	if spool == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock() // two changes are saved in their order
	if c.state != confirmed {
		return
	}
	if err := spool.Save(c.spoolID(), c.l.keep(c.id)); err != nil {
		c.l.log.Warn("a dialog would outlive a kill of the process", "call", c.key.callID, "error", err)
		return
	}
	c.saved = true
}

func (l *Layer) keep(id identity) DialogState {
	d := DialogState{Listener: l.name(), CallID: id.callID, Local: id.local.Value(), Remote: id.remote.Value(),
		Target: id.target.String(), Dest: id.dest, LocalCSeq: id.seq}
	for _, r := range id.routes {
		d.Routes = append(d.Routes, r.String())
	}
	return d
}

func (d DialogState) identity() (identity, error) {
	id := identity{callID: d.CallID, seq: d.LocalCSeq, dest: d.Dest}
	var err error
	if id.local.DisplayName, err = sip.ParseAddressValue(d.Local, &id.local.Address, &id.local.Params); err != nil {
		return id, fmt.Errorf("local: %w", err)
	}
	if id.remote.DisplayName, err = sip.ParseAddressValue(d.Remote, &id.remote.Address, &id.remote.Params); err != nil {
		return id, fmt.Errorf("remote: %w", err)
	}
	if err := sip.ParseUri(d.Target, &id.target); err != nil {
		return id, fmt.Errorf("target: %w", err)
	}
	for _, r := range d.Routes {
		var uri sip.Uri
		if err := sip.ParseUri(r, &uri); err != nil {
			return id, fmt.Errorf("route: %w", err)
		}
		id.routes = append(id.routes, uri)
	}
	return id, nil
}

// EndStale sends BYE for each dialog that the spool kept of this listener and that no call here has,
// and forgets it. It is called once the listener is Ready, and returns how many it ended. A dialog
// whose party does not answer is forgotten too; when ctx ends first it is kept.
func (l *Layer) EndStale(ctx context.Context) (int, error) {
	if l.deps.Spool == nil {
		return 0, nil
	}
	if !l.up() {
		return 0, ErrNotServing
	}
	all, err := l.deps.Spool.All()
	errs := []error{err}
	var g errgroup.Group
	g.SetLimit(64)
	count := 0
	for id, d := range all {
		if d.Listener != l.name() || l.has(id) {
			continue
		}
		dialog, err := d.identity()
		if err != nil {
			errs = append(errs, fmt.Errorf("dialog: %s: %w", id, err))
			continue
		}
		count++
		g.Go(func() error { return l.endStale(ctx, id, dialog) })
	}
	errs = append(errs, g.Wait())
	return count, errors.Join(errs...)
}

func (l *Layer) has(spoolID string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	callID, tag, _ := strings.Cut(spoolID, ";")
	return l.calls[key{callID, tag}] != nil
}

func (l *Layer) endStale(ctx context.Context, id string, dialog identity) error {
	dialog.seq++
	req := l.inDialog(dialog, sip.BYE)
	req.AppendHeader(reason(call.CauseTempUnavailable))
	req.SetBody(nil)
	if _, err := l.roundTrip(ctx, req); err != nil && ctx.Err() != nil {
		return err
	}
	l.m.event("stale_ended")
	return l.deps.Spool.Delete(id)
}

// FileSpool is a Spool of one JSON file a dialog. A file is there whole or not at all after kill -9;
// a power cut may lose the last ones, whose calls it cut as well.
type FileSpool struct{ dir string }

var _ Spool = (*FileSpool)(nil)

// NewFileSpool makes the directory when it is missing.
func NewFileSpool(dir string) (*FileSpool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("dialog: spool: %w", err)
	}
	return &FileSpool{dir: dir}, nil
}

// entry is a file's content.
type entry struct {
	ID     string      `json:"id"`
	Dialog DialogState `json:"dialog"`
}

func (s *FileSpool) path(id string) string {
	sum := sha256.Sum256([]byte(id)) // a Call-ID may hold anything
	return filepath.Join(s.dir, hex.EncodeToString(sum[:16])+".json")
}

// Save implements [Spool].
func (s *FileSpool) Save(id string, d DialogState) error {
	data, err := json.Marshal(entry{ID: id, Dialog: d})
	if err != nil {
		return fmt.Errorf("dialog: spool: %w", err)
	}
	path := s.path(id)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("dialog: spool: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("dialog: spool: %w", err)
	}
	return nil
}

// Delete implements [Spool]; a dialog that is not there is deleted.
func (s *FileSpool) Delete(id string) error {
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("dialog: spool: %w", err)
	}
	return nil
}

// All implements [Spool].
func (s *FileSpool) All() (map[string]DialogState, error) {
	paths, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("dialog: spool: %w", err)
	}
	all := make(map[string]DialogState)
	var errs []error
	for _, path := range paths {
		var e entry
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &e)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("dialog: spool: %s: %w", filepath.Base(path), err))
			continue
		}
		all[e.ID] = e.Dialog
	}
	return all, errors.Join(errs...)
}
