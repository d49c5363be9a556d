package store_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

const failoverKey = "{h}:n"

// failover is a store at work on servers of which the primary is lost.
type failover struct {
	t     *testing.T
	store *store.Store
	last  atomic.Int64 // the number that was written last
	good  atomic.Int64 // when a write succeeded last, UnixNano
	away  atomic.Bool  // Healthy was seen to be false
}

// work writes rising numbers until the test ends, and notes what the store says of its health.
func work(t *testing.T, cfg store.Config) *failover {
	t.Helper()
	cfg.Timeout = 50 * time.Millisecond // the machine is shared with all other tests
	f := &failover{t: t, store: storetest.Run(t, cfg)}
	ctx, cancel := context.WithCancel(context.Background())
	changes, stop := f.store.Changes()
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := int64(1); ; n++ {
			if f.store.Client().Set(ctx, failoverKey, n, 0).Err() == nil {
				f.last.Store(n)
				f.good.Store(time.Now().UnixNano())
			}
			select {
			case healthy := <-changes:
				f.away.CompareAndSwap(false, !healthy)
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done; stop() })
	await(t, func() bool { return f.last.Load() > 20 })
	return f
}

// lose loses the primary and returns when writes succeed again for good.
func (f *failover) lose(how string, old *storetest.Redis, primary func() *storetest.Redis) {
	f.t.Helper()
	script := f.store.Script("failover", "return redis.call('GET', KEYS[1])")
	if err := script.Load(f.t.Context(), f.store.Blocking()).Err(); err != nil {
		f.t.Fatal(err)
	}
	generation := f.store.Generation()
	start := time.Now()
	switch how {
	case "kill":
		old.Kill(f.t)
	case "stop":
		old.Pause(f.t)
	}
	storetest.Await(f.t, f.store, false)
	known := time.Since(start)
	storetest.Await(f.t, f.store, true)
	healthy := time.Since(start)
	now := primary()
	if now == old {
		f.t.Fatal("the lost server is still the primary")
	}
	back := time.Now().UnixNano()
	await(f.t, func() bool { return f.good.Load() > back })
	f.t.Logf("%s: known after %v, healthy after %v", how, known.Round(time.Millisecond), healthy.Round(time.Millisecond))
	if !f.away.Load() {
		f.t.Error("Changes did not tell that Redis was away")
	}
	await(f.t, func() bool { return f.store.Generation() != generation })
	await(f.t, func() bool { // not Run: only a script that was loaded can be called by its hash
		got, err := script.EvalSha(f.t.Context(), f.store.Client(), []string{failoverKey}).Text()
		return err == nil && got != ""
	})
}

// comesBack brings the old primary back, which believes at first that it still is one, and sees that nothing
// is written to it.
func (f *failover) comesBack(how string, old *storetest.Redis) {
	f.t.Helper()
	mark := f.last.Load() // numbers below may lie in the buffers of a stopped server
	switch how {
	case "kill":
		old.Restart(f.t)
	case "stop":
		old.Resume(f.t)
	}
	c := redis.NewClient(&redis.Options{Addr: old.Addr})
	defer c.Close()
	start := time.Now()
	await(f.t, func() bool {
		n, _ := strconv.ParseInt(c.Get(f.t.Context(), failoverKey).Val(), 10, 64)
		info, err := c.Info(f.t.Context(), "replication").Result() // after the number: it was no replica when it had that
		if strings.Contains(info, "role:slave") {
			return true
		}
		if err == nil && n > mark {
			f.t.Fatalf("the old primary was given %d, after %d had gone to the new one", n, mark)
		}
		return false
	})
	f.t.Logf("%s: the old primary believed in itself for %v more", how, time.Since(start).Round(time.Millisecond))
	now := f.last.Load()
	await(f.t, func() bool { return f.last.Load() > now+20 })
}

func TestSentinelFailover(t *testing.T) {
	for _, how := range []string{"kill", "stop"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			servers := storetest.StartSentinels(t, 1)
			f := work(t, servers.Config())
			old := servers.Primary(t)
			f.lose(how, old, func() *storetest.Redis { return servers.Primary(t) })
			f.comesBack(how, old)
		})
	}
}

func TestClusterFailover(t *testing.T) {
	for _, how := range []string{"kill", "stop"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			servers := storetest.StartCluster(t)
			f := work(t, servers.Config())
			old := servers.PrimaryOf(t, failoverKey)
			f.lose(how, old, func() *storetest.Redis { return servers.PrimaryOf(t, failoverKey) })
			f.comesBack(how, old)
		})
	}
}

