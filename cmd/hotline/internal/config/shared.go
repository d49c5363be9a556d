package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/hotline12345/gateway/configs/policy"
)

// ownSections are the sections of one gateway alone, and ownKeys the keys of the others that name its
// places on its machine: in them the gateways of a cluster may differ.
var (
	ownSections = []string{"data", "drain_for", "log_level", "store", "nodes", "http", "console", "journal", "audit"}
	ownKeys     = []string{"node", "listen", "dir", "spool_dir", "flows", "audio_url", "port_min", "port_max", "sounds_dir", "sounds_path", "media_addr", "application"}
)

// Hash is equal at all gateways whose callers are treated alike: a hash of all settings but those of the
// gateway itself, and of the flows.
func (c Config) Hash() (string, error) {
	var all map[string]any
	b, err := yaml.Marshal(c)
	if err == nil {
		err = yaml.Unmarshal(b, &all)
	}
	if err != nil {
		return "", fmt.Errorf("config: hash: %w", err)
	}
	for _, own := range ownSections {
		delete(all, own)
	}
	dropOwn(all)
	if all["flows"], err = c.flows(); err != nil {
		return "", err
	}
	b, err = json.Marshal(all) // keys in order
	if err != nil {
		return "", fmt.Errorf("config: hash: %w", err)
	}
	return digest(b), nil
}

// dropOwn takes the gateway's own keys out, at every depth.
func dropOwn(v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, below := range v {
			if slices.Contains(ownKeys, key) || strings.HasSuffix(key, "_file") {
				delete(v, key)
				continue
			}
			dropOwn(below)
		}
	case []any:
		for _, below := range v {
			dropOwn(below)
		}
	}
}

// flows are the digests of the flows by file; those that are built in come with the version.
func (c Config) flows() (map[string]string, error) {
	if c.IVR.Flows == "" {
		return nil, nil
	}
	dir := os.DirFS(c.IVR.Flows)
	files, err := fs.Glob(dir, "*.yaml")
	out := map[string]string{}
	for _, file := range files {
		b, readErr := fs.ReadFile(dir, file)
		err = errors.Join(err, readErr)
		out[file] = digest(b)
	}
	if err != nil {
		return nil, fmt.Errorf("ivr.flows: %w", err)
	}
	return out, nil
}

// PolicyHash is equal at all gateways that judge callers alike.
func (c Config) PolicyHash() (string, error) {
	if c.Abuse.PolicyFile == "" {
		return digest(policy.Art29), nil
	}
	b, err := os.ReadFile(c.Abuse.PolicyFile)
	if err != nil {
		return "", fmt.Errorf("abuse.policy_file: %w", err)
	}
	return digest(b), nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
