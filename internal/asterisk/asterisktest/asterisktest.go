// Package asterisktest runs a real Asterisk for a test: one process, on ports of its own, with the
// configuration that the documentation tells to paste.
package asterisktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hotline12345/gateway/internal/asterisk/instance"
)

// Server is an Asterisk.
type Server struct {
	*instance.Server
	t *testing.T
}

// Start starts an Asterisk, which ends with the test. node is the gateway whose application gets the calls;
// carrier is where calls to trunks go. Without Asterisk the test is skipped, and fails when CI is true.
func Start(t *testing.T, node, carrier string) *Server {
	t.Helper()
	setup := Setup(t)
	s, err := instance.New(instance.Config{Setup: setup, Dir: filepath.Join(t.TempDir(), "asterisk"), Node: node, Carrier: carrier})
	if err != nil {
		t.Fatal(err)
	}
	server := &Server{s, t}
	server.Boot()
	t.Cleanup(server.Kill)
	return server
}

// Setup has the script fetch Asterisk, and is its path. Without Asterisk the test is skipped, and fails when CI
// is true.
func Setup(t *testing.T) string {
	t.Helper()
	setup := filepath.Join(root(t), "deploy", "asterisk", "setup")
	if out, err := exec.Command(setup).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("Asterisk cannot be had: %v: %s", err, strings.TrimSpace(string(out)))
		}
		t.Skipf("Asterisk cannot be had: %v: %s", err, strings.TrimSpace(string(out)))
	}
	return setup
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

// Boot starts the process and waits until it serves.
func (s *Server) Boot() { s.must(s.Server.Boot(s.t.Context())) }

// Carrier moves the carrier of a running Asterisk.
func (s *Server) Carrier(to string) { s.must(s.Server.Carrier(to)) }

// Signal sends a signal, such as SIGSTOP.
func (s *Server) Signal(sig syscall.Signal) { s.must(s.Server.Signal(sig)) }

func (s *Server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}