// A redirection says that nothing has run, and is followed; a time-out does not, and the script is not sent
// again, by pipeline or alone.
func TestClusterRedirectsButRepeatsNothing(t *testing.T) {
	t.Parallel()
	servers := storetest.StartCluster(t)
	cfg := servers.Config()
	cfg.Timeout = 50 * time.Millisecond
	s, ctx := storetest.Run(t, cfg), t.Context()

	slow := s.Script("slow", `redis.call('INCR', KEYS[1])
local t = redis.call('TIME'); local ends = t[1] * 1000000 + t[2] + 400000
repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] > ends`)
	if err := slow.Load(ctx, s.Blocking()).Err(); err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]func(key string) error{
		"alone": func(key string) error { return slow.EvalSha(ctx, s.Client(), []string{key}).Err() },
		"pipeline": func(key string) error {
			_, err := s.Client().Pipelined(ctx, func(p redis.Pipeliner) error { return slow.EvalSha(ctx, p, []string{key}).Err() })
			return err
		},
	} {
		key := "{h}:" + name
		if err := run(key); !store.Away(err) {
			t.Fatalf("%s: a script that took too long: %v", name, err)
		}
		storetest.Await(t, s, true)
		await(t, func() bool { n, err := s.Client().Exists(ctx, key).Result(); return err == nil && n == 1 })
		if n := s.Blocking().Get(ctx, key).Val(); n != "1" {
			t.Errorf("%s: it ran %s times", name, n)
		}
	}

	from := servers.PrimaryOf(t, "{h}")
	to := servers.Servers[0]
	if to == from {
		to = servers.Servers[1]
	}
	direct := func(r *storetest.Redis, args ...any) any {
		t.Helper()
		c := redis.NewClient(&redis.Options{Addr: r.Addr})
		defer c.Close()
		got, err := c.Do(ctx, args...).Result()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return got
	}
	slot := direct(from, "CLUSTER", "KEYSLOT", "{h}")
	direct(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", direct(from, "CLUSTER", "MYID"))
	direct(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", direct(to, "CLUSTER", "MYID"))
	one := s.Script("one_key", "return redis.call('INCR', KEYS[1])")
	// ASK: the slot is on its way, and the new key is made where it goes.
	if n, err := one.Run(ctx, s.Client(), []string{"{h}:new"}).Int(); err != nil || n != 1 {
		t.Errorf("ASK: %d, %v", n, err)
	}
	for _, key := range []string{"{h}:alone", "{h}:pipeline"} {
		direct(from, "DEL", key)
	}
	for _, r := range []*storetest.Redis{to, from} { // MOVED: it has arrived
		direct(r, "CLUSTER", "SETSLOT", slot, "NODE", direct(to, "CLUSTER", "MYID"))
	}
	await(t, func() bool {
		n, err := one.Run(ctx, s.Client(), []string{"{h}:new"}).Int()
		return err == nil && n == 2
	})
}

// go-redis alone would wait ten seconds more than the read may block.
func TestBlockingReadEndsOnAStoppedServer(t *testing.T) {
	t.Parallel()
	server := storetest.Start(t)
	cfg := store.Defaults()
	cfg.Addrs, cfg.SlowTimeout = []string{server.Addr}, 200*time.Millisecond
	s := storetest.Run(t, cfg)
	if _, err := s.Blocking().XRead(t.Context(), &redis.XReadArgs{Streams: []string{"{h}:s", "0"}, Block: 300 * time.Millisecond}).Result(); err != redis.Nil {
		t.Fatalf("an empty stream: %v", err)
	}
	server.Pause(t)
	start := time.Now()
	_, err := s.Blocking().XRead(context.Background(), &redis.XReadArgs{Streams: []string{"{h}:s", "0"}, Block: 300 * time.Millisecond}).Result()
	if took := time.Since(start); !store.Away(err) || took > 5*time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

// A server that is a replica is no place to write to, even when it is the only one that is named.
func TestAReplicaIsAway(t *testing.T) {
	t.Parallel()
	server := storetest.Start(t)
	s := storetest.Open(t, server.Addr)
	direct := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer direct.Close()
	if err := direct.Do(t.Context(), "REPLICAOF", "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	storetest.Await(t, s, false)
	if err := s.Blocking().Set(t.Context(), "k", "v", 0).Err(); !store.Away(err) {
		t.Errorf("a write to a replica: %v", err)
	}
	before := s.Generation()
	if err := direct.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	storetest.Await(t, s, true)
	if s.Generation() == before || before == "" {
		t.Errorf("the generation was %q and is %q", before, s.Generation())
	}
}

// One failure costs one caller one time-out: whoever comes after it is refused, until the answer to the one
// question that is asked at once.
func TestOneTimeoutOpensTheBreakerAndOneAnswerClosesIt(t *testing.T) {
	t.Parallel()
	server := storetest.Start(t)
	cfg := store.Defaults()
	cfg.Addrs = []string{server.Addr}
	s := storetest.Run(t, cfg)
	server.Pause(t)
	errs := make([]string, 3)
	for i := range errs {
		errs[i] = fmt.Sprint(s.Client().Get(t.Context(), "k").Err() == store.ErrAway)
	}
	if got := strings.Join(errs, " "); got != "false true true" && got != "true true true" { // the store's own question may come first
		t.Errorf("refused at once: %s", got)
	}
	server.Resume(t)
	await(t, func() bool { return s.Client().Get(t.Context(), "k").Err() == redis.Nil })
}
