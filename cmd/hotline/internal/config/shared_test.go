package config

import (
	"os"
	"path/filepath"
	"testing"
)

func hashes(t *testing.T, sets ...string) (config, policy string) {
	t.Helper()
	c, err := Load("", sets)
	if err != nil {
		t.Fatal(err)
	}
	if config, err = c.Hash(); err != nil {
		t.Fatal(err)
	}
	if policy, err = c.PolicyHash(); err != nil {
		t.Fatal(err)
	}
	return config, policy
}

func TestHashIsOfWhatAllGatewaysShare(t *testing.T) {
	flows := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(flows, "default.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a: 1\n")
	all := "ivr.flows=" + flows
	first, judged := hashes(t, all)
	for _, own := range [][]string{
		{"session.node=n2"}, {"data=/elsewhere"}, {"sip.carriers.listen=127.0.0.1:15060"}, {"http.listen=127.0.0.1:18080"},
		{"sip.media.port_min=20000", "sip.media.port_max=29999"}, {"store.addrs=[127.0.0.1:6379]"}, {"log_level=debug"},
	} {
		if got, _ := hashes(t, append(own, all)...); got != first {
			t.Errorf("%v is a gateway's own, and makes another hash", own)
		}
	}
	for _, shared := range []string{"session.wrap_up=5s", "queue.redial_window=60s", "sip.own_numbers=[12340]", "emergency.drill_number=8"} {
		if got, _ := hashes(t, shared, all); got == first {
			t.Errorf("%s must be the same everywhere, and leaves the hash", shared)
		}
	}
	write("a: 2\n")
	if got, _ := hashes(t, all); got == first {
		t.Error("another flow leaves the hash")
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	src, err := os.ReadFile("../../../../configs/policy/art29.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, src, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, same := hashes(t, "abuse.policy_file="+file); same != judged {
		t.Error("the built-in policy in a file is another policy")
	}
	if err := os.WriteFile(file, append(src, "\n# changed\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, other := hashes(t, "abuse.policy_file="+file); other == judged {
		t.Error("another policy leaves the hash")
	}
}
