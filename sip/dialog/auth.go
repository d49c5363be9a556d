package dialog

import (
	"crypto/md5" //nolint:gosec // RFC 8760: a carrier that offers MD5 alone must be answered with it
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Credentials answer a 401 or 407.
type Credentials struct {
	Username, Password string
}

var errChallenge = errors.New("dialog: no challenge that can be answered")

// challenged tells whether res asks for credentials.
func challenged(res *sip.Response) bool {
	return res.StatusCode == sip.StatusUnauthorized || res.StatusCode == sip.StatusProxyAuthRequired
}

// authorize makes the header that answers res for a request (RFC 7616, RFC 8760). The uri is the
// Request-URI exactly, parameters and all: strict registrars compare it.
func authorize(res *sip.Response, method sip.RequestMethod, uri sip.Uri, cred Credentials) (sip.Header, error) {
	ask, answer := "WWW-Authenticate", "Authorization"
	if res.StatusCode == sip.StatusProxyAuthRequired {
		ask, answer = "Proxy-Authenticate", "Proxy-Authorization"
	}
	best := ""
	for _, h := range res.GetHeaders(ask) {
		scheme, rest, _ := strings.Cut(h.Value(), " ")
		if !strings.EqualFold(scheme, "Digest") {
			continue
		}
		switch f := authFields(rest); strings.ToUpper(f["algorithm"]) {
		case "SHA-256": // the stronger wins, whatever the order
			best = rest
		case "", "MD5":
			if best == "" {
				best = rest
			}
		}
	}
	if best == "" {
		return nil, errChallenge
	}
	value, err := digest(authFields(best), string(method), uri.String(), cred)
	if err != nil {
		return nil, err
	}
	return sip.NewHeader(answer, value), nil
}

func digest(f map[string]string, method, uri string, cred Credentials) (string, error) {
	hash := func(s string) string { sum := md5.Sum([]byte(s)); return hex.EncodeToString(sum[:]) } //nolint:gosec // as above
	if strings.EqualFold(f["algorithm"], "SHA-256") {
		hash = func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }
	}
	ha1 := hash(cred.Username + ":" + f["realm"] + ":" + cred.Password)
	ha2 := hash(method + ":" + uri)
	var b strings.Builder
	fmt.Fprintf(&b, `Digest username="%s", realm="%s", nonce="%s", uri="%s"`, cred.Username, f["realm"], f["nonce"], uri)
	if f["algorithm"] != "" {
		b.WriteString(", algorithm=" + f["algorithm"])
	}
	if f["opaque"] != "" {
		fmt.Fprintf(&b, `, opaque="%s"`, f["opaque"])
	}
	qops := strings.FieldsFunc(strings.ToLower(f["qop"]), func(r rune) bool { return r == ',' || r == ' ' })
	switch {
	case len(qops) == 0: // RFC 2069
		fmt.Fprintf(&b, `, response="%s"`, hash(ha1+":"+f["nonce"]+":"+ha2))
	case slices.Contains(qops, "auth"):
		cnonce, nc := rand.Text()[:16], "00000001" // a nonce is used once: each challenge is answered anew
		response := hash(strings.Join([]string{ha1, f["nonce"], nc, cnonce, "auth", ha2}, ":"))
		fmt.Fprintf(&b, `, qop=auth, nc=%s, cnonce="%s", response="%s"`, nc, cnonce, response)
	default:
		return "", fmt.Errorf("%w: qop %q", errChallenge, f["qop"])
	}
	return b.String(), nil
}

// authFields reads the parameters of a challenge: name=token or name="quoted, with commas".
func authFields(s string) map[string]string {
	f := make(map[string]string)
	for {
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			return f
		}
		name = strings.ToLower(strings.Trim(name, ", \t"))
		rest = strings.TrimLeft(rest, " \t")
		if quoted, ok := strings.CutPrefix(rest, `"`); ok {
			f[name], s, _ = strings.Cut(quoted, `"`)
			continue
		}
		f[name], s, _ = strings.Cut(rest, ",")
		f[name] = strings.TrimSpace(f[name])
	}
}
