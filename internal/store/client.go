package store

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// lookTimeout bounds how long one server of a cluster is waited for when it is asked how the cluster stands:
// another will know.
const lookTimeout = 75 * time.Millisecond

func options(cfg Config) (*redis.UniversalOptions, error) {
	password, err := secret("password_file", cfg.PasswordFile)
	if err != nil {
		return nil, err
	}
	sentinelPassword, err := secret("sentinel_password_file", cfg.SentinelPasswordFile)
	if err != nil {
		return nil, err
	}
	tlsConf, err := cfg.TLS.load()
	if err != nil {
		return nil, err
	}
	return &redis.UniversalOptions{
		Addrs: cfg.Addrs, DB: cfg.DB, TLSConfig: tlsConf, MasterName: cfg.MasterName,
		Username: cfg.Username, Password: password,
		SentinelUsername: cfg.SentinelUsername, SentinelPassword: sentinelPassword,
		PoolSize:              cfg.PoolSize,
		ContextTimeoutEnabled: true,
		MaxRetries:            -1, // a script that timed out may have run: trying again is its owner's choice
		DialerRetries:         1,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}, nil
}

// newClient makes a client with one time-out for each dial, read and write.
func newClient(mode Mode, opts redis.UniversalOptions, timeout time.Duration) redis.UniversalClient {
	opts.DialTimeout, opts.ReadTimeout, opts.WriteTimeout, opts.PoolTimeout = timeout, timeout, timeout, timeout
	switch mode {
	case Sentinel:
		return redis.NewFailoverClient(opts.Failover())
	case Cluster:
		cluster := opts.Cluster()
		cluster.Dialer = dialOnce(opts.TLSConfig, timeout)
		cluster.NewClient = func(o *redis.Options) *redis.Client {
			c := redis.NewClient(o)
			c.AddHook(look{})
			return c
		}
		return redis.NewClusterClient(cluster)
	default:
		return redis.NewClient(opts.Simple())
	}
}

// look bounds the question how a cluster stands.
type look struct{}

func (look) DialHook(next redis.DialHook) redis.DialHook { return next }

func (look) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "cluster" {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, lookTimeout)
			defer cancel()
		}
		return next(ctx, cmd)
	}
}

func (look) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// dialOnce keeps the cluster's client from sending a command again that may have run. It takes no MaxRetries:
// what it may redirect it also repeats, when it knows the error for one of the network's. Behind a connection
// that gives it none of those it still follows MOVED and ASK, which say that nothing has run.
func dialOnce(conf *tls.Config, timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	tcp := &net.Dialer{Timeout: timeout}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if conf != nil {
			conn, err := (&tls.Dialer{NetDialer: tcp, Config: conf}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, lost{err}
			}
			return once{conn}, nil
		}
		conn, err := tcp.DialContext(ctx, network, addr)
		if err != nil {
			return nil, lost{err}
		}
		return tcpOnce{once{conn}, conn.(*net.TCPConn)}, nil
	}
}

type once struct{ net.Conn }

func (c once) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, hide(err)
}

func (c once) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, hide(err)
}

// tcpOnce lets the pool see whether an idle connection was closed by the other side.
type tcpOnce struct {
	once
	tcp *net.TCPConn
}

func (c tcpOnce) SyscallConn() (syscall.RawConn, error) { return c.tcp.SyscallConn() }

func hide(err error) error {
	if err == nil {
		return nil
	}
	return lost{err}
}

// lost is an error of a connection that is not known for one. It is not unwrapped on purpose.
type lost struct{ err error }

func (l lost) Error() string { return l.err.Error() }
