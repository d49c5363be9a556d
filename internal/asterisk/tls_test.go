package asterisk

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/asterisk/asterisktest"
	"github.com/hotline12345/gateway/internal/call"
)

// TestTLS drives a real Asterisk over TLS: requests and events, under an authority of one's own. A certificate of
// another authority is refused.
func TestTLS(t *testing.T) {
	ast := asterisktest.Start(t, "n1", "127.0.0.1:9")
	dir := t.TempDir()
	ca, key := authority(t, filepath.Join(dir, "ca.pem"))
	authority(t, filepath.Join(dir, "other.pem"))
	port := asterisktest.FreePort(t)
	serve := certificate(t, dir, ca, key)
	f, err := os.OpenFile(filepath.Join(ast.Dir, "etc", "http.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "\ntlsenable = yes\ntlsbindaddr = 127.0.0.1:%d\ntlscertfile = %s\ntlsprivatekey = %s\n", port, serve[0], serve[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	ast.Kill()
	ast.Boot()
	ast.URL = fmt.Sprintf("https://127.0.0.1:%d/ari", port)
	cfg := Defaults()
	cfg.URL, cfg.Username, cfg.CAFile = ast.URL, ast.User, filepath.Join(dir, "other.pem")
	stranger, err := newAPI(cfg, newMetrics(nil))
	if err != nil {
		t.Fatal(err)
	}
	stranger.patience = 0
	if err := stranger.get(t.Context(), "/asterisk/info", nil, nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("under another authority: %v", err)
	}
	w := newWireOn(t, ast, func(s *Switch) {
		s.cfg.CAFile = filepath.Join(dir, "ca.pem")
		if s.api, err = newAPI(s.cfg, s.metrics); err != nil {
			t.Fatal(err)
		}
	})
	legs := make(chan call.Leg, 1)
	w.handler <- keeps(legs)
	caller := w.Call(call.Info{Caller: plan("13800138000"), Called: "12345"})
	<-caller.Answered()
	leg := <-legs
	caller.Press("5")
	if d := <-leg.Digits(); d.Key != '5' {
		t.Errorf("pressed 5, told %c", d.Key)
	}
	caller.Hang()
	ended(leg)
}

// authority makes a certificate authority and writes its certificate to a file.
func authority(t *testing.T, file string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "City CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	writePEM(t, file, "CERTIFICATE", signed(t, of, of, key, key))
	return of, key
}

// certificate makes one of an Asterisk at 127.0.0.1, and returns its file and that of its key.
func certificate(t *testing.T, dir string, ca *x509.Certificate, by *ecdsa.PrivateKey) [2]string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "asterisk"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := [2]string{filepath.Join(dir, "asterisk.pem"), filepath.Join(dir, "asterisk.key")}
	writePEM(t, files[0], "CERTIFICATE", signed(t, of, ca, key, by))
	writePEM(t, files[1], "PRIVATE KEY", plain)
	return files
}

func signed(t *testing.T, of, ca *x509.Certificate, key, by *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, of, ca, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
