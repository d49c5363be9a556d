package trust

import (
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRoots(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	write := func(text []byte) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	write(good)
	roots, err := Roots(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Certificate().Verify(x509.VerifyOptions{Roots: roots}); err != nil {
		t.Errorf("the authority's own certificate: %v", err)
	}
	for _, bad := range [][]byte{nil, good[40:]} {
		write(bad)
		if _, err := Roots(file); err == nil || !strings.Contains(err.Error(), "has no certificate; write") {
			t.Errorf("of %q: %v", bad, err)
		}
	}
	if _, err := Roots(""); err == nil || !strings.Contains(err.Error(), "; write") { // which is never everybody
		t.Errorf("of no file: %v", err)
	}
}
