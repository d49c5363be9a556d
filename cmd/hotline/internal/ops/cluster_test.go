package ops

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDoctorOnRedis(t *testing.T) {
	for name, c := range map[string]struct {
		said  RedisServer
		keeps Level
		spare Level
	}{
		"right":            {RedisServer{Policy: "noeviction", MaxMemory: 1 << 30, AOF: true, Spare: true}, Well, Well},
		"drops callers":    {RedisServer{Policy: "allkeys-lru", MaxMemory: 1 << 30, AOF: true, Spare: true}, Bad, Well},
		"would drop them":  {RedisServer{Policy: "allkeys-lru", AOF: true}, Warn, Warn},
		"forgets, no heir": {RedisServer{Policy: "noeviction"}, Warn, Warn},
	} {
		in := Inputs{RedisServer: func(context.Context) (RedisServer, error) { return c.said, nil }, Cluster: &ClusterInputs{}}
		if level, detail, mend := lookKeeping(t.Context(), in); level != c.keeps || level != Well && mend == "" {
			t.Errorf("%s: keeping is %s (%s; %s)", name, level, detail, mend)
		}
		if level, detail, _ := lookSpare(t.Context(), in); level != c.spare {
			t.Errorf("%s: spare is %s (%s)", name, level, detail)
		}
	}
	in := Inputs{RedisServer: func(context.Context) (RedisServer, error) { return RedisServer{}, errors.New("NOPERM") }}
	if level, detail, _ := lookKeeping(t.Context(), in); level != Warn || !strings.Contains(detail, "NOPERM") {
		t.Errorf("one that may not be asked: %s (%s)", level, detail)
	}
}

func TestDoctorOnTheSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	seen := func(tls bool) (Level, string) {
		level, _, mend := lookSecret(t.Context(), Inputs{Cluster: &ClusterInputs{SecretFile: file, TLS: tls}})
		return level, mend
	}
	look := func(mode os.FileMode, text string, tls bool) (Level, string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return seen(tls)
	}
	if level, mend := seen(true); level != Bad || !strings.Contains(mend, "head -c 32") {
		t.Errorf("none: %s (%s)", level, mend)
	}
	long := strings.Repeat("k", 32)
	if level, mend := look(0o600, "short", true); level != Bad || !strings.Contains(mend, "32 random bytes") {
		t.Errorf("short: %s (%s)", level, mend)
	}
	if level, mend := look(0o640, long, true); level != Bad || !strings.Contains(mend, "chmod 600") {
		t.Errorf("open: %s (%s)", level, mend)
	}
	if level, mend := look(0o600, long, false); level != Warn || !strings.Contains(mend, "nodes.tls") {
		t.Errorf("without certificates: %s (%s)", level, mend)
	}
	if level, _ := look(0o600, long, true); level != Well {
		t.Errorf("right: %s", level)
	}
}

func TestDoctorOnTheOtherGateways(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	at, nowhere := l.Addr().String(), gone.Addr().String()
	right := PeerNode{Name: "n2", Config: "c", Policy: "p", API: "http://" + at, SIP: at, Alive: true}
	with := func(change func(*PeerNode)) Inputs {
		p := right
		change(&p)
		return Inputs{Cluster: &ClusterInputs{Config: "c", Policy: "p", Peers: func(context.Context) ([]PeerNode, error) { return []PeerNode{p}, nil }}}
	}
	for name, c := range map[string]struct {
		in           Inputs
		peers, alike Level
		says         string
	}{
		"right":        {with(func(*PeerNode) {}), Well, Well, ""},
		"absent":       {with(func(p *PeerNode) { p.Alive = false }), Warn, Well, "n2 is absent"},
		"deaf API":     {with(func(p *PeerNode) { p.API = "http://" + nowhere }), Warn, Well, "n2: API at " + nowhere},
		"deaf SIP":     {with(func(p *PeerNode) { p.SIP = nowhere }), Warn, Well, "n2: SIP at " + nowhere},
		"other config": {with(func(p *PeerNode) { p.Config = "d" }), Well, Warn, "n2"},
		"other policy": {with(func(p *PeerNode) { p.Policy = "q" }), Well, Bad, "n2"},
		"alone":        {Inputs{}, Skipped, Skipped, aloneText},
	} {
		peers, peersDetail, _ := lookPeers(t.Context(), c.in)
		alike, alikeDetail, _ := lookAlike(t.Context(), c.in)
		if peers != c.peers || alike != c.alike || !strings.Contains(peersDetail+alikeDetail, c.says) {
			t.Errorf("%s: peers %s (%s), alike %s (%s)", name, peers, peersDetail, alike, alikeDetail)
		}
	}
}
