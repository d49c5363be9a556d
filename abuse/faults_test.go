package abuse

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// gateway is a node that runs on the true clock, as the program runs it.
func gateway(t *testing.T, name string, s *store.Store, peers func() []string) (a *Admission, kill func()) {
	t.Helper()
	data, log := t.TempDir(), slog.New(slog.DiscardHandler)
	chain, err := audit.Open(audit.Defaults(), filepath.Join(data, "audit"), name, time.Now, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := store.NewVault(s, []byte("the secret that all nodes share!"))
	if err != nil {
		t.Fatal(err)
	}
	a, err = New(Defaults(), Deps{Store: s, Audit: chain, Data: data, Now: time.Now, Log: log, Vault: v, Peers: peers})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	kill = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(func() {
		kill()
		chain.Close()
	})
	await(t, func() bool { return a.keys.ready() })
	return a, kill
}

func ring(a *Admission, id string, number int) session.Verdict {
	return a.Screen(context.Background(), session.ScreenRequest{CallID: id, Identity: call.Verified,
		Caller: call.Number{E164: fmt.Sprintf("+861380013%04d", number)}, At: time.Now()})
}

// ringers are callers who ring while Redis is in trouble: first calls of new numbers, and third calls of numbers that
// have two up.
type ringers struct {
	nodes   []*Admission
	longest time.Duration
	first   atomic.Int64 // calls of new numbers
	refused int          // of these
	third   int          // third calls that were admitted while Redis could not say
}

const held = 20 // numbers with two calls up, one on each node

// run rings 20 times a second, until stop is closed.
func (l *ringers) run(stop <-chan struct{}) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		a := l.nodes[i%2]
		began := time.Now()
		v := ring(a, fmt.Sprint("first", i), 1000+i)
		l.longest = max(l.longest, time.Since(began))
		l.first.Add(1)
		if v.Lease == nil {
			l.refused++
		} else {
			v.Lease.Release()
		}
		if v := ring(a, fmt.Sprint("third", i), i%held); v.Lease != nil {
			l.third++
			v.Lease.Release()
		}
	}
}

// full tells whether every number that has two calls up gets no third, on any node, by Redis's own word.
func (l *ringers) full() bool {
	for i := range held {
		for _, a := range l.nodes {
			v := ring(a, "one more", i)
			if v.Lease != nil {
				v.Lease.Release()
				return false
			}
		}
	}
	return true
}

// TestRedisFaultsUnderLoad: whatever Redis does, a caller is let in at once, and when it is back the calls that are up
// are known again.
func TestRedisFaultsUnderLoad(t *testing.T) {
	single := func(r *storetest.Redis) store.Config {
		cfg := store.Defaults()
		cfg.Addrs = []string{r.Addr}
		return cfg
	}
	for name, begin := range map[string]func(t *testing.T) (cfg store.Config, harm, mend func()){
		"frozen": func(t *testing.T) (store.Config, func(), func()) {
			r := storetest.Start(t)
			return single(r), func() { r.Pause(t) }, func() { r.Resume(t) }
		},
		"restarted empty": func(t *testing.T) (store.Config, func(), func()) {
			r := storetest.Start(t, "--appendonly", "no")
			return single(r), func() { r.Kill(t) }, func() { r.Restart(t) }
		},
		"failed over by sentinels": func(t *testing.T) (store.Config, func(), func()) {
			s := storetest.StartSentinels(t, 1)
			return s.Config(), func() { s.Primary(t).Kill(t) }, func() { s.Primary(t) }
		},
		"a cluster lost a server": func(t *testing.T) (store.Config, func(), func()) {
			c := storetest.StartCluster(t)
			return c.Config(), func() { c.PrimaryOf(t, keyRunning).Kill(t) }, func() { c.Await(t) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, harm, mend := begin(t)
			l := &ringers{}
			for _, name := range []string{"a", "b"} {
				a, _ := gateway(t, name, storetest.Run(t, cfg), func() []string { return []string{"a", "b"} })
				l.nodes = append(l.nodes, a)
			}
			for i := range held {
				for n, a := range l.nodes {
					v := ring(a, fmt.Sprint("up", n, i), i)
					if v.Lease == nil {
						t.Fatalf("%+v", v)
					}
					defer v.Lease.Release()
				}
			}
			await(t, l.full)
			stop := make(chan struct{})
			var ringing sync.WaitGroup
			ringing.Go(func() { l.run(stop) })
			harm()
			await(t, func() bool { return ring(l.nodes[0], "seen", 2000).FailOpen || ring(l.nodes[1], "seen", 2001).FailOpen })
			during := l.first.Load() + 60 // 3 s
			await(t, func() bool { return l.first.Load() >= during })
			mend()
			back := time.Now()
			await(t, l.full)
			normal := time.Since(back)
			close(stop)
			ringing.Wait()
			for _, a := range l.nodes {
				for _, lease := range a.all() {
					if lease.call == "seen" {
						lease.Release()
					}
				}
			}
			t.Logf("%d first calls, longest %v, %d refused; %d third calls let in meanwhile; all known again %v after the return",
				l.first.Load(), l.longest, l.refused, l.third, normal)
			if l.refused > 0 {
				t.Errorf("%d first calls were refused", l.refused)
			}
			if l.longest > 2*time.Second { // 100 ms on a machine that has nothing else to do
				t.Errorf("a caller waited %v", l.longest)
			}
		})
	}
}

// TestAKilledNodesPlacesAreFreeSoon: with the heartbeats that the nodes really have.
func TestAKilledNodesPlacesAreFreeSoon(t *testing.T) {
	addr := storetest.Start(t).Addr
	var living atomic.Pointer[[]string]
	living.Store(&[]string{})
	alive := func(s *store.Store, name string) func() { // beats as the program does
		nodes, ticker := store.NewNodes(s), time.NewTicker(500*time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		var beating sync.WaitGroup
		beating.Go(func() {
			for ; ctx.Err() == nil; <-ticker.C {
				all, err := nodes.Beat(ctx, store.Node{Name: name})
				if err != nil {
					continue
				}
				var names []string
				for _, n := range all {
					if n.Alive {
						names = append(names, n.Name)
					}
				}
				living.Store(&names)
			}
		})
		return sync.OnceFunc(func() {
			cancel()
			beating.Wait()
		})
	}
	peers := func() []string { return *living.Load() }
	one, two := storetest.Open(t, addr), storetest.Open(t, addr)
	endA, endB := alive(one, "a"), alive(two, "b")
	defer endA()
	defer endB()
	a, kill := gateway(t, "a", one, peers)
	b, _ := gateway(t, "b", two, peers)
	await(t, func() bool { return len(peers()) == 2 && len(b.peers.heard()) == 1 })
	for i := range 2 {
		if v := ring(a, fmt.Sprint("c", i), 1); v.Lease == nil {
			t.Fatalf("%+v", v)
		}
	}
	if v := ring(b, "c2", 1); v.Lease != nil {
		t.Fatalf("%+v", v)
	}
	endA()
	kill()
	died := time.Now()
	await(t, func() bool {
		v := ring(b, "c2", 1)
		if v.Lease != nil {
			v.Lease.Release()
		}
		return v.Lease != nil
	})
	t.Logf("free %v after the death; by themselves they would have ended after up to %v", time.Since(died), b.policy.Concurrency.Lease)
}
