package call

import "time"

// Codec is an audio coding on the wire. The line speaks G.711 alone (RFC 3551 section 6).
type Codec string

// The codecs of the line.
const (
	PCMA Codec = "PCMA" // G.711 A-law, payload type 8
	PCMU Codec = "PCMU" // G.711 µ-law, payload type 0
)

// Rate is the sampling rate of every codec here, in hertz.
const Rate = 8000

// FrameBytes is the length of 20 ms of G.711.
const FrameBytes = 160

// Clip is a piece of speech or music, encoded once and shared by every call. It must not be
// changed after it was made.
type Clip struct {
	ID   string // the prompt's identity; the Asterisk backend plays by it
	PCMA []byte // 8 kHz A-law, one byte a sample
	PCMU []byte // the same in µ-law
}

// Duration is the clip's length.
func (c *Clip) Duration() time.Duration {
	return time.Duration(len(c.PCMA)) * time.Second / Rate
}

// Track is a direction of a tapped leg.
type Track int

// The tracks of a tap. One tap on the caller's leg hears the whole call: the caller on TrackIn,
// prompts and the agent on TrackOut.
const (
	TrackIn  Track = iota // what the party said
	TrackOut              // what the party heard
)

// AudioSink hears a tapped leg. The recorder and the recogniser are sinks.
//
// The backend calls it from one goroutine a tap, never from the path of the packets: between the
// two stands the backend's ring, which drops and counts when the sink is slow. Payloads are A-law
// whatever the wire carries, and are valid during the call alone.
type AudioSink interface {
	// Write hears one packet. rtpTime is the track's RTP clock in samples; it starts anywhere. A
	// missing packet shows as a jump in rtpTime. A telephone-event shows as a jump as well.
	Write(track Track, rtpTime uint32, payload []byte)
	// Gap says that the track's clock starts anew (a new SSRC, a re-INVITE, a full ring): the next
	// Write stands where it arrives, not where its rtpTime would put it.
	Gap(track Track)
	// Close says that no more comes.
	Close()
}

// MediaStats is the quality of a leg's media, in RFC 3550's terms. Sent and Received count RTP packets.
type MediaStats struct {
	Sent, Received   uint64
	Lost             uint64        // by sequence number, of what we should have received
	Jitter           time.Duration // interarrival jitter, RFC 3550 section 6.4.1
	RemoteLost       uint64        // as the peer's receiver reports say
	RemoteJitter     time.Duration
	RoundTrip        time.Duration // 0 when no receiver report allowed it
	SinkDropped      uint64        // frames that a full tap ring dropped
	LastPacket       time.Time     // when the last packet came; zero when none did
	RelayedUndecoded uint64        // packets sent on without decoding
}
