package call

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// ErrUnsupported is returned by a backend for what it cannot do at all.
var ErrUnsupported = errors.New("call: not supported by this backend")

// ErrLegGone is returned by an act on a leg that has ended.
var ErrLegGone = errors.New("call: the leg has ended")

// ErrAnswered is returned by an act that is possible only before the answer, such as [Leg.Reject].
var ErrAnswered = errors.New("call: the leg is already answered")

// ErrNotAnswered is returned by an act that needs media before [Leg.Answer] or [Leg.Progress].
var ErrNotAnswered = errors.New("call: the leg has no media yet")

// Handler is what a call does. It runs in a goroutine of its own and owns the leg until it
// returns; the backend hangs up a leg whose handler returned or panicked. The checkpoint is nil
// for a new call, and where to go on for an adopted one.
type Handler func(ctx context.Context, leg Leg, from *Checkpoint)

// Switch is a backend: it brings calls in, places calls, and joins them.
type Switch interface {
	// Serve takes calls until ctx ends, then drains: new calls are refused with 503 and running
	// handlers finish. It returns nil after a clean end, and an error when the backend failed.
	Serve(ctx context.Context, h Handler) error

	// Dial places a call and blocks until it is answered, refused, or ctx ends (the attempt is then
	// cancelled, and a 200 that crosses the CANCEL is acknowledged and ended). A refusal is a
	// [*DialError]. An answered leg outlives ctx.
	Dial(ctx context.Context, to Endpoint, opts DialOptions) (Leg, error)

	// Bridge makes an empty bridge. Its name appears in logs only.
	Bridge(ctx context.Context, name string) (Bridge, error)
}

// Adopter is a Switch whose legs outlive the gateway's process: after a restart it runs the
// handler of Serve with the checkpoint that load returns for a leg's identity. A backend without
// it ends the legs that a killed process left (the SIP backend sends BYE).
type Adopter interface {
	Adopt(ctx context.Context, load func(legID string) (*Checkpoint, bool)) error
}

// Rejoiner is an Adopter whose bridges outlive the gateway's process as well: a talk goes on while it is away.
type Rejoiner interface {
	Adopter
	// Rejoin returns the bridge that joined an adopted leg with others, and their legs, once; they are the
	// caller's to keep or to end. Of a leg that stood alone the bridge is nil.
	Rejoin(leg Leg) (Bridge, []Leg)
}

// Leg is one party's end of a call.
//
// Its methods may be called from any goroutine. Each that blocks ends early when its ctx or the
// leg ends, and then returns the cause of that end.
type Leg interface {
	// Info is what is known of the leg. It does not change, but for Codec, set by the answer.
	Info() Info

	// Context ends when the leg ends. context.Cause of it is an [*Ended].
	Context() context.Context

	// Reject refuses an unanswered incoming leg with the cause's SIP status.
	Reject(ctx context.Context, cause Cause) error

	// Progress opens early media (183 with SDP) on an unanswered incoming leg.
	Progress(ctx context.Context) error

	// Answer answers an incoming leg. On an answered or outgoing leg it returns nil at once.
	Answer(ctx context.Context) error

	// Play speaks clips one after the other to this party and returns when the last was heard. A
	// Play replaces a running one, which returns [ErrReplaced]. While the leg is in a bridge, its
	// clip takes the place of what the bridge would send.
	Play(ctx context.Context, clips ...*Clip) error

	// Loop plays clips round and round (hold music) until ctx ends or a Play replaces it.
	Loop(ctx context.Context, clips ...*Clip) error

	// Digits are this party's keys in order, each once, whatever way it came (RFC 4733, INFO). The
	// channel holds 64; a 65th drops the oldest and counts. It is never closed; read it with
	// Context().Done().
	Digits() <-chan Digit

	// Events are hold, resume and transfer requests of this party, in order. The channel holds 16.
	Events() <-chan Event

	// Tap lets sink hear the leg until detach is called or the leg ends; then the sink's Close has
	// returned before detach returns (or soon after the leg's end). Several taps may be attached.
	Tap(sink AudioSink) (detach func(), err error)

	// Stats is the media's quality so far.
	Stats() MediaStats

	// Hangup ends the leg with the cause. A second call does nothing.
	Hangup(ctx context.Context, cause Cause) error
}

// ErrReplaced is returned by a Play that a later Play on the same leg replaced.
var ErrReplaced = errors.New("call: another prompt replaced this one")

// Role is what a leg may do in a bridge.
type Role string

// The roles of a leg in a bridge.
const (
	Talk    Role = "talk"    // speaks to all, hears all
	Listen  Role = "listen"  // hears all, is heard by none
	Whisper Role = "whisper" // hears all, is heard by staff alone: see Member
)

// Member is a leg's place in a bridge.
type Member struct {
	Role Role
	// Staff marks the legs that a Whisper reaches.
	Staff bool
}

// Bridge joins legs. Two talking legs of one codec are relayed without decoding; more are mixed.
type Bridge interface {
	// Add joins a leg, or changes its membership when it is in the bridge already. A leg that ends
	// leaves by itself.
	Add(leg Leg, m Member) error
	// Remove takes a leg out; it then hears silence until played to or added elsewhere.
	Remove(leg Leg) error
	// Hold makes a leg hear clips (round and round) and be heard by none; Add takes it back.
	Hold(leg Leg, clips ...*Clip) error
	// Close takes every leg out. It does not hang up any.
	Close() error
}

// Direction says who placed the call on a leg.
type Direction string

// The directions of a leg, seen from the gateway.
const (
	Incoming Direction = "incoming"
	Outgoing Direction = "outgoing"
)

