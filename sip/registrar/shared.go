package registrar

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Remote is where several nodes keep their phones. A value is opaque to it; it forgets each after its
// time. It may be away, and may come back empty.
type Remote interface {
	// Put adds a value, or replaces that of the same extension and key.
	Put(ctx context.Context, extension, key string, value []byte, ttl time.Duration) error
	// Get lists an extension's values.
	Get(ctx context.Context, extension string) ([][]byte, error)
	// Remove drops a value; one that is not there is no error.
	Remove(ctx context.Context, extension, key string) error
	// List lists all values.
	List(ctx context.Context) ([][]byte, error)
}

const (
	// remoteRead bounds a reading of Remote: a caller waits for it.
	remoteRead = 200 * time.Millisecond
	// remoteRest is how long Remote is not read again after it failed.
	remoteRest = 500 * time.Millisecond
	// remoteWrite bounds a writing to Remote, for which nobody waits.
	remoteWrite = 2 * time.Second
	// remoteBeat is how often what could not be written is tried again, and Remote is asked whether it
	// still knows a phone of this node.
	remoteBeat = time.Second
	// remoteAgain is how often every phone of this node is written again.
	remoteAgain = time.Minute
	// maxRemembered bounds the extensions whose last answer is remembered; twice as many are held at most.
	maxRemembered = 8192
	// maxUnwritten bounds the phones that wait to be written; what is beyond waits for remoteAgain.
	maxUnwritten = 1 << 17
)

// phone is a binding's name among those of all extensions.
type phone struct{ extension, key string }

// Shared is bindings of several nodes: those of this node in its own store, at once and always, and
// those of the others as Remote knows them, or last knew them. What this node's phones do is written
// to Remote in the background, by Run.
type Shared struct {
	local  Bindings
	remote Remote
	node   string
	log    *slog.Logger
	wake   chan struct{}

	mu        sync.Mutex
	unwritten map[phone]struct{}
	rest      time.Time            // when Remote may be read again
	cur, prev map[string][]Binding // the other nodes' phones as last read; two generations
}

var _ Bindings = (*Shared)(nil)

// NewShared makes bindings of a node that are shared with others. It writes nothing before Run.
func NewShared(local Bindings, remote Remote, node string, log *slog.Logger) *Shared {
	return &Shared{local: local, remote: remote, node: node, log: log, wake: make(chan struct{}, 1),
		unwritten: map[phone]struct{}{}, cur: map[string][]Binding{}}
}

// Put implements [Bindings].
func (s *Shared) Put(ctx context.Context, b Binding) error {
	if err := s.local.Put(ctx, b); err != nil {
		return err
	}
	s.changed(phone{b.Extension, b.Key()})
	return nil
}

// Remove implements [Bindings]. What another node's phone did is that node's to write.
func (s *Shared) Remove(ctx context.Context, extension, key string) error {
	if err := s.local.Remove(ctx, extension, key); err != nil {
		return err
	}
	s.changed(phone{extension, key})
	return nil
}

// Own implements [Bindings].
func (s *Shared) Own(ctx context.Context, extension string) ([]Binding, error) {
	return s.local.Own(ctx, extension)
}

// Mine implements [Bindings].
func (s *Shared) Mine(ctx context.Context) ([]Binding, error) { return s.local.Mine(ctx) }

// Get implements [Bindings]: this node's phones, then those of the others.
func (s *Shared) Get(ctx context.Context, extension string) ([]Binding, error) {
	own, err := s.local.Get(ctx, extension)
	if err != nil {
		return nil, err
	}
	return append(own, s.others(ctx, extension)...), nil
}

// List implements [Bindings].
func (s *Shared) List(ctx context.Context) ([]Binding, error) {
	own, err := s.local.Mine(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, remoteWrite)
	defer cancel()
	values, err := s.remote.List(ctx)
	if err != nil {
		s.log.Warn("the phones of other nodes are not known", "error", err)
	}
	return append(own, s.read(values)...), nil
}

// others is an extension's phones at the other nodes, the newest first.
func (s *Shared) others(ctx context.Context, extension string) []Binding {
	now := time.Now()
	s.mu.Lock()
	resting := now.Before(s.rest)
	s.mu.Unlock()
	if resting {
		return s.recall(extension)
	}
	reading, cancel := context.WithTimeout(ctx, remoteRead)
	defer cancel()
	values, err := s.remote.Get(reading, extension)
	if err != nil {
		if ctx.Err() == nil { // nobody hung up: it is away
			s.mu.Lock()
			s.rest = now.Add(remoteRest)
			s.mu.Unlock()
		}
		return s.recall(extension)
	}
	all := s.read(values)
	s.remember(extension, all)
	return all
}

