package abuse

import (
	"bytes"
	"context"
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

// Vault agrees on secrets between nodes: the first to offer one under a name wins, and all get it.
type Vault interface {
	Agree(ctx context.Context, name string, fresh []byte) (agreed []byte, err error)
	Forget(ctx context.Context, name string) error
}

// keyring keeps the secrets of pseudonyms, in files that only the gateway reads. With a vault each is the
// same on all nodes: none is used before the vault has agreed to it, so nothing is ever counted under a key
// that one node alone has. Every node keeps a copy of its own and offers it again, so that a vault that
// came back empty gets back what it had. Should another's offer come first then, as that of a node that is
// new, it holds for all: the key that it displaces is kept aside, so that what was counted and sealed under
// it keeps its meaning.
type keyring struct {
	dir   string
	life  time.Duration
	vault Vault // nil for a node that stands alone

	mu        sync.RWMutex
	cases     []caseKey // for measures; after the one in force those that it displaced
	epochs    []epoch   // newest first: the current, and the previous one if there is one
	forgotten time.Time // the epoch in which the ones before the previous were destroyed everywhere
}

type epoch struct {
	start time.Time
	keys  [][]byte // the one in force, and one that it displaced if there is one
}

type caseKey struct {
	secret []byte
	seal   cipher.AEAD // for the numbers of measures
	file   string
}

const caseName = "case"

// epochName is what an epoch's key is called. Epochs begin at whole multiples of their life, so that all
// nodes have one name for it.
func epochName(start time.Time) string { return fmt.Sprintf("epoch-%d", start.Unix()) }

// openKeyring reads the keys in dir, and without a vault makes those that are missing.
func openKeyring(dir string, life time.Duration, vault Vault, now time.Time) (*keyring, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("abuse: keys: %w", err)
	}
	k := &keyring{dir: dir, life: life, vault: vault}
	if err := k.rename(); err != nil {
		return nil, err
	}
	if vault == nil {
		return k, k.turn(context.Background(), now)
	}
	secret, err := readKey(k.path(caseName))
	if err == nil && secret != nil { // what is sealed can be read before Redis is here
		k.cases, err = k.caseKeys(secret)
	}
	return k, err
}

func (k *keyring) path(name string) string { return filepath.Join(k.dir, name+".key") }

var epochFile = regexp.MustCompile(`^epoch-([0-9]{1,12})(-old)?\.key$`)

// epochFiles lists the starts that epochs' files name, by file.
func (k *keyring) epochFiles() (map[string]time.Time, error) {
	files, err := os.ReadDir(k.dir)
	if err != nil {
		return nil, fmt.Errorf("abuse: keys: %w", err)
	}
	starts := make(map[string]time.Time)
	for _, f := range files {
		if m := epochFile.FindStringSubmatch(f.Name()); m != nil {
			s, _ := strconv.ParseInt(m[1], 10, 64) // the pattern admits numbers alone
			starts[filepath.Join(k.dir, f.Name())] = time.Unix(s, 0)
		}
	}
	return starts, nil
}

// rename gives an epoch that began when its node first started the name that all nodes have for it.
func (k *keyring) rename() error {
	files, err := k.epochFiles()
	if err != nil {
		return err
	}
	for path, start := range files {
		name := epochName(start.Truncate(k.life))
		if start.Equal(start.Truncate(k.life)) {
			continue
		}
		if _, err := os.Stat(k.path(name)); err == nil {
			name += "-old"
		}
		if err := os.Rename(path, k.path(name)); err != nil {
			return fmt.Errorf("abuse: keys: %w", err)
		}
	}
	return nil
}

// turn brings the keys to a time: those of the case, of the current epoch and of the previous one. It
// destroys the keys of the epochs before, here and in the vault: what was counted under them is noise from
// then on.
func (k *keyring) turn(ctx context.Context, now time.Time) error {
	secret, err := k.agree(ctx, caseName)
	if err != nil {
		return err
	}
	cases, err := k.caseKeys(secret)
	if err != nil {
		return err
	}
	current := now.Truncate(k.life)
	var epochs []epoch
	for _, start := range []time.Time{current, current.Add(-k.life)} {
		e, err := k.epoch(ctx, start, start.Equal(current))
		if err != nil {
			return err
		}
		if len(e.keys) > 0 {
			epochs = append(epochs, e)
		}
	}
	k.mu.Lock()
	k.cases, k.epochs = cases, epochs
	k.mu.Unlock()
	return k.destroy(ctx, current)
}

// epoch gets the keys of an epoch. A node that stands alone has one of the past only if it was up then.
func (k *keyring) epoch(ctx context.Context, start time.Time, current bool) (epoch, error) {
	e, name := epoch{start: start}, epochName(start)
	if k.vault == nil && !current {
		if _, err := os.Stat(k.path(name)); errors.Is(err, os.ErrNotExist) {
			return e, nil
		}
	}
	key, err := k.agree(ctx, name)
	if err != nil {
		return e, err
	}
	old, err := readKey(k.path(name + "-old"))
	if err != nil {
		return e, err
	}
	e.keys = [][]byte{key}
	if old != nil && !bytes.Equal(old, key) {
		e.keys = append(e.keys, old)
	}
	return e, nil
}

