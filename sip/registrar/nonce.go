package registrar

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"
)

// maxNonces bounds the nonces in use that are remembered; twice as many are held at most. It is more
// than phones can use in a nonce's life, since only a right password makes an entry.
const maxNonces = 16384

// ncWindow is how far nonce counts may come out of order.
const ncWindow = 64

// nonces makes and checks nonces. The key lives as long as the process: after a restart every nonce is
// stale, and no old request can be sent again.
type nonces struct {
	key  [32]byte
	life time.Duration

	mu        sync.Mutex
	cur, prev map[string]*window // two generations: a full one ages as a whole
}

// window is the nonce counts that were used: the highest, and a bit for each of the 64 below.
type window struct {
	top  uint32
	used uint64
}

func newNonces(life time.Duration) *nonces {
	n := &nonces{life: life, cur: map[string]*window{}}
	_, _ = rand.Read(n.key[:]) // never fails (crypto/rand)
	return n
}

// issue makes a nonce for a source: time, salt, and their seal with the source's address.
func (n *nonces) issue(source netip.Addr, now time.Time) string {
	b := make([]byte, 16, 32)
	binary.BigEndian.PutUint64(b, uint64(now.UnixMilli()))
	_, _ = rand.Read(b[8:16])
	return base64.RawURLEncoding.EncodeToString(append(b, n.seal(b, source)...))
}

func (n *nonces) seal(b []byte, source netip.Addr) []byte {
	m := hmac.New(sha256.New, n.key[:])
	m.Write(b)
	a := source.As16()
	m.Write(a[:])
	return m.Sum(nil)[:16]
}

// valid tells whether a nonce is ours, is this source's, and is young enough.
func (n *nonces) valid(nonce string, source netip.Addr, now time.Time) bool {
	b, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil || len(b) != 32 || !hmac.Equal(b[16:], n.seal(b[:16:16], source)) {
		return false
	}
	age := now.Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(b))))
	return age >= 0 && age <= n.life
}

// use marks a nonce count as used; false says that it was used before, or is too old to tell. Call it
// only when the password was right.
func (n *nonces) use(nonce string, nc uint32) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.cur[nonce]
	if w == nil {
		if w = n.prev[nonce]; w == nil {
			w = &window{}
		}
		if len(n.cur) >= maxNonces {
			n.prev, n.cur = n.cur, map[string]*window{}
		}
		n.cur[nonce] = w
	}
	return w.use(nc)
}

func (w *window) use(nc uint32) bool {
	if nc == 0 {
		return false // RFC 7616 section 3.4: the count starts at 1
	}
	if nc > w.top {
		w.used = w.used<<(nc-w.top) | 1
		w.top = nc
		return true
	}
	back := w.top - nc
	if back >= ncWindow || w.used&(1<<back) != 0 {
		return false
	}
	w.used |= 1 << back
	return true
}
