package trunk

import "sync"

// Grant is a cap's answer to one more call.
type Grant int

// The grants.
const (
	Refused Grant = iota // nothing is left
	Kept                 // only the legs kept for emergencies are left, and this is one of them
	Ordinary
)

// Cap counts calls against a limit. A tenth of it, and four at least, is kept: calls there are
// answered for the emergency exit alone.
type Cap struct {
	limit, kept int

	mu sync.Mutex
	n  int
}

// NewCap makes a cap of limit calls, MinCalls and up.
func NewCap(limit int) *Cap {
	return &Cap{limit: limit, kept: max(KeptAtLeast, (limit+9)/10)}
}

// Take counts one more call and tells which kind of place it got. With force it always gets one.
// Every grant but Refused is given back by Release.
func (c *Cap) Take(force bool) Grant {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case force || c.n < c.limit-c.kept:
		c.n++
		return Ordinary
	case c.n < c.limit:
		c.n++
		return Kept
	}
	return Refused
}

// Release gives a place back.
func (c *Cap) Release() {
	c.mu.Lock()
	c.n--
	c.mu.Unlock()
}

// InUse is the number of calls that are counted now.
func (c *Cap) InUse() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// Limit is the cap, and how many of it are kept for emergencies.
func (c *Cap) Limit() (limit, kept int) { return c.limit, c.kept }
