package store

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/trust"
)

// Mode is how Redis is deployed.
type Mode string

// The modes.
const (
	Single   Mode = "single"   // one server
	Sentinel Mode = "sentinel" // a primary found through sentinels
	Cluster  Mode = "cluster"  // a cluster; each room keeps its keys in one slot by a hash tag
)

// Config says where Redis is. No address means the embedded server.
type Config struct {
	Addrs                []string `yaml:"addrs"`       // host:port; of the sentinels in sentinel mode
	Mode                 Mode     `yaml:"mode"`        // default single
	MasterName           string   `yaml:"master_name"` // sentinel mode only
	Username             string   `yaml:"username"`
	PasswordFile         string   `yaml:"password_file"`
	SentinelUsername     string   `yaml:"sentinel_username"`
	SentinelPasswordFile string   `yaml:"sentinel_password_file"`
	DB                   int      `yaml:"db"` // 0 to 15; 0 in cluster mode
	TLS                  TLS      `yaml:"tls"`

	// Timeout bounds each dial, read and write of what a call waits for: 1 ms to 1 s, default 20 ms.
	Timeout time.Duration `yaml:"timeout"`
	// SlowTimeout bounds those of blocking reads and slow jobs: at least Timeout, default 2 s.
	SlowTimeout time.Duration `yaml:"slow_timeout"`
	// PoolSize is the most connections a client and server, 1 to 1000; default 32.
	PoolSize int `yaml:"pool_size"`
}

// TLS is how the connection is encrypted.
type TLS struct {
	Enabled    bool   `yaml:"enabled"`
	CAFile     string `yaml:"ca_file"` // PEM; empty trusts the system's authorities
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"` // empty takes the host of the address
}

// Defaults is the embedded server.
func Defaults() Config {
	return Config{Mode: Single, Timeout: 20 * time.Millisecond, SlowTimeout: 2 * time.Second, PoolSize: 32}
}

// Embedded tells whether the server runs in this process.
func (c Config) Embedded() bool { return len(c.Addrs) == 0 }

// Validate checks all and joins what is wrong.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for i, a := range c.Addrs {
		if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
			bad("addrs[%d]: %q is not host:port; write it as 10.0.0.5:6379", i, a)
		}
	}
	switch c.Mode {
	case Single:
		if len(c.Addrs) > 1 {
			bad("addrs: single mode has one server, not %d; set mode to sentinel or cluster, or keep one", len(c.Addrs))
		}
	case Sentinel:
		if c.MasterName == "" {
			bad("master_name: sentinel mode needs the primary's name; write it as the sentinels know it, e.g. hotline")
		}
	case Cluster:
		if c.DB != 0 {
			bad("db: a cluster has database 0 alone; write 0 or remove it")
		}
	default:
		bad("mode: %q is no mode; write single, sentinel or cluster", c.Mode)
	}
	if c.Mode != Single && c.Embedded() {
		bad("addrs: %s mode needs addresses; write at least one host:port", c.Mode)
	}
	if c.DB < 0 || c.DB > 15 {
		bad("db: %d is out of range; write 0 to 15", c.DB)
	}
	if c.Timeout < time.Millisecond || c.Timeout > time.Second {
		bad("timeout: %v is out of range; write 1ms to 1s, e.g. 20ms", c.Timeout)
	}
	if c.SlowTimeout < c.Timeout {
		bad("slow_timeout: %v is below timeout; write %v or more, e.g. 2s", c.SlowTimeout, c.Timeout)
	}
	if c.PoolSize < 1 || c.PoolSize > 1000 {
		bad("pool_size: %d is out of range; write 1 to 1000, e.g. 32", c.PoolSize)
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		bad("tls: cert_file and key_file go together; write both or neither")
	}
	return errors.Join(errs...)
}

// load makes the TLS settings; nil when TLS is off.
func (t TLS) load() (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	conf := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		roots, err := trust.Roots(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls.ca_file: %w", err)
		}
		conf.RootCAs = roots
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls.cert_file: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// secret reads a password file, without its line's end. An empty path is no password.
func secret(field, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}
