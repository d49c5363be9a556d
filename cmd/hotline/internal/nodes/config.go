package nodes

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/hotline12345/gateway/internal/trust"
)

// Config is the section nodes. Its zero is a gateway that stands alone.
type Config struct {
	// SecretFile holds what all gateways of the cluster share and nobody else knows, 32 bytes or more; ""
	// leaves this gateway alone.
	SecretFile string `yaml:"secret_file"`
	// Listen is where the other gateways ask this one, host:port. A cluster needs it.
	Listen string `yaml:"listen"`
	// Advertise is the host:port that the others are told; "" is Listen.
	Advertise string `yaml:"advertise"`
	// TLS is how they prove themselves to one another. What they say is sealed with the secret either way.
	TLS TLS `yaml:"tls"`
}

// TLS is a certificate of this gateway and the authority that signs those of all gateways and no others:
// whoever shows a certificate of it is believed to be one.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	CAFile   string `yaml:"ca_file"`
}

// Defaults is a gateway that stands alone.
func Defaults() Config { return Config{} }

// Clustered tells whether there are to be other gateways.
func (c Config) Clustered() bool { return c.SecretFile != "" }

// Validate says what is wrong and what to write instead. The secret and the certificates are read at the
// start: `hotline doctor` looks at them before.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case c.Clustered() && c.Listen == "":
		bad("listen: empty; the gateways of a cluster ask one another: write host:port, e.g. 10.0.0.1:7443")
	case !c.Clustered() && c.Listen != "":
		bad("secret_file: empty; what others ask must be proved with a secret: write a file with 32 random bytes that all gateways have, or leave listen empty")
	case c.Listen != "":
		errs = append(errs, c.reachable())
	}
	if n := given(c.TLS.CertFile, c.TLS.KeyFile, c.TLS.CAFile); n != 0 && n != 3 {
		bad("tls: cert_file, key_file and ca_file belong together; write all three, or none")
	}
	return errors.Join(errs...)
}

// reachable holds the address that the others are told against what they can reach.
func (c Config) reachable() error {
	listen, err := netip.ParseAddrPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %q is no address and port; write it as 10.0.0.1:7443", c.Listen)
	}
	if c.Advertise == "" {
		if listen.Addr().IsUnspecified() {
			return fmt.Errorf("advertise: empty while listen is %s; write the address by which the other gateways reach this one, e.g. 10.0.0.1:%d", c.Listen, listen.Port())
		}
		return nil
	}
	if host, port, err := net.SplitHostPort(c.Advertise); err != nil || host == "" || port == "" || port == "0" {
		return fmt.Errorf("advertise: %q is not host:port; write it as 10.0.0.1:7443", c.Advertise)
	}
	return nil
}

func given(files ...string) (n int) {
	for _, f := range files {
		if f != "" {
			n++
		}
	}
	return n
}

// load makes the two sides' settings; nil when TLS is not configured.
func (t TLS) load() (server, client *tls.Config, err error) {
	if t.CertFile == "" {
		return nil, nil, nil
	}
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("nodes.tls.cert_file: %w", err)
	}
	roots, err := trust.Roots(t.CAFile)
	if err != nil {
		return nil, nil, fmt.Errorf("nodes.tls.ca_file: %w", err)
	}
	server = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert}
	// Gateways are found by addresses that change, so the authority is what is checked, not a name.
	client = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
			for _, c := range s.PeerCertificates[1:] {
				opts.Intermediates.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(opts)
			return err
		}}
	return server, client, nil
}
