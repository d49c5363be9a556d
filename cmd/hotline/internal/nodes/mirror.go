package nodes

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

// NewsPath is where a gateway answers with its [News]; the query is since=CURSOR.
const NewsPath = "/news"

// newsAgain is when a gateway that did not answer is asked for its calls again.
const newsAgain = 500 * time.Millisecond

// Mirror is the live calls of the other gateways that answer, as of a moment ago.
type Mirror struct {
	cluster *Cluster

	mu    sync.Mutex
	calls map[string]map[string]session.View // by gateway and call
	watch map[chan struct{}]struct{}
}

// NewMirror makes a mirror of a cluster's calls.
func NewMirror(c *Cluster) *Mirror {
	return &Mirror{cluster: c, calls: map[string]map[string]session.View{}, watch: map[chan struct{}]struct{}{}}
}

// Run follows the calls of every gateway that lives, until ctx ends.
func (m *Mirror) Run(ctx context.Context) error {
	looked, stop := m.cluster.Watch()
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	following := map[string]context.CancelFunc{}
	for {
		alive := map[string]bool{}
		for _, name := range m.cluster.Peers() {
			alive[name] = true
			if following[name] == nil {
				each, cancel := context.WithCancel(ctx)
				following[name] = cancel
				wg.Go(func() { m.follow(each, name) })
			}
		}
		for name, cancel := range following {
			if !alive[name] {
				cancel()
				delete(following, name)
			}
		}
		select {
		case <-ctx.Done():
			for _, cancel := range following {
				cancel()
			}
			return nil
		case <-looked:
		}
	}
}

// follow keeps one gateway's calls as it tells them. Those of one that does not answer are not shown.
func (m *Mirror) follow(ctx context.Context, name string) {
	cursor := ""
	for ctx.Err() == nil {
		var n News
		asking, cancel := context.WithTimeout(ctx, holdFor+askFor)
		err := m.cluster.ask(asking, name, http.MethodGet, NewsPath+"?since="+url.QueryEscape(cursor), nil, &n)
		cancel()
		if ctx.Err() != nil {
			break
		}
		m.cluster.note(name, err)
		pause := newsEvery
		if err != nil {
			m.drop(name)
			n, pause = News{}, newsAgain
		} else {
			m.take(name, n)
		}
		cursor = n.Cursor
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	m.drop(name)
}

func (m *Mirror) take(name string, n News) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n.Full || m.calls[name] == nil {
		m.calls[name] = map[string]session.View{}
	}
	for _, v := range n.Changed {
		v.Gateway = name
		m.calls[name][v.CallID] = v
	}
	for _, id := range n.Gone {
		delete(m.calls[name], id)
	}
	if n.Full || len(n.Changed)+len(n.Gone) > 0 {
		m.tell()
	}
}

func (m *Mirror) drop(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.calls[name]) > 0 {
		defer m.tell()
	}
	delete(m.calls, name)
}

// tell wakes the watchers; m.mu is held.
func (m *Mirror) tell() {
	for ch := range m.watch {
		select {
		case ch <- struct{}{}:
		default: // a notice waits already
		}
	}
}

// Views is the live calls of the other gateways, in no order.
func (m *Mirror) Views() []session.View {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []session.View
	for _, calls := range m.calls {
		for _, v := range calls {
			all = append(all, v)
		}
	}
	return all
}

// Owner is the other gateway that has a live call; "" is none.
func (m *Mirror) Owner(callID string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, calls := range m.calls {
		if _, ok := calls[callID]; ok {
			return name
		}
	}
	return ""
}

// Missing is why another gateway's calls are not known here; nil when they are.
func (m *Mirror) Missing(name string) error {
	if name == m.cluster.name {
		return nil
	}
	if _, err := m.cluster.living(name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calls[name] == nil {
		return fmt.Errorf("%w: %s", ErrAway, name)
	}
	return nil
}

// Watch tells of changes; several may share a notice. The channel is never closed.
func (m *Mirror) Watch() (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watch[ch] = struct{}{}
	return ch, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watch, ch)
	}
}
