package registrar

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// ErrFull says that the store takes no more bindings.
var ErrFull = errors.New("registrar: no room for another phone")

// Binding is one phone of an extension.
type Binding struct {
	Extension string         `json:"extension"`
	Contact   string         `json:"contact"` // its URI, as registered
	Source    netip.AddrPort `json:"source"`  // where the REGISTER came from
	Transport string         `json:"transport"`
	Node      string         `json:"node"` // the node that the phone talks to
	Instance  string         `json:"instance,omitempty"`
	CallID    string         `json:"call_id"`
	CSeq      uint32         `json:"cseq"`
	UserAgent string         `json:"user_agent,omitempty"`
	Since     time.Time      `json:"since"` // when the REGISTER came
	Expires   time.Time      `json:"expires"`
}

// Phone is the identity of the phone itself, the same at every node that it registers at (RFC 5626
// section 4.1): its instance, or the host and port of its Contact.
func (b Binding) Phone() string {
	if b.Instance != "" {
		return b.Instance
	}
	var u sip.Uri
	if err := sip.ParseUri(b.Contact, &u); err != nil {
		return b.Contact
	}
	return strings.ToLower(u.Host) + ":" + strconv.Itoa(portOf(u))
}

// Key is the binding's identity among those of its extension: the contact without what may change from
// one REGISTER to the next (RFC 3261 section 19.1.4 compares these parts).
func (b Binding) Key() string {
	var u sip.Uri
	if err := sip.ParseUri(b.Contact, &u); err != nil {
		return b.Contact
	}
	transport, _ := u.UriParams.Get("transport")
	return u.User + "@" + strings.ToLower(u.Host) + ":" + strconv.Itoa(portOf(u)) + ";" + strings.ToLower(transport)
}

// Dest is host:port to send to. A phone whose Contact names the host that it registered from is believed
// its port, on UDP; behind a NAT, and on a stream, it is reached where its REGISTER came from (RFC 5626
// section 5.3 does the same for a flow).
func (b Binding) Dest() string {
	var u sip.Uri
	if err := sip.ParseUri(b.Contact, &u); err == nil && b.Transport == "udp" {
		if a, err := netip.ParseAddr(strings.Trim(u.Host, "[]")); err == nil && a.Unmap() == b.Source.Addr() {
			return netip.AddrPortFrom(a.Unmap(), uint16(portOf(u))).String()
		}
	}
	return b.Source.String()
}

// Bindings keeps where phones are. An implementation that shares them over nodes keeps this node's in
// memory as well, so that phones ring while the store is away. Get and List leave out what has expired.
type Bindings interface {
	// Put adds a binding, or replaces the one of the same extension and Key. It fails with ErrFull.
	Put(ctx context.Context, b Binding) error
	// Get lists an extension's bindings, the newest first; those of this node before the others'.
	Get(ctx context.Context, extension string) ([]Binding, error)
	// Own lists those of an extension's bindings that are this node's, the newest first. It asks nobody
	// else.
	Own(ctx context.Context, extension string) ([]Binding, error)
	// Mine lists the bindings of this node, of every extension. It asks nobody else.
	Mine(ctx context.Context) ([]Binding, error)
	// Remove drops a binding; one that is not there is no error.
	Remove(ctx context.Context, extension, key string) error
	// List lists all bindings.
	List(ctx context.Context) ([]Binding, error)
}

// Memory is bindings of one process.
type Memory struct {
	max int

	mu   sync.Mutex
	n    int
	byEx map[string][]Binding // the newest first
}

// NewMemory makes a store of limit bindings at most.
func NewMemory(limit int) *Memory { return &Memory{max: limit, byEx: map[string][]Binding{}} }

// Put implements [Bindings].
func (m *Memory) Put(_ context.Context, b Binding) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	rest := m.drop(b.Extension, func(o Binding) bool { return o.Key() == b.Key() })
	if m.n >= m.max {
		return ErrFull
	}
	m.n++
	m.byEx[b.Extension] = append([]Binding{b}, rest...)
	return nil
}

// Get implements [Bindings].
func (m *Memory) Get(_ context.Context, extension string) ([]Binding, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.drop(extension, expired(time.Now()))), nil
}

// Own implements [Bindings].
func (m *Memory) Own(ctx context.Context, extension string) ([]Binding, error) {
	return m.Get(ctx, extension)
}

// Remove implements [Bindings].
func (m *Memory) Remove(_ context.Context, extension, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(extension, func(b Binding) bool { return b.Key() == key })
	return nil
}

// List implements [Bindings].
func (m *Memory) List(ctx context.Context) ([]Binding, error) { return m.Mine(ctx) }

// Mine implements [Bindings].
func (m *Memory) Mine(context.Context) ([]Binding, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Binding
	for ex := range m.byEx {
		all = append(all, m.drop(ex, expired(time.Now()))...)
	}
	slices.SortFunc(all, func(a, b Binding) int { return strings.Compare(a.Extension+a.Key(), b.Extension+b.Key()) })
	return all, nil
}

func expired(now time.Time) func(Binding) bool {
	return func(b Binding) bool { return !now.Before(b.Expires) }
}

// drop takes bindings out and returns those that stay.
func (m *Memory) drop(extension string, gone func(Binding) bool) []Binding {
	all := m.byEx[extension]
	kept := slices.DeleteFunc(slices.Clone(all), gone)
	m.n -= len(all) - len(kept)
	if len(kept) == 0 {
		delete(m.byEx, extension)
	} else {
		m.byEx[extension] = kept
	}
	return kept
}
