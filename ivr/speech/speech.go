// Package speech has callers' words recognised by a server on the agency's premises, as they are spoken.
//
// [Recogniser.Start] begins to hear a caller; [Stream.Write] takes A-law and never blocks; [Stream.Results] gives the
// words; [Stream.Close] ends it. Between the two stands a tape of two seconds of speech:
//
//	Write → voice activity → tape → a goroutine a stream → websocket → server
//
// Silence is not streamed. When the server is slower than the caller the tape drops its oldest and counts; when the
// connection breaks it is made anew, with growing pauses, and the tape is played again. Whatever the server does (slow,
// garbled, flooding, gone), the call's sound knows nothing of it, and a stream holds less than 200 kB.
//
// A Vosk server (https://github.com/alphacep/vosk-server) is spoken to by one websocket a stream: a text message with the
// configuration, then signed 16-bit sound of 100 ms a message, each of which it answers once. Its end is the exact text
// {"eof" : 1}, since the server compares it as a string.
package speech

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// Config is the section speech. Without an address nothing is recognised.
type Config struct {
	Vosk VoskConfig `yaml:"vosk"`
	// MaxStreams is how many callers are heard at once, 1 to 5000; further ones have their keys.
	MaxStreams int `yaml:"max_streams"`
	// CAFile has the certificates that a wss server's is checked by, in PEM; empty is those of the system.
	CAFile string `yaml:"ca_file"`
	// Public lets the sound leave the agency's own network. It is false without a reason in writing.
	Public bool `yaml:"public"`
}

// VoskConfig is a Vosk server.
type VoskConfig struct {
	// URL is its address: ws://10.0.0.6:2700 or wss://. Empty is none.
	URL string `yaml:"url"`
	// Rate is the sampling rate of its model, 8000 or 16000 Hz.
	Rate int `yaml:"rate"`
}

// Defaults is no recogniser.
func Defaults() Config {
	return Config{Vosk: VoskConfig{Rate: call.Rate}, MaxStreams: 500}
}

// On tells whether a recogniser is configured.
func (c Config) On() bool { return c.Vosk.URL != "" }

// Validate returns every fault, joined, each with its place and its mend.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if u, err := url.Parse(c.Vosk.URL); c.On() && (err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" || u.User != nil) {
		bad("vosk.url: %q is no address of a server; write one like ws://10.0.0.6:2700", c.Vosk.URL)
	}
	if c.Vosk.Rate != call.Rate && c.Vosk.Rate != 2*call.Rate {
		bad("vosk.rate: %d is none of the two; write 8000 or 16000, as the server's model has it", c.Vosk.Rate)
	}
	if c.MaxStreams < 1 || c.MaxStreams > 5000 {
		bad("max_streams: %d is out of range; write 1 to 5000", c.MaxStreams)
	}
	return errors.Join(errs...)
}

// Result is what was heard.
type Result struct {
	// Text is the sentence so far, at most [MaxRunes] of its end; a later one replaces it until one is Final.
	Text  string
	Final bool
	At    time.Time
}

// MaxRunes is how much of a sentence a result holds: who speaks on without a pause is understood by the last of it.
const MaxRunes = 200

// ErrFull is returned by Start when as many callers are heard as the configuration allows.
var ErrFull = errors.New("speech: as many callers are heard as max_streams allows")

// What goes wrong with a server. Each ends the connection, and another is made.
var (
	errAway    = errors.New("speech: the server cannot be reached")
	errGone    = errors.New("speech: the connection broke")
	errSlow    = errors.New("speech: the server does not answer in time")
	errGarbled = errors.New("speech: the answer is not of the protocol")
	errFlood   = errors.New("speech: the server answers far more than it is asked")
)

// protocol is how one make of server is spoken to, for one connection.
type protocol interface {
	// hello is the text that comes first.
	hello() []byte
	// rate is the sampling rate of the sound that the server wants, in hertz.
	rate() int
	// bye is the text that ends the sound.
	bye() []byte
	// read takes an answer. ok is false for one that says nothing new.
	read(answer []byte) (r Result, ok bool, err error)
}
