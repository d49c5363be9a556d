package dialog

// state is where a call stands (RFC 3261 section 12, RFC 5407).
type state string

const (
	ringing   state = "ringing"   // incoming, no final response yet
	calling   state = "calling"   // outgoing, no final response yet
	accepted  state = "accepted"  // we sent 2xx, the ACK is awaited
	confirmed state = "confirmed" // ACK received or sent
	closing   state = "closing"   // hung up by us before the ACK; BYE waits for it
	ended     state = "ended"
)

// event is what moves a call from one state to another.
type event string

const (
	answered  event = "answered"  // we send 2xx
	connected event = "connected" // 2xx came
	acked     event = "acked"     // the ACK to our 2xx came
	unacked   event = "unacked"   // 64*T1 without it
	cancelled event = "cancelled" // CANCEL came
	refused   event = "refused"   // a final response of 300 or above, in either direction; or none in time
	theirBye  event = "their_bye"
	ourBye    event = "our_bye"
)

// moves is the whole machine: what is not in it does not happen, and step tells so.
var moves = map[state]map[event]state{
	ringing:   {answered: accepted, cancelled: ended, refused: ended, theirBye: ended},
	calling:   {connected: confirmed, refused: ended, ourBye: ended},
	accepted:  {acked: confirmed, unacked: ended, theirBye: ended, ourBye: closing},
	confirmed: {theirBye: ended, ourBye: ended},
	closing:   {acked: ended, unacked: ended, theirBye: ended},
	ended:     {},
}

// step moves the call, or tells that the event is too late or out of place.
func (c *Call) step(e event) (from state, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from = c.state
	to, ok := moves[from][e]
	if ok {
		c.state = to
	}
	return from, ok
}