// agree gets the key of a name that all nodes have, and keeps it in its file.
func (k *keyring) agree(ctx context.Context, name string) ([]byte, error) {
	own, err := readKey(k.path(name))
	if err != nil {
		return nil, err
	}
	key := own
	if key == nil {
		key = randomBytes(keyBytes)
	}
	if k.vault != nil {
		if key, err = k.vault.Agree(ctx, "abuse."+name, key); err != nil {
			return nil, fmt.Errorf("abuse: keys: agree on %s: %w", name, err)
		}
	}
	switch {
	case len(key) != keyBytes:
		return nil, fmt.Errorf("abuse: keys: the vault has %d bytes as %s", len(key), name)
	case bytes.Equal(own, key):
		return key, nil
	case own != nil:
		if err := writeKey(k.path(name+displaced(name, own)), own); err != nil {
			return nil, err
		}
	}
	return key, writeKey(k.path(name), key)
}

// displaced is the end of the name that a key is kept under when another took its place. An epoch keeps
// the last, since its counters end soon; of the case's none may be lost before all is sealed anew.
func displaced(name string, key []byte) string {
	if name != caseName {
		return "-old"
	}
	sum := sha256.Sum256(key)
	return "-" + hex.EncodeToString(sum[:4])
}

// caseKeys makes the ring of case keys: the one in force, and those it displaced.
func (k *keyring) caseKeys(secret []byte) ([]caseKey, error) {
	files, err := filepath.Glob(k.path(caseName + "-*"))
	if err != nil {
		return nil, fmt.Errorf("abuse: keys: %w", err)
	}
	var ring []caseKey
	for _, file := range append([]string{k.path(caseName)}, files...) {
		key := caseKey{secret: secret, file: file}
		if len(ring) > 0 {
			if key.secret, err = readKey(file); err != nil {
				return nil, err
			}
		}
		if key.seal, err = sealer(key.secret); err != nil {
			return nil, err
		}
		ring = append(ring, key)
	}
	return ring, nil
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

// destroy removes the keys of the epochs before the previous one. The vault's are named by the calendar, so
// that they go even if this node never had them.
func (k *keyring) destroy(ctx context.Context, current time.Time) error {
	if k.forgotten.Equal(current) {
		return nil
	}
	files, err := k.epochFiles()
	if err != nil {
		return err
	}
	previous := current.Add(-k.life)
	names := map[string]bool{epochName(previous.Add(-k.life)): true, epochName(previous.Add(-2 * k.life)): true}
	for path, start := range files {
		if !start.Before(previous) {
			continue
		}
		names[epochName(start)] = true
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("abuse: keys: %w", err)
		}
	}
	if k.vault != nil {
		for name := range names {
			if err := k.vault.Forget(ctx, "abuse."+name); err != nil {
				return fmt.Errorf("abuse: keys: destroy %s: %w", name, err)
			}
		}
	}
	k.forgotten = current
	return nil
}

// dropDisplaced destroys the case keys that nothing is sealed under any more.
func (k *keyring) dropDisplaced() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.cases) > 1 {
		if err := os.Remove(k.cases[1].file); err != nil {
			return fmt.Errorf("abuse: keys: %w", err)
		}
		k.cases = append(k.cases[:1:1], k.cases[2:]...)
	}
	return nil
}

// displacing tells whether a case key was displaced, and what is sealed under it not yet sealed anew.
func (k *keyring) displacing() bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return len(k.cases) > 1
}

// readKey reads a key file; a missing one is nil.
func readKey(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
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

func writeKey(path string, key []byte) error {
	if err := renameio.WriteFile(path, []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
		return fmt.Errorf("abuse: keys: %w", err)
	}
	return nil
}

// errKeys is why nothing of a number can be looked up in Redis yet.
var errKeys = errors.New("abuse: the nodes have not agreed on the keys yet")

// ready tells whether the keys may be used.
func (k *keyring) ready() bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return len(k.epochs) > 0
}

// counters are the pseudonyms that a number's counters and leases live under, the current first: at least
// that one, and four at most. Before the keys are agreed there are none.
func (k *keyring) counters(e164 string) (names []string) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, e := range k.epochs {
		for _, key := range e.keys {
			names = append(names, pseudonym(key, purposeCounter, e164))
		}
	}
	return names
}

// measure is the pseudonym that a number's measure lives under; "" before the keys are agreed.
func (k *keyring) measure(e164 string) string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if len(k.cases) == 0 {
		return ""
	}
	return pseudonym(k.cases[0].secret, purposeMeasure, e164)
}

// pseudonym is 128 bits of HMAC-SHA-256(key, purpose ‖ 0 ‖ E.164), in hexadecimal.
func pseudonym(key []byte, purpose, e164 string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(purpose))
	mac.Write([]byte{0})
	mac.Write([]byte(e164))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// sealText encrypts a text that belongs to a decision.
func (k *keyring) sealText(decision, text string) (string, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if len(k.cases) == 0 {
		return "", errKeys
	}
	sealed := k.cases[0].seal.Seal(nil, nil, []byte(text), []byte(decision)) //nolint:gosec // the AEAD makes a random nonce itself
	return base64.RawStdEncoding.EncodeToString(sealed), nil
}

// openText is the inverse of sealText; it fails on a text of another decision.
func (k *keyring) openText(decision, sealed string) (string, error) {
	b, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil {
		return "", fmt.Errorf("abuse: sealed number: %w", err)
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	err = errKeys
	for _, key := range k.cases {
		var text []byte
		if text, err = key.seal.Open(nil, nil, b, []byte(decision)); err == nil {
			return string(text), nil
		}
	}
	return "", fmt.Errorf("abuse: sealed number: %w", err)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return b
}
