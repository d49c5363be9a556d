package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/console"
	"github.com/hotline12345/gateway/queue"
)

// TestSeveralGateways puts three gateways on one Redis: an agent with a phone at two of them is rung by
// whichever lives and takes calls, and each gateway's command line tells of all.
func TestSeveralGateways(t *testing.T) {
	t.Parallel()
	redis, secret := startRedis(t), filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("0123456789abcdef0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	join := func(name string, first *gateway) *gateway {
		t.Helper()
		g := newGateway(t, "session.node="+name, "store.addrs=["+redis.addr()+"]", "nodes.secret_file="+secret,
			"nodes.listen=127.0.0.1:0", "sip.nodes.listen=127.0.0.1:0")
		if first != nil { // its people are those of the first
			g.people = first.people
		}
		g.start()
		return g
	}
	one := join("n1", nil)
	two, three := join("n2", one), join("n3", one)

	// One phone, two registrars. The agent logs in at a gateway that has no phone of theirs.
	secretOf := one.people["1001"].secret
	atOne := newPhone(t, "1001", one.phones).answering(1100)
	atOne.register(secretOf)
	until(t, 20*time.Second, "n3 has the people", func() bool {
		return three.control.post(t.Context(), "/agents/1001/login", map[string]string{}, nil) == nil
	})
	owner := func(node string) {
		t.Helper()
		until(t, 20*time.Second, "1001 is idle at "+node, func() bool {
			a := three.agent("1001")
			return a.State == queue.Idle && a.Node == node
		})
	}
	owner("n1")
	atTwo := newPhone(t, "1001", two.phones).answering(1300)
	until(t, 20*time.Second, "n2 has the phones' secrets", func() bool { return two.run("agent", "list") != "" && two.peers() == 2 })
	atTwo.register(secretOf)

	caller := newPhone(t, "13800138000", three.carriers).dial("12345").speak(700)
	caller.connected()
	caller.press("9")
	at := receive(t, "the phone at n1 rings for a call at n3", atOne.incoming)
	until(t, 20*time.Second, "n2 lists the talk at n3", func() bool {
		out := two.run("call", "list")
		return strings.Contains(out, "talk") && strings.Contains(out, "n3")
	})
	id := three.calls()[0].CallID
	if out := two.run("node", "list"); strings.Count(out, "alive") != 3 {
		t.Errorf("hotline node list:\n%s", out)
	}

	// A drained gateway keeps its calls; its agent moves when the talk is over.
	two.run("node", "drain", "n1")
	no := receive(t, "a new call to a drained gateway is refused", newPhone(t, "13800138001", one.carriers).dial("12345").refused)
	if no.Status() != 503 || no.Get("Retry-After") == "" {
		t.Errorf("a new call to a drained gateway is answered %d, Retry-After %q", no.Status(), no.Get("Retry-After"))
	}
	caller.hangup()
	receive(t, "the agent's phone gets BYE", at.ended)
	owner("n2")
	until(t, 20*time.Second, "n1 shows the record that n3 has", func() bool {
		return strings.Contains(one.run("call", "show", id), "node n3")
	})
	two.run("node", "resume", "n1")

	// A killed gateway's agent goes on at the other one, without anybody's act.
	two.kill()
	owner("n1")
	until(t, 20*time.Second, "n3 names who is missing", func() bool {
		_, missing := three.prints("call", "list")
		return strings.Contains(missing, "missing: ") && strings.Contains(missing, "n2")
	})
	three.run("node", "forget", "n2")
	until(t, 20*time.Second, "n2 is off the list", func() bool { return !strings.Contains(three.run("node", "list"), "n2") })
	if out := three.run("callback", "list"); !strings.HasPrefix(out, "TASK") {
		t.Errorf("hotline callback list:\n%s", out)
	}
	one.stop()
	three.stop()
}

// peers is how many other gateways this one sees alive.
func (g *gateway) peers() (n int) {
	g.t.Helper()
	var nodes []console.Node
	g.get("/nodes", &nodes)
	for _, node := range nodes {
		if node.Alive && !node.Self {
			n++
		}
	}
	return n
}

// prints runs a verb of the program on the gateway's data and returns both of its outputs apart.
func (g *gateway) prints(args ...string) (out, errs string) {
	g.t.Helper()
	self, err := os.Executable()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, s := range g.sets {
		args = append(args, "--set", s)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "HOTLINE_E2E=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		g.t.Fatalf("hotline %s: %v\n%s", args[0], err, stderr.String())
	}
	return stdout.String(), stderr.String()
}
