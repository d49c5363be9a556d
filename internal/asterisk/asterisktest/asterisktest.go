// Package asterisktest runs a real Asterisk for a test: one process, on ports of its own, with the
// configuration that the documentation tells to paste.
package asterisktest

import (
	"bytes"
	"context"
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
	"testing"
	"time"
)

// Server is an Asterisk.
type Server struct {
	URL    string // of ARI
	SIP    string // host:port
	Dir    string // its run folder; configuration is in etc/, prompts in sounds/
	User   string
	Secret string // of ARI's user and of every phone

	t       *testing.T
	program string
	carrier string
	cmd     *exec.Cmd
	done    chan struct{}
}

// Start starts an Asterisk, which ends with the test. node is the gateway whose application gets the calls;
// carrier is where calls to trunks go. Without Asterisk the test is skipped, and fails when CI is true.
func Start(t *testing.T, node, carrier string) *Server {
	t.Helper()
	setup := filepath.Join(root(t), "deploy", "asterisk", "setup")
	program, err := run(setup)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("Asterisk cannot be had: %v", err)
		}
		t.Skipf("Asterisk cannot be had: %v", err)
	}
	sip, ari := freePort(t, "udp"), freePort(t, "tcp")
	low := 30000 + 200*(sip%100)
	s := &Server{t: t, program: program, Dir: filepath.Join(t.TempDir(), "asterisk"), User: "hotline", Secret: "change-me",
		URL: fmt.Sprintf("http://127.0.0.1:%d/ari", ari), SIP: fmt.Sprintf("127.0.0.1:%d", sip)}
	if _, err := run(setup, "instance", s.Dir, strconv.Itoa(sip), strconv.Itoa(ari), strconv.Itoa(low), strconv.Itoa(low+199)); err != nil {
		t.Fatal(err)
	}
	s.edit("extensions.conf", "hotline-node1", "hotline-"+node)
	s.edit("pjsip.conf", carrierInFile, "sip:"+carrier)
	s.carrier = "sip:" + carrier
	s.Boot()
	t.Cleanup(s.Kill)
	return s
}

// carrierInFile is where the pasted configuration has its carrier.
const carrierInFile = "sip:127.0.0.1:5070"

// Carrier moves the carrier of a running Asterisk.
func (s *Server) Carrier(to string) {
	s.t.Helper()
	s.edit("pjsip.conf", s.carrier, "sip:"+to)
	s.carrier = "sip:" + to
	if err := s.Command("module reload res_pjsip.so"); err != nil {
		s.t.Fatal(err)
	}
}

// root is the project's directory.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("there is no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}

func run(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, errs.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// edit replaces a text in a file of the configuration.
func (s *Server) edit(name, old, text string) {
	s.t.Helper()
	path := filepath.Join(s.Dir, "etc", name)
	src, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if !bytes.Contains(src, []byte(old)) {
		s.t.Fatalf("%s has no %q", name, old)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(src, []byte(old), []byte(text)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// Boot starts the process and waits until it serves.
func (s *Server) Boot() {
	s.t.Helper()
	s.cmd = exec.Command(s.program, "-f", "-C", filepath.Join(s.Dir, "etc", "asterisk.conf"))
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, done := s.cmd, make(chan struct{})
	s.done = done
	go func() {
		_ = cmd.Wait() // how a killed process ended says nothing
		close(done)
	}()
	deadline := time.Now().Add(30 * time.Second)
	for !s.serves() {
		select {
		case <-done:
			s.t.Fatalf("Asterisk ended at once: %s", s.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("Asterisk does not serve: %s", s.Log())
		}
	}
}

// serves tells whether ARI answers and all modules run.
func (s *Server) serves() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/asterisk/info", nil)
	if err != nil {
		return false
	}
	req.SetBasicAuth(s.User, s.Secret)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	return res.StatusCode == http.StatusOK && s.Command("core waitfullybooted") == nil
}

// Command runs a command of Asterisk's own command line.
func (s *Server) Command(line string) error {
	_, err := run(s.program, "-C", filepath.Join(s.Dir, "etc", "asterisk.conf"), "-rx", line)
	return err
}

// Log is Asterisk's own log.
func (s *Server) Log() string {
	b, err := os.ReadFile(filepath.Join(s.Dir, "log", "messages.log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Kill ends the process at once, as a crash would.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
}

// Signal sends a signal, such as SIGSTOP.
func (s *Server) Signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// ports are those that tests of this process were given, so that none is given twice.
var ports sync.Map

func freePort(t *testing.T, network string) int {
	t.Helper()
	for range 100 {
		var port int
		if network == "udp" {
			c, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			port = c.LocalAddr().(*net.UDPAddr).Port
			_ = c.Close()
		} else {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			port = l.Addr().(*net.TCPAddr).Port
			_ = l.Close()
		}
		if _, taken := ports.LoadOrStore(fmt.Sprint(network, port), true); !taken {
			return port
		}
	}
	t.Fatal("there is no free port")
	return 0
}
