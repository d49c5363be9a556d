package dialog

import (
	"time"

	"github.com/emiago/sipgo/sip"
)

const (
	// maxTransactions bounds the transactions that live on after their final response: each stays 32 s
	// on UDP (RFC 3261 sections 17.2.1 and 17.2.2), and a flood would fill the memory with them.
	maxTransactions = 4096
	// maxPending bounds the requests that were read and not handled yet. The library handles each in a
	// goroutine of its own, and a reader that is quicker than they are would fill the memory with them:
	// what comes meanwhile waits in the socket, or is dropped there and sent again.
	maxPending = 512
	// forgive is how long the reader waits for handlers that do not move. Repeated requests never come to
	// a handler, and what they hold of maxPending is given back then.
	forgive = 100 * time.Millisecond
)

// admit lets a request that begins a transaction go to its handler when fewer than maxPending are on
// their way.
func (l *Layer) admit() {
	select {
	case l.pending <- struct{}{}:
		return
	default:
	}
	wait := time.NewTimer(forgive)
	defer wait.Stop()
	select {
	case l.pending <- struct{}{}:
	case <-wait.C:
		l.m.event("reader_waited")
		for len(l.pending) > 0 {
			l.leave()
		}
	}
}

// leave notes that a request was handled.
func (l *Layer) leave() {
	select {
	case <-l.pending:
	default: // it was forgiven
	}
}

// count notes that a transaction lives.
func (l *Layer) count(tx *sip.ServerTx) {
	l.transactions.Add(1)
	if !tx.OnTerminate(func(string, error) { l.transactions.Add(-1) }) {
		l.transactions.Add(-1)
	}
}

// shed forgets an answered transaction when too many live. The answer was then a stateless one (RFC
// 3261 section 8.2.7): a repeated request gets it anew.
func (l *Layer) shed(tx *sip.ServerTx, status int) {
	final := status >= 300 || status >= 200 && !tx.Origin().IsInvite()
	if final && l.transactions.Load() > maxTransactions {
		l.m.event("transaction_shed")
		tx.Terminate()
	}
}
