package registrar

import (
	"sync"
	"time"
)

// mine is when the phones of this node end, by extension and key. It is asked on the way of a call, so
// its lock is never held over anything that may wait.
type mine struct {
	mu   sync.Mutex
	ends map[string]map[string]time.Time
}

func newMine() *mine { return &mine{ends: map[string]map[string]time.Time{}} }

// set notes a phone, and tells whether it is a new one.
func (m *mine) set(p phone, ends time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ends[p.extension] == nil {
		m.ends[p.extension] = map[string]time.Time{}
	}
	_, known := m.ends[p.extension][p.key]
	m.ends[p.extension][p.key] = ends
	return !known
}

// drop forgets a phone, and tells whether there was one.
func (m *mine) drop(p phone) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, known := m.ends[p.extension][p.key]
	delete(m.ends[p.extension], p.key)
	if len(m.ends[p.extension]) == 0 {
		delete(m.ends, p.extension)
	}
	return known
}

// has tells whether an extension has a phone here.
func (m *mine) has(extension string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.ends[extension]) > 0
}

// due lists the phones whose time is over.
func (m *mine) due(now time.Time) []phone {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []phone
	for extension, keys := range m.ends {
		for key, end := range keys {
			if !now.Before(end) {
				all = append(all, phone{extension, key})
			}
		}
	}
	return all
}
