package audit

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
)

// Commitment stands in an entry for a value that must not: it proves the value to whoever is shown
// value and salt, and tells nothing to anyone else. Destroying the salt makes it say nothing for ever.
type Commitment string

// Commit commits to a value under a fresh salt of 128 random bits, in hexadecimal. Keep the salt with
// the value, never in the log.
func Commit(value string) (c Commitment, salt string) {
	b := make([]byte, 16)
	rand.Read(b) // never fails (crypto/rand)
	salt = hex.EncodeToString(b)
	return commit(salt, value), salt
}

// Opens says whether the commitment is to this value under this salt.
func (c Commitment) Opens(value, salt string) bool {
	return hmac.Equal([]byte(c), []byte(commit(salt, value)))
}

func commit(salt, value string) Commitment {
	mac := hmac.New(sha256.New, []byte(salt))
	mac.Write([]byte(value))
	return Commitment("hmac-sha256:" + hex.EncodeToString(mac.Sum(nil)))
}
