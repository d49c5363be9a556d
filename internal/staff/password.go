package staff

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// ErrWeak refuses a password under 10 or over 128 characters, or a PIN that is not 6 to 12 digits or
// is too easily guessed.
var ErrWeak = errors.New("staff: a password has 10 to 128 characters, a PIN 6 to 12 digits that are not all alike or in a row")

// argon2id at the second parameter set of RFC 9106 section 4 is 64 MiB; 19 MiB and two passes are
// chosen, since a telephone gateway shares its machine with calls.
const (
	argonTime   = 2
	argonKiB    = 19 << 10 // 19 MiB
	argonLanes  = 1
	argonSalt   = 16
	argonLength = 32
)

// hasher bounds how many hashes are made at once.
type hasher struct {
	slots chan struct{}
	kib   uint32 // what a hash costs; less in tests
}

func newHasher(n int) hasher { return hasher{make(chan struct{}, n), argonKiB} }

func (h hasher) enter(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h hasher) leave() { <-h.slots }

// hash makes the text that is stored for a secret, in the PHC string form.
func (h hasher) hash(ctx context.Context, secret string) (string, error) {
	if err := h.enter(ctx); err != nil {
		return "", err
	}
	defer h.leave()
	salt := random(argonSalt)
	key := argon2.IDKey([]byte(secret), salt, argonTime, h.kib, argonLanes, argonLength)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.kib, argonTime, argonLanes,
		b64.EncodeToString(salt), b64.EncodeToString(key)), nil
}

// matches compares a secret with what is stored. Where nothing is stored it works as long and says
// no, so that the time does not tell who exists.
func (h hasher) matches(ctx context.Context, secret, stored string) (bool, error) {
	if err := h.enter(ctx); err != nil {
		return false, err
	}
	defer h.leave()
	p, known := h.parse(stored)
	key := argon2.IDKey([]byte(secret), p.salt, p.time, p.memory, p.lanes, argonLength)
	return subtle.ConstantTimeCompare(key, p.key) == 1 && known, nil
}

type phc struct {
	time, memory uint32
	lanes        uint8
	salt, key    []byte
}

// parse reads what hash made; ok is false for anything else, with parameters to waste time on.
func (h hasher) parse(s string) (p phc, ok bool) {
	none := phc{time: argonTime, memory: h.kib, lanes: argonLanes, salt: make([]byte, argonSalt), key: make([]byte, argonLength)}
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return none, false
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.lanes); err != nil {
		return none, false
	}
	if p.memory > 1<<20 || p.time == 0 || p.time > 16 || p.lanes == 0 { // argon2 panics or never ends beyond
		return none, false
	}
	var errSalt, errKey error
	p.salt, errSalt = b64.DecodeString(parts[4])
	p.key, errKey = b64.DecodeString(parts[5])
	if errSalt != nil || errKey != nil || len(p.key) != argonLength {
		return none, false
	}
	return p, true
}

var b64 = base64.RawStdEncoding

func checkPassword(s string) error {
	if n := len([]rune(s)); n < 10 || n > 128 {
		return ErrWeak
	}
	return nil
}

// checkPIN refuses the runs that everyone tries first: 111111, 123456, 654321.
func checkPIN(s string) error {
	if !validPIN.MatchString(s) {
		return ErrWeak
	}
	for _, step := range []int{0, 1, -1} {
		run := true
		for i := 1; i < len(s); i++ {
			run = run && int(s[i])-int(s[i-1]) == step
		}
		if run {
			return ErrWeak
		}
	}
	return nil
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return b
}

// readable are letters and digits that a person does not mix up: 32 of them, so a byte's low five
// bits choose evenly.
const readable = "abcdefghjkmnopqrstuvwxyz23456789"

// newPassword makes 80 random bits in four groups.
func newPassword() string {
	var sb strings.Builder
	for i, b := range random(16) {
		if i > 0 && i%4 == 0 {
			sb.WriteByte('-')
		}
		sb.WriteByte(readable[b&31])
	}
	return sb.String()
}

// newPIN makes six random digits that checkPIN accepts.
func newPIN() string {
	for {
		var sb strings.Builder
		for sb.Len() < 6 {
			if b := random(1)[0]; b < 250 { // 250 is a multiple of ten: each digit is as likely
				sb.WriteByte('0' + b%10)
			}
		}
		if pin := sb.String(); checkPIN(pin) == nil {
			return pin
		}
	}
}
