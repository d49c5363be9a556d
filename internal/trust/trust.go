// Package trust reads whom the gateway believes.
package trust

import (
	"crypto/x509"
	"fmt"
	"os"
)

// Roots reads the authorities that another side's certificate is checked by, in PEM. Errors say what to write instead; whoever
// asks knows in which setting.
func Roots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w; write the path of a file of certificates in PEM", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate; write the path of a file of certificates in PEM", file)
	}
	return roots, nil
}
