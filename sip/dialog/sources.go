package dialog

import "github.com/emiago/sipgo/sip"

// maxNames bounds the sources of datagrams that the library knows by name; twice as many are held. A
// response needs the name for as long as its request takes to its transaction.
const maxNames = 4096

// names are the sources in the library's pool, in two generations: a full one ages as a whole. The
// reader's goroutine alone uses them.
type names struct {
	conn      sip.Connection
	cur, prev map[string]struct{}
}

// whence puts the source's name back into a message, see masked, and lets the library find the
// connection of its response by it.
func (l *Layer) whence(msg sip.Message) {
	c := l.packets
	if c == nil || msg.Source() != c.from.name {
		return // a stream, or a socket that the library opened by itself
	}
	name := c.from.Addr.String()
	msg.SetSource(name)
	l.names.keep(l.tpl.Pool("udp"), c.from.name, name)
}

func (n *names) keep(pool *sip.ConnectionPool, own, name string) {
	if n.conn == nil {
		n.conn, n.cur = pool.Get(own), map[string]struct{}{}
	}
	if _, ok := n.cur[name]; ok || name == own || n.conn == nil {
		return
	}
	if len(n.cur) >= maxNames {
		for old := range n.prev {
			if _, again := n.cur[old]; !again {
				pool.Delete(old)
			}
		}
		n.prev, n.cur = n.cur, make(map[string]struct{}, maxNames)
	}
	n.cur[name] = struct{}{}
	pool.Add(name, n.conn)
}