// read takes the values that are other nodes' phones and have not expired.
func (s *Shared) read(values [][]byte) []Binding {
	var all []Binding
	old := expired(time.Now())
	for _, v := range values {
		var b Binding
		if err := json.Unmarshal(v, &b); err != nil {
			s.log.Warn("a phone of another node is not readable", "error", err)
			continue
		}
		if b.Node != s.node && !old(b) { // this node knows its own better
			all = append(all, b)
		}
	}
	slices.SortStableFunc(all, func(a, b Binding) int { return b.Since.Compare(a.Since) })
	return all
}

func (s *Shared) remember(extension string, all []Binding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.cur[extension]; !known && len(s.cur) >= maxRemembered {
		s.prev, s.cur = s.cur, map[string][]Binding{}
	}
	s.cur[extension] = all
}

// recall is what was last read of an extension.
func (s *Shared) recall(extension string) []Binding {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, ok := s.cur[extension]
	if !ok {
		all = s.prev[extension]
	}
	return slices.DeleteFunc(slices.Clone(all), expired(time.Now()))
}

// changed has a phone written.
func (s *Shared) changed(p phone) {
	s.mu.Lock()
	if len(s.unwritten) < maxUnwritten {
		s.unwritten[p] = struct{}{}
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run writes this node's phones to Remote until ctx ends: each change soon, all of them when Remote has
// come back or has lost them, and all of them once a minute.
func (s *Shared) Run(ctx context.Context) error {
	s.everything(ctx)
	beat := time.NewTicker(remoteBeat)
	defer beat.Stop()
	away, written, turn := false, time.Now(), 0
	for {
		probe := false
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
			if away {
				continue // at the next beat
			}
		case <-beat.C:
			probe = true
		}
		lost := false
		err := s.write(ctx)
		if err == nil && probe {
			lost, err = s.lost(ctx, turn)
			turn++
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !away:
			s.log.Warn("the phones of this node are not shared; they ring here", "error", err)
		case err == nil && (away || lost || time.Since(written) > remoteAgain):
			s.everything(ctx)
			written = time.Now()
		}
		away = err != nil
	}
}

// everything has every phone of this node written.
func (s *Shared) everything(ctx context.Context) {
	all, err := s.local.Mine(ctx)
	if err != nil {
		s.log.Warn("the phones of this node are not listed", "error", err)
		return
	}
	for _, b := range all {
		s.changed(phone{b.Extension, b.Key()})
	}
}

// write writes what has changed, until Remote fails. What is written is what the phone is at now: the
// order of two changes does not matter.
func (s *Shared) write(ctx context.Context) error {
	for {
		p, ok := s.take()
		if !ok {
			return nil
		}
		if err := s.writeOne(ctx, p); err != nil {
			s.changed(p)
			return err
		}
	}
}

func (s *Shared) take() (phone, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.unwritten {
		delete(s.unwritten, p)
		return p, true
	}
	return phone{}, false
}

func (s *Shared) writeOne(ctx context.Context, p phone) error {
	own, err := s.local.Own(ctx, p.extension)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, remoteWrite)
	defer cancel()
	i := slices.IndexFunc(own, func(b Binding) bool { return b.Key() == p.key })
	if i < 0 {
		return s.remote.Remove(ctx, p.extension, s.field(p.key))
	}
	value, err := json.Marshal(own[i])
	if err != nil {
		return err
	}
	return s.remote.Put(ctx, p.extension, s.field(p.key), value, time.Until(own[i].Expires))
}

// field is a phone's key in Remote: one that registers at two nodes is there twice.
func (s *Shared) field(key string) string { return s.node + " " + key }

// lost tells whether Remote has forgotten a phone of this node; each turn asks for another.
func (s *Shared) lost(ctx context.Context, turn int) (bool, error) {
	all, err := s.local.Mine(ctx)
	if err != nil || len(all) == 0 {
		return false, err
	}
	b := all[turn%len(all)]
	ctx, cancel := context.WithTimeout(ctx, remoteWrite)
	defer cancel()
	values, err := s.remote.Get(ctx, b.Extension)
	if err != nil {
		return false, err
	}
	for _, v := range values {
		var known Binding
		if json.Unmarshal(v, &known) == nil && known.Node == s.node && known.Key() == b.Key() {
			return false, nil
		}
	}
	return true, nil
}
