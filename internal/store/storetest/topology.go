package storetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/store"
)

// The rhythm of the topologies: as quick as the servers' own timers (ten a second) let it be without taking
// a busy machine for a dead server.
const (
	downAfter   = 500 * time.Millisecond  // a sentinel's silence of a server
	nodeTimeout = 1000 * time.Millisecond // a cluster's
	masterName  = "hotline"
	patience    = 60 * time.Second
)

// Sentinels is a primary with replicas, watched by three sentinels. Each is a process of its own that can be
// paused, killed and restarted.
type Sentinels struct {
	Servers   []*Redis // the first was the primary at the start
	Sentinels []*Redis
}

// StartSentinels starts a primary, replicas and three sentinels, and returns when these know each other.
func StartSentinels(tb testing.TB, replicas int) *Sentinels {
	tb.Helper()
	s := &Sentinels{Servers: []*Redis{Start(tb)}}
	host, port, _ := net.SplitHostPort(s.Servers[0].Addr)
	for range replicas {
		s.Servers = append(s.Servers, Start(tb, "--replicaof", host, port, "--repl-diskless-sync-delay", "0"))
	}
	for _, r := range s.Servers[1:] {
		wait(tb, "a replica follows its primary", func() bool { return info(r)["master_link_status"] == "up" })
	}
	for range 3 {
		s.Sentinels = append(s.Sentinels, startSentinel(tb, s.Servers[0]))
	}
	for _, r := range s.Sentinels {
		wait(tb, "the sentinels know each other", func() bool {
			known, err := ask(r, redis.NewMapStringStringCmd(tb.Context(), "SENTINEL", "MASTER", masterName))
			return err == nil && known["num-other-sentinels"] == "2" && known["num-slaves"] == fmt.Sprint(replicas)
		})
	}
	return s
}

// startSentinel writes a sentinel's file, which it writes to itself, and starts it.
func startSentinel(tb testing.TB, primary *Redis) *Redis {
	tb.Helper()
	host, port, _ := net.SplitHostPort(primary.Addr)
	return start(tb, func(r *Redis) []string {
		file := filepath.Join(r.dir, "sentinel.conf")
		text := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nloglevel warning\nsentinel monitor %s %s %s 2\n"+
			"sentinel down-after-milliseconds %[3]s %[6]d\nsentinel failover-timeout %[3]s 5000\n",
			r.port, r.dir, masterName, host, port, downAfter.Milliseconds())
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
		return []string{file, "--sentinel"}
	})
}

// Config is how a store finds them.
func (s *Sentinels) Config() store.Config {
	cfg := store.Defaults()
	cfg.Mode, cfg.MasterName, cfg.Addrs = store.Sentinel, masterName, addrs(s.Sentinels)
	return cfg
}

// Primary is the server that the sentinels name and that serves as a primary, once there is one.
func (s *Sentinels) Primary(tb testing.TB) *Redis {
	tb.Helper()
	var primary *Redis
	wait(tb, "there is a primary", func() bool {
		for _, sentinel := range s.Sentinels {
			named, err := ask(sentinel, redis.NewStringSliceCmd(tb.Context(), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName))
			if err != nil || len(named) != 2 {
				continue
			}
			for _, r := range s.Servers {
				if r.Addr == net.JoinHostPort(named[0], named[1]) && info(r)["role"] == "master" {
					primary = r
				}
			}
		}
		return primary != nil
	})
	return primary
}

// Cluster is three primaries with a replica each.
type Cluster struct {
	Servers []*Redis // the first three were the primaries at the start
}

