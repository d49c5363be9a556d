package registrar

import (
	"crypto/md5" // the field's phones know nothing else (RFC 8760 section 2.4 keeps it for them)
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// maxDigest bounds an Authorization value, in bytes.
const maxDigest = 2048

// errDigest is what every malformed Authorization wraps.
var errDigest = errors.New("registrar: malformed digest")

// digest is the value of an Authorization header (RFC 7616 section 3.4).
type digest struct {
	username, realm, nonce, uri, response string
	algorithm, cnonce, qop                string
	nc                                    uint32
	ncText                                string // as it was hashed
}

// parseDigest reads an Authorization value.
func parseDigest(s string) (digest, error) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	if !strings.EqualFold(scheme, "Digest") || len(s) > maxDigest {
		return digest{}, fmt.Errorf("%w: no Digest", errDigest)
	}
	p, err := parseParams(rest)
	if err != nil {
		return digest{}, err
	}
	d := digest{username: p["username"], realm: p["realm"], nonce: p["nonce"], uri: p["uri"],
		response: strings.ToLower(p["response"]), algorithm: p["algorithm"], cnonce: p["cnonce"],
		qop: p["qop"], ncText: p["nc"]}
	if d.algorithm == "" {
		d.algorithm = MD5 // RFC 7616 section 3.3
	}
	n, err := strconv.ParseUint(d.ncText, 16, 32)
	if err != nil || len(d.ncText) != 8 {
		return digest{}, fmt.Errorf("%w: nc", errDigest)
	}
	d.nc = uint32(n)
	if d.username == "" || d.nonce == "" || d.uri == "" || d.response == "" || d.cnonce == "" ||
		!strings.EqualFold(d.qop, "auth") {
		return digest{}, fmt.Errorf("%w: a part is missing", errDigest)
	}
	return d, nil
}

// parseParams reads name=token and name="quoted string" between commas; names are lower-cased, and one
// that comes twice is an error: two readers might believe two values.
func parseParams(s string) (map[string]string, error) {
	params := map[string]string{}
	for s = strings.TrimLeft(s, " \t,"); s != ""; s = strings.TrimLeft(s, " \t,") {
		name, rest, ok := strings.Cut(s, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if !ok || name == "" || strings.ContainsAny(name, "\", \t") {
			return nil, fmt.Errorf("%w: no name=value", errDigest)
		}
		if _, twice := params[name]; twice {
			return nil, fmt.Errorf("%w: %s comes twice", errDigest, name)
		}
		value, rest, ok := parseValue(strings.TrimLeft(rest, " \t"))
		if !ok {
			return nil, fmt.Errorf("%w: an open quote", errDigest)
		}
		params[name], s = value, rest
	}
	return params, nil
}

// parseValue reads a token or a quoted string, with its backslash escapes.
func parseValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexByte(s, ',')
		if end < 0 {
			end = len(s)
		}
		return strings.TrimSpace(s[:end]), s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case c == '"':
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// HA1 is what a store keeps in place of a password (RFC 7616 section 3.4.2): the lower-case hex hash of
// user, realm and password. The algorithm is SHA256 or MD5; another gives "".
func HA1(algorithm, user, realm, password string) string {
	return hash(algorithm, user+":"+realm+":"+password)
}

// expected is the response that the holder of ha1 would have sent (RFC 7616 section 3.4.1).
func (d digest) expected(ha1, method string) string {
	ha2 := hash(d.algorithm, method+":"+d.uri)
	return hash(d.algorithm, strings.Join([]string{ha1, d.nonce, d.ncText, d.cnonce, d.qop, ha2}, ":"))
}

func hash(algorithm, s string) string {
	switch algorithm {
	case SHA256:
		sum := sha256.Sum256([]byte(s))
		return hex.EncodeToString(sum[:])
	case MD5:
		sum := md5.Sum([]byte(s))
		return hex.EncodeToString(sum[:])
	}
	return ""
}

// sameURI tells whether a digest's uri means the Request-URI (RFC 7616 section 3.4.6: proxies may have
// touched its spelling). Host and user decide; a difference there is another resource.
func sameURI(uri string, target sip.Uri) bool {
	if uri == target.String() {
		return true
	}
	var u sip.Uri
	if err := sip.ParseUri(uri, &u); err != nil {
		return false
	}
	return u.User == target.User && strings.EqualFold(u.Host, target.Host) && portOf(u) == portOf(target)
}

func portOf(u sip.Uri) int {
	if u.Port != 0 {
		return u.Port
	}
	return sip.DefaultUdpPort
}
