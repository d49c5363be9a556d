package main

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

// redisServer is a Redis that keeps nothing: each start is empty.
type redisServer struct {
	t    *testing.T
	port int
	proc *process
}

func startRedis(t *testing.T) *redisServer {
	t.Helper()
	need(t, "redis-server")
	r := &redisServer{t: t, port: freePort(t)}
	r.start()
	return r
}

func (r *redisServer) addr() string { return "127.0.0.1:" + strconv.Itoa(r.port) }

func (r *redisServer) start() {
	r.t.Helper()
	cmd := exec.Command("redis-server", "--port", strconv.Itoa(r.port), "--bind", "127.0.0.1", "--dir", r.t.TempDir(),
		"--save", "", "--appendonly", "no", "--loglevel", "warning")
	r.proc = launch(r.t, cmd)
	until(r.t, 10*time.Second, "redis-server answers", func() bool {
		c, err := net.Dial("tcp", r.addr())
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
}

func (r *redisServer) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.proc.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// shift is a line at work: a caller in talk with an agent, another agent who is free.
type shift struct {
	t        *testing.T
	g        *gateway
	services *phone
	caller   *line // in talk all through the test
	agent    *line
	second   *phone // the free agent's
	number   int
}

// TestRedisStopped stops Redis in mid-call, then kills it, then starts it empty: the talk goes on, new
// callers are answered at once and reach a phone that this node owns, and danger needs no Redis.
func TestRedisStopped(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	services := newPhone(t, "services", netip.AddrPort{}).answering(440)
	g := startGateway(t, "store.addrs=["+redis.addr()+"]", "store.timeout=20ms",
		fmt.Sprintf("sip.trunks=[{name: loopback, sources: [127.0.0.0/8], identity: from, address: '%s', max_calls: 200}]", services.addr()))
	s := &shift{t: t, g: g, services: services, second: newPhone(t, "1002", g.phones).answering(1300)}
	first := newPhone(t, "1001", g.phones).answering(1100)
	first.register(g.people["1001"].secret)
	g.login("1001")
	g.awaitAgent("1001", queue.Idle)
	s.caller = newPhone(t, "13800138000", g.carriers).dial("12345").speak(700)
	s.caller.connected()
	s.caller.press("9")
	s.agent = receive(t, "the agent's phone rings", first.incoming)
	s.second.register(g.people["1002"].secret)
	g.login("1002")
	g.awaitAgent("1002", queue.Idle)
	s.goesOn("with Redis")

	redis.signal(syscall.SIGSTOP)
	s.works("Redis is stopped")
	redis.proc.kill()
	s.works("Redis is dead")
	redis.start()
	until(t, 20*time.Second, "Redis is back", func() bool { return healthyRedis(g) })
	s.works("Redis is back, and empty")

	s.caller.hangup()
	receive(t, "the agent's phone gets BYE", s.agent.ended)
	g.awaitAgent("1001", queue.Idle)
	g.awaitAgent("1002", queue.Idle)
	until(t, 20*time.Second, "the calls are over", func() bool { return len(g.calls()) == 0 })
	var queues []queue.QueueView
	g.get("/queues", &queues)
	if queues[0].Waiting != 0 {
		t.Errorf("%d callers wait who are not there", queues[0].Waiting)
	}
	g.stop()
}

func healthyRedis(g *gateway) bool {
	var states []ops.State
	g.get("/health", &states)
	for _, s := range states {
		if s.Code == "redis-away" {
			return s.OK
		}
	}
	return false
}

// goesOn checks that the caller and the agent hear each other.
func (s *shift) goesOn(when string) {
	s.t.Helper()
	s.caller.hears(1100)
	s.agent.hears(700)
	if v := s.g.awaitStage(session.StageTalk); v.Agent != "1001" {
		s.t.Errorf("%s: the talk is with %q", when, v.Agent)
	}
}

func (s *shift) call() *line {
	s.t.Helper()
	s.number++
	return newPhone(s.t, fmt.Sprintf("137%08d", s.number), s.g.carriers).dial("12345")
}

// works checks all that a line must do, whatever is with Redis.
func (s *shift) works(when string) {
	s.t.Helper()
	var lines []*line
	for n := range 5 {
		l := s.call()
		took := l.connected()
		s.t.Logf("%s: new caller %d was answered %v after the INVITE", when, n+1, took.Round(time.Millisecond/10))
		if took > 500*time.Millisecond {
			s.t.Errorf("%s: a new caller was answered after %v", when, took)
		}
		lines = append(lines, l)
	}
	for _, l := range lines[2:] {
		l.hangup()
	}
	s.goesOn(when)

	danger := lines[0]
	danger.press("0")
	s.g.awaitStage(session.StageEmergency)
	pressed := danger.press("2")
	ring := receive(s.t, when+": the service rings", s.services.incoming)
	s.t.Logf("%s: the INVITE to %s came %v after the key", when, ring.invite.URI(), ring.invite.At.Sub(pressed).Round(time.Millisecond/10))
	danger.hears(440)
	danger.hangup()
	receive(s.t, when+": the service's phone gets BYE", ring.ended)

	waiting := lines[1].speak(900)
	waiting.press("9")
	agent := receive(s.t, when+": the free agent's phone rings", s.second.incoming)
	waiting.hears(1300)
	agent.hears(900)
	waiting.hangup()
	receive(s.t, when+": the agent's phone gets BYE", agent.ended)
	s.goesOn(when)
}
