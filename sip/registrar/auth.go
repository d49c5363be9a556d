package registrar

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// Credentials knows phones' passwords, as hashes.
type Credentials interface {
	// HA1 is the hash that [HA1] makes of an extension's password; false for an extension that there is
	// none of, or that has no password of that algorithm. It must take the same time for both.
	HA1(ctx context.Context, extension, realm, algorithm string) (ha1 string, ok bool)
}

// Refusal is the answer to a request that was not let in.
type Refusal struct {
	Status  int
	Headers []sip.Header

	result result
}

// Authenticate tells which extension sent a request, or how to refuse it: 401 with challenges (RFC 3261
// section 22.2; the gateway is the user agent server, never a proxy, so never 407), 400 for a digest that
// cannot be read, 403 for another's address or a source that is locked out.
func (r *Registrar) Authenticate(ctx context.Context, req *sip.Request) (extension string, no *Refusal) {
	extension, no = r.authenticate(ctx, req)
	switch {
	case no != nil:
		r.metrics.count(no.result)
	case req.Method != sip.REGISTER:
		r.metrics.count(admitted)
	}
	return extension, no
}

func (r *Registrar) authenticate(ctx context.Context, req *sip.Request) (string, *Refusal) {
	now := time.Now()
	source, err := netip.ParseAddrPort(req.Source())
	if err != nil {
		return "", &Refusal{Status: 400, result: bad}
	}
	addr := source.Addr().Unmap()
	d, found, err := r.credentials(req)
	switch {
	case err != nil:
		return "", &Refusal{Status: 400, result: bad}
	case !found:
		return "", r.challenge(req, addr, now, false, challenged)
	case !slices.Contains(r.cfg.Algorithms, d.algorithm), !sameURI(d.uri, req.Recipient):
		return "", &Refusal{Status: 400, result: bad}
	}
	may, last := r.guard.try(addr, d.username, now)
	if !may {
		return "", &Refusal{Status: 403, Headers: []sip.Header{retryAfter(r.cfg.Lockout)}, result: locked}
	}
	if !r.right(ctx, d, req.Method.String()) {
		if last {
			r.log.Warn("a source is locked out for wrong passwords", "source", addr, "for", r.cfg.Lockout)
		}
		return "", r.challenge(req, addr, now, false, denied)
	}
	// RFC 7616 section 3.3: stale tells a phone that knows its password to try again with a new nonce.
	if !r.nonces.valid(d.nonce, addr, now) {
		r.guard.spared(addr, d.username)
		return "", r.challenge(req, addr, now, true, stale)
	}
	if !r.nonces.use(d.nonce, d.nc) {
		r.guard.spared(addr, d.username)
		return "", r.challenge(req, addr, now, true, replayed)
	}
	r.guard.passed(addr, d.username)
	// RFC 3261 section 22.1: what is proved is the right to this address alone.
	if f := req.From(); f == nil || f.Address.User != d.username {
		return "", &Refusal{Status: 403, result: denied}
	}
	return d.username, nil
}

// credentials finds the Authorization for our realm (RFC 3261 section 22.3: there may be others).
func (r *Registrar) credentials(req *sip.Request) (d digest, found bool, err error) {
	for _, h := range req.GetHeaders("Authorization") {
		one, perr := parseDigest(h.Value())
		if perr != nil {
			err = perr
			continue
		}
		if one.realm == r.cfg.Realm {
			return one, true, nil
		}
	}
	return digest{}, false, err
}

// right tells whether the response was made with the password. An unknown extension is hashed and
// compared as a known one is.
func (r *Registrar) right(ctx context.Context, d digest, method string) bool {
	ha1, known := r.creds.HA1(ctx, d.username, r.cfg.Realm, d.algorithm)
	if !known {
		ha1 = HA1(d.algorithm, "", r.cfg.Realm, "")
	}
	same := subtle.ConstantTimeCompare([]byte(d.expected(ha1, method)), []byte(d.response)) == 1
	return same && known
}

// challenge offers one digest an algorithm, the strongest first (RFC 8760 section 2.4).
func (r *Registrar) challenge(req *sip.Request, source netip.Addr, now time.Time, old bool, why result) *Refusal {
	no := &Refusal{Status: 401, result: why}
	for _, a := range r.offered(header(req, "User-Agent")) {
		v := fmt.Sprintf(`Digest realm="%s", nonce="%s", algorithm=%s, qop="auth"`,
			r.cfg.Realm, r.nonces.issue(source, now), a)
		if old {
			v += ", stale=true"
		}
		no.Headers = append(no.Headers, sip.NewHeader("WWW-Authenticate", v))
	}
	return no
}

// offered is the algorithms that a phone is offered. Whoever can claim to be an old phone could as well
// answer the MD5 challenge that all others get, so nothing is lost by believing it.
func (r *Registrar) offered(userAgent string) []string {
	old := slices.ContainsFunc(r.cfg.MD5Only, func(name string) bool {
		return len(userAgent) >= len(name) && strings.EqualFold(userAgent[:len(name)], name)
	})
	if old && slices.Contains(r.cfg.Algorithms, MD5) {
		return []string{MD5}
	}
	return r.cfg.Algorithms
}

func retryAfter(d time.Duration) sip.Header {
	return sip.NewHeader("Retry-After", strconv.Itoa(int(d.Seconds())))
}

// header is the first value of a header, or "".
func header(req *sip.Request, name string) string {
	if h := req.GetHeader(name); h != nil {
		return strings.TrimSpace(h.Value())
	}
	return ""
}
