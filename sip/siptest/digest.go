package siptest

import (
	"crypto/md5" //nolint:gosec // RFC 8760 keeps MD5 for phones that know nothing else
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Register registers the phone for so many seconds with digest and returns the last response.
func (p *Phone) Register(password string, seconds int, extra ...string) Message {
	p.t.Helper()
	self := fmt.Sprintf("<sip:%s@%s>", p.user, p.peer.Addr())
	c := &Call{Phone: p, ID: p.Name("reg"), Local: self + ";tag=" + p.Name("tag"), Remote: self,
		Target: fmt.Sprintf("sip:%s", p.peer)}
	extra = append(extra, fmt.Sprintf("Expires: %d", seconds))
	c.Request("REGISTER", "", extra...)
	res := p.awaitFinal("REGISTER")
	if res.Status() != 401 {
		return res
	}
	auth := Authorize(res.Get("WWW-Authenticate"), p.user, password, "REGISTER", c.Target)
	c.Request("REGISTER", "", append(extra, "Authorization: "+auth)...)
	return p.awaitFinal("REGISTER")
}

func (p *Phone) awaitFinal(method string) Message {
	p.t.Helper()
	for {
		m := p.Next()
		if _, of := m.CSeq(); of == method && m.Status() >= 200 {
			return m
		}
	}
}

// Authorize is the Authorization value that answers a challenge (RFC 7616; MD5 and SHA-256, qop=auth).
func Authorize(challenge, user, password, method, uri string) string {
	f := challengeFields(challenge)
	hash := hashOf(f["algorithm"])
	ha1 := hash(user + ":" + f["realm"] + ":" + password)
	ha2 := hash(method + ":" + uri)
	out := fmt.Sprintf(`Digest username="%s", realm="%s", nonce="%s", uri="%s"`, user, f["realm"], f["nonce"], uri)
	if f["algorithm"] != "" {
		out += ", algorithm=" + f["algorithm"]
	}
	if f["opaque"] != "" {
		out += fmt.Sprintf(`, opaque="%s"`, f["opaque"])
	}
	if !strings.Contains(f["qop"], "auth") {
		return out + fmt.Sprintf(`, response="%s"`, hash(ha1+":"+f["nonce"]+":"+ha2))
	}
	const nc, cnonce = "00000001", "siptest"
	response := hash(strings.Join([]string{ha1, f["nonce"], nc, cnonce, "auth", ha2}, ":"))
	return out + fmt.Sprintf(`, qop=auth, nc=%s, cnonce="%s", response="%s"`, nc, cnonce, response)
}

func challengeFields(s string) map[string]string {
	f := make(map[string]string)
	s = strings.TrimPrefix(s, "Digest ")
	for s != "" {
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		name = strings.ToLower(strings.Trim(name, ", "))
		if quoted, ok := strings.CutPrefix(rest, `"`); ok {
			f[name], s, _ = strings.Cut(quoted, `"`)
			continue
		}
		f[name], s, _ = strings.Cut(rest, ",")
	}
	return f
}

// Verify tells whether an Authorization value answers its own nonce with a password.
func Verify(authorization, password, method string) bool {
	f := challengeFields(authorization)
	hash := hashOf(f["algorithm"])
	ha1 := hash(f["username"] + ":" + f["realm"] + ":" + password)
	ha2 := hash(method + ":" + f["uri"])
	if f["qop"] == "" {
		return f["response"] == hash(ha1+":"+f["nonce"]+":"+ha2)
	}
	return f["response"] == hash(strings.Join([]string{ha1, f["nonce"], f["nc"], f["cnonce"], f["qop"], ha2}, ":"))
}

func hashOf(algorithm string) func(string) string {
	if strings.EqualFold(algorithm, "SHA-256") {
		return func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }
	}
	return func(s string) string { sum := md5.Sum([]byte(s)); return hex.EncodeToString(sum[:]) } //nolint:gosec // as above
}
