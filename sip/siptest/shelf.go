package siptest

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrAway is what a shelf that is away answers.
var ErrAway = errors.New("siptest: the shelf is away")

// Shelf is what several registrars share their phones on, in memory. A value stays until its time is over.
type Shelf struct {
	mu     sync.Mutex
	away   bool
	values map[string]map[string]item
	asked  int
}

type item struct {
	value []byte
	ends  time.Time
}

// NewShelf makes an empty shelf.
func NewShelf() *Shelf { return &Shelf{values: map[string]map[string]item{}} }

// Away lets the shelf be away, or come back.
func (s *Shelf) Away(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// Empty forgets everything.
func (s *Shelf) Empty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.values)
}

// Asked is how often the shelf was read by extension.
func (s *Shelf) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// open locks the shelf, when it is there.
func (s *Shelf) open() error {
	s.mu.Lock()
	if s.away {
		s.mu.Unlock()
		return ErrAway
	}
	return nil
}

// Put adds a value.
func (s *Shelf) Put(_ context.Context, extension, key string, value []byte, ttl time.Duration) error {
	if err := s.open(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if s.values[extension] == nil {
		s.values[extension] = map[string]item{}
	}
	s.values[extension][key] = item{value, time.Now().Add(ttl)}
	return nil
}

// Get lists an extension's values.
func (s *Shelf) Get(_ context.Context, extension string) ([][]byte, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	s.asked++
	return s.of(extension), nil
}

// of is what an extension has; s.mu is held.
func (s *Shelf) of(extension string) [][]byte {
	var all [][]byte
	for _, i := range s.values[extension] {
		if time.Now().Before(i.ends) {
			all = append(all, i.value)
		}
	}
	return all
}

// Remove drops a value.
func (s *Shelf) Remove(_ context.Context, extension, key string) error {
	if err := s.open(); err != nil {
		return err
	}
	defer s.mu.Unlock()
	delete(s.values[extension], key)
	return nil
}

// List lists every value.
func (s *Shelf) List(context.Context) ([][]byte, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var all [][]byte
	for extension := range s.values {
		all = append(all, s.of(extension)...)
	}
	return all, nil
}
