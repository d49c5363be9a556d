package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

var (
	errReplica = errors.New("store: the server is a replica, which must not be written to")
	errCluster = errors.New("store: a part of the cluster serves nobody")
)

// ask asks Redis whether it serves, each primary of a cluster, and which it is. A cluster of which a part is
// lost is away as a whole: rooms that go on with some numbers and not with others would be hard to foresee.
func (s *Store) ask(ctx context.Context, client redis.UniversalClient) (generation string, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		return s.askServer(ctx, client)
	}
	var mu sync.Mutex
	var all []string
	// It looks at the cluster anew, which the client by itself does once a minute or when it is redirected: a
	// primary that is dead redirects nobody.
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		one, err := s.askServer(ctx, c)
		if err != nil {
			return err
		}
		state, err := c.ClusterInfo(ctx).Result()
		if err == nil && !strings.Contains(state, "cluster_state:ok") {
			err = errCluster
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, one)
		return err
	})
	slices.Sort(all)
	return strings.Join(all, " "), err
}

// askServer asks one server. Its replication id changes when it starts and when it is promoted.
func (s *Store) askServer(ctx context.Context, c redis.Cmdable) (generation string, err error) {
	if err := c.Ping(ctx).Err(); err != nil || s.Embedded() {
		return "", err
	}
	text, err := c.Info(pass(ctx), "replication").Result()
	if err != nil {
		if Away(err) {
			return "", err
		}
		return "", nil // the user may not INFO
	}
	for line := range strings.Lines(text) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), ":"); name {
		case "role":
			if value != "master" {
				return "", errReplica
			}
		case "master_replid":
			generation = value
		}
	}
	return generation, nil
}
