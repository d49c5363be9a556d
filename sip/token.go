package sip

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// nodeHeader carries a gateway's token to another one: its name, the phone that is to ring, the time in
// milliseconds, and their seal.
const nodeHeader = "X-Hotline-Node"

const (
	// minSecret is the least length of the secret of a cluster, in bytes.
	minSecret = 16
	// tokenSkew is how far the clocks of two gateways may be apart.
	tokenSkew = time.Minute
	// maxTokens bounds the tokens that are remembered, so that none is taken twice; twice as many are held
	// at most. Only who has the secret can make one.
	maxTokens = 1 << 16
)

// errToken is what a token that is not taken is; the peer is not told more. errSkew is one of a gateway
// that has the secret: its clock is wrong.
var (
	errToken = errors.New("sip: no valid token of a gateway")
	errSkew  = fmt.Errorf("%w: the clocks of two gateways are more than %v apart", errToken, tokenSkew)
)

// token says which gateway calls, and which phone.
type token struct {
	node  string // who calls
	phone string // see phoneID
	at    time.Time
}

// tokens makes and checks the tokens of the gateways of a cluster.
type tokens struct {
	secret []byte
	node   string

	mu        sync.Mutex
	turned    time.Time
	cur, prev map[string]struct{} // the seals that were taken, in two generations
}

func newTokens(secret []byte, node string) *tokens {
	return &tokens{secret: secret, node: node, cur: map[string]struct{}{}}
}

// issue makes the token for a call to an extension's phone at another gateway.
func (k *tokens) issue(owner, callID, extension, phone string, now time.Time) string {
	t := token{node: k.node, phone: phone, at: now}
	return t.String() + " " + k.seal(t, owner, callID, extension)
}

func (t token) String() string {
	return url.QueryEscape(t.node) + " " + t.phone + " " + strconv.FormatInt(t.at.UnixMilli(), 10)
}

// seal binds a token to the call, to the extension, and to the gateway that it is for.
func (k *tokens) seal(t token, owner, callID, extension string) string {
	mac := hmac.New(sha256.New, k.secret)
	fmt.Fprintf(mac, "node call\n%s\n%q\n%q\n%q", t, owner, callID, extension)
	return hex.EncodeToString(mac.Sum(nil))
}

// take checks the token of a call, and takes it once.
func (k *tokens) take(value, callID, extension string, now time.Time) (token, error) {
	t, seal, err := parseToken(value)
	switch {
	case err != nil:
		return token{}, err
	case len(k.secret) < minSecret, !hmac.Equal([]byte(seal), []byte(k.seal(t, k.node, callID, extension))):
		return token{}, errToken
	case now.Sub(t.at).Abs() > tokenSkew:
		return token{}, errSkew
	case !k.first(seal, now):
		return token{}, errToken
	}
	return t, nil
}

// first tells whether a seal is seen for the first time. It is good for twice the skew, and a generation
// lasts as long.
func (k *tokens) first(seal string, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.cur) >= maxTokens || now.Sub(k.turned) > 2*tokenSkew {
		k.prev, k.cur, k.turned = k.cur, map[string]struct{}{}, now
	}
	_, again := k.cur[seal]
	_, before := k.prev[seal]
	k.cur[seal] = struct{}{}
	return !again && !before
}

// parseToken reads a token and its seal.
func parseToken(value string) (t token, seal string, err error) {
	if len(value) > 512 {
		return token{}, "", errToken
	}
	f := strings.Fields(value)
	if len(f) != 4 {
		return token{}, "", errToken
	}
	node, err := url.QueryUnescape(f[0])
	if err != nil || node == "" {
		return token{}, "", errToken
	}
	ms, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil || ms < 0 {
		return token{}, "", errToken
	}
	return token{node: node, phone: f[1], at: time.UnixMilli(ms)}, f[3], nil
}

// phoneID names a phone to its owner without telling where it is.
func phoneID(phone string) string {
	sum := sha256.Sum256([]byte(phone))
	return hex.EncodeToString(sum[:8])
}
