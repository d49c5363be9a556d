package abuse

import (
	"context"
	"sync"
	"time"
)

const (
	// lookEvery is how often Run looks whether a heartbeat is due and which nodes live.
	lookEvery = time.Second
	// syncEvery is how often chains, Redis and copy are brought together.
	syncEvery = 2 * time.Second
)

// Run beats the leases, keeps the copy of the measures fresh and the keys in their epoch, until ctx ends.
// Heartbeats do not wait for the rest, which may be slow.
func (a *Admission) Run(ctx context.Context) error {
	var both sync.WaitGroup
	both.Go(func() { a.runBeats(ctx) })
	both.Go(func() { a.runSync(ctx) })
	both.Wait()
	return nil
}

// runBeats beats what is due, and every running call when Redis comes back: it may have lost them all.
func (a *Admission) runBeats(ctx context.Context) {
	back, cancel := a.store.Changes()
	defer cancel()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case healthy := <-back:
			if healthy {
				a.beatAll(ctx)
			}
		case <-ticker.C:
			a.look()
			a.beatDue(ctx)
		}
	}
}

// look notes which nodes live. While Redis is away nobody is known to be gone.
func (a *Admission) look() {
	if a.store.Healthy() {
		a.peers.look()
	}
}

func (a *Admission) runSync(ctx context.Context) {
	back, cancel := a.store.Changes()
	defer cancel()
	ticker := time.NewTicker(syncEvery)
	defer ticker.Stop()
	known := true // as far as the log has said
	for {
		err := a.Sync(ctx)
		if err != nil && known && ctx.Err() == nil {
			a.log.Warn("measures could not be brought together; a copy is applied while it is fresh", "err", err)
		}
		known = err == nil
		select {
		case <-ctx.Done():
			return
		case <-back:
		case <-ticker.C:
		}
	}
}
