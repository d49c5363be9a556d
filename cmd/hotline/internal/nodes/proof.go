package nodes

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	proofHeader = "Hotline-Proof" // from, unix milliseconds, nonce, digest of the body and HMAC, between spaces
	proofWindow = time.Minute     // how far a proof's time may be from the receiver's, either way
	// maxProofs bounds the proofs that are remembered so that none is used twice: a cluster of 64 asks less.
	maxProofs = 100_000
)

// What a proof is refused for.
var (
	errNoProof  = errors.New("the request does not prove that it comes from a gateway of this cluster; give all gateways the same nodes.secret_file")
	errStale    = errors.New("the request's time is more than a minute from this gateway's; let all hosts follow one time server")
	errReplayed = errors.New("the request has been made before")
	errBusy     = errors.New("too many requests within a minute")
)

// prover proves requests, and checks the proofs of others.
type prover struct {
	key  []byte
	aead cipher.AEAD
	self string

	mu   sync.Mutex
	used map[string]time.Time // proofs until they are stale
	next time.Time            // when the stale ones are swept
}

func newProver(k Keys, self string) *prover {
	return &prover{key: k.For(proof), aead: k.aead(speech), self: self, used: map[string]time.Time{}}
}

// prove signs a request with its sealed body, and returns the proof, which its answer is bound to.
func (p *prover) prove(r *http.Request, to string, body []byte, now time.Time) string {
	var nonce [16]byte
	rand.Read(nonce[:]) // never fails
	claim := fmt.Sprintf("%s %d %s %s", p.self, now.UnixMilli(), hex.EncodeToString(nonce[:]), digest(body))
	all := claim + " " + p.mac(r, to, claim)
	r.Header.Set(proofHeader, all)
	return all
}

func digest(body []byte) string { return fmt.Sprintf("%x", sha256.Sum256(body)) }

func (p *prover) mac(r *http.Request, to, claim string) string {
	h := hmac.New(sha256.New, p.key)
	fmt.Fprintf(h, "%s\n%s\n%s\n%s\n", r.Method, r.URL.RequestURI(), to, claim)
	return hex.EncodeToString(h.Sum(nil))
}

// check tells which gateway made a request to this one, and the digest of the body that is to come: nothing is
// read of a request that is not proved. A proof is good for one use.
func (p *prover) check(r *http.Request, now time.Time) (from, all, body string, err error) {
	all = r.Header.Get(proofHeader)
	part := strings.Split(all, " ")
	if len(part) != 5 {
		return "", "", "", errNoProof
	}
	claim := strings.Join(part[:4], " ")
	if !hmac.Equal([]byte(part[4]), []byte(p.mac(r, p.self, claim))) {
		return "", "", "", errNoProof
	}
	ms, err := strconv.ParseInt(part[1], 10, 64)
	if at := time.UnixMilli(ms); err != nil || now.Sub(at).Abs() > proofWindow {
		return "", "", "", errStale
	}
	return part[0], all, part[3], p.once(part[4], now)
}

// once notes a proof, or says that it was used.
func (p *prover) once(mac string, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.After(p.next) || len(p.used) >= maxProofs {
		for m, until := range p.used {
			if now.After(until) {
				delete(p.used, m)
			}
		}
		p.next = now.Add(proofWindow / 4)
	}
	if _, again := p.used[mac]; again {
		return errReplayed
	}
	if len(p.used) >= maxProofs {
		return errBusy
	}
	p.used[mac] = now.Add(2 * proofWindow) // its time may be a window ahead of ours
	return nil
}

// The two ways of a sealed text: what one gateway asked cannot be given back as the answer.
const (
	asks    = "asks"
	answers = "answers"
)

// seal hides a text that is bound to its way and, for an answer, to what was asked. An empty one is sealed too, so
// that nobody on the way can say "done" in a gateway's name.
func (p *prover) seal(text []byte, way, bound string) []byte {
	return p.aead.Seal(nil, nil, text, []byte(way+"\n"+bound))
}

func (p *prover) open(sealed []byte, way, bound string) ([]byte, error) {
	text, err := p.aead.Open(nil, nil, sealed, []byte(way+"\n"+bound))
	if err != nil {
		return nil, fmt.Errorf("nodes: what another gateway said does not open: %w", err)
	}
	return text, nil
}
