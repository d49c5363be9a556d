package nodes

import (
	"context"
	"crypto/rand"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

const (
	// holdFor is how long a question for news waits when there are none.
	holdFor = 10 * time.Second
	// newsEvery spaces the looks that one gateway makes at another's calls: a screen shows no more.
	newsEvery = 50 * time.Millisecond
	// maxGone is how many ended calls are remembered for those who have not heard of their end.
	maxGone = 4096
)

// Live is the live calls of one gateway: a *session.Manager.
type Live interface {
	Views() []session.View
	Watch() (changed <-chan struct{}, stop func())
}

// News is what changed of a gateway's calls since a cursor.
type News struct {
	Cursor  string         `json:"cursor"` // to ask from the next time
	Full    bool           `json:"full"`   // Changed is all calls, and what it lacks has ended
	Changed []session.View `json:"changed"`
	Gone    []string       `json:"gone"`
}

// Feed tells the other gateways of this one's live calls, and each change once to each.
type Feed struct {
	live  Live
	epoch string // of this process: a cursor of another one begins anew

	mu    sync.Mutex
	rev   uint64
	calls map[string]seen
	gone  []ended // by revision
	floor uint64  // ends up to this revision are forgotten
}

type seen struct {
	view session.View
	rev  uint64
}

type ended struct {
	id  string
	rev uint64
}

// NewFeed makes a feed of a gateway's calls.
func NewFeed(live Live) *Feed { return &Feed{live: live, epoch: rand.Text(), calls: map[string]seen{}} }

// Since is what changed after a cursor; "" is from the beginning. Without news it waits for some, 10 s at
// most.
func (f *Feed) Since(ctx context.Context, cursor string) News {
	changed, stop := f.live.Watch()
	defer stop()
	hold := time.NewTimer(holdFor)
	defer hold.Stop()
	from, known := f.read(cursor)
	for {
		n := f.news(from, known)
		if !known || len(n.Changed) > 0 || len(n.Gone) > 0 {
			return n
		}
		select {
		case <-ctx.Done():
			return n
		case <-hold.C:
			return n
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return n
		case <-time.After(newsEvery):
		}
	}
}

// read is the revision of a cursor, if this process gave it.
func (f *Feed) read(cursor string) (rev uint64, known bool) {
	epoch, number, _ := strings.Cut(cursor, ".")
	rev, err := strconv.ParseUint(number, 10, 64)
	return rev, err == nil && epoch == f.epoch
}

// news looks at the calls and tells what is newer than a revision.
func (f *Feed) news(from uint64, known bool) News {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.look()
	n := News{Cursor: f.epoch + "." + strconv.FormatUint(f.rev, 10), Full: !known || from < f.floor}
	for _, s := range f.calls {
		if n.Full || s.rev > from {
			n.Changed = append(n.Changed, s.view)
		}
	}
	for _, e := range f.gone {
		if !n.Full && e.rev > from {
			n.Gone = append(n.Gone, e.id)
		}
	}
	return n
}

// look compares the calls with those of the last look; f.mu is held.
func (f *Feed) look() {
	now := make(map[string]bool, len(f.calls))
	for _, v := range f.live.Views() {
		now[v.CallID] = true
		if old, ok := f.calls[v.CallID]; !ok || !reflect.DeepEqual(old.view, v) {
			f.rev++
			f.calls[v.CallID] = seen{v, f.rev}
		}
	}
	for id := range f.calls {
		if !now[id] {
			f.rev++
			f.gone = append(f.gone, ended{id, f.rev})
			delete(f.calls, id)
		}
	}
	if over := len(f.gone) - maxGone; over > 0 {
		f.floor = f.gone[over-1].rev
		f.gone = append([]ended(nil), f.gone[over:]...)
	}
}
