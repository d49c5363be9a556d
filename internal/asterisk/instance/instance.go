// Package instance runs an Asterisk of its own on loopback: one process, on free ports, with the configuration
// that the documentation tells to paste. The demo and the tests play with it.
package instance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrAbsent says that the script or what it fetches is not there.
var ErrAbsent = errors.New("there is no Asterisk to start")

// Config says what is started.
type Config struct {
	// Setup is the script deploy/asterisk/setup.
	Setup string
	// Dir becomes the run folder: configuration is in etc/, prompts in sounds/.
	Dir string
	// Node is the gateway whose application, "hotline-" and its name, gets the calls.
	Node string
	// Carrier is host:port of where calls to the trunk "carrier" go; empty is to be said by [Server.Carrier].
	Carrier string
}

// Server is an Asterisk. Its methods are for one goroutine, but Done, Log and Command for any.
type Server struct {
	URL    string // of ARI
	SIP    string // host:port
	Dir    string
	User   string
	Secret string // of ARI's user and of every phone

	program string
	carrier string
	cmd     *exec.Cmd
	done    chan struct{}
	ari     http.Client
}

// What stands in the configuration to be pasted.
const (
	userInFile    = "hotline"
	secretInFile  = "change-me"
	nodeInFile    = "hotline-node1"
	carrierInFile = "sip:127.0.0.1:5070"
)

// RTPPorts is how many ports an Asterisk has for sound: two a channel, for 300 of them.
const RTPPorts = 600

// New writes the run folder of an Asterisk that was fetched before, and starts nothing. It fails with [ErrAbsent]
// where none was.
func New(cfg Config) (*Server, error) {
	program, err := run(cfg.Setup, "path")
	if err != nil {
		return nil, fmt.Errorf("%w: %w; run deploy/asterisk/setup once, which fetches one and installs nothing", ErrAbsent, err)
	}
	sip, err := freePort("udp")
	if err != nil {
		return nil, err
	}
	ari, err := freePort("tcp")
	if err != nil {
		return nil, err
	}
	low := 30000 + RTPPorts*(sip%50)
	_, err = run(cfg.Setup, "instance", cfg.Dir, strconv.Itoa(sip), strconv.Itoa(ari), strconv.Itoa(low), strconv.Itoa(low+RTPPorts-1))
	if err != nil {
		return nil, err
	}
	s := &Server{program: program, Dir: cfg.Dir, User: userInFile, Secret: secretInFile, carrier: carrierInFile,
		URL: fmt.Sprintf("http://127.0.0.1:%d/ari", ari), SIP: fmt.Sprintf("127.0.0.1:%d", sip),
		ari: http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	err = s.Edit("extensions.conf", nodeInFile, "hotline-"+cfg.Node)
	if err == nil && cfg.Carrier != "" {
		err = s.Carrier(cfg.Carrier)
	}
	return s, err
}

// Carrier says where calls to the trunk go. An Asterisk that runs is told.
func (s *Server) Carrier(to string) error {
	if err := s.Edit("pjsip.conf", s.carrier, "sip:"+to); err != nil {
		return err
	}
	s.carrier = "sip:" + to
	if s.cmd == nil {
		return nil
	}
	return s.Command("module reload res_pjsip.so")
}

// Edit replaces a text in a file of the configuration, which must hold it.
func (s *Server) Edit(name, old, text string) error {
	path := filepath.Join(s.Dir, "etc", name)
	src, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Contains(src, []byte(old)) {
		return fmt.Errorf("instance: %s has no %q", name, old)
	}
	return os.WriteFile(path, bytes.ReplaceAll(src, []byte(old), []byte(text)), 0o600)
}

// bootTime bounds the start of the process.
const bootTime = 30 * time.Second

// Boot starts the process and waits until it serves.
func (s *Server) Boot(ctx context.Context) error {
	cmd, done := exec.Command(s.program, "-f", "-C", s.conf()), make(chan struct{})
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("instance: %w", err)
	}
	s.cmd, s.done = cmd, done
	go func() {
		_ = cmd.Wait() // how a killed process ended says nothing
		close(done)
	}()
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	for !s.serves(ctx) {
		select {
		case <-done:
			return fmt.Errorf("instance: Asterisk ended at once: %s", s.Log())
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("instance: Asterisk does not serve: %w: %s", context.Cause(ctx), s.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (s *Server) conf() string { return filepath.Join(s.Dir, "etc", "asterisk.conf") }

// serves tells whether ARI answers and all modules run.
func (s *Server) serves(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/asterisk/info", nil)
	if err != nil {
		return false
	}
	req.SetBasicAuth(s.User, s.Secret)
	res, err := s.ari.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	return res.StatusCode == http.StatusOK && s.Command("core waitfullybooted") == nil
}

// Command runs a command of Asterisk's own command line.
func (s *Server) Command(line string) error {
	_, err := run(s.program, "-C", s.conf(), "-rx", line)
	return err
}

// Log is Asterisk's own log, or why it cannot be read.
func (s *Server) Log() string {
	b, err := os.ReadFile(filepath.Join(s.Dir, "log", "messages.log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Done is closed when the process that was started last has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// Kill ends the process at once, as a crash would, if there is one.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
}

// Signal sends a signal, such as SIGSTOP.
func (s *Server) Signal(sig syscall.Signal) error { return s.cmd.Process.Signal(sig) }

func run(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// ports are those that this process was given, so that none is given twice.
var ports sync.Map

func freePort(network string) (int, error) {
	for range 100 {
		var port int
		if network == "udp" {
			c, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				return 0, fmt.Errorf("instance: %w", err)
			}
			port = c.LocalAddr().(*net.UDPAddr).Port
			_ = c.Close()
		} else {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return 0, fmt.Errorf("instance: %w", err)
			}
			port = l.Addr().(*net.TCPAddr).Port
			_ = l.Close()
		}
		if _, taken := ports.LoadOrStore(fmt.Sprint(network, port), true); !taken {
			return port, nil
		}
	}
	return 0, fmt.Errorf("instance: there is no free %s port", network)
}
