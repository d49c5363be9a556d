package sip

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/registrar"
)

// ownerEnv makes the test's binary a gateway that a phone is registered at: a process that can be killed.
const ownerEnv = "SIP_TEST_OWNER"

// owner is how that gateway is set up.
type owner struct{ Phones, Nodes, Peer, Spool string }

// serveOwner is the process: it says that it is ready, and serves until it is killed.
func serveOwner(settings string) error {
	var o owner
	if err := json.Unmarshal([]byte(settings), &o); err != nil {
		return err
	}
	cfg := loopback()
	cfg.Phones.Listen, cfg.Nodes.Listen, cfg.SpoolDir = o.Phones, o.Nodes, o.Spool
	sw, err := New(cfg, Deps{Log: quietLog, Credentials: staff{}, Node: "n2", NodeSecret: clusterSecret,
		Peers: func(string) (string, bool) { return o.Peer, true }})
	if err != nil {
		return err
	}
	if err := sw.Open(); err != nil {
		return err
	}
	fmt.Println("ready")
	return sw.Serve(context.Background(), func(context.Context, call.Leg, *call.Checkpoint) {})
}

// start starts the gateway; kill ends it as the system does, without a word.
func (o owner) start(t *testing.T) (kill func()) {
	t.Helper()
	settings, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownerEnv+"="+string(settings))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // "signal: killed"
		}
	}
	t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the gateway said %q, %v", line, err)
	}
	return kill
}

// After the kill of the gateway that a phone is registered at, its next process ends the call on both
// sides.
func TestOwnerIsKilled(t *testing.T) {
	f := newFleet(t, nil, "n1")
	o := owner{Phones: loopbackPort(t).String(), Nodes: loopbackPort(t).String(), Peer: f.nodes["n1"].sw.NodeAddr(), Spool: t.TempDir()}
	kill := o.start(t)
	f.move("n2", o.Nodes)
	agent := f.nodes["n1"].person("1001", true)
	agent.at(mustAddrPort(t, o.Phones)).register(password)
	agent.sit()
	value, err := json.Marshal(registrar.Binding{Extension: "1001", Contact: agent.phone.Contact(), Node: "n2", Expires: farFuture})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.shelf.Put(t.Context(), "1001", "n2 phone", value, time.Hour); err != nil {
		t.Fatal(err)
	}
	leg := f.talk("n1", "1001", agent)
	until(t, "both dialogs are in the spool", func() bool {
		files, err := filepath.Glob(filepath.Join(o.Spool, "dialogs", "*.json"))
		return err == nil && len(files) == 2
	})
	kill()
	if leg.Context().Err() != nil {
		t.Fatal("the leg ended before anything was said")
	}
	o.start(t)
	if m := <-agent.ended; !strings.HasPrefix(m.Get("Reason"), "Q.850;cause=41") {
		t.Errorf("the phone was told\n%s", m.Raw)
	}
	if e := why(t, leg); !e.Remote || e.Cause != call.CauseTempUnavailable {
		t.Errorf("ended with %+v", e)
	}
	// The phone is known to the next process, and rings.
	again := f.talk("n1", "1001", agent)
	if err := again.Hangup(t.Context(), call.CauseNormal); err != nil {
		t.Error(err)
	}
}
