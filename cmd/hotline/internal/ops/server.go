// Package ops is what operators see of the process: the HTTP server that the console, the metrics and
// the health answers stand on, the health of the node's parts, the doctor, and the runtime's settings.
package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is the HTTP server's part of the configuration.
type Config struct {
	// Listen is the address that is served, host:port.
	Listen string `yaml:"listen" json:"listen"`
	// CertFile and KeyFile make it HTTPS; give both or none.
	CertFile string `yaml:"cert_file" json:"cert_file"`
	KeyFile  string `yaml:"key_file" json:"key_file"`
	// ReadTimeout is the longest that a request and its body may take to come, 1s to 5m.
	ReadTimeout time.Duration `yaml:"read_timeout" json:"read_timeout"`
	// WriteTimeout is the longest that an answer may take, 1s to 1h. A live page and a recording
	// set their own for each piece that they send.
	WriteTimeout time.Duration `yaml:"write_timeout" json:"write_timeout"`
	// Connections bounds the open connections, 10 to 100000. Calls need file descriptors too, so
	// one connection more is closed at once and counted.
	Connections int `yaml:"connections" json:"connections"`
	// MaxBody bounds a request's body in bytes, 64 KiB to 64 MiB.
	MaxBody int64 `yaml:"max_body" json:"max_body"`
}

const (
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeader         = 16 << 10
	shutdownTimeout   = 5 * time.Second
)

// Defaults are the settings that need no file.
func Defaults() Config {
	return Config{Listen: "127.0.0.1:8080", ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute,
		Connections: 1000, MaxBody: 1 << 20}
}

// Validate says what is wrong and what to write instead.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		bad("listen: %q is no address; write host:port, such as 127.0.0.1:8080", c.Listen)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		bad("cert_file: cert_file and key_file belong together; write both, or none for plain HTTP")
	}
	if c.ReadTimeout < time.Second || c.ReadTimeout > 5*time.Minute {
		bad("read_timeout: %s is out of range; write 1s to 5m", c.ReadTimeout)
	}
	if c.WriteTimeout < time.Second || c.WriteTimeout > time.Hour {
		bad("write_timeout: %s is out of range; write 1s to 1h", c.WriteTimeout)
	}
	if c.Connections < 10 || c.Connections > 100_000 {
		bad("connections: %d is out of range; write 10 to 100000", c.Connections)
	}
	if c.MaxBody < 64<<10 || c.MaxBody > 64<<20 {
		bad("max_body: %d is out of range; write 65536 to 67108864 bytes", c.MaxBody)
	}
	return errors.Join(errs...)
}

// Server serves HTTP within the bounds of its configuration.
type Server struct {
	cfg     Config
	http    *http.Server
	refused prometheus.Counter
	open    prometheus.Gauge
	ln      net.Listener
}

// NewServer makes a server. A nil registerer registers no metrics.
func NewServer(cfg Config, h http.Handler, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg,
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "hotline_http_connections_refused_total",
			Help: "HTTP connections closed at once because as many as allowed were open."}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "hotline_http_connections",
			Help: "HTTP connections that are open."})}
	if reg != nil {
		reg.MustRegister(s.refused, s.open)
	}
	s.http = &http.Server{Handler: http.MaxBytesHandler(h, cfg.MaxBody), ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout: cfg.ReadTimeout, WriteTimeout: cfg.WriteTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	return s, nil
}

// Listen takes the address, so that one in use is known before anything else starts.
func (s *Server) Listen(ctx context.Context) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("ops: listen: %w", err)
	}
	s.ln = &bounded{Listener: ln, room: make(chan struct{}, s.cfg.Connections), refused: s.refused, open: s.open}
	return nil
}

// Close gives the address back when Run was never called; after Run it does nothing.
func (s *Server) Close() error {
	if err := s.ln.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Addr is the address that Listen took.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Run serves until ctx ends, and then gives running requests a few seconds. Listen comes before.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() {
		if s.cfg.CertFile != "" {
			served <- s.http.ServeTLS(s.ln, s.cfg.CertFile, s.cfg.KeyFile)
			return
		}
		served <- s.http.Serve(s.ln)
	}()
	select {
	case err := <-served:
		return fmt.Errorf("ops: serve: %w", err)
	case <-ctx.Done():
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := s.http.Shutdown(wait)
	if err != nil {
		err = s.http.Close() // what is still open has had its time
	}
	<-served //nolint:errcheck // that the server was closed
	return err
}

// bounded closes at once what would be a connection too many.
type bounded struct {
	net.Listener
	room    chan struct{}
	refused prometheus.Counter
	open    prometheus.Gauge
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.room <- struct{}{}:
			b.open.Inc()
			return &counted{Conn: conn, leave: sync.OnceFunc(func() { <-b.room; b.open.Dec() })}, nil
		default:
			b.refused.Inc()
			_ = conn.Close() // it was refused: how it ends is of no matter
		}
	}
}

// counted is a connection that gives its room back.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}
