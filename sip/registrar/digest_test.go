package registrar

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

// The example of RFC 7616 section 3.9.1.
func TestRFC7616(t *testing.T) {
	const auth = `Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html",
		algorithm=%A, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001,
		cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="%R",
		opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`
	for algorithm, response := range map[string]string{
		MD5:    "8ca523f5e9506fed4657c9700eebdbec",
		SHA256: "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
	} {
		d, err := parseDigest(strings.NewReplacer("%A", algorithm, "%R", strings.ToUpper(response), "\n\t\t", " ").Replace(auth))
		if err != nil {
			t.Fatal(err)
		}
		ha1 := HA1(algorithm, "Mufasa", d.realm, "Circle of Life")
		if got := d.expected(ha1, "GET"); got != response || got != d.response {
			t.Errorf("%s: %s, want %s", algorithm, got, response)
		}
	}
}

func TestParseDigestRefuses(t *testing.T) {
	const good = `Digest username="a", realm="r", nonce="n", uri="sip:x", response="0", cnonce="c", qop=auth, nc=00000001`
	if d, err := parseDigest(good); err != nil || d.algorithm != MD5 || d.nc != 1 {
		t.Fatalf("%+v, %v", d, err)
	}
	for name, s := range map[string]string{
		"another scheme": strings.Replace(good, "Digest", "Basic", 1),
		"twice":          good + `, username="b"`,
		"open quote":     good + `, x="y`,
		"no name":        good + `, ="y"`,
		"no value":       good + `, x`,
		"short nc":       strings.Replace(good, "00000001", "1", 1),
		"bad nc":         strings.Replace(good, "00000001", "0000000g", 1),
		"no qop":         strings.Replace(good, ", qop=auth", "", 1),
		"auth-int":       strings.Replace(good, "qop=auth", "qop=auth-int", 1),
		"no cnonce":      strings.Replace(good, `cnonce="c", `, "", 1),
		"too long":       good + `, x="` + strings.Repeat("y", maxDigest) + `"`,
		"empty":          "",
	} {
		if _, err := parseDigest(s); !errors.Is(err, errDigest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if d, err := parseDigest(strings.Replace(good, `"a"`, `"a\"b\\"`, 1)); err != nil || d.username != `a"b\` {
		t.Errorf("escapes: %q, %v", d.username, err)
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add(`Digest username="a", realm="r", nonce="n", uri="sip:x", response="0", cnonce="c", qop=auth, nc=00000001`)
	f.Add(`digest a=b,,c="\"`)
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDigest(s)
		if err != nil {
			return
		}
		if d.username == "" || d.nonce == "" || len(d.ncText) != 8 {
			t.Errorf("%q passed as %+v", s, d)
		}
		d.expected("", "REGISTER")
		sameURI(d.uri, sip.Uri{Host: "x"})
	})
}

func TestSameURI(t *testing.T) {
	target := sip.Uri{Scheme: "sip", Host: "127.0.0.1", Port: 5062, UriParams: sip.HeaderParams{{K: "user", V: "phone"}}}
	for uri, want := range map[string]bool{
		"sip:127.0.0.1:5062;user=phone": true,
		"sip:127.0.0.1:5062":            true,
		"sip:127.0.0.1":                 false,
		"sip:a@127.0.0.1:5062":          false,
		"":                              false,
	} {
		if sameURI(uri, target) != want {
			t.Errorf("%q", uri)
		}
	}
}

func TestNonce(t *testing.T) {
	n, other := newNonces(time.Minute), newNonces(time.Minute)
	a, b := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	now := time.Now().Truncate(time.Millisecond)
	nonce := n.issue(a, now)
	for name, c := range map[string]struct {
		ok   bool
		want bool
	}{
		"at once":        {n.valid(nonce, a, now), true},
		"at its end":     {n.valid(nonce, a, now.Add(time.Minute)), true},
		"after its end":  {n.valid(nonce, a, now.Add(time.Minute+2*time.Millisecond)), false},
		"of the future":  {n.valid(nonce, a, now.Add(-time.Second)), false},
		"elsewhere":      {n.valid(nonce, b, now), false},
		"of another key": {other.valid(nonce, a, now), false},
		"changed":        {n.valid("A"+nonce[1:], a, now), nonce[0] == 'A'},
		"short":          {n.valid(nonce[:10], a, now), false},
		"not base64":     {n.valid("!", a, now), false},
	} {
		if c.ok != c.want {
			t.Error(name)
		}
	}
	if n.issue(a, now) == nonce {
		t.Error("two nonces are the same")
	}
}

func TestNonceCountWindow(t *testing.T) {
	var w window
	for _, c := range []struct {
		nc   uint32
		want bool
	}{{0, false}, {1, true}, {1, false}, {3, true}, {2, true}, {2, false}, {3, false}, {100, true},
		{37, true}, {36, false}, {37, false}, {1000, true}, {937, true}, {936, false}, {1 << 31, true}, {1000, false}} {
		if got := w.use(c.nc); got != c.want {
			t.Errorf("nc %d: %v", c.nc, got)
		}
	}
}

func TestNoncesAreBounded(t *testing.T) {
	n := newNonces(time.Minute)
	a, now := netip.MustParseAddr("127.0.0.1"), time.Now()
	first := n.issue(a, now)
	n.use(first, 1)
	for range maxNonces {
		n.use(n.issue(a, now), 1)
	}
	if n.use(first, 1) {
		t.Error("a count was forgotten too early")
	}
	for range 3 * maxNonces {
		n.use(n.issue(a, now), 1)
	}
	if got := len(n.cur) + len(n.prev); got > 2*maxNonces {
		t.Errorf("%d nonces are held", got)
	}
}

func TestGuard(t *testing.T) {
	g := newGuard(3, time.Minute)
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	now := time.Unix(1000, 0)
	may := func(source netip.Addr, extension string, at time.Time) bool {
		ok, _ := g.try(source, extension, at)
		return ok
	}
	for i := range 3 {
		if ok, last := g.try(a, "1001", now); !ok || last != (i == 2) {
			t.Errorf("try %d: %v, the last: %v", i, ok, last)
		}
	}
	if may(a, "1001", now) || !may(a, "1002", now) || !may(b, "1001", now) {
		t.Error("the lock is not for one source and one extension")
	}
	if !may(a, "1001", now.Add(time.Minute+1)) {
		t.Error("the lock does not end")
	}
	g.passed(b, "1001")
	for i := range 30 { // one source, many extensions
		if !may(b, string(rune('a'+i)), now) {
			t.Errorf("try %d of the source is refused", i)
		}
	}
	if may(b, "any", now) {
		t.Error("a source may try every extension")
	}
	g.spared(b, "a")
	if !may(b, "any", now) {
		t.Error("an old nonce is held against the source")
	}
	for range 20 { // whoever knows the password is never locked out
		if !may(a, "1003", now) {
			t.Error("a phone that passed is refused")
		}
		g.passed(a, "1003")
	}
	for i := range 3 * maxGuarded {
		may(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), "x", now)
	}
	if n := len(g.cur) + len(g.prev); n > 2*maxGuarded {
		t.Errorf("%d are remembered", n)
	}
}
