package nodes

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/hotline12345/gateway/internal/call"
)

// leastSecret is how many bytes a secret has at least.
const leastSecret = 32

// Purpose is what a key is for. A key of one purpose tells nothing of another's.
type Purpose string

// The purposes of keys.
const (
	Places  Purpose = "places"  // pseudonyms, under which callers keep their places for a redial
	Numbers Purpose = "numbers" // seals the numbers that Redis keeps for a call back
	Vault   Purpose = "vault"   // seals the secrets that the gateways agree on
	Calls   Purpose = "calls"   // the token of a SIP call from one gateway to another
	proof   Purpose = "proof"   // that a request comes from a gateway of the cluster
	speech  Purpose = "speech"  // seals what gateways say to one another
)

// Keys is every key that the gateways of a cluster share, made of their one secret.
type Keys struct{ secret []byte }

// OpenKeys reads the cluster's secret; a gateway that stands alone has one of its own, in data/keys.
func OpenKeys(cfg Config, data string) (Keys, error) {
	if !cfg.Clustered() {
		return ownKeys(filepath.Join(data, "keys", "node.key"))
	}
	secret, err := os.ReadFile(cfg.SecretFile)
	if err != nil {
		return Keys{}, fmt.Errorf("nodes.secret_file: %w; make one with: head -c 32 /dev/urandom | base64 > %s, and give it to every gateway", err, cfg.SecretFile)
	}
	secret = []byte(strings.TrimRight(string(secret), "\r\n"))
	if len(secret) < leastSecret {
		return Keys{}, fmt.Errorf("nodes.secret_file: %s has %d bytes; write %d or more, the same at every gateway", cfg.SecretFile, len(secret), leastSecret)
	}
	return Keys{secret}, nil
}

func ownKeys(path string) (Keys, error) {
	secret, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret = make([]byte, leastSecret)
		rand.Read(secret) // never fails
		err = renameio.WriteFile(path, secret, 0o600)
	}
	if err != nil {
		return Keys{}, fmt.Errorf("nodes: the gateway's own secret: %w", err)
	}
	return Keys{secret}, nil
}

// For is the key of a purpose, 32 bytes (HKDF-SHA256, RFC 5869).
func (k Keys) For(p Purpose) []byte {
	key, err := hkdf.Key(sha256.New, k.secret, nil, "hotline/1/"+string(p), 32)
	if err != nil {
		panic(err) // only for a length that HKDF cannot make
	}
	return key
}

// Place is the pseudonym of a number under which its place in a queue is kept; "" for no number.
func (k Keys) Place() func(call.Number) string {
	key := k.For(Places)
	return func(n call.Number) string {
		if n.E164 == "" {
			return ""
		}
		h := hmac.New(sha256.New, key)
		h.Write([]byte("place\x00" + n.E164))
		return hex.EncodeToString(h.Sum(nil)[:16])
	}
}

// Sealer seals numbers that are kept outside this process, and opens them again.
func (k Keys) Sealer() (seal func(call.Number) []byte, open func([]byte) (call.Number, error)) {
	aead := k.aead(Numbers)
	seal = func(n call.Number) []byte { return aead.Seal(nil, nil, []byte(n.E164+"\n"+n.Raw), nil) }
	open = func(sealed []byte) (call.Number, error) {
		b, err := aead.Open(nil, nil, sealed, nil)
		if err != nil {
			return call.Number{}, fmt.Errorf("nodes: a sealed number does not open with this cluster's secret: %w", err)
		}
		e164, raw, _ := strings.Cut(string(b), "\n")
		return call.Number{E164: e164, Raw: raw}, nil
	}
	return seal, open
}

// aead is AES-256-GCM under the key of a purpose, with a nonce of its own for each seal.
func (k Keys) aead(p Purpose) cipher.AEAD {
	block, err := aes.NewCipher(k.For(p))
	if err == nil {
		var aead cipher.AEAD
		if aead, err = cipher.NewGCMWithRandomNonce(block); err == nil {
			return aead
		}
	}
	panic(err) // only for a key of another length
}
