package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Server is what a Redis says of itself that its operator must have set right.
type Server struct {
	Version   string
	MaxMemory int64  // bytes; 0 is no bound
	Policy    string // what it does at the bound: maxmemory-policy
	AOF       bool   // it writes what it is told to disk as it comes
	Role      string // master or slave
	Replicas  int    // that are connected
}

// Server asks Redis about itself; of a cluster one of its servers answers.
func (s *Store) Server(ctx context.Context) (Server, error) {
	text, err := s.slow.Info(ctx).Result()
	if err != nil {
		return Server{}, fmt.Errorf("ask redis about itself: %w", err)
	}
	said := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		said[key] = value
	}
	memory, _ := strconv.ParseInt(said["maxmemory"], 10, 64) // what is not said is 0
	replicas, _ := strconv.Atoi(said["connected_slaves"])
	return Server{Version: said["redis_version"], MaxMemory: memory, Policy: said["maxmemory_policy"],
		AOF: said["aof_enabled"] == "1", Role: said["role"], Replicas: replicas}, nil
}
