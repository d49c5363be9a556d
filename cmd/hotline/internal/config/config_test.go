package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hotline12345/gateway/configs"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hotline.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsAndExampleAreRight(t *testing.T) {
	if _, err := Load("", nil); err != nil {
		t.Errorf("the embedded default: %v", err)
	}
	c, err := Load(file(t, string(configs.Example)), nil)
	if err != nil {
		t.Fatalf("the example: %v", err)
	}
	if c.Journal.Path != "/var/lib/hotline/journal.db" || c.Recording.Dir != "/var/lib/hotline/recordings" {
		t.Errorf("paths do not follow data: %s, %s", c.Journal.Path, c.Recording.Dir)
	}
}

func TestFaultsNamePlaceAndMend(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		sets []string
		want []string
	}{
		"unknown key":         {"sip:\n  area_kode: 571\n", nil, []string{":2:3: ", "area_kode"}},
		"wrong type":          {"sip:\n  max_calls: many\n", nil, []string{":2:14: ", "max_calls"}},
		"duplicate key":       {"data: a\ndata: b\n", nil, []string{":2:1: ", "data"}},
		"bad CIDR":            {"sip:\n  trunks:\n    - name: loopback\n      identity: from\n      sources: [127.0.0.0/8, 10.0.0.0/33]\n", nil, []string{"hotline.yaml:5:30: sip.trunks[0].sources[1]", "10.0.0.0/33", "write"}},
		"out of range":        {"session:\n  wrap_up: 1h\n", nil, []string{"hotline.yaml:2:12: session.wrap_up", "from 0s to 10m"}},
		"live, unagreed":      {"emergency:\n  live: true\n", nil, []string{"hotline.yaml:2:7: emergency.agreement", "live: false"}},
		"route's trunk":       {"emergency:\n  live: true\n  agreement: x\n  routes:\n    \"119\": [{trunk: nowhere, number: \"119\"}]\n", nil, []string{"hotline.yaml:5:21: emergency.routes.119[0].trunk", "sip.trunks"}},
		"unknown queue":       {"session: {default_queue: x}\n", nil, []string{"session.default_queue", "queue.queues"}},
		"by --set":            {"", []string{"session.wrap_up=1h"}, []string{"--set session.wrap_up=1h", "from 0s to 10m"}},
		"--set unknown":       {"", []string{"session.nope=1"}, []string{"--set session.nope=1", "nope"}},
		"--set malformed":     {"", []string{"session"}, []string{"path=value"}},
		"cluster, alone":      {"nodes:\n  secret_file: x\n  listen: 10.0.0.1:7443\nsip: {nodes: {listen: \"10.0.0.1:5064\"}}\n", nil, []string{"hotline.yaml:2:16: nodes.secret_file", "store.addrs"}},
		"cluster, deaf":       {"store: {addrs: [\"127.0.0.1:6379\"]}\nnodes:\n  secret_file: x\n", nil, []string{"nodes.listen: empty", "sip.nodes.listen: empty", "host:port"}},
		"cluster, unproved":   {"nodes:\n  listen: 10.0.0.1:7443\n", nil, []string{"nodes.secret_file: empty", "32 random bytes"}},
		"cluster, nowhere":    {"store: {addrs: [\"127.0.0.1:6379\"]}\nnodes:\n  secret_file: x\n  listen: 0.0.0.0:7443\nsip: {nodes: {listen: \"0.0.0.0:5064\"}}\n", nil, []string{"nodes.advertise: empty while listen is 0.0.0.0:7443", "sip.nodes.listen: the other gateways are told 0.0.0.0:5064"}},
		"cluster, half TLS":   {"store: {addrs: [\"127.0.0.1:6379\"]}\nnodes:\n  secret_file: x\n  listen: 10.0.0.1:7443\n  tls: {cert_file: a}\nsip: {nodes: {listen: \"10.0.0.1:5064\"}}\n", nil, []string{"nodes.tls: cert_file, key_file and ca_file belong together"}},
		"phones, unproved":    {"sip: {nodes: {listen: \"10.0.0.1:5064\"}}\n", nil, []string{"nodes.secret_file: empty while sip.nodes.listen"}},
		"called back by whom": {"session: {call_back: {trunk: nobody}}\n", nil, []string{"session.call_back.trunk: there is no trunk \"nobody\"", "sip.trunks"}},
		"level":               {"log_level: loud\n", nil, []string{"hotline.yaml:1:12: log_level", "debug"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(file(t, c.text), c.sets)
			if err == nil {
				t.Fatal("no fault was found")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the fault does not say %q:\n%v", want, err)
				}
			}
		})
	}
}

func TestEveryFaultIsToldAtOnce(t *testing.T) {
	_, err := Load(file(t, "drain_for: 48h\nsession:\n  wrap_up: 1h\n  reserve_limit: 1s\n"), nil)
	if got := len(parts(err)); got != 3 {
		t.Errorf("told %d faults, want 3:\n%v", got, err)
	}
}

func TestSetsComeOnTop(t *testing.T) {
	c, err := Load(file(t, "data: /a\nsession: {node: n1}\n"), []string{"data=/b", "sip.own_numbers=[\"12345\", 0571-12345]", "session.wrap_up=5s"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Data != "/b" || c.Journal.Path != "/b/journal.db" || len(c.SIP.OwnNumbers) != 2 || c.Session.Node != "n1" || c.Session.WrapUp.String() != "5s" {
		t.Errorf("got data %s, journal %s, own numbers %v, node %s, wrap-up %v", c.Data, c.Journal.Path, c.SIP.OwnNumbers, c.Session.Node, c.Session.WrapUp)
	}
}

func TestNoFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil)
	if err == nil || !strings.Contains(err.Error(), "config example") {
		t.Errorf("the error is %v", err)
	}
}

// TestExampleOfAsterisk takes the comment signs off the example's part about Asterisk: what is left is a configuration.
func TestExampleOfAsterisk(t *testing.T) {
	head, rest, ok := strings.Cut(string(configs.Example), "# backend: asterisk")
	section, tail, _ := strings.Cut("# backend: asterisk"+rest, "\n\n")
	if !ok {
		t.Fatal("the example tells of no Asterisk")
	}
	section = strings.TrimPrefix(strings.ReplaceAll(section, "\n# ", "\n"), "# ")
	c, err := Load(file(t, head+section+"\n\n"+tail), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Backend != Asterisk || len(c.Asterisk.Trunks) != 1 || c.Asterisk.URL != "https://10.0.0.5:8089/ari" {
		t.Errorf("got %s, %+v", c.Backend, c.Asterisk)
	}
}
