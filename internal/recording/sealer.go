package recording

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"
)

// sealFrames is how many audio frames share a file key: half a minute of sound.
const sealFrames = 20

// sealer seals the audio frames of a recording, each as an age file of its own. What costs most in such a
// file is its header, which agrees on a file key with the recording's public key. Frames that follow one
// another share it: the key that seals a frame is derived from the file key and 16 random bytes of the
// frame, so none is used twice. After half a minute the file key is forgotten, so that what is read from the
// process's memory opens no more than that.
type sealer struct {
	to     *age.X25519Recipient
	header []byte
	key    []byte
	left   int // frames that header and key are good for
}

// seal encrypts b, which is shorter than one chunk of an age file (64 KiB): the payload is a nonce and that
// chunk, the first and the last (age-encryption.org/v1, "Payload").
func (s *sealer) seal(b []byte) ([]byte, error) {
	if s.left == 0 {
		if err := s.agree(); err != nil {
			return nil, err
		}
		s.left = sealFrames
	}
	s.left--
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key, err := hkdf.Key(sha256.New, s.key, nonce[:], "payload", chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive a frame's key: %w", err)
	}
	chunk, err := chacha20poly1305.New(key)
	if err != nil {
		return nil, fmt.Errorf("seal a frame: %w", err)
	}
	out := make([]byte, 0, len(s.header)+len(nonce)+len(b)+chunk.Overhead())
	out = append(append(out, s.header...), nonce[:]...)
	last := [chacha20poly1305.NonceSize]byte{chacha20poly1305.NonceSize - 1: 1} // chunk 0, the last one
	return chunk.Seal(out, last[:], b, nil), nil
}

// agree makes a new file key, and the header that gives it to the recording's private key.
func (s *sealer) agree() error {
	told := listener{Recipient: s.to}
	empty, err := seal(nil, &told)
	if err != nil {
		return err
	}
	if s.header, err = age.ExtractHeader(bytes.NewReader(empty)); err != nil {
		return err
	}
	s.key = told.key
	return nil
}

// listener is a recipient that learns the file key.
type listener struct {
	age.Recipient
	key []byte
}

func (l *listener) Wrap(key []byte) ([]*age.Stanza, error) {
	l.key = slices.Clone(key)
	return l.Recipient.Wrap(key)
}
