package abuse

import (
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// The purposes that a number has a pseudonym for. Pseudonyms of two purposes cannot be joined.
const (
	purposeCounter = "counter"
	purposeMeasure = "measure"
)

const keyBytes = 32

// keyring keeps the secrets of pseudonyms, in files that only the gateway reads.
type keyring struct {
	dir     string
	life    time.Duration
	caseKey []byte      // for measures
	seal    cipher.AEAD // for the numbers of measures

	mu     sync.Mutex
	epochs []epoch // newest first; two at most
}

type epoch struct {
	start time.Time
	key   []byte
}

// openKeyring reads the keys in dir and makes those that are missing.
func openKeyring(dir string, life time.Duration, now time.Time) (*keyring, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("abuse: keys: %w", err)
	}
	k := &keyring{dir: dir, life: life}
	var err error
	if k.caseKey, err = loadKey(filepath.Join(dir, "case.key")); err != nil {
		return nil, err
	}
	if k.seal, err = sealer(k.caseKey); err != nil {
		return nil, err
	}
	return k, k.rotate(now)
}

func sealer(secret []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "hotline measure number", keyBytes)
	if err != nil {
		return nil, fmt.Errorf("abuse: keys: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("abuse: keys: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

var epochName = regexp.MustCompile(`^epoch-([0-9]{1,12})\.key$`)

// rotate begins an epoch when the newest is at its end, and destroys all but the newest two: what was
// counted under the others is noise from then on.
func (k *keyring) rotate(now time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.epochs) > 0 && now.Before(k.epochs[0].start.Add(k.life)) {
		return nil
	}
	files, err := os.ReadDir(k.dir)
	if err != nil {
		return fmt.Errorf("abuse: keys: %w", err)
	}
	var starts []int64
	for _, f := range files {
		if m := epochName.FindStringSubmatch(f.Name()); m != nil {
			s, _ := strconv.ParseInt(m[1], 10, 64) // the pattern admits numbers alone
			starts = append(starts, s)
		}
	}
	slices.SortFunc(starts, func(a, b int64) int { return cmp.Compare(b, a) })
	if len(starts) == 0 || !now.Before(time.Unix(starts[0], 0).Add(k.life)) {
		starts = slices.Insert(starts, 0, now.Unix())
	}
	var epochs []epoch
	for i, s := range starts {
		path := filepath.Join(k.dir, fmt.Sprintf("epoch-%d.key", s))
		if i >= 2 {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("abuse: keys: %w", err)
			}
			continue
		}
		key, err := loadKey(path)
		if err != nil {
			return err
		}
		epochs = append(epochs, epoch{time.Unix(s, 0), key})
	}
	k.epochs = epochs
	return nil
}

// loadKey reads a key file, or makes it.
func loadKey(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		b = []byte(hex.EncodeToString(randomBytes(keyBytes)) + "\n")
		err = renameio.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("abuse: keys: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != keyBytes {
		return nil, fmt.Errorf("abuse: keys: %s is not 64 hexadecimal digits; put the file back from a copy", path)
	}
	return key, nil
}

// counters are the pseudonyms that a number's counters and leases live under, the current first.
func (k *keyring) counters(e164 string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]string, len(k.epochs))
	for i, e := range k.epochs {
		out[i] = pseudonym(e.key, purposeCounter, e164)
	}
	return out
}

// measure is the pseudonym that a number's measure lives under.
func (k *keyring) measure(e164 string) string { return pseudonym(k.caseKey, purposeMeasure, e164) }

// pseudonym is 128 bits of HMAC-SHA-256(key, purpose ‖ 0 ‖ E.164), in hexadecimal.
func pseudonym(key []byte, purpose, e164 string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(purpose))
	mac.Write([]byte{0})
	mac.Write([]byte(e164))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// sealText encrypts a text that belongs to a decision.
func (k *keyring) sealText(decision, text string) string {
	sealed := k.seal.Seal(nil, nil, []byte(text), []byte(decision)) //nolint:gosec // the AEAD makes a random nonce itself
	return base64.RawStdEncoding.EncodeToString(sealed)
}

// openText is the inverse of sealText; it fails on a text of another decision.
func (k *keyring) openText(decision, sealed string) (string, error) {
	b, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil {
		return "", fmt.Errorf("abuse: sealed number: %w", err)
	}
	text, err := k.seal.Open(nil, nil, b, []byte(decision))
	if err != nil {
		return "", fmt.Errorf("abuse: sealed number: %w", err)
	}
	return string(text), nil
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return b
}
