package store_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// papers are an authority and what it has signed, as files.
type papers struct {
	t    *testing.T
	dir  string
	ca   *x509.Certificate
	sign *ecdsa.PrivateKey
}

func newPapers(t *testing.T) *papers {
	t.Helper()
	p := &papers{t: t, dir: t.TempDir()}
	p.issue("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	p.issue("redis", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	p.issue("gateway", &x509.Certificate{})
	return p
}

// issue writes name.crt and name.key; the first certificate is the authority and signs itself.
func (p *papers) issue(name string, cert *x509.Certificate) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	cert.SerialNumber, cert.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	cert.NotBefore, cert.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if p.ca == nil {
		p.ca, p.sign = cert, key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, p.ca, key.Public(), p.sign)
	if err != nil {
		p.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	p.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

func (p *papers) path(name string) string { return filepath.Join(p.dir, name) }

func (p *papers) write(name string, text []byte) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), text, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// dead tells whether a store with such a configuration gets no answer.
func dead(t *testing.T, cfg store.Config) bool {
	t.Helper()
	s, err := store.New(cfg, testLog(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Blocking().Set(t.Context(), "k", "v", 0).Err()
	if e := s.Blocking().Close(); e != nil {
		t.Error(e)
	}
	if e := s.Client().Close(); e != nil {
		t.Error(e)
	}
	return err != nil
}

// A server that wants certificates of its clients, and a user of the access list whose password lies in a
// file and who may do nothing dangerous: not even ask which server it is.
func TestCertificatesAndAccessList(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	p.write("acl", []byte("user default on nopass ~* &* +@all\nuser gateway on >geheim ~* +@all -@dangerous\n"))
	p.write("password", []byte("geheim\n"))
	p.write("wrong", []byte("falsch\n"))
	for _, mode := range []store.Mode{store.Single, store.Cluster} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			addr := storetest.FreeAddr(t)
			_, port, _ := net.SplitHostPort(addr)
			args := []string{"--tls-port", port, "--tls-cert-file", p.path("redis.crt"), "--tls-key-file", p.path("redis.key"),
				"--tls-ca-cert-file", p.path("ca.crt"), "--tls-auth-clients", "yes", "--aclfile", p.path("acl")}
			if mode == store.Cluster {
				_, bus, _ := net.SplitHostPort(storetest.FreeAddr(t))
				args = append(args, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-announce-ip", "127.0.0.1", "--tls-cluster", "yes")
			}
			server := storetest.Start(t, args...)
			if mode == store.Cluster {
				plain := redis.NewClient(&redis.Options{Addr: server.Addr})
				defer plain.Close()
				if err := plain.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
					t.Fatal(err)
				}
			}
			cfg := store.Defaults()
			cfg.Addrs, cfg.Mode, cfg.Timeout = []string{addr}, mode, time.Second
			cfg.Username, cfg.PasswordFile = "gateway", p.path("password")
			cfg.TLS = store.TLS{Enabled: true, CAFile: p.path("ca.crt"), CertFile: p.path("gateway.crt"), KeyFile: p.path("gateway.key")}
			s := storetest.Run(t, cfg)
			script := s.Script("secure", "return redis.call('INCR', KEYS[1])")
			await(t, func() bool { // a busy machine takes its time for the first handshake
				_, err := script.Run(t.Context(), s.Client(), []string{"{h}:k"}).Int()
				if err != nil && !store.Away(err) {
					t.Fatal(err)
				}
				return err == nil
			})
			if mode == store.Single && s.Generation() != "" {
				t.Errorf("a user who may not INFO was told %q", s.Generation())
			}
			for what, spoil := range map[string]func(*store.Config){
				"without a certificate": func(c *store.Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" },
				"another authority":     func(c *store.Config) { c.TLS.CAFile = p.path("gateway.crt") },
				"another server's name": func(c *store.Config) { c.TLS.ServerName = "elsewhere" },
				"without TLS":           func(c *store.Config) { c.TLS = store.TLS{} },
				"with another password": func(c *store.Config) { c.PasswordFile = p.path("wrong") },
				"as a user who is not":  func(c *store.Config) { c.Username = "nobody" },
			} {
				wrong := cfg
				spoil(&wrong)
				if !dead(t, wrong) {
					t.Errorf("%s: the server answered", what)
				}
			}
		})
	}
}

func TestSentinelsHaveAPasswordOfTheirOwn(t *testing.T) {
	t.Parallel()
	servers := storetest.StartSentinels(t, 0)
	for _, r := range servers.Sentinels {
		c := redis.NewClient(&redis.Options{Addr: r.Addr})
		for _, user := range [][]any{{"ACL", "SETUSER", "gateway", "on", ">geheim", "~*", "&*", "+@all"}, {"ACL", "SETUSER", "default", "off"}} {
			if err := c.Do(t.Context(), user...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		_ = c.Close()
	}
	p := &papers{t: t, dir: t.TempDir()}
	p.write("password", []byte("geheim\n"))
	cfg := servers.Config()
	cfg.Timeout = time.Second
	if !dead(t, cfg) {
		t.Error("the sentinels answered without a password")
	}
	cfg.SentinelUsername, cfg.SentinelPasswordFile = "gateway", p.path("password")
	if err := storetest.Run(t, cfg).Client().Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Error(err)
	}
}
