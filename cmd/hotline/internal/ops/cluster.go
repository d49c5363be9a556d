package ops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// ClusterInputs is what the doctor looks at of a gateway that has others beside it.
type ClusterInputs struct {
	SecretFile string
	Config     string // the hash of this gateway's shared settings
	Policy     string // and of its policy of Article 29
	TLS        bool   // gateways prove themselves by certificates
	Peers      func(context.Context) ([]PeerNode, error)
}

// PeerNode is another gateway, as it spoke of itself last.
type PeerNode struct {
	Name, Version, Config, Policy string
	API, SIP                      string // where it is reached: a URL, and host:port
	Alive                         bool
}

// RedisServer is what a Redis says of itself.
type RedisServer struct {
	Policy    string // maxmemory-policy
	MaxMemory int64
	AOF       bool
	Spare     bool // another server takes over when it dies
}

const aloneText = "this gateway stands alone"

// lookKeeping looks at what Redis does when it is full and when it is restarted.
func lookKeeping(ctx context.Context, in Inputs) (Level, string, string) {
	if in.RedisServer == nil {
		return Skipped, "the embedded store is used", ""
	}
	r, err := in.RedisServer(ctx)
	if err != nil {
		return Warn, err.Error(), "Look at the finding redis; allow the gateway's user to ask INFO."
	}
	detail := fmt.Sprintf("maxmemory-policy %s, maxmemory %d, appendonly %t", r.Policy, r.MaxMemory, r.AOF)
	switch {
	case r.Policy != "noeviction" && r.MaxMemory > 0:
		return Bad, detail, "Set maxmemory-policy noeviction: what Redis drops to make room is a waiting caller or an agent."
	case r.Policy != "noeviction":
		return Warn, detail, "Set maxmemory-policy noeviction before somebody sets maxmemory."
	case !r.AOF:
		return Warn, detail, "Set appendonly yes: after a restart the gateways tell Redis of their calls and agents again, but it has lost its counters of watched callers."
	}
	return Well, detail, ""
}

// lookSpare looks at what happens to several gateways when their one Redis dies.
func lookSpare(ctx context.Context, in Inputs) (Level, string, string) {
	if in.Cluster == nil {
		return Skipped, aloneText, ""
	}
	r, err := in.RedisServer(ctx)
	if err != nil {
		return Warn, err.Error(), "Look at the finding redis."
	}
	if !r.Spare {
		return Warn, "one server, nothing takes over", "Run Redis with sentinels or as a cluster (store.mode): while the one server is down each gateway queues alone."
	}
	return Well, "", ""
}

// lookSecret holds the cluster's secret to what only the gateway's user may read.
func lookSecret(_ context.Context, in Inputs) (Level, string, string) {
	if in.Cluster == nil {
		return Skipped, aloneText, ""
	}
	file := in.Cluster.SecretFile
	info, err := os.Stat(file)
	if err != nil {
		return Bad, err.Error(), fmt.Sprintf("Make it once and give it to every gateway: head -c 32 /dev/urandom | base64 > %s", file)
	}
	switch open := info.Mode().Perm() & 0o077; {
	case info.Size() < 32:
		return Bad, fmt.Sprintf("%s has %d bytes", file, info.Size()), "Write 32 random bytes or more, the same at every gateway."
	case open != 0:
		return Bad, fmt.Sprintf("%s may be used by others than its owner (%s)", file, info.Mode().Perm()), fmt.Sprintf("chmod 600 %s: who reads it can act as a gateway.", file)
	}
	if !in.Cluster.TLS {
		return Warn, "what gateways say is sealed with the secret, but neither end shows a certificate", "Set nodes.tls and sip.nodes.tls where the network between the gateways is not the agency's own."
	}
	return Well, "", ""
}

// dialPeer bounds one try to reach another gateway.
const dialPeer = time.Second

// lookPeers tries to reach the other gateways, where they are asked and where they take calls.
func lookPeers(ctx context.Context, in Inputs) (Level, string, string) {
	peers, level, detail, mend := in.peers(ctx)
	if level != Well {
		return level, detail, mend
	}
	var wrong []string
	for _, p := range peers {
		if !p.Alive {
			wrong = append(wrong, p.Name+" is absent")
			continue
		}
		for what, addr := range map[string]string{"API": hostOf(p.API), "SIP": p.SIP} {
			if err := reach(ctx, addr); err != nil {
				wrong = append(wrong, fmt.Sprintf("%s: %s at %s: %v", p.Name, what, addr, err))
			}
		}
	}
	if len(wrong) > 0 {
		return Warn, strings.Join(wrong, "; "), "Start what is absent (or hotline node forget NAME), and open TCP to nodes.listen and sip.nodes.listen between all gateways."
	}
	return Well, fmt.Sprintf("%d others", len(peers)), ""
}

// lookAlike compares this gateway's settings with those of the others.
func lookAlike(ctx context.Context, in Inputs) (Level, string, string) {
	peers, level, detail, mend := in.peers(ctx)
	if level != Well {
		return level, detail, mend
	}
	var config, policy []string
	for _, p := range peers {
		if p.Alive && p.Config != in.Cluster.Config {
			config = append(config, p.Name)
		}
		if p.Alive && p.Policy != in.Cluster.Policy {
			policy = append(policy, p.Name)
		}
	}
	switch {
	case len(policy) > 0:
		return Bad, "the policy of Article 29 differs from that of " + strings.Join(policy, ", "), "Give all gateways the same abuse.policy_file: callers must be judged alike."
	case len(config) > 0:
		return Warn, "the settings differ from those of " + strings.Join(config, ", "), "Compare hotline config effective at each; while an upgrade goes on this is right."
	}
	return Well, fmt.Sprintf("with %d others", len(peers)), ""
}

// peers is the other gateways, or why there are none to look at.
func (in Inputs) peers(ctx context.Context) ([]PeerNode, Level, string, string) {
	if in.Cluster == nil {
		return nil, Skipped, aloneText, ""
	}
	peers, err := in.Cluster.Peers(ctx)
	if err != nil {
		return nil, Warn, err.Error(), "Look at the finding redis."
	}
	return peers, Well, "", ""
}

func reach(ctx context.Context, addr string) error {
	if addr == "" {
		return fmt.Errorf("names no address: %w", fs.ErrNotExist)
	}
	d := net.Dialer{Timeout: dialPeer}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			return op.Err
		}
		return err
	}
	return conn.Close()
}

func hostOf(api string) string {
	u, err := url.Parse(api)
	if err != nil {
		return ""
	}
	return u.Host
}