// Info is what is known of a leg.
type Info struct {
	ID        string // the leg's identity, unique over nodes and restarts (a ULID)
	Direction Direction
	Trunk     string   // the trunk's name, or "" for an agent's phone
	Extension string   // the agent's extension, or ""
	Caller    Number   // the calling party
	Display   string   // the display name as sent, never trusted
	Called    string   // the number that was dialled, as routed
	Identity  Identity // what the trunk's setting makes of the caller's number
	// OwnNumber is set when the caller claims one of the hotline's own numbers on a trunk that is
	// marked carrier (Art. 28).
	OwnNumber bool
	// Withheld is set when the caller asked not to be shown (RFC 3323): agents see no number, admission
	// and emergency services do.
	Withheld bool
	Token    string // the call's token, on a leg that the gateway placed
	// Reserve is set when every ordinary place is taken: the call is answered for its emergency exit
	// alone.
	Reserve bool
	Peer    netip.AddrPort
	WireID  string // the SIP Call-ID or the Asterisk channel
	Codec   Codec
	At      time.Time // when the INVITE came, or was sent
}

// EndpointKind is the kind of place a call can be sent to.
type EndpointKind string

// The kinds of endpoint. There is none for a free URI: a caller never chooses a destination.
const (
	ToExtension EndpointKind = "extension" // an agent's registered phone
	ToTrunk     EndpointKind = "trunk"     // a number, by a named trunk
)

// Endpoint is where Dial sends a call.
type Endpoint struct {
	Kind   EndpointKind
	Name   string // the extension, or the trunk's name
	Number string // the called number on a trunk
}

// CallerForm is how a call to a trunk carries the caller's number.
type CallerForm string

// The forms of the caller: the next one is tried when a route answers 403, 404 or 484.
const (
	FormFrom      CallerForm = "from"      // in From
	FormPAI       CallerForm = "pai"       // own number in From, the caller's in P-Asserted-Identity (RFC 3325)
	FormDiversion CallerForm = "diversion" // own number in From, the caller's in Diversion (RFC 5806)
	FormSpoken    CallerForm = "spoken"    // own number alone; the number is read aloud to the service
)

// DialOptions shape an outgoing call.
type DialOptions struct {
	Caller  Number     // who is calling, in truth
	Form    CallerForm // trunks only; "" is FormSpoken, so that a number is shown only on purpose
	Display string     // what a phone shows, e.g. a masked number; masks are made by the caller of Dial
	// Masked is the user part that an agent's phone gets in place of the caller's number.
	Masked string
	Token  string // the call's token, carried to the phone as X-Hotline-Call
	// OnProgress is told of each step, in order, from the dialling goroutine. It must not block.
	OnProgress func(Progress)
	// Emergency lets the leg pass every cap of its trunk.
	Emergency bool
	// Exclusive rings an extension only when it is in no other call, another of this Token apart: else Dial fails at
	// once with a DialError of an *Engaged. A backend that does not know the phones' calls takes no notice.
	Exclusive bool
}

// Engaged is why an exclusive Dial was refused: the extension rings or talks already.
type Engaged struct {
	Token string // of that call; "" when it has none
}

func (e *Engaged) Error() string { return "the extension is in another call" }

// Progress is a step of a call that is being placed.
type Progress string

// The steps of a dial.
const (
	Sent       Progress = "sent"        // the INVITE left
	Trying     Progress = "trying"      // the first response of any kind came (100 or better)
	Ringing    Progress = "ringing"     // a 180, 181, 182 or 183 came
	EarlyMedia Progress = "early_media" // a provisional response with SDP came
)

// DialError is why a call that was placed was not answered.
type DialError struct {
	Cause  Cause
	Status int // the SIP status, or 0
	Err    error
}

func (e *DialError) Error() string {
	s := "dial: " + e.Cause.String()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *DialError) Unwrap() error { return e.Err }

// Checkpoint is where a call stands at the edge of a stage: enough to go on from there.
type Checkpoint struct {
	CallID     string `json:"call_id"`
	LegID      string `json:"leg_id"`
	Stage      string `json:"stage"`
	FlowNode   string `json:"flow_node,omitempty"`
	Language   string `json:"language,omitempty"`
	QueueEntry string `json:"queue_entry,omitempty"`
	Agent      string `json:"agent,omitempty"`
	AgentLeg   string `json:"agent_leg,omitempty"`
	// Offer is the queue's word by which the agent of a talk has the call.
	Offer     []byte    `json:"offer,omitempty"`
	Emergency string    `json:"emergency,omitempty"` // the service that a caller in danger is helped by
	Recording string    `json:"recording,omitempty"`
	At        time.Time `json:"at"`
	// Trunk, Called, Identity, Started and the sealed number of the caller are those of the call.
	Trunk    string    `json:"trunk,omitempty"`
	Called   string    `json:"called,omitempty"`
	Identity Identity  `json:"identity,omitempty"`
	Caller   []byte    `json:"caller,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	// Queue and Placed are where the caller waits or waited, and since when: the place to keep.
	Queue  string    `json:"queue,omitempty"`
	Placed time.Time `json:"placed,omitzero"`
	// CallBack is the task of a call back that has not come out yet, and Owed is why the caller of a call
	// that has ended is owed one.
	CallBack string `json:"call_back,omitempty"`
	Owed     string `json:"owed,omitempty"`
	// Record is the detail record of a call whose caller has gone, while its agent writes it up.
	Record []byte `json:"record,omitempty"`
	// HandOvers is what case intake is to be told of the call, personal data sealed, should the
	// node be killed now.
	HandOvers []byte `json:"hand_overs,omitempty"`
}
