package call

import (
	"errors"
	"fmt"
)

// Cause is a Q.850 cause value with the SIP status it maps to (RFC 3398 section 8.2.6.1).
type Cause int

// The causes that the line uses.
const (
	CauseUnallocated     Cause = 1   // 404
	CauseNormal          Cause = 16  // BYE, or 200
	CauseBusy            Cause = 17  // 486
	CauseNoResponse      Cause = 18  // 408
	CauseNoAnswer        Cause = 19  // 480
	CauseRejected        Cause = 21  // 603
	CauseForbidden       Cause = 55  // 403; the hotline's own number claimed by a caller (Art. 28)
	CauseBadNumber       Cause = 28  // 484
	CauseCongestion      Cause = 42  // 503 with Retry-After
	CauseCodec           Cause = 88  // 488
	CauseFailure         Cause = 38  // 500
	CauseMediaTimeout    Cause = 102 // recovery on timer expiry
	CauseInterworking    Cause = 127 // 500
	CauseElsewhere       Cause = 26  // 487; answered elsewhere
	CauseTempUnavailable Cause = 41  // 480
)

var causes = map[Cause]struct {
	name   string
	status int
}{
	CauseUnallocated:     {"unallocated number", 404},
	CauseNormal:          {"normal clearing", 487},
	CauseBusy:            {"user busy", 486},
	CauseNoResponse:      {"no user responding", 408},
	CauseNoAnswer:        {"no answer from user", 480},
	CauseRejected:        {"call rejected", 603},
	CauseForbidden:       {"incoming calls barred", 403},
	CauseBadNumber:       {"invalid number format", 484},
	CauseCongestion:      {"switching equipment congestion", 503},
	CauseCodec:           {"incompatible destination", 488},
	CauseFailure:         {"network out of order", 500},
	CauseMediaTimeout:    {"recovery on timer expiry", 504},
	CauseInterworking:    {"interworking, unspecified", 500},
	CauseElsewhere:       {"non-selected user clearing", 487},
	CauseTempUnavailable: {"temporary failure", 480},
}

// Status is the SIP status that refuses a call for this cause.
func (c Cause) Status() int {
	if v, ok := causes[c]; ok {
		return v.status
	}
	return 500
}

func (c Cause) String() string {
	if v, ok := causes[c]; ok {
		return fmt.Sprintf("Q.850;cause=%d %s", int(c), v.name)
	}
	return fmt.Sprintf("Q.850;cause=%d", int(c))
}

// CauseOfStatus is the cause that a SIP final status means (RFC 3398 section 7.2.4.1).
func CauseOfStatus(status int) Cause {
	switch status {
	case 404, 604:
		return CauseUnallocated
	case 486, 600:
		return CauseBusy
	case 408:
		return CauseNoResponse
	case 480:
		return CauseNoAnswer
	case 401, 402, 403, 407, 603:
		return CauseRejected
	case 484:
		return CauseBadNumber
	case 487:
		return CauseNormal
	case 488, 606, 415:
		return CauseCodec
	case 503:
		return CauseCongestion
	case 500:
		return CauseFailure
	default:
		return CauseInterworking
	}
}

// EndReason is why a leg or a call ended: a closed set, shared by CDR, metric label and console.
type EndReason string

// The end reasons.
const (
	EndCaller       EndReason = "caller"        // the caller hung up
	EndAgent        EndReason = "agent"         // the agent hung up
	EndService      EndReason = "service"       // the emergency service or another far side hung up
	EndLine         EndReason = "line"          // the gateway ended it as its flow says
	EndCancelled    EndReason = "cancelled"     // the caller gave up before the answer
	EndRejected     EndReason = "rejected"      // refused before the answer
	EndFull         EndReason = "full"          // a cap was reached
	EndMediaTimeout EndReason = "media_timeout" // no RTP for the set time
	EndSignalling   EndReason = "signalling"    // no ACK, a broken dialog, a transport that failed
	EndDrained      EndReason = "drained"       // the node shut down past its deadline
	EndNodeLost     EndReason = "node_lost"     // the node was killed
	EndFault        EndReason = "fault"         // a fault of ours, a panic among them
)

// EndReasons lists every reason, for metrics that begin at zero.
func EndReasons() []EndReason {
	return []EndReason{EndCaller, EndAgent, EndService, EndLine, EndCancelled, EndRejected, EndFull,
		EndMediaTimeout, EndSignalling, EndDrained, EndNodeLost, EndFault}
}

// Ended is the cause of a leg's context: who or what ended it.
type Ended struct {
	Remote bool // the party hung up (BYE or CANCEL)
	Cause  Cause
	Reason EndReason // set when it is no plain hang-up by a party: EndMediaTimeout, EndSignalling, ...
}

func (e *Ended) Error() string {
	switch {
	case e.Reason != "":
		return "the leg ended: " + string(e.Reason)
	case e.Remote:
		return "the leg ended: hung up by the party"
	default:
		return "the leg ended: hung up by the line"
	}
}

// Is lets errors.Is(err, ErrLegGone) hold for every end of a leg.
func (e *Ended) Is(target error) bool { return errors.Is(target, ErrLegGone) }
