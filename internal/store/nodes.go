package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// The bounds of the list of nodes.
const (
	maxNodes     = 64
	maxNodeBytes = 4096
	aliveFor     = 4 * time.Second    // since a node was seen
	forgetAfter  = 7 * 24 * time.Hour // since it was seen: then it drops out
)

// What the list of nodes refuses.
var (
	ErrNodesFull   = errors.New("store: the list of nodes is full")
	ErrNodeAlive   = errors.New("store: the node lives")
	ErrNodeUnknown = errors.New("store: there is no such node")
)

var nodeName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Node is a gateway of the cluster, as it speaks of itself with each heartbeat.
type Node struct {
	Name       string    `json:"name"`
	Version    string    `json:"version"`
	Schema     int       `json:"schema"` // the form of what gateways share; two forms cannot stand side by side
	API        string    `json:"api"`    // where peers reach its API, as a URL
	SIP        string    `json:"sip"`    // where peers send SIP, host:port; "" takes none
	Started    time.Time `json:"started"`
	ConfigHash string    `json:"config_hash"`
	PolicyHash string    `json:"policy_hash"`
	Draining   bool      `json:"draining"`
	Calls      int       `json:"calls"`

	// Seen and Alive are the list's word, by Redis' clock; what a node says of them is passed over.
	Seen  time.Time `json:"seen"`
	Alive bool      `json:"alive"` // seen in the last 4 s
}

// Nodes is the list of the cluster's gateways, kept in Redis.
//
//	hotline:{nodes}:seen  zset  node by the ms it was last seen
//	hotline:{nodes}:said  hash  node -> what it says of itself, JSON
type Nodes struct {
	client       redis.UniversalClient
	beat, forget *redis.Script
}

const (
	keyNodesSeen = "hotline:{nodes}:seen"
	keyNodesSaid = "hotline:{nodes}:said"
)

// NewNodes makes the list.
func NewNodes(s *Store) *Nodes {
	return &Nodes{client: s.Blocking(), beat: s.own("nodes_beat"), forget: s.own("nodes_forget")}
}

// Beat says that a node lives and what it says of itself, and returns all nodes by name, this one too.
// It waits for Redis as long as ctx and the patient time-outs let it.
func (n *Nodes) Beat(ctx context.Context, self Node) ([]Node, error) {
	said, err := json.Marshal(self)
	if err != nil {
		return nil, fmt.Errorf("store: node %s: %w", self.Name, err)
	}
	if !nodeName.MatchString(self.Name) || len(said) > maxNodeBytes {
		return nil, fmt.Errorf("store: node %q: a name is 1 to 64 letters, digits, '.', '-', '_', and all it says %d bytes at most", self.Name, maxNodeBytes)
	}
	return n.run(ctx, self.Name, said)
}

// List returns all nodes by name.
func (n *Nodes) List(ctx context.Context) ([]Node, error) { return n.run(ctx, "", nil) }

func (n *Nodes) run(ctx context.Context, name string, said []byte) ([]Node, error) {
	reply, err := n.beat.Run(ctx, n.client, []string{keyNodesSeen, keyNodesSaid}, name, said, maxNodes, forgetAfter.Milliseconds()).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("list the nodes: %w", named(err, "NODESFULL", ErrNodesFull))
	}
	now, _ := strconv.ParseInt(reply[0], 10, 64)
	var all []Node
	for row := range slices.Chunk(reply[1:], 3) {
		var node Node
		if err := json.Unmarshal([]byte(row[2]), &node); err != nil {
			return nil, fmt.Errorf("store: node %s is not readable: %w", row[0], err)
		}
		seen, _ := strconv.ParseFloat(row[1], 64) // a score; some versions of Redis write 1.7e+12
		node.Name, node.Seen = row[0], time.UnixMilli(int64(seen))
		node.Alive = now-int64(seen) <= aliveFor.Milliseconds()
		all = append(all, node)
	}
	slices.SortFunc(all, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Forget takes a node off the list. It refuses one that lives with [ErrNodeAlive].
func (n *Nodes) Forget(ctx context.Context, name string) error {
	done, err := n.forget.Run(ctx, n.client, []string{keyNodesSeen, keyNodesSaid}, name, aliveFor.Milliseconds()).Int()
	switch {
	case err != nil:
		return fmt.Errorf("forget node %q: %w", name, err)
	case done == 0:
		return fmt.Errorf("forget node %q: %w", name, ErrNodeAlive)
	case done < 0:
		return fmt.Errorf("forget node %q: %w", name, ErrNodeUnknown)
	}
	return nil
}
