package recording

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
	"github.com/oklog/ulid/v2"
)

// EnsureKey makes an agency key in the file at path, unless there is one, and returns its public
// half: the key of the embedded default, where no agency has given its own.
func EnsureKey(path string) (recipient string, err error) {
	ids, err := LoadIdentities(path)
	if err == nil {
		if id, ok := ids[0].(*age.X25519Identity); ok {
			return id.Recipient().String(), nil
		}
		return "", fmt.Errorf("recording: %s: the first key is not an X25519 key", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", fmt.Errorf("recording: make an agency key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("recording: make an agency key: %w", err)
	}
	text := fmt.Sprintf("# public key: %s\n%s\n", id.Recipient(), id)
	if err := replaceFile(path, []byte(text)); err != nil {
		return "", fmt.Errorf("recording: keep the agency key: %w", err)
	}
	return id.Recipient().String(), nil
}

// LoadIdentities reads age private keys from a file, one a line.
func LoadIdentities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	defer f.Close()
	ids, err := age.ParseIdentities(f)
	if err != nil {
		return nil, fmt.Errorf("recording: %s: %w", path, err)
	}
	return ids, nil
}

// seal encrypts b with age.
func seal(b []byte, to ...age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	out.Grow(len(b) + 512)
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// unseal decrypts what seal made.
func unseal(b []byte, ids ...age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(b), ids...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// unwrap opens a recording's own key.
func unwrap(wrapped []byte, ids ...age.Identity) (*age.X25519Identity, error) {
	text, err := unseal(wrapped, ids...)
	if err != nil {
		return nil, fmt.Errorf("recording: open the recording's key: %w", err)
	}
	id, err := age.ParseX25519Identity(string(text))
	if err != nil {
		return nil, fmt.Errorf("recording: read the recording's key: %w", err)
	}
	return id, nil
}

// factsMagic heads facts that are sealed to a recording's key: 8 bytes, the recording's identity
// (16 bytes), an age file. Facts of an unrecorded call are an age file alone, sealed to the agency.
const factsMagic = "HOTLFCT1"

// factsOf splits sealed facts; ok is false for those of an unrecorded call.
func factsOf(sealed []byte) (id ulid.ULID, body []byte, ok bool) {
	head := len(factsMagic) + len(id)
	if len(sealed) < head || string(sealed[:len(factsMagic)]) != factsMagic {
		return id, sealed, false
	}
	copy(id[:], sealed[len(factsMagic):])
	return id, sealed[head:], true
}

// OpenFacts decrypts what SealFacts made, for whoever holds the wrapped key that came with it and an
// agency key. Facts of an unrecorded call need no wrapped key.
func OpenFacts(sealed, wrappedKey []byte, agency ...age.Identity) ([]byte, error) {
	_, body, ok := factsOf(sealed)
	ids := agency
	if ok {
		id, err := unwrap(wrappedKey, agency...)
		if err != nil {
			return nil, err
		}
		ids = []age.Identity{id}
	}
	plain, err := unseal(body, ids...)
	if err != nil {
		return nil, fmt.Errorf("recording: open facts: %w", err)
	}
	return plain, nil
}

// KeyOf is the wrapped key that sealed facts need: nil for those of an unrecorded call,
// [ErrKeyDestroyed] after the recording's deletion.
func (r *Recorder) KeyOf(sealed []byte) ([]byte, error) {
	id, _, ok := factsOf(sealed)
	if !ok {
		return nil, nil
	}
	return r.WrappedKey(id.String())
}