// StartCluster starts six servers, makes them a cluster, and returns when it serves and each primary has its
// replica.
func StartCluster(tb testing.TB) *Cluster {
	tb.Helper()
	c := &Cluster{}
	var bus []string
	for range 6 {
		_, port, _ := net.SplitHostPort(FreeAddr(tb))
		bus = append(bus, port)
		c.Servers = append(c.Servers, Start(tb, "--cluster-enabled", "yes", "--cluster-port", port,
			"--cluster-node-timeout", fmt.Sprint(nodeTimeout.Milliseconds()), "--repl-diskless-sync-delay", "0"))
	}
	for i, r := range c.Servers {
		host, port, _ := net.SplitHostPort(c.Servers[0].Addr)
		do(tb, r, "CLUSTER", "SET-CONFIG-EPOCH", i+1)
		if i > 0 {
			do(tb, r, "CLUSTER", "MEET", host, port, bus[0])
		}
		if i < 3 {
			do(tb, r, "CLUSTER", "ADDSLOTSRANGE", i*16384/3, (i+1)*16384/3-1)
		}
	}
	for i, r := range c.Servers {
		wait(tb, "the servers know each other", func() bool {
			nodes, err := ask(r, redis.NewStringCmd(tb.Context(), "CLUSTER", "NODES"))
			return err == nil && strings.Count(nodes, "connected") == 6 && !strings.Contains(nodes, "handshake")
		})
		if i < 3 {
			continue
		}
		id, err := ask(c.Servers[i-3], redis.NewStringCmd(tb.Context(), "CLUSTER", "MYID"))
		if err != nil {
			tb.Fatal(err)
		}
		do(tb, r, "CLUSTER", "REPLICATE", id)
		wait(tb, "a replica follows its primary", func() bool { return info(r)["master_link_status"] == "up" })
	}
	c.Await(tb)
	return c
}

// Await returns when the servers that answer agree that the cluster serves, and that each of its three parts
// has a replica to fall back on or, after a loss, none.
func (c *Cluster) Await(tb testing.TB) {
	tb.Helper()
	for _, r := range c.Servers {
		wait(tb, "the cluster serves", func() bool {
			if !r.running() {
				return true
			}
			state, err := ask(r, redis.NewStringCmd(tb.Context(), "CLUSTER", "INFO"))
			return err == nil && strings.Contains(state, "cluster_state:ok") && strings.Contains(state, "cluster_slots_ok:16384")
		})
	}
}

// Config is how a store finds them.
func (c *Cluster) Config() store.Config {
	cfg := store.Defaults()
	cfg.Mode, cfg.Addrs = store.Cluster, addrs(c.Servers)
	return cfg
}

// PrimaryOf is the server that serves a key, by the word of a server that answers.
func (c *Cluster) PrimaryOf(tb testing.TB, key string) *Redis {
	tb.Helper()
	var primary *Redis
	wait(tb, "a primary serves "+key, func() bool {
		for _, r := range c.Servers {
			slot, err := ask(r, redis.NewIntCmd(tb.Context(), "CLUSTER", "KEYSLOT", key))
			if err != nil {
				continue
			}
			slots, err := ask(r, redis.NewClusterSlotsCmd(tb.Context(), "CLUSTER", "SLOTS"))
			if err != nil {
				continue
			}
			for _, s := range slots {
				for _, other := range c.Servers {
					if int(slot) >= s.Start && int(slot) <= s.End && other.Addr == s.Nodes[0].Addr && info(other)["role"] == "master" {
						primary = other
					}
				}
			}
		}
		return primary != nil
	})
	return primary
}

func addrs(servers []*Redis) (out []string) {
	for _, r := range servers {
		out = append(out, r.Addr)
	}
	return out
}

var errKilled = errors.New("storetest: the server was killed")

// ask sends a server one command on a connection of its own; one that is paused fails in good time.
func ask[T any](r *Redis, cmd interface {
	redis.Cmder
	Result() (T, error)
}) (T, error) {
	if !r.running() {
		cmd.SetErr(errKilled)
		return cmd.Result()
	}
	c := redis.NewClient(&redis.Options{Addr: r.Addr, DialTimeout: time.Second, ReadTimeout: time.Second, MaxRetries: -1, DialerRetries: 1, PoolSize: 1})
	defer c.Close()
	_ = c.Process(context.Background(), cmd) // the command has its error
	return cmd.Result()
}

func do(tb testing.TB, r *Redis, args ...any) {
	tb.Helper()
	if _, err := ask(r, redis.NewCmd(tb.Context(), args...)); err != nil {
		tb.Fatalf("%v: %v", args, err)
	}
}

// info is what a server says of its replication; nothing when it does not answer.
func info(r *Redis) map[string]string {
	text, _ := ask(r, redis.NewStringCmd(context.Background(), "INFO", "replication"))
	out := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			out[name] = value
		}
	}
	return out
}

// wait polls a state of other processes, which can only be asked for.
func wait(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; !holds(); <-tick.C {
		if time.Now().After(deadline) {
			tb.Fatalf("not in %v: %s", patience, what)
		}
	}
}
