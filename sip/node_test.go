package sip

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
)

// nodeAddrPort is where other gateways reach the switch.
func (s *Switch) nodeAddrPort(t *testing.T) netip.AddrPort {
	t.Helper()
	return mustAddrPort(t, s.NodeAddr())
}

func mustAddrPort(t *testing.T, text string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// authority signs the certificates of a test's gateways.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("authority", nil)
	return a
}

func (a *authority) sign(name string, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	parent, signer := c, key
	if by == nil {
		c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
	} else {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+".key", "EC PRIVATE KEY", secret)
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return c, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// files are the settings of a gateway that a certificate was signed for.
func (a *authority) files(name string) NodesTLS {
	a.sign(name, a)
	at := func(file string) string { return filepath.Join(a.dir, file) }
	return NodesTLS{CertFile: at(name + ".pem"), KeyFile: at(name + ".key"), CAFile: at("authority.pem")}
}

func TestNodeTrunkOverMutualTLS(t *testing.T) {
	a := newAuthority(t)
	f := newFleet(t, func(node string, cfg *Config, _ *Deps) { cfg.Nodes.TLS = a.files(node) }, "n1", "n2")
	agent := f.agent("1001", "n2")
	leg := f.talk("n1", "1001", agent)
	caller := joined(t, f.nodes["n1"], leg)
	caller.Speak(700)
	agent.Speak(500)
	if x, y := hears(caller, 500), hears(agent, 700); x < 0.5 || y < 0.5 {
		t.Errorf("heard %.2f and %.2f", x, y)
	}
	agent.Does(call.HoldEvent)
	if e := <-leg.Events(); e.Kind != call.HoldEvent {
		t.Errorf("got %+v", e)
	}
	agent.Hang()
	if e := why(t, leg); !e.Remote || e.Reason != "" {
		t.Errorf("ended with %+v", e)
	}
	// The second call goes over the connection of the first.
	go func() { <-agent.rung; agent.Ring(); agent.Refuse(486) }()
	_, err := f.dial(t.Context(), "n1", "1001")
	if e, ok := errors.AsType[*call.DialError](err); !ok || e.Cause != call.CauseBusy {
		t.Errorf("%v", err)
	}
}

func TestStrangersCertificate(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	counts := prometheus.NewRegistry()
	f := newFleet(t, func(node string, cfg *Config, deps *Deps) {
		if node == "n2" {
			deps.Registerer = counts
		}
		cfg.Nodes.TLS = ours.files(node)
		if node == "n3" {
			cfg.Nodes.TLS = theirs.files(node)
			cfg.Nodes.TLS.CAFile = ours.files(node).CAFile // it would trust us
		}
	}, "n1", "n2", "n3")
	f.agent("1001", "n2")
	f.agent("1003", "n3")
	for _, w := range f.nodes {
		w.sw.patience = nodePatience // who fails the handshake hears nothing
	}
	for from, extension := range map[string]string{"n3": "1001", "n1": "1003"} {
		_, err := f.dial(t.Context(), from, extension)
		if e, ok := errors.AsType[*call.DialError](err); !ok || e.Cause != call.CauseTempUnavailable {
			t.Errorf("from %s: %v", from, err)
		}
	}
	for _, r := range []string{"answered", "failed"} {
		if n := relays(f.nodes["n2"], r); n != 0 {
			t.Errorf("%v relays %s", n, r)
		}
	}
	if n := testutil.ToFloat64(f.nodes["n2"].sw.metrics.refused.WithLabelValues("token")); n != 0 {
		t.Errorf("the call came to the token: %v", n)
	}
	all, err := counts.Gather()
	if err != nil {
		t.Fatal(err)
	}
	shaken := 0.0
	for _, family := range all {
		for _, m := range family.Metric {
			if family.GetName() == "hotline_sip_refused_total" && m.Label[0].GetValue() == "handshake" {
				shaken = m.Counter.GetValue()
			}
		}
	}
	if shaken != 1 {
		t.Errorf("%v handshakes failed", shaken)
	}
}

// A gateway that relays as many calls as it may is one that is out of reach.
func TestRelaysAreBounded(t *testing.T) {
	f := newFleet(t, func(_ string, cfg *Config, _ *Deps) { cfg.Nodes.Dialog.MaxCalls = 1 }, "n1", "n2", "n3")
	agent := f.agent("1001", "n2")
	leg := f.talk("n1", "1001", agent)
	_, err := f.dial(t.Context(), "n3", "1001")
	if e, ok := errors.AsType[*call.DialError](err); !ok || e.Cause != call.CauseTempUnavailable {
		t.Errorf("%v", err)
	}
	if err := leg.Hangup(t.Context(), call.CauseNormal); err != nil {
		t.Error(err)
	}
	until(t, "the relay is over", func() bool { return testutil.ToFloat64(f.nodes["n2"].sw.metrics.nodes.relays) == 0 })
	<-agent.ended
	f.talk("n3", "1001", agent)
}

func TestNodesConfig(t *testing.T) {
	a := newAuthority(t)
	good := loopback()
	good.Nodes.Listen = "127.0.0.1:0"
	deps := Deps{Log: quietLog, Credentials: staff{}, Node: "n1", NodeSecret: clusterSecret,
		Peers: func(string) (string, bool) { return "", false }}
	for want, change := range map[string]func(*Config, *Deps){
		"nodes.listen: ":                    func(c *Config, _ *Deps) { c.Nodes.Listen = "5064" },
		"nodes.sources: is empty":           func(c *Config, _ *Deps) { c.Nodes.Sources = nil },
		"nodes.sources[0]: \"x\"":           func(c *Config, _ *Deps) { c.Nodes.Sources = []string{"x"} },
		"nodes.rate.messages: ":             func(c *Config, _ *Deps) { c.Nodes.Rate.Messages = 0 },
		"nodes.dialog.max_calls: ":          func(c *Config, _ *Deps) { c.Nodes.Dialog.MaxCalls = 0 },
		"nodes.tls: is set by half":         func(c *Config, _ *Deps) { c.Nodes.TLS.CertFile = "a.pem" },
		"nodes.tls.cert_file: ":             func(c *Config, _ *Deps) { c.Nodes.TLS = NodesTLS{"a", "b", "c"} },
		"nodes.tls.ca_file: open ":          func(c *Config, _ *Deps) { c.Nodes.TLS = a.files("n1"); c.Nodes.TLS.CAFile = "none" },
		"nodes.tls.ca_file: ":               func(c *Config, _ *Deps) { c.Nodes.TLS = a.files("n1"); c.Nodes.TLS.CAFile = c.Nodes.TLS.KeyFile },
		"NodeSecret and Peers":              func(_ *Config, d *Deps) { d.NodeSecret = nil },
		"carriers.dialog.max_calls: 999 is": func(c *Config, _ *Deps) { c.Carriers.Dialog.MaxCalls = 999 },
	} {
		cfg, d := good, deps
		change(&cfg, &d)
		if _, err := New(cfg, d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	sw, err := New(good, deps)
	if err != nil {
		t.Fatal(err)
	}
	if sw.NodeAddr() != "" {
		t.Error("an address before Open")
	}
	good.Nodes.Dialog.Advertise = "gateway-1.example"
	if sw, err = New(good, deps); err != nil {
		t.Fatal(err)
	}
	if err := sw.Open(); err != nil {
		t.Fatal(err)
	}
	if got := sw.NodeAddr(); !strings.HasPrefix(got, "gateway-1.example:") || strings.HasSuffix(got, ":0") {
		t.Errorf("reached at %s", got)
	}
	if err := sw.Close(); err != nil {
		t.Error(err)
	}
}
