package session

import (
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/journal"
)

// lostCDR is the detail record of a call whose node was killed: what the checkpoint knew.
func (m *Manager) lostCDR(c call.Checkpoint, rec Recovered, recorded bool) journal.CDR {
	cdr := journal.CDR{CallID: c.CallID, Node: m.cfg.Node, Started: c.At, Ended: time.Now(), Agent: c.Agent,
		Outcome: string(OutcomeFault), EndReason: string(call.EndNodeLost), Language: c.Language, Evidence: "none"}
	if recorded {
		cdr.Trunk, cdr.Called, cdr.Started = rec.Facts.Trunk, rec.Facts.Called, rec.Facts.Started
		cdr.Recording, cdr.Evidence = rec.Sealed.ID, rec.evidence()
	}
	return cdr
}
